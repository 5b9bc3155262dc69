"""The JSON schema of a record; ``python -m irs.results.schema`` prints what is published in docs/."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic import TypeAdapter

from irs.records import Record


def record_schema() -> dict[str, Any]:
    """Return the schema of a stored record; readers must allow fields that a later version adds."""
    schema = TypeAdapter(Record).json_schema(mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        # As written: every field is there, those without a value are null.
        part["required"] = list(part["properties"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Record of irs"}


def schema_text() -> str:
    """Return the text of ``docs/record.schema.json``."""
    return json.dumps(record_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
