"""What proxies say of a request is believed of those that are trusted, and of no one else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webui.proxies import Proxies, read_forwarded


def seen(client: str, *headers: tuple[str, str], trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> tuple[Any, str, str]:
    """What the app hears of a request: its client, scheme and host."""
    heard: dict[str, Any] = {}

    async def app(scope: Any, _: Any, __: Any) -> None:
        heard.update(scope)

    given = [(b"host", b"web:8000"), *((name.encode(), value.encode()) for name, value in headers)]
    scope = {"type": "http", "client": (client, 5), "scheme": "http", "headers": given}
    asyncio.run(Proxies(app, trusted)(scope, None, None))  # type: ignore[arg-type]
    hosts = [value.decode() for name, value in heard["headers"] if name == b"host"]
    assert 1 == len(hosts)
    return heard["client"], heard["scheme"], hosts[0]


SAID = ("forwarded", "for=203.0.113.7;proto=https;host=photos.example")


def test_a_trusted_proxy_says_who_asks_and_how():
    assert (("203.0.113.7", 0), "https", "photos.example") == seen("10.0.0.1", SAID)


@pytest.mark.parametrize("header", [SAID, ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")])
def test_nobody_else_is_believed(header: tuple[str, str]):
    assert (("192.0.2.1", 5), "http", "web:8000") == seen("192.0.2.1", header)
    assert (("10.0.0.1", 5), "http", "web:8000") == seen("10.0.0.1", header, trusted=())


def test_what_a_client_says_itself_does_not_pass_a_proxy():
    """The proxy adds its element after the client's own."""
    said = ("forwarded", "for=127.0.0.1;host=localhost;proto=http, for=203.0.113.7;proto=https;host=photos.example")

    assert (("203.0.113.7", 0), "https", "photos.example") == seen("10.0.0.1", said)


def test_a_chain_of_trusted_proxies_is_followed_to_its_outer_end():
    said = [("forwarded", 'for="[2001:db8::7]:4711";proto=https;host=photos.example'), ("forwarded", "for=10.1.2.3;proto=http")]

    assert (("2001:db8::7", 4711), "https", "photos.example") == seen("10.0.0.1", *said)


def test_the_older_headers_are_read_where_there_is_no_newer_one():
    assert (("203.0.113.7", 0), "https", "web:8000") == seen(
        "10.0.0.1", ("x-forwarded-for", "203.0.113.7"), ("x-forwarded-proto", "https")
    )


def test_forwarded_is_read_as_its_rfc_writes_it():
    assert [{"for": "_gazonk"}] == read_forwarded('For="_gazonk"')
    assert [{"for": "192.0.2.43"}, {"for": "[2001:db8:cafe::17]", "by": "a,b;c"}] == read_forwarded(
        'for=192.0.2.43, FOR="[2001:db8:cafe::17]"; by="a,b;c"'
    )


@pytest.mark.parametrize("said", ["", ",", "for", "for=a b", 'for="a', "=", "for=a;;proto=b"])
def test_a_malformed_header_says_nothing(said: str):
    assert [] == read_forwarded(said)


@given(st.text(max_size=80) | st.from_regex(r'((for|proto|host)=("[^"]*"|[a-z0-9.]*)[;,]? ?){0,5}', fullmatch=True))
def test_no_header_makes_the_page_fail(said: str):
    assert all(isinstance(one, dict) for one in read_forwarded(said))
    client, scheme, _ = seen("10.0.0.1", ("forwarded", said.encode("ascii", "replace").decode()))
    assert (str, True) == (type(client[0]), scheme in ("http", "https"))
