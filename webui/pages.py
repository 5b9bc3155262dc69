"""The pages, drawn by the server: right before any script runs, and without one.

Scripts start from this HTML and keep it up to date (``static/app.js``, sent as one file); classes and words are the same in both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles

from irs.errors import IrsError
from irs.settings import Settings
from webui import assets, reference
from webui.formats import FORMATS
from webui.jobs import Jobs
from webui.problems import CODES, Problem, problem_of
from webui.service import Service, ServiceView
from webui.sign_in import own_path
from webui.view import JobView

ReceiveForm = Callable[[Request], Awaitable[JobView]]

TILES_A_PAGE = 200
#: By ending too: browsers give HEIC and others no type.
ACCEPT = "image/*,.heic,.heif,.avif,.tif,.tiff,.jp2,.j2k"
#: CC0 pictures in scikit-image's wheel (extra [demo]): shown where it is installed.
SAMPLES = {"chelsea.png": "A cat", "coffee.png": "A cup", "rocket.jpg": "A rocket"}
_NBSP = "\N{NO-BREAK SPACE}"
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class _Static(StaticFiles):
    """Files of the page: kept by the browser, asked about each time, so that an upgrade is seen at once."""

    def file_response(self, *given: Any, **named: Any) -> Response:
        response = super().file_response(*given, **named)
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _script(request: Request) -> Response:
    return _kept(request, assets.script(), "text/javascript")


async def _style(request: Request) -> Response:
    return _kept(request, assets.style(), "text/css")


def _kept(request: Request, text: str, media_type: str) -> Response:
    headers = {"Cache-Control": "no-cache", "ETag": f'"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(text, media_type=media_type, headers=headers)


def _static() -> Router:
    return Router([Route("/page.js", _script), Route("/page.css", _style), Mount("/", _Static(packages=[("webui", "static")]))])


def routes(jobs: Jobs, *, settings: Settings, service: Service, receive_form: ReceiveForm) -> list[BaseRoute]:
    """Return the routes of the pages; ``POST /login`` is not among them.

    Args:
        receive_form: reads a multipart form, opens its job and hands its images in.
    """
    pages = _Pages(jobs, settings, service, receive_form)
    # Of answers for people alone: compressed, a thousand tiles are a tenth of their length.
    packed = [Middleware(GZipMiddleware, compresslevel=6)]
    return [
        Route("/", pages.home, middleware=packed),
        Route("/jobs", pages.post_job, methods=["POST"]),
        Route("/jobs/{id}", pages.job, middleware=packed),
        Route("/jobs/{id}/cancel", pages.cancel, methods=["POST"]),
        Route("/jobs/{id}/images/{n:int}", pages.image, middleware=packed),
        Route("/login", pages.login),
        Route("/errors/{code}", pages.error),
        Route("/api", pages.api, middleware=packed),
        Route("/model", pages.model, middleware=packed),
        Route("/samples/{file}", pages.sample),
        Mount("/static", GZipMiddleware(_static())),
    ]


def error_page(request: Request, problem: Problem) -> HTMLResponse:
    """Return the page that tells a person of a problem."""
    values = {"title": CODES[problem.code].title, "text": f"{problem.detail} {CODES[problem.code].advice}", "code": problem.code}
    return _render(request, "error.html", status_code=problem.status, **values)


class _Pages:
    def __init__(self, jobs: Jobs, settings: Settings, service: Service, receive_form: ReceiveForm) -> None:
        self._jobs, self._settings, self._service, self._receive_form = jobs, settings, service, receive_form
        self._samples = _find_samples()

    async def home(self, request: Request) -> Response:
        return await self._page(request, job=None)

    async def job(self, request: Request) -> Response:
        try:
            job = await self._jobs.get(request.path_params["id"])
            page = max(1, _whole(request.query_params.get("page"), 1))
            items = await self._items(job, first=(page - 1) * TILES_A_PAGE)
        except (Problem, IrsError) as error:
            return _told(request, error)
        pages = -(-max(job.count or 0, job.arrived, 1) // TILES_A_PAGE)
        return await self._page(request, job=job, items=items, page=page, pages=pages)

    async def _items(self, job: JobView, *, first: int) -> list[dict[str, Any]]:
        """Return what the tiles of one page show: those with a result, and those that wait."""
        last = first + TILES_A_PAGE
        items: dict[int, dict[str, Any]] = {}
        if not job.has_ended:
            for one in await self._jobs.images(job.id):
                if first <= one.n < last:
                    items[one.n] = {"number": one.n, "name": one.name, "status": "waiting"}
        for summary in await self._jobs.summaries(job.id, first, last):
            items[summary.number] = summary.to_json()
        return [items[number] for number in sorted(items)]

    async def _page(self, request: Request, *, job: JobView | None, **values: Any) -> Response:
        try:
            status: ServiceView | None = await self._service.status()
        except (Problem, IrsError):
            # The page stands while the service is away; its scripts say so.
            status = None
        limits = {"max_bytes": self._settings.max_bytes, "max_images": self._settings.web_max_images}
        shown = {"items": [], "page": 1, "pages": 1, "samples": self._samples, **values}
        return _render(
            request,
            "page.html",
            job=job,
            status=status,
            limits=limits,
            kinds=_listed(FORMATS),
            accept=ACCEPT,
            **shown,
        )

    async def image(self, request: Request) -> Response:
        try:
            record = await self._jobs.record(request.path_params["id"], request.path_params["n"])
        except (Problem, IrsError) as error:
            return _told(request, error)
        return _render(request, "image.html", record=record, per_page=TILES_A_PAGE)

    async def post_job(self, request: Request) -> Response:
        try:
            job = await self._receive_form(request)
        except (Problem, IrsError) as error:
            return _told(request, error)
        return RedirectResponse(f"{_root(request)}/jobs/{job.id}", 303)

    async def cancel(self, request: Request) -> Response:
        id = request.path_params["id"]
        try:
            await self._jobs.cancel(id)
        except (Problem, IrsError) as error:
            return _told(request, error)
        return RedirectResponse(f"{_root(request)}/jobs/{id}", 303)

    async def login(self, request: Request) -> Response:
        query = request.query_params
        return _render(request, "login.html", next=own_path(query.get("next", "/")), is_wrong="wrong" in query)

    async def error(self, request: Request) -> Response:
        code = request.path_params["code"]
        if code not in CODES:
            return _render(request, "error.html", status_code=404, title="There is no such error", text=_LIST_OF_CODES, code="")
        return _render(request, "error.html", title=CODES[code].title, text=CODES[code].advice, code=code)

    async def api(self, request: Request) -> Response:
        api = json.loads(files("webui").joinpath("openapi.json").read_text("utf-8"))
        parts = urlsplit(str(request.base_url))
        base = f"{parts.scheme}://{parts.netloc}{_root(request)}"
        return _render(request, "api.html", api=api, operations=reference.operations(api, base), schemas=reference.schemas(api))

    async def model(self, request: Request) -> Response:
        try:
            card = await self._service.card()
        except (Problem, IrsError) as error:
            return _told(request, error)
        return _render(request, "kinds.html", card=card, kinds=sorted(card.labels, key=str.casefold) if card else [])

    async def sample(self, request: Request) -> Response:
        file = request.path_params["file"]
        if not any(file == sample["file"] for sample in self._samples):
            raise HTTPException(404)
        return FileResponse(_samples_folder() / file, headers={"Cache-Control": "public, max-age=86400"})


def _told(request: Request, error: Problem | IrsError) -> HTMLResponse:
    return error_page(request, error if isinstance(error, Problem) else problem_of(error))


_LIST_OF_CODES = "The codes of errors are " + ", ".join(sorted(CODES)) + "."


def _samples_folder() -> Path:
    # Found without importing the package, which takes a second.
    spec = importlib.util.find_spec("skimage")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0] if folders else "/nonexistent") / "data"


def _find_samples() -> list[dict[str, str]]:
    folder = _samples_folder()
    return [{"file": file, "title": title} for file, title in SAMPLES.items() if (folder / file).is_file()]


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _whole(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 9 else default


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:-1]) + f" or {names[-1]}"


def _percent(confidence: float) -> str:
    """Return a probability for people: nothing is certain, and nothing impossible."""
    if confidence > 0.995:
        return f">99{_NBSP}%"
    return f"{confidence * 100:.0f}{_NBSP}%" if confidence >= 0.01 else f"<1{_NBSP}%"


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole}{_NBSP}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{_NBSP}min" + (f" {rest}{_NBSP}s" if rest else "")
    return f"{minutes // 60}{_NBSP}h {minutes % 60}{_NBSP}min"


def _size(length_bytes: int) -> str:
    for unit, bytes_ in (("MB", 1_000_000), ("KB", 1000)):
        if length_bytes >= bytes_:
            return f"{length_bytes / bytes_:.{1 if unit == 'MB' else 0}f}{_NBSP}{unit}"
    return f"{length_bytes}{_NBSP}B"


def _day(unix_s: float) -> str:
    moment = datetime.fromtimestamp(unix_s, UTC)
    return f"{moment.day} {moment:%b %Y}"


def _plain_name(name: str) -> str:
    """Return a name that does nothing to the line it stands in: without control and direction characters."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", name)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("webui"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=_percent,
        size=_size,
        duration=_duration,
        day=_day,
        plain_name=_plain_name,
        count=lambda number: f"{number:,}",
        megabytes=lambda number: f"{number:g}",
    )
    return made


_templates = _environment()


def _render(request: Request, template: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
    text = _templates.get_template(template).render({"root": _root(request), "status": None, **values})
    return HTMLResponse(text, status_code, {"Cache-Control": "no-store"})
