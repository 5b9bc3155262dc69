"""The table of operations: routes are made of it, and ``openapi.json``, which ``python -m webui.openapi`` writes."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irs.records import Options
from webui.problems import CODES
from webui.schemas import SCHEMAS, schema_of

FILE = Path(__file__).with_name("openapi.json")
_TEMPLATE = "#/components/schemas/{model}"
JSON, NDJSON, PROBLEM = "application/json", "application/x-ndjson", "application/problem+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of an operation; those of the path stand in the path itself."""

    name: str
    place: str = "query"
    kind: str = "string"
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path, and what it may answer.

    Attributes:
        handler: name of a method of :class:`webui.api.Api`.
        body: media types of the request's body, each with the name of its schema, or None.
        answers: by status: what it means, and media types with the names of their schemas, or None.
        problems: codes it may refuse with, besides those of every operation.
    """

    method: str
    path: str
    handler: str
    summary: str
    detail: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: dict[str, str | None] = dataclasses.field(default_factory=dict)
    answers: dict[int, tuple[str, dict[str, str | None]]]
    problems: tuple[str, ...] = ()


_OF_JOB = ("job_not_found", "job_expired")
_OF_IMAGE = ("empty", "not_an_image", "unsupported_format", "too_large")
_KEY = Parameter(
    name="Idempotency-Key", place="header", meaning="told again within a day, the same key answers with the same job"
)
_STATUS = Parameter(name="status", meaning="only these: ok, failed, cancelled or unsure")
_HELD = ("busy", "timeout", "storage_unavailable", "queue_unavailable")

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/api/jobs",
        handler="open_job",
        summary="Open a job",
        detail="With images in the body the job is filled and closed as well. Of a form, option fields come before the files.",
        parameters=(_KEY,),
        body={JSON: "OpenJob", "multipart/form-data": None},
        answers={201: ("The job; of a form, the job and the files refused.", {JSON: "JobView"})},
        problems=(
            "bad_request",
            "bad_options",
            "too_many_images",
            "too_many_jobs",
            "forbidden",
            "unsupported_media_type",
            *_HELD,
        ),
    ),
    Operation(
        method="PUT",
        path="/api/jobs/{id}/images/{n}",
        handler="put_image",
        summary="Hand in one image",
        detail="The body is the file. Once this is answered the image is stored and its task sent: nothing loses it. "
        "What is no image has a record that says so (`has_record`), and keeps its number.",
        parameters=(Parameter(name="name", meaning="the file's name, as records show it"),),
        body={"application/octet-stream": None},
        answers={
            201: ("Stored and sent.", {JSON: "PutImage"}),
            200: ("The same bytes came before under this number.", {JSON: "PutImage"}),
        },
        problems=(*_OF_JOB, *_OF_IMAGE, "length_required", "image_taken", "job_closed", "cancelled", "too_many_images", *_HELD),
    ),
    Operation(
        method="POST",
        path="/api/jobs/{id}/close",
        handler="close_job",
        summary="Say that no more images come",
        body={JSON: "CloseJob"},
        answers={200: ("The job.", {JSON: "JobView"})},
        problems=(*_OF_JOB, "bad_request", "job_unfilled", "job_closed", "cancelled", "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}",
        handler="get_job",
        summary="How far a job is",
        answers={200: ("The job.", {JSON: "JobView"}), 304: ("As before (If-None-Match).", {})},
        problems=(*_OF_JOB, "storage_unavailable"),
    ),
    Operation(
        method="DELETE",
        path="/api/jobs/{id}",
        handler="cancel_job",
        summary="Cancel a job",
        detail="Images that were not begun are not recognised. One that has finished stays as it is.",
        answers={202: ("The job.", {JSON: "JobView"})},
        problems=(*_OF_JOB, "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}/events",
        handler="get_events",
        summary="Follow a job live",
        detail="Server-sent events: results (summaries), state (how far the job is), done. An event's id says what was "
        "delivered; with it in Last-Event-ID any process goes on from there. Results may come twice: the number tells.",
        parameters=(
            Parameter(name="Last-Event-ID", place="header", meaning="the last id that was received"),
            Parameter(name="after", meaning="the same, for who cannot set a header"),
        ),
        answers={
            200: ("The stream.", {"text/event-stream": "ResultsEvent"}),
            204: ("The job has ended and all was delivered.", {}),
        },
        problems=(*_OF_JOB, "busy", "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}/results",
        handler="get_results",
        summary="Read the records of a job",
        detail="By number, a page at a time; with Accept: application/x-ndjson all of them, one a line.",
        parameters=(
            Parameter(name="after", kind="integer", meaning="only numbers above it: `next` of the page before"),
            Parameter(name="limit", kind="integer", meaning="records a page, 1 to 1000, 200 by default"),
            _STATUS,
        ),
        answers={200: ("A page of records.", {JSON: "ResultsPage", NDJSON: "Record"})},
        problems=(*_OF_JOB, "bad_request", "storage_unavailable"),
    ),
    *(
        Operation(
            method="GET",
            path=f"/api/jobs/{{id}}/results.{ending}",
            handler="download",
            summary=f"Download the results as {what}",
            detail="Also before the end: the header X-Missing-Results says how many are not there yet.",
            answers={200: ("The file.", {kind: None})},
            problems=(*_OF_JOB, "storage_unavailable"),
        )
        for ending, what, kind in (("csv", "CSV", "text/csv"), ("json", "JSON", JSON), ("ndjson", "NDJSON", NDJSON))
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}/cost",
        handler="get_cost",
        summary="What a job has cost so far",
        detail="Time of workers, what they idled apart, requests and storage. Dollars of workers where their price is known.",
        answers={200: ("The cost.", {JSON: "Cost"})},
        problems=(*_OF_JOB, "not_found", "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}/images",
        handler="list_images",
        summary="Which images have arrived",
        detail="To send the rest after an interruption: compare name and bytes.",
        answers={200: ("The images.", {JSON: "ImagesPage"})},
        problems=(*_OF_JOB, "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}/images/{n}/thumbnail",
        handler="get_thumbnail",
        summary="A small picture of an image",
        detail="There once the image is recognised, if the job was opened with the option thumbnail.",
        answers={200: ("At most 320 px, WebP.", {"image/webp": None}), 304: ("As before.", {})},
        problems=(*_OF_JOB, "not_found", "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/jobs/{id}/images/{n}/original",
        handler="get_original",
        summary="The image as it was handed in",
        detail="To be shown in place if it is a JPEG, PNG, WebP, GIF or AVIF, else to be saved.",
        answers={200: ("The file.", {"image/*": None, "application/octet-stream": None})},
        problems=(*_OF_JOB, "not_found", "forbidden", "too_large", "busy", "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/api/status",
        handler="get_status",
        summary="How the service stands",
        detail="At most five seconds old.",
        answers={200: ("Queue, workers, model and limits.", {JSON: "ServiceView"})},
        problems=("missing_resource", "unreachable", "queue_unavailable", "storage_unavailable"),
    ),
    Operation(
        method="GET",
        path="/healthz",
        handler="healthz",
        summary="Whether this process answers",
        answers={200: ("It does.", {"text/plain": None})},
    ),
    Operation(
        method="GET",
        path="/readyz",
        handler="readyz",
        summary="Whether buckets and queues answer",
        answers={200: ("They do.", {"text/plain": None}), 503: ("They do not: why.", {"text/plain": None})},
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler="get_metrics",
        summary="Counters for Prometheus",
        answers={200: ("The counters of this process.", {"text/plain": None})},
    ),
)


def document() -> dict[str, Any]:
    """Return the description of the API as OpenAPI 3.1."""
    by_name, shared = schema_of(list(SCHEMAS), _TEMPLATE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    # A shape that others are made of stands among the shared ones already: by_name then only refers to it.
    schemas = {**shared, **{name: schema for name, schema in by_name.items() if "$ref" not in schema}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "irs: image recognition as a service",
            "version": "1",
            "description": "Hand images in, follow their job, read their labels. Open a job, PUT each image, close it; "
            "or send a form: curl -F images=@cat.jpg ADDRESS/api/jobs.",
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "where IRS_WEB_TOKEN is set"}},
        },
        "security": [{}, {"token": []}],
    }


def text() -> str:
    """Return what ``openapi.json`` holds."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _described(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {"operationId": _operation_id(operation), "summary": operation.summary}
    if operation.detail:
        said["description"] = operation.detail
    if parameters := [*_of_path(operation), *map(_parameter, operation.parameters)]:
        said["parameters"] = parameters
    if operation.body:
        said["requestBody"] = {"required": True, "content": {kind: _body(kind, name) for kind, name in operation.body.items()}}
    said["responses"] = {
        **{str(status): _answer(text, kinds) for status, (text, kinds) in operation.answers.items()},
        **_problems(operation),
    }
    return said


