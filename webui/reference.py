"""The API's reference for people, made from ``openapi.json``: operations, their examples, and the values they carry."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

_METHODS = ("get", "post", "put", "delete", "patch", "head")
_SAMPLE_JOB = "01k9t3v6q8w0y2r4e6n8m1h3j5"
_SAMPLES = {"id": _SAMPLE_JOB, "n": "0", "name": "cat.jpg", "code": "too_large"}


def operations(api: Mapping[str, Any], base: str) -> list[dict[str, Any]]:
    """Return each operation with its parameters, bodies, answers and examples; ``base`` is the service's address."""
    return [
        _operation(api, base, path, method, item[method], item.get("parameters", []))
        for path, item in api["paths"].items()
        for method in _METHODS
        if method in item
    ]


def _operation(
    api: Mapping[str, Any], base: str, path: str, method: str, one: Mapping[str, Any], shared: list[Mapping[str, Any]]
) -> dict[str, Any]:
    parameters = [_resolved(api, parameter) for parameter in [*shared, *one.get("parameters", [])]]
    bodies = _resolved(api, one.get("requestBody", {})).get("content", {})
    return {
        "method": method.upper(),
        "path": path,
        "anchor": f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '') or 'root'}",
        "summary": one.get("summary", ""),
        "description": one.get("description", ""),
        "parameters": [
            {
                "name": parameter["name"],
                "in": parameter["in"],
                "kind": kind(parameter.get("schema", {})),
                "required": parameter.get("required", False),
                "description": parameter.get("description", ""),
            }
            for parameter in parameters
        ],
        "body": [{"type": type, "kind": kind(body.get("schema", {}))} for type, body in bodies.items()],
        "answers": [
            {
                "status": status,
                "description": _resolved(api, answer).get("description", ""),
                "types": list(_resolved(api, answer).get("content", {})),
            }
            for status, answer in one.get("responses", {}).items()
        ],
        "examples": _examples(api, base, path, method, parameters, bodies),
    }


def _examples(
    api: Mapping[str, Any], base: str, path: str, method: str, parameters: list[Mapping[str, Any]], bodies: Mapping[str, Any]
) -> list[tuple[str, str]]:
    address = base + path
    for name, value in _SAMPLES.items():
        address = address.replace(f"{{{name}}}", value)
    needed = [p for p in parameters if p["in"] == "query" and (p.get("required") or p["name"] == "name")]
    if needed:
        address += "?" + "&".join(f"{p['name']}={_SAMPLES.get(p['name'], '1')}" for p in needed)
    curl = ["curl", "-fsS"]
    python = [repr(method.upper()), repr(address)]
    if method == "get" and "events" in path:
        curl.append("-N")
    if method not in ("get", "post") or (method == "post" and not bodies):
        curl += ["-X", method.upper()]
    if "multipart/form-data" in bodies and "application/json" not in bodies:
        curl += ["-F", "images=@cat.jpg"]
        python.append('files={"images": open("cat.jpg", "rb")}')
    elif "application/json" in bodies:
        example = _example(api, bodies["application/json"])
        curl += ["-H", "Content-Type: application/json", "-d", json.dumps(example)]
        python.append(f"json={example!r}")
    elif bodies:
        curl += ["--data-binary", "@cat.jpg"]
        python.append('data=open("cat.jpg", "rb")')
    curl.append(address)
    return [("curl", shlex.join(curl)), ("Python", f"requests.request({', '.join(python)}).raise_for_status()")]


def _example(api: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
    if "example" in body:
        return body["example"]
    schema = _resolved(api, body.get("schema", {}))
    if schema.get("examples"):
        return schema["examples"][0]
    required = schema.get("required", [])
    return {name: _value(_resolved(api, schema["properties"][name])) for name in required if name in schema.get("properties", {})}


def _value(schema: Mapping[str, Any]) -> Any:
    values = {"integer": 1, "number": 0.5, "boolean": True, "array": [], "object": {}}
    return values.get(str(schema.get("type")), "…")


def schemas(api: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the named values with their fields, in the order of the alphabet."""
    found = []
    for name, schema in sorted(api.get("components", {}).get("schemas", {}).items()):
        required = set(schema.get("required", []))
        fields = [
            {"name": field, "kind": kind(of), "required": field in required, "description": of.get("description", "")}
            for field, of in schema.get("properties", {}).items()
        ]
        found.append({"name": name, "description": schema.get("description", ""), "fields": fields})
    return [schema for schema in found if schema["fields"]]


def kind(schema: Mapping[str, Any]) -> str:
    """Return the kind of a value in words: ``integer``, ``list of Summary``, ``number or null``."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several, joined in (("anyOf", " or "), ("oneOf", " or "), ("allOf", " and ")):
        if several in schema:
            return joined.join(dict.fromkeys(kind(one) for one in schema[several]))
    if values := schema.get("enum") or [schema[name] for name in ("const",) if name in schema]:
        return " · ".join(str(value) for value in values)
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items') or {})}"
    given = schema.get("type", "any")
    return " or ".join(given) if isinstance(given, list) else str(given)


def _resolved(api: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a ``$ref`` inside the document points at."""
    while "$ref" in value:
        found: Any = api
        for part in str(value["$ref"]).removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value
