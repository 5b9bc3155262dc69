"""The token: as Bearer of each request, or exchanged at ``/login`` for a cookie that holds thirty days."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from urllib.parse import parse_qs, quote

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from irs.settings import Settings
from webui.bodies import read_up_to
from webui.budget import Rate

HOLDS_S = 30 * 86_400
TRIES_A_MINUTE = 5
MOST_FORM_BYTES = 4096
_COOKIE = re.compile(r"(\d{10,12})\.([0-9a-f]{64})")


def is_signed_in(connection: HTTPConnection, token: str, *, now: float | None = None) -> bool:
    """Return whether a request bears the token, or a cookie that was given for it."""
    scheme, _, said = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(said.strip().encode(), token.encode()):
        return True
    match = _COOKIE.fullmatch(connection.cookies.get(_name(connection), ""))
    if match is None or int(match[1]) < (time.time() if now is None else now):
        return False
    return hmac.compare_digest(match[2], _sign(token, int(match[1])))


class SignIn:
    """The handler of ``POST /login``: fields ``token`` and ``next``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rate = Rate(TRIES_A_MINUTE, "too_many_tries", "tries")

    async def answer(self, request: Request) -> Response:
        """Set the cookie and go on to ``next``; with a wrong token go back to ``/login?wrong=1``.

        Raises:
            Problem: more than five tries came from this address in a minute (429).
        """
        self._rate.check(request.client.host if request.client else "")
        body = await read_up_to(request, MOST_FORM_BYTES, self._settings.web_stall_seconds)
        fields = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
        root, then = request.scope.get("root_path", ""), own_path(fields.get("next", "/"))
        token = self._settings.web_token
        if token and not hmac.compare_digest(fields.get("token", "").strip().encode(), token.encode()):
            return RedirectResponse(f"{root}/login?wrong=1&next={quote(then)}", 303)
        answer = RedirectResponse(f"{root}{then}", 303)
        if token:
            ends = int(time.time()) + HOLDS_S
            answer.set_cookie(
                _name(request),
                f"{ends}.{_sign(token, ends)}",
                max_age=HOLDS_S,
                path="/",
                secure=request.url.scheme == "https",
                httponly=True,
                samesite="strict",
            )
        return answer


def own_path(path: str) -> str:
    """Return ``path`` if it leads to this site, else ``/``."""
    return path if re.fullmatch(r"/(?![/\\])[\w./~%?&=+-]*", path, re.ASCII) else "/"


def _name(connection: HTTPConnection) -> str:
    # The prefix keeps other hosts of the domain from setting it; browsers allow it over https alone.
    return "__Host-irs" if connection.url.scheme == "https" else "irs"


def _sign(token: str, ends: int) -> str:
    return hmac.new(token.encode(), f"irs sign in {ends}".encode(), hashlib.sha256).hexdigest()
