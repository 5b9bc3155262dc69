"""Rekognition's words, its signature, and one write for one answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from irs.errors import BadOptions
from irs.records import CardParent, Label, ModelCard
from webui.detected import Asked, filtered, labels_of, read_asked
from webui.onewrite import OneWrite
from webui.sigv4 import NotSigned, check_signature

TOKEN = "0123456789abcdef0123456789abcdef"
CARD = ModelCard(
    name="m",
    digest="sha256:0",
    labels=("beagle", "collie", "tabby", "car"),
    sure_above=0.5,
    parents=(
        CardParent(wnid="n1", name="animal", above=None, labels=()),
        CardParent(wnid="n2", name="dog", above="n1", labels=("beagle", "collie")),
        CardParent(wnid="n3", name="cat", above="n1", labels=("tabby",)),
    ),
)


def asked(**changed: Any) -> Asked:
    plain = {"base64": None, "address": "s3://b/k", "max_labels": 1000, "min_confidence": 0.55, "include": (), "exclude": ()}
    return Asked(**{**plain, **changed})


def answer(*confidences: float, **changed: Any) -> list[tuple[str, float, list[str]]]:
    labels = [Label(label=name, wnid=None, confidence=one) for name, one in zip(CARD.labels, confidences, strict=True)]
    found = labels_of(labels, CARD, asked(**changed))
    return [(one["Name"], one["Confidence"], [parent["Name"] for parent in one["Parents"]]) for one in found]


def test_a_label_comes_before_the_parents_above_it_which_are_as_likely_as_all_below_them() -> None:
    found = answer(0.6, 0.3, 0.05, 0.05)

    assert [("beagle", 60.0, ["dog", "animal"]), ("dog", 90.0, ["animal"]), ("animal", 95.0, [])] == found


def test_of_a_label_that_is_not_likely_enough_the_parent_is_named_that_is() -> None:
    assert [("dog", 90.0, ["animal"]), ("animal", 99.0, [])] == answer(0.5, 0.4, 0.09, 0.01)


def test_max_labels_leaves_the_likeliest() -> None:
    assert ["beagle", "dog"] == [name for name, _, _ in answer(0.6, 0.3, 0.05, 0.05, max_labels=2)]
    assert [] == answer(0.6, 0.3, 0.05, 0.05, max_labels=0)


def test_a_model_without_a_tree_answers_labels_without_parents() -> None:
    found = labels_of([Label(label="x", wnid=None, confidence=0.9)], None, asked())

    assert [("x", 90.0, [])] == [(one["Name"], one["Confidence"], one["Parents"]) for one in found]


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0, 1), st.integers(0, 6))
def test_every_answer_is_within_what_was_asked_and_no_name_comes_twice(values: list[float], least: float, most: int) -> None:
    whole = sum(values) or 1.0

    found = answer(*(value / whole for value in values), min_confidence=least, max_labels=most)

    assert len(found) <= most
    assert len({name for name, _, _ in found}) == len(found)
    assert all(100 * least - 1e-3 <= confidence <= 100 for _, confidence, _ in found)


def test_filters_are_spelled_as_the_model_spells_and_unknown_ones_are_kept() -> None:
    assert ("beagle", "dog", "Zebra") == filtered(("Beagle", "DOG", "Zebra"), CARD)
    assert ("Dog",) == filtered(("Dog",), None)


def test_a_call_is_read_as_rekognition_reads_it() -> None:
    body = {"Image": {"S3Object": {"Bucket": "b", "Name": "a/k.jpg"}}}

    assert asked(address="s3://b/a/k.jpg") == read_asked(json.dumps(body).encode())
    more = body | {"MaxLabels": 3, "MinConfidence": 20, "Settings": {"GeneralLabels": {"LabelInclusionFilters": ["Dog"]}}}
    assert asked(address="s3://b/a/k.jpg", max_labels=3, min_confidence=0.2, include=("Dog",)) == read_asked(
        json.dumps(more).encode()
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "the request"),
        (b"{}", "Image"),
        (b'{"Image": {}}', "either Bytes or S3Object"),
        (b'{"Image": {"Bytes": "YQ==", "S3Object": {"Bucket": "b", "Name": "k"}}}', "either Bytes or S3Object"),
        (b'{"Image": {"Bytes": "YQ=="}, "MinConfidence": 101}', "MinConfidence"),
        (b'{"Image": {"Bytes": "YQ=="}, "MaxLabels": -1}', "MaxLabels"),
        (b'{"Image": {"Bytes": "YQ=="}, "Features": ["IMAGE_PROPERTIES"]}', "IMAGE_PROPERTIES"),
        (b'{"Image": {"Bytes": "YQ=="}, "Settings": {"ImageProperties": {}}}', "ImageProperties"),
        (b'{"Image": {"S3Object": {"Bucket": "b", "Name": "k", "Version": "1"}}}', "Version"),
    ],
)
def test_a_call_that_asks_for_something_else_is_told_what(body: bytes, said: str) -> None:
    with pytest.raises(BadOptions, match=said):
        read_asked(body)


def signed(
    body: bytes = b"{}", *, secret: str = TOKEN, path: str = "/", service: str = "rekognition", key: str = "irs"
) -> dict[str, Any]:
    """A request as botocore signs it, as the arguments of the check."""
    headers = {"X-Amz-Target": "RekognitionService.DetectLabels", "Content-Type": "application/x-amz-json-1.1"}
    request = AWSRequest("POST", f"http://host.example:8000{path}", data=body, headers=headers)
    SigV4Auth(Credentials(key, secret, "session-token"), service, "eu-central-1").add_auth(request)
    found = {name.lower(): value for name, value in request.headers.items()} | {"host": "host.example:8000"}
    digest = hashlib.sha256(body).hexdigest()
    return {"service": "rekognition", "method": "POST", "path": path, "query": "", "headers": found, "body_sha256": digest}


@given(st.binary(max_size=50), st.sampled_from(["/", "/irs/", "/a%20b/"]), st.text("ABCXYZ", min_size=1, max_size=20))
def test_what_botocore_signs_with_the_token_passes(body: bytes, path: str, key: str) -> None:
    check_signature(TOKEN, **signed(body, path=path, key=key))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("InvalidSignatureException", {"body_sha256": hashlib.sha256(b"other").hexdigest()}),
        ("InvalidSignatureException", {"path": "/other"}),
        ("InvalidSignatureException", {"method": "PUT"}),
        ("InvalidSignatureException", {"query": "a=1"}),
        ("InvalidSignatureException", {"service": "sqs"}),
        ("InvalidSignatureException", {"now": 4e9}),
    ],
)
def test_a_signature_holds_for_its_own_request_alone_and_for_a_quarter_of_an_hour(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(NotSigned) as told:
        check_signature(TOKEN, **(signed() | change))

    assert name == told.value.name


def test_another_secret_and_changed_headers_are_refused() -> None:
    with pytest.raises(NotSigned, match="InvalidSignature"):
        check_signature(TOKEN, **signed(secret=TOKEN[::-1]))
    request = signed()
    request["headers"]["x-amz-target"] = "RekognitionService.DeleteCollection"
    with pytest.raises(NotSigned, match="InvalidSignature"):
        check_signature(TOKEN, **request)


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        ("", "MissingAuthenticationTokenException"),
        ("Basic aXJzOmlycw==", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=a", "IncompleteSignatureException"),
    ],
)
def test_who_does_not_sign_is_told_so_as_by_aws(authorization: str, name: str) -> None:
    request = signed()
    request["headers"]["authorization"] = authorization

    with pytest.raises(NotSigned) as told:
        check_signature(TOKEN, **request)

    assert name == told.value.name


def test_a_signature_that_leaves_out_what_is_called_is_refused() -> None:
    request = signed()
    headers = request["headers"]
    headers["authorization"] = headers["authorization"].replace(";x-amz-target", "")

    with pytest.raises(NotSigned, match="x-amz-target"):
        check_signature(TOKEN, **request)


class Wire(asyncio.Transport):
    """Keeps what is sent, a part for each packet."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.sent.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


def test_what_is_written_in_one_turn_is_sent_together_and_before_the_end() -> None:
    async def play() -> list[bytes]:
        wire = Wire()
        joined = OneWrite(wire, asyncio.get_running_loop())
        for part in (b"head", b"", b"body"):
            joined.write(part)
        await asyncio.sleep(0)
        joined.write(b"next")
        joined.close()
        assert wire.is_closed
        await asyncio.sleep(0)
        return wire.sent

    assert [b"headbody", b"next"] == asyncio.run(play())


def test_a_picture_is_forgotten_once_it_is_stored() -> None:
    call = read_asked(json.dumps({"Image": {"Bytes": base64.b64encode(b"x").decode()}}).encode())

    assert ("eA==", None) == (call.base64, call.without_bytes().base64)