def _operation_id(operation: Operation) -> str:
    ending = operation.path.rpartition(".")[2]
    return f"{operation.handler}_{ending}" if operation.handler == "download" else operation.handler


def _of_path(operation: Operation) -> list[dict[str, Any]]:
    known = {"id": ("string", "the job"), "n": ("integer", "the image's number in the job, from 0")}
    return [
        {"name": name, "in": "path", "required": True, "description": meaning, "schema": {"type": kind}}
        for name, (kind, meaning) in known.items()
        if f"{{{name}}}" in operation.path
    ]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.meaning,
        "schema": {"type": parameter.kind},
    }


def _body(kind: str, name: str | None) -> dict[str, Any]:
    if kind == "multipart/form-data":
        return {"schema": _form()}
    return _content(name) if name else {"schema": {"type": "string", "format": "binary"}}


def _form() -> dict[str, Any]:
    fields: dict[str, Any] = {item.name: {"type": "string"} for item in dataclasses.fields(Options)}
    fields["images"] = {"type": "array", "items": {"type": "string", "format": "binary"}}
    return {"type": "object", "properties": fields, "required": ["images"]}


def _answer(text: str, kinds: dict[str, str | None]) -> dict[str, Any]:
    content = {kind: _content(name) if name else {} for kind, name in kinds.items()}
    return {"description": text, **({"content": content} if content else {})}


def _problems(operation: Operation) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    for code in operation.problems:
        by_status.setdefault(CODES[code].status, []).append(code)
    return {
        str(status): {"description": ", ".join(codes), "content": {PROBLEM: _content("ProblemJson")}}
        for status, codes in sorted(by_status.items())
        if status not in operation.answers
    }


def _content(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": _TEMPLATE.format(model=name)}}


if __name__ == "__main__":
    FILE.write_text(text())
    sys.stdout.write(f"{FILE} is written\n")
