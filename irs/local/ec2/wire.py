"""EC2's protocol, both directions, from botocore's own model: forms come in, XML goes out.

Nothing is spelt by hand, so an upgrade of botocore brings its new parameters along. Loading the model costs 0.1 s
of CPU: call :func:`load` before anybody waits.
"""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from botocore.model import ListShape, ServiceModel, Shape, StructureShape
from botocore.utils import parse_timestamp

from irs.local.ec2.faults import Refused

#: Parameters of a request or of an answer, spelt as boto3 does.
Fields = dict[str, Any]

_NUMBERS = {"integer": int, "long": int, "float": float, "double": float}
#: What XML 1.0 cannot hold, not even escaped.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@cache
def model() -> ServiceModel:
    """Return botocore's description of EC2."""
    return ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")


def load(actions: Iterable[str]) -> None:
    """Read the model and the shapes of ``actions``, so that no call has to wait for them."""
    for action in actions:
        operation = model().operation_model(action)
        for shape in (operation.input_shape, operation.output_shape):
            if shape is not None:
                _walk(shape)


def _walk(shape: Shape) -> None:
    if isinstance(shape, StructureShape):
        for member in shape.members.values():
            _walk(member)
    elif isinstance(shape, ListShape):
        _walk(shape.member)


def action_of(form: str) -> str:
    """Return what a form asks for; empty when it does not say."""
    return next((value for key, value in parse_qsl(form) if key == "Action"), "")


def parse(form: str) -> tuple[str, Fields]:
    """Return action and parameters of a request's body.

    Raises:
        Refused: an unknown parameter, a missing one, or a value of the wrong kind; as EC2 names it.
    """
    tree: Fields = {}
    for key, value in parse_qsl(form, keep_blank_values=True):
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise Refused("MalformedQueryString", f"The parameter {key} stands beside a value of its own")
        if last in node:
            raise Refused("MalformedQueryString", f"The parameter {key} is given twice")
        node[last] = value
    action = str(tree.pop("Action", ""))
    tree.pop("Version", None)
    shape = model().operation_model(action).input_shape
    return action, _read(shape, tree, "") if shape is not None else {}


def _read(shape: Shape, node: Any, name: str) -> Any:
    if isinstance(shape, StructureShape):
        return _read_structure(shape, node, name)
    if isinstance(shape, ListShape):
        if node == "":
            return []
        try:
            numbers = sorted(node, key=int)
        except (TypeError, ValueError):
            raise Refused("InvalidParameterValue", f"The entries of {name} must be numbered") from None
        # EC2's lists are flat in requests: Name.1, Name.2.
        return [_read(shape.member, node[number], f"{name}.{number}") for number in numbers]
    if not isinstance(node, str):
        raise Refused("InvalidParameterValue", f"{name} must be one value")
    try:
        return _value(shape.type_name, node)
    except (ValueError, KeyError):
        raise Refused("InvalidParameterValue", f"Invalid value '{node}' for {name}. Expected: {shape.type_name}") from None


def _read_structure(shape: StructureShape, node: Any, name: str) -> Fields:
    if not isinstance(node, dict):
        raise Refused("InvalidParameterValue", f"{name} must have members")
    members = {_spelt(each, member): (each, member) for each, member in shape.members.items()}
    if unknown := sorted(node.keys() - members.keys()):
        raise Refused("UnknownParameter", f"The parameter {unknown[0]} is not recognized")
    read = {
        each: _read(member, node[key], f"{name}.{key}" if name else key) for key, (each, member) in members.items() if key in node
    }
    for each in shape.required_members:
        if each not in read:
            raise Refused("MissingParameter", f"The request must contain the parameter {each}")
    return read


def _value(kind: str, text: str) -> Any:
    if kind == "boolean":
        return {"true": True, "false": False}[text.lower()]
    if kind == "timestamp":
        return parse_timestamp(text)
    if kind == "blob":
        return base64.b64decode(text, validate=True)
    return _NUMBERS.get(kind, str)(text)


def _spelt(name: str, member: Shape) -> str:
    """How a request spells a member: rules of the protocol, as botocore's ``EC2Serializer`` has them."""
    given = member.serialization
    if "queryName" in given:
        return str(given["queryName"])
    plain = str(given.get("name", name))
    return plain[0].upper() + plain[1:]


def answer(action: str, result: Fields) -> bytes:
    """Return the XML of an answer; members of ``result`` that the model does not know are left out."""
    shape = model().operation_model(action).output_shape
    body = "".join(_write(shape, result)) if shape is not None else "<return>true</return>"
    space = f"http://ec2.amazonaws.com/doc/{model().api_version}/"
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{space}">'
        f"<requestId>{uuid.uuid4()}</requestId>{body}</{action}Response>"
    ).encode()


def fault(code: str, message: str) -> bytes:
    """Return the XML of a refusal."""
    error = f"<Error><Code>{_text(code)}</Code><Message>{_text(message)}</Message></Error>"
    head = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return f"{head}<Response><Errors>{error}</Errors><RequestID>{uuid.uuid4()}</RequestID></Response>".encode()


def _write(shape: Shape, value: Any) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _element(member.serialization.get("name", name), member, value[name])
    elif isinstance(shape, ListShape):
        for item in value:
            yield from _element(shape.member.serialization.get("name", "item"), shape.member, item)
    elif shape.type_name == "boolean":
        yield "true" if value else "false"
    elif shape.type_name == "timestamp":
        yield _time(value)
    elif shape.type_name == "blob":
        yield base64.b64encode(value).decode()
    else:
        yield _text(str(value))


def _element(tag: str, shape: Shape, value: Any) -> Iterator[str]:
    yield f"<{tag}>"
    yield from _write(shape, value)
    yield f"</{tag}>"


def _time(value: float | datetime) -> str:
    moment = value if isinstance(value, datetime) else datetime.fromtimestamp(value, UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _text(value: str) -> str:
    return escape(_NO_XML.sub("\ufffd", value), {"\r": "&#13;"})
