"""The API: one handler for each operation. What they refuse is a Problem; ``webui.openapi`` describes them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from irs.errors import RequestError, TooLarge
from irs.settings import Settings
from webui import exports
from webui.bodies import content_length, pass_over, read_exactly, read_up_to
from webui.budget import ByteBudget, Rate
from webui.costs import Costs
from webui.formats import HEAD_BYTES, check_head, served_type
from webui.forms import Received, receive_form
from webui.guard import SANDBOX
from webui.jobs import Jobs, Reference
from webui.live import Live
from webui.metrics import Metrics
from webui.originals import OriginalResponse
from webui.problems import Problem
from webui.runs import Runs
from webui.schemas import CloseJob, OpenJob, read_json
from webui.service import Service
from webui.stream import EventStream
from webui.view import JobView

MOST_JSON_BYTES = 4 * 2**20
MOST_KEY_CHARACTERS = 200
PAGE, MOST_PAGE = 200, 1000
#: A refused body of up to so many times the limit is read to its end, so that the client hears why.
PASSED_OVER = 4
_YEAR = "private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """What the handlers stand on; each is a method that takes a request."""

    settings: Settings
    jobs: Jobs
    live: Live
    service: Service
    metrics: Metrics
    uploads: ByteBudget
    downloads: ByteBudget
    rate: Rate
    costs: Costs

    # Jobs

    async def open_job(self, request: Request) -> Response:
        """``POST /api/jobs``: JSON opens a job, a form fills it as well."""
        self.rate.check(request.client.host if request.client else "")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            received = await self.receive(request)
            refused = [asdict(one) for one in received.refused]
            return self._created(request, {"job": received.job.to_json(), "refused": refused}, received.job)
        asked = read_json(OpenJob, await self._json(request, kind))
        key = idempotency_key(request)
        if asked.images is None:
            view = await self.jobs.open(asked.options, asked.expected, key)
            return self._created(request, view.to_json(), view)
        references = [Reference(*_reference(one.key, one.s3, one.name)) for one in asked.images]
        self.jobs.check_count(len(references))
        view = await self.jobs.open(asked.options, len(references), key)
        view = await self.jobs.fill(view.id, references)
        return self._created(request, view.to_json(), view)

    async def receive(self, request: Request, **defaults: object) -> Received:
        """Make a job of a form, for the API and for the page without JavaScript."""
        return await receive_form(
            request,
            self.jobs,
            self.uploads,
            max_bytes=self.settings.max_bytes,
            stall_s=self.settings.web_stall_seconds,
            defaults=defaults,
        )

    async def get_job(self, request: Request) -> Response:
        """``GET /api/jobs/{id}``."""
        body = (await self.jobs.get(_id(request))).to_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    async def close_job(self, request: Request) -> Response:
        """``POST /api/jobs/{id}/close``."""
        asked = read_json(CloseJob, await self._json(request))
        view = await self.jobs.close(_id(request), asked.count, leave_out=asked.leave_out)
        return JSONResponse(view.to_json())

    async def cancel_job(self, request: Request) -> Response:
        """``DELETE /api/jobs/{id}``."""
        return JSONResponse((await self.jobs.cancel(_id(request))).to_json(), 202)

    # Images

    async def put_image(self, request: Request) -> Response:
        """``PUT /api/jobs/{id}/images/{n}?name=``."""
        number, name = _number(request), request.query_params.get("name") or "image"
        size_bytes, stall_s = content_length(request), self.settings.web_stall_seconds
        if size_bytes is None:
            raise Problem("length_required", "Say with Content-Length how many bytes the image has.")
        try:
            await self._check_before_body(request, number, size_bytes)
            async with self.uploads.hold(size_bytes):
                body = await read_exactly(request, size_bytes, stall_s)
                check_head(bytes(body[:HEAD_BYTES]))
                is_new = await self.jobs.put(_id(request), number, name, body)
        except RequestError as error:
            # A gap among the numbers would keep the job from being closed.
            has_record = await self.jobs.refuse(_id(request), number, name, error)
            raise Problem(error.code, str(error), has_record=has_record) from None
        return JSONResponse({"number": number, "status": "stored" if is_new else "known"}, 201 if is_new else 200)

    async def _check_before_body(self, request: Request, number: int, size_bytes: int) -> None:
        try:
            await self.jobs.expect(_id(request), number)
            if size_bytes > self.settings.max_bytes:
                raise TooLarge(size_bytes, self.settings.max_bytes)
        except (Problem, RequestError):
            await pass_over(request, PASSED_OVER * self.settings.max_bytes, self.settings.web_stall_seconds)
            raise

    async def list_images(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/images``."""
        return JSONResponse({"images": [one.to_json() for one in await self.jobs.images(_id(request))]})

    async def get_thumbnail(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/images/{n}/thumbnail``."""
        record = await self.jobs.record(_id(request), _number(request))
        headers = {"Cache-Control": _YEAR, "ETag": f'"{record.task_id}"', "Content-Security-Policy": SANDBOX}
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        try:
            body = base64.b64decode(record.thumbnail or "", validate=True)
        except binascii.Error:
            body = b""
        kind, is_inline = served_type(body[:HEAD_BYTES])
        if not is_inline:
            raise Problem(
                "not_found", f"Image {record.number} has no thumbnail: the job was opened without the option thumbnail."
            )
        return Response(body, media_type=kind, headers=headers)

    async def get_original(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/images/{n}/original``."""
        return OriginalResponse(self.jobs, await self.jobs.original(_id(request), _number(request)), self.downloads)

    # Results

    async def get_results(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/results``."""
        id, status = _id(request), request.query_params.get("status") or None
        if "application/x-ndjson" in request.headers.get("accept", ""):
            await self.jobs.get(id)
            return StreamingResponse(exports.as_ndjson(self.jobs.records(id, status)), media_type="application/x-ndjson")
        after, limit = _int(request, "after", -1, least=-1), _int(request, "limit", PAGE, least=1, most=MOST_PAGE)
        page = await self.jobs.results(id, after, limit, status)
        return JSONResponse({"results": [record.to_json() for record in page.records], "next": page.next})

    async def get_cost(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/cost``."""
        return JSONResponse((await self.costs.of(await self.jobs.get(_id(request)))).to_json())

    async def download(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/results.csv`` and its like."""
        ending = request.url.path.rpartition(".")[2]
        view = await self.jobs.get(_id(request))
        found = self.jobs.records(view.id)
        body: AsyncIterator[str] | AsyncIterator[bytes]
        match ending:
            case "csv":
                body, kind = exports.as_csv(found, view.options.top_k), "text/csv; charset=utf-8"
            case "json":
                body, kind = exports.as_json(found, view), "application/json"
            case _:
                body, kind = exports.as_ndjson(found), "application/x-ndjson"
        headers = {
            "Content-Type": kind,
            "Content-Disposition": f'attachment; filename="irs-{view.id}.{ending}"',
            "X-Missing-Results": str(exports.missing(view)),
        }
        return StreamingResponse(body, headers=headers)

    async def get_events(self, request: Request) -> Response:
        """``GET /api/jobs/{id}/events``."""
        watch = await self.jobs.watch(_id(request))
        last = request.headers.get("last-event-id") or request.query_params.get("after")
        delivered = Runs.parse(last)
        if last:
            await watch.sweep(fresh_s=1.0)
            if watch.has_ended and all(number in delivered for number in watch.order):
                # Stops an EventSource, which would ask again for ever.
                return Response(status_code=204)
        if self.live.streams >= self.settings.web_streams:
            raise Problem("busy", "Too many live streams are open: the results can still be read with GET .../results.")
        return EventStream(self.live, watch, delivered, self.metrics)

    # The service

    async def get_status(self, _: Request) -> Response:
        """``GET /api/status``."""
        return JSONResponse((await self.service.status()).to_json())

    async def healthz(self, _: Request) -> Response:
        """``GET /healthz``: this process answers."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, _: Request) -> Response:
        """``GET /readyz``: buckets and queues answer."""
        why = await self.service.why_not_ready()
        return Response(f"{why or 'ok'}\n", 503 if why else 200, media_type="text/plain")

    async def get_metrics(self, _: Request) -> Response:
        """``GET /metrics``."""
        body, kind = self.metrics.text()
        return Response(body, headers={"Content-Type": kind})

    async def _json(self, request: Request, kind: str | None = None) -> bytes:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower() if kind is None else kind
        if kind != "application/json":
            raise Problem(
                "unsupported_media_type", f"Send JSON with Content-Type: application/json, not {kind[:60] or 'without'}."
            )
        return await read_up_to(request, MOST_JSON_BYTES, self.settings.web_stall_seconds)

    def _created(self, request: Request, content: object, view: JobView) -> Response:
        location = f"{request.scope.get('root_path', '')}/api/jobs/{view.id}"
        return JSONResponse(content, 201, {"Location": location})


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key of a request.

    Raises:
        Problem: it is longer than 200 characters.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MOST_KEY_CHARACTERS:
        raise Problem("bad_request", f"An Idempotency-Key has 1 to {MOST_KEY_CHARACTERS} characters.")
    return key


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _number(request: Request) -> int:
    return int(request.path_params["n"])


def _int(request: Request, name: str, default: int, *, least: int, most: int = 10_000_000) -> int:
    said = request.query_params.get(name)
    if said is None:
        return default
    try:
        value = int(said[:12])
    except ValueError:
        raise Problem("bad_request", f"{name} must be a whole number, not {said[:40]!r}.") from None
    if not least <= value <= most:
        raise Problem("bad_request", f"{name} must be {least} to {most}, not {value}.")
    return value


def _reference(key: str | None, s3: str | None, name: str | None) -> tuple[str, str]:
    if (key is None) == (s3 is None):
        raise Problem("bad_request", "Each image has either a key or an s3 address.")
    image = key or s3 or ""
    return image, name or image.rpartition("/")[2] or "image"
