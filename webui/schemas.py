"""The shapes of requests and answers: checked with, and published in ``openapi.json``."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from irs.monitoring.cost import Cost
from irs.records import Record
from webui.problems import Problem
from webui.service import ServiceView
from webui.view import Arrived, JobView, Summary

Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ImageReference(_Strict):
    """An image that is stored already: its ``key`` in the input bucket, or an ``s3`` address."""

    key: str | None = Field(None, min_length=1, max_length=1024, description="a key of the input bucket")
    s3: str | None = Field(None, pattern=r"^s3://[^/]+/.+$", max_length=1100, description="an address in a readable bucket")
    name: str | None = Field(None, max_length=1024, description="the name to show; the last part of the key by default")


class OpenJob(_Strict):
    """A job to be opened."""

    options: dict[str, Any] = Field(default_factory=dict, description="options of the recognition, see Options")
    expected: int | None = Field(None, ge=0, description="how many images will come, as far as is known")
    images: list[ImageReference] | None = Field(None, description="images that are stored already: the job is then closed")


class CloseJob(_Strict):
    """The end of a job's images."""

    count: int = Field(ge=0, description="images of the job, numbered from 0")
    leave_out: bool = Field(False, description="numbers that have not arrived fail as `not_found`; else they are asked for (409)")


class PutImage(BaseModel):
    """An image that is stored and sent: from here on nothing is lost."""

    number: int
    status: Literal["stored", "known"] = Field(description="`known`: the same bytes came before under this number")


class RefusedFile(BaseModel):
    """A file of a form that could not be handed in; its record says so too."""

    number: int
    name: str
    code: str
    message: str


class ReceivedForm(BaseModel):
    """What came of a form."""

    job: JobView
    refused: list[RefusedFile]


class ResultsPage(BaseModel):
    """Records by number; ``next`` is the ``after`` of the next page, null at the end."""

    results: list[Record]
    next: int | None


class ImagesPage(BaseModel):
    """The images of a job that have arrived, by number."""

    images: list[Arrived]


class ResultsEvent(BaseModel):
    """The data of an event ``results``."""

    results: list[Summary]


class ProblemJson(BaseModel):
    """RFC 9457: why it is no success. ``code`` is for programs, ``detail`` for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str


#: What the API speaks of, by its name in ``openapi.json``.
SCHEMAS: dict[str, Any] = {
    "OpenJob": OpenJob,
    "CloseJob": CloseJob,
    "PutImage": PutImage,
    "ReceivedForm": ReceivedForm,
    "JobView": JobView,
    "Record": Record,
    "ResultsPage": ResultsPage,
    "ResultsEvent": ResultsEvent,
    "ImagesPage": ImagesPage,
    "Cost": Cost,
    "ServiceView": ServiceView,
    "ProblemJson": ProblemJson,
}


def read_json(model: type[Model], body: bytes) -> Model:
    """Return the request behind JSON text.

    Raises:
        Problem: the first thing that is wrong (400).
    """
    try:
        return model.model_validate(json.loads(body or b"{}"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Problem("bad_request", f"{where}: {first['msg']}." if where else f"{first['msg']}.") from None
    except (ValueError, RecursionError):
        raise Problem("bad_request", "The body is no JSON.") from None


def schema_of(names: list[str], template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of the named shapes, and of all they are made of."""
    modes = {name: _mode(SCHEMAS[name]) for name in names}
    inputs = [(name, modes[name], TypeAdapter(SCHEMAS[name])) for name in names]
    by_name, shared = TypeAdapter.json_schemas(inputs, ref_template=template)
    return {name: schema for (name, _), schema in by_name.items()}, shared.get("$defs", {})


def _mode(shape: Any) -> Literal["validation", "serialization"]:
    return "validation" if issubclass(shape, _Strict) else "serialization"
