"""Forms and bodies, read as they come; streams and downloads, sent as they are taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sse_starlette.event import ServerSentEvent
from starlette.requests import ClientDisconnect, Request

from webui import bodies, originals, stream
from webui.budget import ByteBudget
from webui.forms import Part, parts
from webui.jobs import Original
from webui.metrics import Metrics
from webui.problems import Problem
from webui.runs import Runs

BOUNDARY = "b0undary"


def request_of(chunks: Sequence[bytes], *, is_whole: bool = True, stalls: bool = False, **headers: str) -> Request:
    given = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", **headers}
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": True}
        if stalls:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False} if is_whole else {"type": "http.disconnect"}

    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, receive)


def form_of(files: Sequence[tuple[str, bytes]], fields: Sequence[tuple[str, str]] = ()) -> bytes:
    made = b""
    for name, value in fields:
        made += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    for name, body in files:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\nContent-Type: a/b\r\n\r\n'
        made += head.encode() + body + b"\r\n"
    return made + f"--{BOUNDARY}--\r\n".encode()


def taken(request: Request, max_bytes: int = 1000, stall_s: float = 5.0) -> list[Part]:
    async def take() -> list[Part]:
        return [part async for part in parts(request, max_bytes=max_bytes, stall_s=stall_s)]

    return asyncio.run(take())


@given(
    st.lists(st.binary(max_size=300).filter(lambda body: BOUNDARY.encode() not in body), min_size=1, max_size=5),
    st.lists(st.integers(1, 200), max_size=20),
)
def test_a_form_gives_the_same_parts_however_it_is_cut(files: list[bytes], cuts: list[int]) -> None:
    form = form_of([(f"{n}.jpg", body) for n, body in enumerate(files)], [("top_k", "3")])
    chunks, at = [], 0
    for cut in cuts:
        chunks.append(form[at : at + cut])
        at += cut
    chunks = [chunk for chunk in [*chunks, form[at:]] if chunk]

    field, *found = taken(request_of(chunks))

    assert ("top_k", None, b"3") == (field.name, field.file_name, bytes(field.body))
    assert [("images", f"{n}.jpg", body) for n, body in enumerate(files)] == [(p.name, p.file_name, bytes(p.body)) for p in found]


def test_a_part_is_given_before_the_next_has_come() -> None:
    form = form_of([("0.jpg", b"first"), ("1.jpg", b"second")])
    middle = form.index(b"second") - 20

    async def take_one() -> Part:
        # The rest never comes.
        return await anext(aiter(parts(request_of([form[:middle]], stalls=True), max_bytes=100, stall_s=5)))

    assert b"first" == bytes(asyncio.run(take_one()).body)


def test_a_file_over_the_limit_is_measured_and_not_kept() -> None:
    (found,) = taken(request_of([form_of([("0.jpg", b"x" * 5000)])]), max_bytes=1000)

    assert 5000 == found.size_bytes
    assert len(found.body) <= 1000


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (request_of([form_of([("0.jpg", b"x")])[:-9]]), "bad_request"),
        (request_of([b"no form at all"]), "bad_request"),
        (request_of([b"{}"], **{"content-type": "application/json"}), "unsupported_media_type"),
        (request_of([form_of([], [("top_k", "1" * 5000)])]), "bad_request"),
    ],
)
def test_a_form_that_is_none_is_refused(request_: Request, code: str) -> None:
    with pytest.raises(Problem) as refused:
        taken(request_)

    assert code == refused.value.code


def test_a_client_that_leaves_in_the_middle_of_a_form_leaves_no_part_behind() -> None:
    request = request_of([form_of([("0.jpg", b"whole"), ("1.jpg", b"broken off")])[:-30]], is_whole=False)
    found: list[Part] = []

    async def take() -> None:
        async for part in parts(request, max_bytes=100, stall_s=5):
            found.append(part)  # noqa: PERF401 (what came before the error is wanted)

    with pytest.raises(ClientDisconnect):
        asyncio.run(take())

    assert [b"whole"] == [bytes(part.body) for part in found]


def test_a_body_that_stalls_is_cut_off() -> None:
    with pytest.raises(Problem, match="Nothing came for"):
        asyncio.run(bodies.read_exactly(request_of([b"x"], stalls=True), 5, 0.05))


def test_a_body_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "FLOOR_WINDOW_S", 0.0)
    monkeypatch.setattr(bodies, "FLOOR_BYTES_PER_S", 1e12)

    with pytest.raises(Problem, match="slower than 1 KiB"):
        asyncio.run(bodies.read_exactly(request_of([b"x"] * 5), 5, 5.0))


def test_a_body_longer_than_was_said_is_refused() -> None:
    with pytest.raises(Problem, match="the 3 bytes that Content-Length says"):
        asyncio.run(bodies.read_exactly(request_of([b"abcdef"]), 3, 5.0))


# Streams


def test_a_client_that_takes_nothing_loses_its_stream_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    monkeypatch.setattr(stream, "SEND_TIMEOUT_S", 0.05)
    sent: list[Any] = []

    async def endless(*_: object) -> AsyncIterator[ServerSentEvent]:
        while True:
            yield ServerSentEvent("x")

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if len(sent) > 2:
            # As a socket whose other end reads no more.
            await asyncio.Event().wait()

    monkeypatch.setattr(stream, "events", endless)
    answer = stream.EventStream(None, None, Runs(), metrics)  # type: ignore[arg-type]
    asyncio.run(answer({"type": "http", "method": "GET"}, receive, send))

    assert ["http.response.start", "http.response.body", "http.response.body"] == sent
    assert b"irs_web_frozen_streams_total 1.0" in metrics.text()[0]
    assert b"irs_web_streams 0.0" in metrics.text()[0]


def test_a_client_that_takes_no_more_of_a_download_gives_its_room_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "STALL_S", 0.05)
    budget = ByteBudget(10_000_000, 1, Metrics().sent_bytes)
    sent: list[str] = []

    class Stored:
        max_bytes = 1

        async def load(self, _: str) -> bytes:
            return b"\xff\xd8\xff" + bytes(1_000_000)

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if len(sent) > 2:
            await asyncio.Event().wait()

    answer = originals.OriginalResponse(Stored(), Original("a.jpg", "a.jpg", 1_000_003), budget)  # type: ignore[arg-type]
    asyncio.run(answer({"type": "http"}, None, send))  # type: ignore[arg-type]

    assert ["http.response.start", "http.response.body", "http.response.body"] == sent
    assert 0 == budget.held_bytes
