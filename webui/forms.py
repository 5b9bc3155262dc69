"""Forms of files, taken apart as they come: each image is stored and sent while the next is still on its way.

Starlette's own ``request.form()`` would read, and write to disk, the whole body before the first image is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from irs.errors import EmptyImage, RequestError, TooLarge
from webui.bodies import chunks, content_length
from webui.budget import ByteBudget
from webui.formats import HEAD_BYTES, check_head
from webui.jobs import Jobs, shortened
from webui.problems import Problem
from webui.view import JobView

MOST_FIELDS = 300
MOST_FIELD_BYTES = 4096
#: Fields of :class:`irs.records.Options` that may come more than once.
_MANY = ("include", "exclude")


@dataclass(slots=True)
class Part:
    """One part of a form: a file when ``file_name`` is there. ``body`` is cut at the limit, ``size_bytes`` is not."""

    name: str = ""
    file_name: str | None = None
    body: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that could not be handed in: its record says so too."""

    number: int
    name: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Received:
    """What came of a form."""

    job: JobView
    refused: tuple[Refused, ...]


class _Parts:
    """The callbacks of the parser; parts that are whole wait in ``whole``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._part, self._header, self._value = Part(), b"", b""
        self.whole: deque[Part] = deque()
        self.has_ended = False

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._take_header,
            "on_header_value": self._take_value,
            "on_header_end": self._end_header,
            "on_part_data": self._take_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._part = Part()

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._part.name = options.get(b"name", b"").decode(errors="replace")
            if b"filename" in options:
                self._part.file_name = options[b"filename"].decode(errors="replace")
        self._header = self._value = b""

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size_bytes += end - start
        limit_bytes = MOST_FIELD_BYTES if part.file_name is None else self._max_bytes
        if part.file_name is None and part.size_bytes > limit_bytes:
            raise Problem("bad_request", f"Field {part.name[:40]} is longer than {limit_bytes:,} bytes.")
        if part.size_bytes > limit_bytes:
            # Its length will be told, its bytes are of no use.
            part.body.clear()
        else:
            part.body += memoryview(data)[start:end]

    def _end(self) -> None:
        self.whole.append(self._part)
        self._part = Part()

    def _finish(self) -> None:
        self.has_ended = True


async def parts(request: Request, *, max_bytes: int, stall_s: float) -> AsyncIterator[Part]:
    """Yield the parts of a multipart form as each is whole.

    Raises:
        Problem: it is no such form, it ends early, or stalls.
        ClientDisconnect: the client has left.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Problem("unsupported_media_type", "Send the images as multipart/form-data, or open a job with JSON.")
    taken = _Parts(max_bytes)
    try:
        parser = MultipartParser(options[b"boundary"], taken.callbacks())  # type: ignore[arg-type]
        async for chunk in chunks(request, stall_s):
            parser.write(chunk)
            while taken.whole:
                yield taken.whole.popleft()
    except FormParserError as error:
        raise Problem("bad_request", f"The form cannot be read: {error}.") from None
    if not taken.has_ended:
        raise Problem("bad_request", "The form ends early: send it again.")


async def receive_form(
    request: Request, jobs: Jobs, budget: ByteBudget, *, max_bytes: int, stall_s: float, defaults: Mapping[str, Any] | None = None
) -> Received:
    """Make a job of a form: option fields first, then files, each sent as it ends; then close it.

    Args:
        defaults: options that hold where no field says otherwise.

    Raises:
        Problem: options are wrong or come after a file, there is no file, or there are too many.
    """
    intake = _Intake(jobs, request.headers.get("idempotency-key"), dict(defaults or {}), max_bytes)
    length = content_length(request)
    async with budget.hold(max_bytes if length is None else min(length, max_bytes)):
        async for part in parts(request, max_bytes=max_bytes, stall_s=stall_s):
            await intake.take(part)
    return await intake.end()


class _Intake:
    def __init__(self, jobs: Jobs, key: str | None, options: dict[str, Any], max_bytes: int) -> None:
        self._jobs, self._key, self._options, self._max_bytes = jobs, key, options, max_bytes
        self._given: set[str] = set()
        self._fields = 0
        self._job: JobView | None = None
        self._count = 0
        self._refused: list[Refused] = []

    async def take(self, part: Part) -> None:
        if part.file_name is None:
            self._take_field(part.name, part.body.decode(errors="replace"))
        elif part.file_name or part.size_bytes:
            # A form whose chooser was left empty sends a nameless file of no bytes.
            await self._take_file(part.file_name or "image", part)

    async def end(self) -> Received:
        if self._job is None:
            raise Problem("bad_request", "The form holds no image: send files in the field images.")
        return Received(await self._jobs.close(self._job.id, self._count), tuple(self._refused))

    def _take_field(self, name: str, value: str) -> None:
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise Problem("bad_request", f"A form holds at most {MOST_FIELDS} fields.")
        if self._job is not None:
            raise Problem("bad_request", f"Field {name[:40]} comes after an image: send the options first.", job=self._job.id)
        if not value.strip():
            return
        if name not in _MANY:
            self._options[name] = value
        elif name in self._given:
            self._options[name].append(value)
        else:
            self._options[name] = [value]
        self._given.add(name)

    async def _take_file(self, name: str, part: Part) -> None:
        if self._job is None:
            self._job = await self._jobs.open(self._options, key=self._key)
        number = self._count
        try:
            self._check(part)
            await self._jobs.put(self._job.id, number, name, part.body)
        except RequestError as error:
            await self._jobs.refuse(self._job.id, number, name, error)
            self._refused.append(Refused(number, shortened(name), error.code, str(error)))
        except Problem as problem:
            if problem.code == "too_many_images":
                # What came before goes on as a job of its own.
                await self._jobs.close(self._job.id, self._count)
            raise Problem(problem.code, problem.detail, job=self._job.id) from None
        self._count += 1

    def _check(self, part: Part) -> None:
        if not part.size_bytes:
            raise EmptyImage
        if part.size_bytes > self._max_bytes:
            raise TooLarge(part.size_bytes, self._max_bytes)
        check_head(bytes(part.body[:HEAD_BYTES]))
