"""The app: what stands behind the routes, the routes, and what every request passes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from irs.cloud import Cloud
from irs.errors import IrsError
from webui import pages
from webui.api import Api
from webui.budget import ByteBudget, Rate
from webui.costs import Costs
from webui.guard import Guard, path_of
from webui.jobs import Jobs
from webui.live import Live
from webui.metrics import Metrics
from webui.openapi import FILE, OPERATIONS
from webui.problems import Problem, answer_problem, problem_of
from webui.publish import Publisher
from webui.rekognition import AwsRoute, Rekognition
from webui.service import Service
from webui.sign_in import SignIn
from webui.singles import Singles
from webui.view import JobView

_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
THUMBNAIL_PX = 320


def create_app(cloud: Cloud) -> ASGIApp:
    """Return the app on ``cloud``; its buckets and queues are first asked for when somebody needs them."""
    settings, metrics = cloud.settings, Metrics()
    live, publisher, service = Live(cloud, metrics, news_wait_s=settings.wait_seconds), Publisher(cloud), Service(cloud)
    jobs = Jobs(cloud, live, publisher, metrics)
    api = Api(
        settings=settings,
        jobs=jobs,
        live=live,
        service=service,
        metrics=metrics,
        uploads=ByteBudget(settings.web_bytes_budget, settings.web_uploads, metrics.held_bytes),
        downloads=ByteBudget(settings.web_bytes_budget, settings.web_uploads, metrics.sent_bytes),
        rate=Rate(settings.web_jobs_per_minute, "too_many_jobs", "jobs"),
        costs=Costs(cloud),
    )

    rekognition = Rekognition(
        settings,
        Singles(cloud, live, publisher),
        service,
        ByteBudget(settings.web_bytes_budget, settings.web_uploads, metrics.call_bytes),
    )

    async def receive_form(request: Request) -> JobView:
        api.rate.check(request.client.host if request.client else "")
        return (await api.receive(request, thumbnail=THUMBNAIL_PX)).job

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # Celery costs 0.3 s at import: not within the first upload.
        await to_thread.run_sync(_load_sender)
        async with live.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    app = Starlette(
        routes=[
            *_api_routes(api),
            AwsRoute("/", rekognition.detect_labels, methods=["POST"]),
            Route("/login", SignIn(settings).answer, methods=["POST"]),
            *pages.routes(jobs, settings=settings, service=service, receive_form=receive_form),
        ],
        middleware=[Middleware(Measured, metrics=metrics)],
        exception_handlers={
            Problem: _answer,
            IrsError: _answer,
            HTTPException: _answer_http,
            ClientDisconnect: _answer_left,
            Exception: _answer,
        },
        lifespan=lifespan,
    )
    # Outside of all: also what Starlette itself answers, when a handler has failed, has its headers.
    return Guard(app, settings)


class Measured:
    """Counts answers, and the time to their first byte, by the name of what answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        began_s = time.perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("endpoint"), "__name__", "none")
                self._metrics.requests.labels(route, message["status"]).inc()
                self._metrics.request_seconds.labels(route).observe(time.perf_counter() - began_s)
            await send(message)

        await self._app(scope, receive, send_counted)


def _api_routes(api: Api) -> list[BaseRoute]:
    made: list[BaseRoute] = [
        Route(operation.path.replace("{n}", "{n:int}"), getattr(api, operation.handler), methods=[operation.method])
        for operation in OPERATIONS
    ]

    async def openapi(_: Request) -> Response:
        return Response(FILE.read_bytes(), media_type="application/json", headers={"Cache-Control": "no-cache"})

    return [*made, Route("/openapi.json", openapi)]


def _load_sender() -> None:
    import irs.app  # noqa: F401


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not path_of(request.scope).startswith("/api/")


async def _answer(request: Request, error: Exception) -> Response:
    if _wants_page(request):
        problem = error if isinstance(error, Problem) else problem_of(error) if isinstance(error, IrsError) else None
        return pages.error_page(request, problem or Problem("internal", "The service made a mistake."))
    return answer_problem(request, error)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _OF_STATUS.get(error.status_code, "bad_request")
    said = {"not_found": f"There is nothing at {path_of(request.scope)[:200]}."}.get(code, f"{error.detail}.")
    answer = await _answer(request, Problem(code, said))
    answer.headers.update(error.headers or {})
    return answer


async def _answer_left(_: Request, __: Exception) -> Response:
    # Nobody hears it: for the counters alone.
    return Response(status_code=499)
