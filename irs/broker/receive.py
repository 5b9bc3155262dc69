"""One ReceiveMessage over pycurl: a fifth of boto3's CPU, the GIL free while it waits, and every wait bounded."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from typing import Any

import pycurl
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.httpsession import get_cert_path

from irs.broker.delivery import ATTRIBUTES
from irs.cloud import CONNECT_SECONDS, Cloud
from irs.errors import QueueUnavailable

#: Beyond the long poll itself: an answer that is later than this will not come.
GRACE_S = 5.0


class Receiver:
    """The connection of one poller thread; not for several threads at once.

    Args:
        is_cut: asked once a second while a receive waits; True breaks it off.
    """

    def __init__(self, cloud: Cloud, *, is_cut: Callable[[], bool]) -> None:
        self._credentials = cloud.session().get_credentials()
        self._region = cloud.settings.region
        self._endpoint = cloud.sqs().meta.endpoint_url
        self._is_cut = is_cut
        self._curl = pycurl.Curl()

    def receive(self, url: str, *, count: int, wait_s: int, visibility_s: int) -> list[dict[str, Any]]:
        """Return 0 to ``count`` (at most 10) messages, waiting up to ``wait_s`` for the first; none when it is cut.

        Raises:
            QueueUnavailable: no answer in time, or any answer but messages.
        """
        body = json.dumps(
            {
                "QueueUrl": url,
                "MaxNumberOfMessages": count,
                "WaitTimeSeconds": wait_s,
                "VisibilityTimeout": visibility_s,
                "MessageSystemAttributeNames": ATTRIBUTES,
            }
        ).encode()
        answer = io.BytesIO()
        self._prepare(body, answer, wait_s)
        try:
            self._curl.perform()
        except pycurl.error as error:
            if self._is_cut():
                return []
            raise QueueUnavailable(f"ReceiveMessage failed: {error.args[-1]}") from None
        status = self._curl.getinfo(pycurl.RESPONSE_CODE)
        if status != 200:
            raise QueueUnavailable(f"ReceiveMessage was answered {status}: {answer.getvalue()[:300].decode(errors='replace')}")
        try:
            messages = json.loads(answer.getvalue()).get("Messages") or []
        except (ValueError, AttributeError):
            raise QueueUnavailable(f"ReceiveMessage was answered no JSON: {answer.getvalue()[:100]!r}") from None
        return [message for message in messages if isinstance(message, dict)]

    def close(self) -> None:
        """Give the connection back."""
        self._curl.close()

    def _prepare(self, body: bytes, answer: io.BytesIO, wait_s: int) -> None:
        request = AWSRequest(
            method="POST",
            url=self._endpoint,
            data=body,
            headers={"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS.ReceiveMessage"},
        )
        # Signed right before sending, with keys asked for anew: a role's keys end, and so does a signature.
        SigV4Auth(self._credentials.get_frozen_credentials(), "sqs", self._region).add_auth(request)
        curl = self._curl
        # Everything is set on each request: a handle keeps its old values, and its connection, which is wanted.
        curl.reset()
        curl.setopt(pycurl.URL, self._endpoint)
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in request.headers.items()])
        curl.setopt(pycurl.WRITEDATA, answer)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(1000 * CONNECT_SECONDS))
        curl.setopt(pycurl.TIMEOUT_MS, int(1000 * (wait_s + GRACE_S)))
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        # Without it time-outs would use SIGALRM, in a process of many threads.
        curl.setopt(pycurl.NOSIGNAL, 1)
        if self._endpoint.startswith("https:"):
            curl.setopt(pycurl.CAINFO, os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True))
        curl.setopt(pycurl.NOPROGRESS, 0)
        curl.setopt(pycurl.XFERINFOFUNCTION, lambda *_: 1 if self._is_cut() else 0)
