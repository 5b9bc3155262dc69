"""What each request passes: an id, host and origin checks, the token, and the headers of every answer."""

from __future__ import annotations

import secrets
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irs.settings import Settings
from webui.problems import REQUEST_ID, Problem, ProblemResponse
from webui.sign_in import is_signed_in

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Asked by machines that know neither names nor tokens; they tell nothing but yes or no.
PROBES = frozenset({"/healthz", "/readyz"})
#: Of a call of an AWS SDK: which service, and what of it.
TARGET = "x-amz-target"

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; worker-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Of files that users handed in: even opened by itself such a file can do nothing.
SANDBOX = "sandbox; default-src 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        named = (settings.web_host, *settings.web_hosts)
        self._hosts = LOOPBACK | {name.lower().strip("[]") for name in named}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass; give all else on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})[REQUEST_ID] = secrets.token_hex(8)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Content-Security-Policy", CSP)
                headers.setdefault("Cache-Control", "no-store")
                headers["X-Request-ID"] = request_id
            await send(message)

        try:
            turned_away = self._check(scope)
        except Problem as problem:
            turned_away = ProblemResponse(scope, problem)
        await (turned_away or self._app)(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> Response | None:
        path = path_of(scope)
        if path in PROBES:
            return None
        headers = Headers(scope=scope)
        self._check_host(headers)
        if scope["method"] not in SAFE:
            check_origin(headers)
        # A call of an AWS SDK may be signed instead: that is checked with its body, where it is answered.
        if (
            not self._settings.web_token
            or is_open(path)
            or is_aws_call(scope)
            or is_signed_in(HTTPConnection(scope), self._settings.web_token)
        ):
            return None
        if scope["method"] in SAFE and "text/html" in headers.get("accept", "") and not path.startswith("/api/"):
            asked = f"{path}?{query}" if (query := scope["query_string"].decode("ascii", "replace")) else path
            return RedirectResponse(f"{scope.get('root_path', '')}/login?next={quote(asked)}", 303)
        raise Problem("unauthorized", "This service asks for a token: sign in at /login, or send it as a Bearer token.")

    def _check_host(self, headers: Headers) -> None:
        said = headers.get("host", "")
        if (host_of(said) or "") not in self._hosts:
            raise Problem("bad_host", f"This service does not answer to the host {said[:100]!r}: name it in IRS_WEB_HOSTS.")


def is_open(path: str) -> bool:
    """Return whether a path is shown to everybody: the way to sign in, and what it looks like."""
    return path == "/login" or path.startswith(("/static/", "/errors/"))


def is_aws_call(scope: Scope) -> bool:
    """Return whether a request is a call of Rekognition as an AWS SDK sends it."""
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and path_of(scope) == "/"
        and Headers(scope=scope).get(TARGET, "").startswith("RekognitionService.")
    )


def check_origin(headers: Headers) -> None:
    """Refuse what a browser sends for another site; programs say neither header, and carry no cookie.

    Raises:
        Problem: the request comes from elsewhere (403).
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        is_own = site in ("same-origin", "none")
    else:
        origin = headers.get("origin")
        is_own = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not is_own:
        raise Problem("bad_origin", "The request comes from another site: use the page itself.")


def host_of(header: str) -> str | None:
    """Return the name in a Host header, without port and brackets, in lower case; None if it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def path_of(scope: Scope) -> str:
    """Return the path below ``root_path``."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"
