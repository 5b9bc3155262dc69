"""What each request to the page must pass, and what each answer carries: web.md 6, a test a line."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

from irs.errors import SetupError
from irs.settings import Settings, read_settings
from webui.guard import Guard
from webui.problems import Problem
from webui.server import check_reach
from webui.sign_in import SignIn, is_signed_in, own_path

TOKEN = "t" * 40
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; worker-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Answered:
    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.status = messages[0]["status"]
        self.headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        self.body = b"".join(message.get("body", b"") for message in messages[1:]).decode()


def ask(
    settings: Settings,
    method: str = "GET",
    path: str = "/",
    body: bytes = b"",
    *,
    scheme: str = "http",
    query: str = "",
    **headers: str,
) -> Answered:
    """Send a request past the guard to an app that says ``passed``; ``a_b`` is the header ``a-b``."""
    sign_in = SignIn(settings)

    async def passed(_: Request) -> PlainTextResponse:
        return PlainTextResponse("passed")

    app = Guard(
        Router(
            [
                Route("/login", sign_in.answer, methods=["POST"]),
                Route("/{path:path}", passed, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        ),
        settings,
    )
    given = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "query_string": query.encode(),
        "scheme": scheme,
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 5),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return Answered(sent)


@pytest.fixture
def open_page() -> Settings:
    return read_settings()


@pytest.fixture
def closed_page() -> Settings:
    return read_settings(web_token=TOKEN)


def test_every_answer_has_the_strict_policy_and_headers_and_an_id(open_page: Settings) -> None:
    for answer in (ask(open_page), ask(open_page, host="evil.example")):
        assert POLICY == answer.headers["content-security-policy"]
        assert answer.headers["permissions-policy"].startswith("camera=(self), ")
        assert "nosniff" == answer.headers["x-content-type-options"]
        assert "no-referrer" == answer.headers["referrer-policy"]
        assert "same-origin" == answer.headers["cross-origin-opener-policy"]
        assert "same-origin" == answer.headers["cross-origin-resource-policy"]
        assert "no-store" == answer.headers["cache-control"]
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[::1", "localhost@evil.example"]
)
def test_a_host_that_is_not_the_pages_is_turned_away(open_page: Settings, host: str) -> None:
    answer = ask(open_page, host=host)

    assert 421 == answer.status
    assert '"code":"bad_host"' in answer.body


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000", "photos.example"])
def test_hosts_of_this_machine_and_those_named_are_answered(host: str) -> None:
    assert 200 == ask(read_settings(web_hosts="photos.example"), host=host).status


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_what_another_site_sends_is_turned_away(open_page: Settings, method: str, headers: dict[str, str]) -> None:
    answer = ask(open_page, method, **headers)

    assert 403 == answer.status
    assert '"code":"bad_origin"' in answer.body


@pytest.mark.parametrize(
    "headers", [{}, {"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}, {"origin": "http://127.0.0.1:8000"}]
)
def test_what_the_page_itself_or_a_program_sends_passes(open_page: Settings, headers: dict[str, str]) -> None:
    assert 200 == ask(open_page, "POST", **headers).status


@pytest.mark.parametrize("path", ["/", "/jobs/x", "/api/jobs/x", "/metrics", "/openapi.json"])
def test_without_the_token_nothing_is_shown(closed_page: Settings, path: str) -> None:
    assert 401 == ask(closed_page, path=path).status
    assert 401 == ask(closed_page, path=path, authorization="Bearer " + "x" * 40).status
    assert 200 == ask(closed_page, path=path, authorization=f"Bearer {TOKEN}").status


def test_a_browser_without_the_token_is_led_to_sign_in(closed_page: Settings) -> None:
    answer = ask(closed_page, path="/jobs/x", query="show=failed&find=a%20b", accept="text/html")

    assert (303, "/login?next=/jobs/x%3Fshow%3Dfailed%26find%3Da%2520b") == (answer.status, answer.headers["location"])
    assert "/jobs/x?show=failed&find=a%20b" == own_path("/jobs/x?show=failed&find=a%20b")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_neither_token_nor_name(closed_page: Settings, path: str) -> None:
    assert 200 == ask(closed_page, path=path, host="10.0.0.7").status


def test_the_token_is_exchanged_for_a_cookie_that_opens_the_page(closed_page: Settings) -> None:
    answer = ask(closed_page, "POST", "/login", f"token={TOKEN}&next=/jobs/x".encode())

    cookie, _, rest = answer.headers["set-cookie"].partition(";")
    assert (303, "/jobs/x") == (answer.status, answer.headers["location"])
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in rest.split(";")}
    assert TOKEN not in answer.headers["set-cookie"]
    assert 200 == ask(closed_page, cookie=cookie).status
    assert 401 == ask(read_settings(web_token="u" * 40), cookie=cookie).status
    assert 401 == ask(closed_page, cookie=cookie[:-1] + ("0" if cookie[-1] != "0" else "1")).status


def test_over_https_the_cookie_is_of_this_host_alone_and_never_sent_in_the_clear(closed_page: Settings) -> None:
    answer = ask(closed_page, "POST", "/login", f"token={TOKEN}".encode(), scheme="https")

    cookie, _, rest = answer.headers["set-cookie"].partition(";")
    assert cookie.startswith("__Host-irs=")
    assert {"Secure", "HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in rest.split(";")}
    assert "Domain" not in rest
    assert 200 == ask(closed_page, cookie=cookie, scheme="https").status
    assert 401 == ask(closed_page, cookie=cookie).status


def test_a_cookie_ends_after_thirty_days(closed_page: Settings) -> None:
    cookie = ask(closed_page, "POST", "/login", f"token={TOKEN}".encode()).headers["set-cookie"].partition(";")[0]
    request = Request(
        {
            "type": "http",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "server": ("127.0.0.1", 1),
            "headers": [(b"cookie", cookie.encode())],
        }
    )
    ends = int(cookie.partition("=")[2].partition(".")[0])

    assert is_signed_in(request, TOKEN, now=ends - 1)
    assert not is_signed_in(request, TOKEN, now=ends + 1)


def test_a_sixth_try_to_sign_in_within_a_minute_is_refused(closed_page: Settings) -> None:
    sign_in = SignIn(closed_page)
    request = Request({"type": "http", "client": ("10.0.0.1", 1), "headers": [], "root_path": "", "method": "POST"})

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"token=wrong", "more_body": False}

    async def try_six_times() -> list[int]:
        tried = [(await sign_in.answer(Request(request.scope, receive))).status_code for _ in range(5)]
        with pytest.raises(Problem, match="At most 5 tries"):
            await sign_in.answer(Request(request.scope, receive))
        return tried

    assert [303] * 5 == asyncio.run(try_six_times())


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "", "/a\r\nSet-Cookie: x"]
)
def test_signing_in_leads_to_no_other_site(path: str) -> None:
    assert "/" == own_path(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.7", "::", "photos.example"])
def test_the_page_refuses_to_be_reached_from_outside_without_a_token(host: str) -> None:
    with pytest.raises(SetupError, match="set IRS_WEB_TOKEN to a secret of 32"):
        check_reach(read_settings(web_host=host))

    check_reach(read_settings(web_host=host, web_token=TOKEN))
    check_reach(read_settings(web_host="127.0.0.1"))


def test_a_token_that_is_too_short_is_refused_without_being_shown() -> None:
    with pytest.raises(SetupError, match="32 characters or more") as refused:
        read_settings(web_token="hunter2")

    assert "hunter2" not in str(refused.value)
    assert TOKEN not in repr(read_settings(web_token=TOKEN))
