"""The published schema of a record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from irs.records import Fault, ImageFacts, Label, ModelFacts, Record
from irs.results.schema import schema_text

PUBLISHED = Path(__file__).parents[2] / "docs" / "record.schema.json"
OK = Record(
    task_id="a",
    status="ok",
    image=ImageFacts(name="Bär.jpg", key="k", bytes=3, width=1, height=1),
    labels=(Label(label="dog", wnid="n02084071", confidence=0.5),),
    model=ModelFacts(name="m", digest="sha256:0"),
)
FAILED = replace(OK, status="failed", labels=(), model=None, error=Fault(code="empty", message="The file is empty."))


@pytest.fixture
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(PUBLISHED.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_published_schema_is_that_of_the_code() -> None:
    assert schema_text() == PUBLISHED.read_text(), "run: python -m irs.results.schema > docs/record.schema.json"


@pytest.mark.parametrize("record", [OK, FAILED])
def test_published_schema_takes_what_is_stored(validator: jsonschema.Draft202012Validator, record: Record) -> None:
    stored = json.loads(record.to_bytes())

    validator.validate(stored)
    validator.validate(stored | {"a_field_of_a_later_version": 1})


@pytest.mark.parametrize(
    "change", [{"status": "fine"}, {"labels": [{"label": "dog"}]}, {"image": None}, {"timing": {}}, {"receives": "1"}]
)
def test_published_schema_refuses_what_is_no_record(validator: jsonschema.Draft202012Validator, change: dict[str, Any]) -> None:
    stored = json.loads(OK.to_bytes())

    assert not validator.is_valid(stored | change)
