"""The door that every AWS SDK knows: Rekognition's DetectLabels at ``POST /``, answered through the queue."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from anyio import to_thread
from starlette.background import BackgroundTasks
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from irs.errors import IrsError, PassingError, RequestError, TooLarge
from irs.records import Options, Record
from irs.settings import Settings
from webui.bodies import content_length, pass_over, read_exactly
from webui.budget import ByteBudget
from webui.detected import Asked, filtered, labels_of, read_asked
from webui.formats import HEAD_BYTES, check_head
from webui.guard import TARGET, is_aws_call
from webui.problems import REQUEST_ID, Problem
from webui.service import Service
from webui.sign_in import is_signed_in
from webui.sigv4 import NotSigned, check_signature
from webui.singles import Singles, Stored

JSON = "application/x-amz-json-1.1"
#: SDKs wait for an answer for 60 s; what takes longer is asked for again by them.
WITHIN_S = 50.0
#: What an answer has besides the picture.
ENVELOPE_BYTES = 64 * 1024
#: A body, its text and its picture are held at once.
HELD_TIMES = 3
PASSED_OVER = 4

_OF_CODE = {
    "not_found": "InvalidS3ObjectException",
    "forbidden": "InvalidS3ObjectException",
    "empty": "InvalidImageFormatException",
    "not_an_image": "InvalidImageFormatException",
    "unsupported_format": "InvalidImageFormatException",
    "damaged": "InvalidImageFormatException",
    "too_large": "ImageTooLargeException",
    "too_many_pixels": "ImageTooLargeException",
    "bad_options": "InvalidParameterException",
}
_OF_PROBLEM = {"busy": "ThrottlingException", "timeout": "InvalidParameterException", "bad_request": "InvalidParameterException"}
#: SDKs try these again by themselves.
_INTERNAL = "InternalServerError"


class AwsError(Exception):
    """An answer that is no success: ``name`` as Rekognition calls it, and a sentence."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(name, sentence)
        self.name, self.sentence = name, sentence


class AwsRoute(Route):
    """A route for calls of AWS SDKs alone: they all go to one path, and a header names what is called."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Route."""
        return super().matches(scope) if is_aws_call(scope) else (Match.NONE, {})


class Rekognition:
    """The handler of ``POST /`` with ``X-Amz-Target: RekognitionService.…``.

    Args:
        bodies: of its own, since a signature is checked after the body: strangers must not take the page's room.
    """

    def __init__(self, settings: Settings, singles: Singles, service: Service, bodies: ByteBudget) -> None:
        self._settings, self._singles, self._service, self._bodies = settings, singles, service, bodies

    async def detect_labels(self, request: Request) -> Response:
        """Answer one call; never raises what the caller could not read."""
        # Once answered: nobody waits for it.
        after = BackgroundTasks()
        try:
            content = await self._called(request, after)
            status, name = 200, None
        except (AwsError, NotSigned, Problem, IrsError) as error:
            name, sentence = _said(error)
            content = {"__type": name, "message": sentence}
            status = 500 if name == _INTERNAL else 400
        headers = {"x-amzn-RequestId": request.scope.get("state", {}).get(REQUEST_ID, "")}
        if name is not None:
            headers["x-amzn-ErrorType"] = name
        return Response(json.dumps(content, separators=(",", ":")), status, headers, JSON, after)

    async def _called(self, request: Request, after: BackgroundTasks) -> dict[str, Any]:
        called = request.headers[TARGET].partition(".")[2]
        if called != "DetectLabels":
            raise AwsError("UnknownOperationException", f"This service answers DetectLabels, not {called[:60]}.")
        asked, stored = await self._received(request)
        after.add_task(self._singles.forget, stored)
        card = await self._service.card() if asked.include or asked.exclude else None
        chosen = {"include": filtered(asked.include, card), "exclude": filtered(asked.exclude, card)}
        options = Options.checked({"top_k": 100, "hedge": 0.0, **chosen})
        return await self._answer(await self._singles.ask(stored, options, within_s=WITHIN_S), asked)

    async def _received(self, request: Request) -> tuple[Asked, Stored]:
        """Read, check and store; when it returns, nothing is held of the body any more."""
        settings = self._settings
        size_bytes = content_length(request)
        if size_bytes is None:
            raise AwsError("InvalidParameterException", "Say with Content-Length how long the request is.")
        if size_bytes > settings.max_bytes * 4 // 3 + ENVELOPE_BYTES:
            await pass_over(request, PASSED_OVER * settings.max_bytes, settings.web_stall_seconds)
            raise TooLarge(size_bytes * 3 // 4, settings.max_bytes)
        async with self._bodies.hold(HELD_TIMES * size_bytes):
            body = await read_exactly(request, size_bytes, settings.web_stall_seconds)
            await to_thread.run_sync(self._check_caller, request, body)
            asked = await to_thread.run_sync(read_asked, bytes(body))
            if asked.address is not None:
                return asked, self._singles.stored_at(asked.address)
            image = await to_thread.run_sync(_decoded, asked.base64 or "")
            check_head(image[:HEAD_BYTES])
            if len(image) > settings.max_bytes:
                raise TooLarge(len(image), settings.max_bytes)
            return asked.without_bytes(), await self._singles.store(image)

    def _check_caller(self, request: Request, body: bytearray) -> None:
        """Let pass who knows the token: as Bearer, by the page's cookie, or as the secret key of a signature.

        Raises:
            NotSigned: the caller does not.
        """
        token = self._settings.web_token
        # Without a token the page is bound to loopback, and asks no one.
        if not token or is_signed_in(HTTPConnection(request.scope), token):
            return
        check_signature(
            token,
            service="rekognition",
            method=request.method,
            path=request.scope.get("raw_path", b"/").decode("latin-1"),
            query=request.scope["query_string"].decode("latin-1"),
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]},
            body_sha256=hashlib.sha256(body).hexdigest(),
        )

    async def _answer(self, record: Record, asked: Asked) -> dict[str, Any]:
        if record.error is not None:
            raise AwsError(_OF_CODE.get(record.error.code, _INTERNAL), record.error.message)
        card = await self._service.card_of(record.model.digest) if record.model else None
        model = f"{record.model.name} {record.model.digest.removeprefix('sha256:')[:12]}" if record.model else ""
        return {"Labels": labels_of(record.labels, card, asked), "LabelModelVersion": model}


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AwsError("InvalidParameterException", "Image.Bytes is no base64.") from None


def _said(error: Exception) -> tuple[str, str]:
    """Return Rekognition's name of what went wrong, and the sentence."""
    match error:
        case AwsError() | NotSigned():
            return error.name, error.sentence
        case Problem():
            return _OF_PROBLEM.get(error.code, _INTERNAL), str(error)
        case RequestError():
            return _OF_CODE.get(error.code, _INTERNAL), str(error)
        case PassingError():
            # As when Rekognition is asked too much: SDKs try again a little later.
            return "ThrottlingException", str(error)
        case _:
            return _INTERNAL, str(error)
