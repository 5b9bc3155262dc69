"""The EC2 protocol, against botocore's own serializer and parser: right by construction, also after an upgrade."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.model import ListShape, Shape, StructureShape
from botocore.parsers import EC2QueryParser
from botocore.serialize import EC2Serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irs.local.ec2 import wire
from irs.local.ec2.api import _ACTIONS
from irs.local.ec2.faults import Refused

DEPTH, MEMBERS = 3, 3
XML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r", exclude_characters="\ufffe\uffff"))
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "timestamp": st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    "blob": st.binary(),
}


def values(shape: Shape, text: st.SearchStrategy[str], depth: int = DEPTH) -> st.SearchStrategy[Any]:
    """Anything a shape of the model can hold; structures have a member, since an empty one cannot be written in a form."""
    if isinstance(shape, ListShape):
        return st.lists(values(shape.member, text, depth - 1), max_size=3)
    if not isinstance(shape, StructureShape):
        return LEAVES.get(shape.type_name, text)

    @st.composite
    def structure(draw: st.DrawFn) -> dict[str, Any]:
        # The deepest structures hold plain values alone.
        plain = [
            name for name, member in shape.members.items() if depth > 0 or not isinstance(member, StructureShape | ListShape)
        ]
        offered = [name for name in plain if name not in shape.required_members]
        least = 0 if shape.required_members or not offered else 1
        chosen = draw(st.lists(st.sampled_from(offered), min_size=least, max_size=MEMBERS, unique=True)) if offered else []
        return {name: draw(values(shape.members[name], text, depth - 1)) for name in (*shape.required_members, *chosen)}

    return structure()


def holds_nothing(value: Any) -> bool:
    """Whether there is an empty structure or list anywhere: in a form they leave no trace."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return members is not None and (not members or any(map(holds_nothing, members)))


@pytest.mark.parametrize("action", sorted(_ACTIONS))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_request_is_read_as_botocore_wrote_it(action: str, data: st.DataObject) -> None:
    operation = wire.model().operation_model(action)
    asked = data.draw(
        values(operation.input_shape, st.text(st.characters(exclude_categories=["Cs"]))).filter(
            lambda drawn: not drawn or not holds_nothing(drawn)
        )
    )

    form = urlencode(EC2Serializer().serialize_to_request(asked, operation)["body"])

    assert (action, asked) == wire.parse(form)


@pytest.mark.parametrize("action", sorted(_ACTIONS))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_answer_is_read_by_botocore_as_it_was_written(action: str, data: st.DataObject) -> None:
    shape = wire.model().operation_model(action).output_shape
    result = {} if shape is None else data.draw(values(shape, XML_TEXT))

    body = wire.answer(action, result)

    parsed = EC2QueryParser().parse({"body": body, "status_code": 200, "headers": {}}, shape) or {}
    assert result == {name: value for name, value in parsed.items() if name != "ResponseMetadata"}


@given(st.text(), st.text())
def test_a_refusal_is_read_by_botocore_whatever_it_says(code: str, message: str) -> None:
    parsed = EC2QueryParser().parse({"body": wire.fault("Code", message), "status_code": 400, "headers": {}}, None)

    assert "Code" == parsed["Error"]["Code"]
    assert len(message) == len(parsed["Error"]["Message"] or "")


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ("Action=RunInstances&MinCount=1&MaxCount=1&Colour=red", "UnknownParameter"),
        ("Action=RunInstances&MinCount=1", "MissingParameter"),
        ("Action=RunInstances&MinCount=few&MaxCount=1", "InvalidParameterValue"),
        ("Action=RunInstances&MinCount.1=1&MaxCount=1", "InvalidParameterValue"),
        ("Action=RunInstances&MinCount=1&MaxCount=1&DryRun=perhaps", "InvalidParameterValue"),
        ("Action=RunInstances&MinCount=1&MaxCount=1&Placement=here", "InvalidParameterValue"),
        ("Action=DescribeInstances&InstanceId.first=i-1", "InvalidParameterValue"),
        ("Action=DescribeInstances&InstanceId=i-1", "InvalidParameterValue"),
        ("Action=DescribeInstances&Filter=x&Filter.1.Name=y", "MalformedQueryString"),
        ("Action=DescribeInstances&MaxResults=5&MaxResults=6", "MalformedQueryString"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_by_ec2s_own_code(form: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        wire.parse(form)

    assert code == refused.value.code


@given(st.text())
def test_any_text_is_read_or_refused(form: str) -> None:
    with suppress(Refused):
        action, asked = wire.parse(f"Action=DescribeInstances&{form}")

        assert ("DescribeInstances", True) == (action, isinstance(asked, dict))


def test_a_time_comes_with_milliseconds_in_utc() -> None:
    body = wire.answer("GetConsoleOutput", {"InstanceId": "i-1", "Timestamp": 1_790_000_000.25}).decode()

    assert "<timestamp>2026-09-21T14:13:20.250Z</timestamp>" in body
