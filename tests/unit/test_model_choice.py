"""What ``auto`` means: resnet18 where its weights are here or come at once, else the bundled model, and never a hang."""

from __future__ import annotations

import hashlib
import io
import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from workers import write_model

from irs.errors import ModelError
from irs.models import choice as choices
from irs.models import list_models, open_model, show_model
from irs.models.architectures import build
from irs.models.choice import WEIGHTS_URL, choose, has_pretrained, weights_path
from irs.models.download import download
from irs.models.zoo import cached_path, find_weights

BODY = bytes(range(256)) * 2000


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for weights, and no proxy between a test and its own server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "torch"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that brings the model along."""
    monkeypatch.setattr(choices, "BUNDLED_FOLDER", tmp_path / "bundled")
    (tmp_path / "bundled").mkdir()
    return write_model(tmp_path / "bundled" / "imagenet200")


@pytest.fixture
def unbundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "BUNDLED_FOLDER", tmp_path / "no-folder")


@pytest.fixture
def weights_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Let resnet18's weights be these bytes."""
    return lambda body: monkeypatch.setattr(choices, "_START", hashlib.sha256(body).hexdigest()[:8])


Answer = Callable[[BaseHTTPRequestHandler], object]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Serve with ``answer``; yield an address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Who gives a download up closes its connection.
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/net.pth"
    served.shutdown()
    thread.join()
    served.server_close()


def whole(handler: BaseHTTPRequestHandler, *, length: int = len(BODY)) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(BODY)


def cut(handler: BaseHTTPRequestHandler) -> None:
    whole(handler, length=len(BODY) + 1)


def absent(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


@contextmanager
def dripping() -> Iterator[str]:
    """A server that would need hours: a few bytes each time it is let."""
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**9))
        handler.end_headers()
        while not ended.wait(0.02):
            handler.wfile.write(b"x" * 100)

    with server(drip) as url:
        yield url
        ended.set()


@contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and never says a word, as a black hole does after a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/net.pth"


@contextmanager
def closed() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/net.pth"


@contextmanager
def unresolved() -> Iterator[str]:
    """A name server that does not answer: no time-out of ours reaches it."""
    ended = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait(60) and [])
        yield "http://net.example/net.pth"
        ended.set()


def test_auto_is_resnet18_where_its_weights_are_here(weights_of: Callable[[bytes], None]) -> None:
    weights_of(BODY)
    weights_path().parent.mkdir(parents=True)
    weights_path().write_bytes(BODY)

    chosen = choose(url="http://127.0.0.1:1/never-asked")

    assert "resnet18" == chosen.model
    assert f"weights are in {weights_path().parent}" in chosen.why


def test_auto_fetches_resnet18_once_where_it_comes_at_once(weights_of: Callable[[bytes], None]) -> None:
    weights_of(BODY)

    with server(whole) as url:
        chosen = choose(url=url)

    assert ("resnet18", BODY) == (chosen.model, weights_path().read_bytes())
    assert "came within 0 s" in chosen.why
    assert chosen.model == choose(url="http://127.0.0.1:1/never-asked").model


def test_auto_does_not_take_weights_that_were_cut_for_whole_ones(weights_of: Callable[[bytes], None], bundled: Path) -> None:
    weights_of(BODY)
    weights_path().parent.mkdir(parents=True)
    weights_path().write_bytes(BODY[:-1])

    with server(absent) as url:
        assert "imagenet200" == choose(url=url).model


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (lambda: server(cut), "it broke off after 512,000 of 512,001 bytes"),
        (lambda: server(whole), "it came damaged"),
        (lambda: server(absent), "HTTP Error 404: Not Found"),
        (closed, "Connection refused"),
        (silent, "no answer within 0.3 s|timed out"),
        (dripping, "it did not come within 0.3 s|no answer within 0.3 s"),
        (unresolved, "no answer within 0.3 s"),
    ],
    ids=["cut", "other bytes", "404", "refused", "silent", "slow", "no name server"],
)
def test_auto_is_the_bundled_model_where_weights_do_not_come_and_says_why(
    source: Callable[[], object], why: str, bundled: Path, weights_of: Callable[[bytes], None]
) -> None:
    if why == "it broke off after 512,000 of 512,001 bytes":
        weights_of(BODY)
    began_s = time.monotonic()

    with source() as url:  # type: ignore[attr-defined]
        chosen = choose(url=url, within_s=0.3)
    took_s = time.monotonic() - began_s

    assert "imagenet200" == chosen.model
    assert any(reason in chosen.why for reason in why.split("|")), chosen.why
    assert not has_pretrained()
    assert took_s < 5
    assert [] == [path for path in weights_path().parent.glob("*") if path.suffix != ".part"]


def test_auto_says_what_to_do_where_neither_can_be_had(unbundled: None) -> None:
    with server(absent) as url, pytest.raises(ModelError, match=r"cannot be had \(HTTP Error 404.* by --model, or put") as told:
        choose(url=url)

    assert "\n" not in str(told.value)


def test_the_weights_of_auto_are_those_that_torchvision_publishes_and_keeps() -> None:
    weights = find_weights("resnet18")

    assert weights.url == WEIGHTS_URL
    assert cached_path(weights) == weights_path()


def test_a_download_that_would_last_too_long_is_given_up_before_its_time(tmp_path: Path) -> None:
    began_s = time.monotonic()

    with dripping() as url, pytest.raises(TimeoutError, match=r"it would take \d+ s"):
        download(url, tmp_path / "net", sha256_start="", within_s=60)

    assert time.monotonic() - began_s < 20
    assert [] == list(tmp_path.iterdir())


