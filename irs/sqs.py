"""Calls to SQS over pycurl: a third of boto3's CPU, the GIL free while they wait, and every wait bounded.

For what a worker does all day; everything else asks boto3 (:mod:`irs.cloud`).
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pycurl
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path

from irs.cloud import CONNECT_SECONDS, Cloud
from irs.errors import QueueUnavailable
from irs.tally import Call


class SqsConnection:
    """One kept-alive connection; not for several threads at once.

    Args:
        is_cut: asked once a second while a call waits; True breaks it off.
    """

    def __init__(self, cloud: Cloud, *, is_cut: Callable[[], bool] | None = None) -> None:
        self._credentials = cloud.session().get_credentials()
        self._region = cloud.settings.region
        self._endpoint = cloud.sqs().meta.endpoint_url
        self._is_cut = is_cut
        self._curl = pycurl.Curl()

    def call(self, action: str, request: Mapping[str, Any], *, within_s: float) -> dict[str, Any]:
        """Return SQS's answer to one ``action`` (its JSON protocol); tries once.

        Raises:
            QueueUnavailable: no keys, no answer in time, or any answer but the one asked for.
        """
        with Call("sqs", action):
            return self._answer(action, request, within_s)

    def _answer(self, action: str, request: Mapping[str, Any], within_s: float) -> dict[str, Any]:
        answer = io.BytesIO()
        self._prepare(action, json.dumps(request).encode(), answer, within_s)
        try:
            self._curl.perform()
        except pycurl.error as error:
            raise QueueUnavailable(f"{action} failed: {error.args[-1]}") from None
        status = self._curl.getinfo(pycurl.RESPONSE_CODE)
        text = answer.getvalue()
        if status != 200:
            raise QueueUnavailable(f"{action} was answered {status}: {text[:300].decode(errors='replace')}")
        try:
            # SendMessageBatch and others may answer with nothing at all when all went well.
            told = json.loads(text or b"{}")
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise QueueUnavailable(f"{action} was answered no JSON: {text[:100]!r}")
        return told

    def close(self) -> None:
        """Give the connection back."""
        self._curl.close()

    def _prepare(self, action: str, body: bytes, answer: io.BytesIO, within_s: float) -> None:
        request = AWSRequest(
            method="POST",
            url=self._endpoint,
            data=body,
            headers={"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"},
        )
        # Signed right before sending, with keys asked for anew: a role's keys end, and so does a signature.
        try:
            keys = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise QueueUnavailable(f"{action} has no keys to sign with: {error}") from None
        SigV4Auth(keys, "sqs", self._region).add_auth(request)
        curl = self._curl
        # Everything is set on each request: a handle keeps its old values, and its connection, which is wanted.
        curl.reset()
        curl.setopt(pycurl.URL, self._endpoint)
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in request.headers.items()])
        curl.setopt(pycurl.WRITEDATA, answer)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(1000 * CONNECT_SECONDS))
        curl.setopt(pycurl.TIMEOUT_MS, int(1000 * within_s))
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        # Without it time-outs would use SIGALRM, in a process of many threads.
        curl.setopt(pycurl.NOSIGNAL, 1)
        if self._endpoint.startswith("https:"):
            curl.setopt(pycurl.CAINFO, os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True))
        if self._is_cut is not None:
            is_cut = self._is_cut
            curl.setopt(pycurl.NOPROGRESS, 0)
            # Not once its answer comes: the messages in it are ours by then, and nobody else's for half a minute.
            curl.setopt(pycurl.XFERINFOFUNCTION, lambda _, came, *__: 1 if not came and is_cut() else 0)


class Sqs:
    """Short calls from any thread, each thread over a connection of its own."""

    def __init__(self, cloud: Cloud, *, within_s: float = 5.0) -> None:
        self._cloud, self._within_s = cloud, within_s
        self._own = threading.local()

    def call(self, action: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer; raises as :meth:`SqsConnection.call`."""
        connection: SqsConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = SqsConnection(self._cloud)
        return connection.call(action, request, within_s=self._within_s)
