"""Keys that end, as those of a role do: every kind of client asks for new ones by itself, however long it lives."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.utils import ContainerMetadataFetcher
from waiting import eventually

from irs.cloud import Cloud
from irs.errors import QueueUnavailable, StorageUnavailable
from irs.settings import read_settings
from irs.sqs import Sqs

#: botocore uses nothing that ends in less than 10 minutes, so it asks for keys at each call.
ENDS_IN = timedelta(minutes=5)


class _Aws(ThreadingHTTPServer):
    """Hands out ``key`` (None: refuses to), answers every other request, and knows whose ``signer`` was the last one's."""

    daemon_threads = True

    def __init__(self) -> None:
        self.key: str | None = "FIRST"
        self.signer: tuple[str, str] | None = None
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Aws
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/keys":
            self._sign_in()
            self._answer(200, b"an object")
        elif self.server.key is None:
            self._answer(403, b"AccessDeniedException: this role may not be assumed")
        else:
            ends = (datetime.now(UTC) + ENDS_IN).strftime("%Y-%m-%dT%H:%M:%SZ")
            told = {"AccessKeyId": self.server.key, "SecretAccessKey": "s", "Token": f"token of {self.server.key}"}
            self._answer(200, json.dumps(told | {"Expiration": ends}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._sign_in()
        self._answer(200, json.dumps({"QueueUrl": f"{self.server.endpoint}/queue"}).encode())

    def _sign_in(self) -> None:
        credential = re.search(r"Credential=(\w+)/", self.headers["Authorization"])
        assert credential is not None
        self.server.signer = credential[1], self.headers["X-Amz-Security-Token"]

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Aws]:
    with _Aws() as made:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{made.endpoint}/keys")
        monkeypatch.setenv("IRS_ENDPOINT_URL", made.endpoint)
        monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def _boto3() -> Callable[[], object]:
    client = Cloud(read_settings()).sqs()
    return lambda: client.get_queue_url(QueueName="a")


def _pycurl() -> Callable[[], object]:
    sqs = Sqs(Cloud(read_settings()))
    return lambda: sqs.call("ReceiveMessage", {})


def _obstore() -> Callable[[], object]:
    bucket = Cloud(read_settings()).input
    return lambda: bucket.get("a")


@pytest.mark.parametrize("client", [_boto3, _pycurl, _obstore], ids=["boto3", "pycurl", "obstore"])
def test_client_that_lives_on_signs_with_the_new_key_once_there_is_one(
    aws: _Aws, client: Callable[[], Callable[[], object]]
) -> None:
    call = client()
    call()
    first, aws.key = aws.signer, "SECOND"

    def has_renewed() -> bool:
        call()
        return aws.signer == ("SECOND", "token of SECOND")

    # obstore asks again after a tenth of a second at the earliest.
    eventually(has_renewed)

    assert ("FIRST", "token of FIRST") == first


@pytest.mark.parametrize(
    ("client", "error"), [(_pycurl, QueueUnavailable), (_obstore, StorageUnavailable)], ids=["pycurl", "obstore"]
)
def test_keys_that_are_refused_for_now_are_a_passing_fault_and_no_images(
    aws: _Aws, client: Callable[[], Callable[[], object]], error: type[Exception]
) -> None:
    call = client()
    call()
    aws.key = None

    def raised() -> Exception | None:
        try:
            call()
        except Exception as came:
            return came
        return None

    assert error is type(eventually(raised))