def test_a_download_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    with server(whole) as url:
        download(
            url, tmp_path / "net", sha256_start=hashlib.sha256(BODY).hexdigest(), within_s=30, arrived=lambda *s: seen.append(s)
        )

    assert (len(BODY), len(BODY)) == seen[-1]
    assert seen == sorted(seen)
    assert BODY == (tmp_path / "net").read_bytes()


def test_a_download_asks_the_proxy_that_is_set_when_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(whole) as url:
        with closed() as proxy, monkeypatch.context() as patch:
            patch.setenv("http_proxy", proxy)
            with pytest.raises(OSError, match="refused"):
                download(url, tmp_path / "net", sha256_start="", within_s=30)
        download(url, tmp_path / "net", sha256_start="", within_s=30)

    assert BODY == (tmp_path / "net").read_bytes()


def test_what_killed_downloads_left_behind_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = ("a.pth.17-140.part", "b.pth.17-140.part", "b.pth.part", "b.pth")
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    for name in names[1:]:
        os.utime(tmp_path / name, (0, 0))

    with server(whole) as url:
        download(url, tmp_path / "net", sha256_start="", within_s=30)

    # The first is still being written, maybe; the third is of another program.
    assert {names[0], names[2], names[3], "net"} == {path.name for path in tmp_path.iterdir()}


def test_the_bundled_model_opens_by_its_plain_name(bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imagenet200").mkdir()
    monkeypatch.chdir(tmp_path)

    assert open_model(str(bundled)).digest == open_model("imagenet200").digest == show_model("imagenet200").digest
    assert ("bundled", str(bundled)) == (list_models()[0].place, list_models()[0].path)


def test_a_bundled_model_that_is_absent_is_told_in_one_sentence(unbundled: None) -> None:
    with pytest.raises(ModelError, match="imagenet200 does not come with this install: name a directory"):
        open_model("imagenet200")


def test_auto_is_refused_where_each_worker_would_choose_for_itself(bundled: Path) -> None:
    with pytest.raises(ModelError, match="auto is chosen by `irs up` alone: name one"):
        open_model("auto")


def test_a_path_is_no_bundled_model(bundled: Path) -> None:
    with pytest.raises(ModelError, match="There is no model directory"):
        open_model("../bundled/imagenet200")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[bytes, str], Any]:
    """Let torchvision publish squeezenet1_1 at an address of ours, under the digits of these bytes."""

    def publish(body: bytes, url: str) -> Any:
        weights = find_weights("squeezenet1_1")
        named = f"{url.removesuffix('.pth')}-{hashlib.sha256(body).hexdigest()[:8]}.pth"
        monkeypatch.setattr(weights, "_value_", replace(weights.value, url=named))
        return weights

    return publish


@pytest.fixture(scope="module")
def trained() -> bytes:
    stream = io.BytesIO()
    torch.save(build("squeezenet1_1", 1000).state_dict(), stream)
    return stream.getvalue()


def serving(body: bytes) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_pretrained_weights_are_fetched_once_and_answer(trained: bytes, published: Callable[[bytes, str], Any]) -> None:
    with server(serving(trained)) as url:
        weights = published(trained, url)
        first = open_model("squeezenet1_1")
    # The server is gone.
    second = open_model("squeezenet1_1")

    assert trained == cached_path(weights).read_bytes()
    assert first.digest == second.digest
    assert (1, 1000) == tuple(second.build()(torch.zeros(1, 3, 224, 224)).shape)


def test_pretrained_weights_of_another_hash_are_refused_and_not_kept(
    trained: bytes, published: Callable[[bytes, str], Any]
) -> None:
    with server(serving(trained[:-1] + b"x")) as url:
        weights = published(trained, url)
        with pytest.raises(
            ModelError, match=r"cannot be fetched from http://.*\(it came damaged, its sha256 differs: try again\)"
        ):
            open_model("squeezenet1_1")

    assert [] == list(cached_path(weights).parent.iterdir())


def test_pretrained_weights_that_were_changed_in_the_cache_are_refused(
    trained: bytes, published: Callable[[bytes, str], Any]
) -> None:
    with server(serving(trained)) as url:
        weights = published(trained, url)
        open_model("squeezenet1_1")
    cached_path(weights).write_bytes(trained[:-1] + b"x")

    with pytest.raises(ModelError, match=r"is not what http://.* holds: delete it, and it is fetched again"):
        open_model("squeezenet1_1")


def test_a_download_is_shown_on_a_terminal_and_silent_in_a_pipe(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom irs.models.download import download, shown\n"
        "with shown('the weights') as arrived:\n"
        "    download(sys.argv[1], Path(sys.argv[2]), sha256_start='', within_s=30, arrived=arrived)\n"
    )

    with server(whole) as url:
        command = [sys.executable, "-c", program, url, str(tmp_path / "net")]
        ours, theirs = pty.openpty()
        on_terminal = subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # the terminal's other end is closed
            while chunk := os.read(ours, 4096):
                seen += chunk
        os.close(ours)
        code = on_terminal.wait(30)
        piped = subprocess.run(command, capture_output=True, timeout=30, check=True)

    assert 0 == code
    assert "the weights" in seen.decode()
    assert "512.0/512.0 kB" in seen.decode()
    assert b"" == piped.stderr
