"""The proxies of docs/behind-a-proxy.md, run as the page shows them, but for names, ports and certificates."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from documents import Block, blocks
from serving import free_port, site_on_a_stack
from waiting import eventually
from webpages import JPEG, read_events

from irs.local import EmbeddedCloud, child

pytestmark = pytest.mark.slow

PAGE = "docs/behind-a-proxy.md"
NAME, TOKEN = "photos.example.org", "t" * 32
SHOWN = [block for block in blocks(PAGE) if block.language in ("caddyfile", "nginx")]


@pytest.fixture
def proxy(request: pytest.FixtureRequest, embedded: EmbeddedCloud, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """The proxy's port, and the path it offers the page under."""
    block: Block = request.param
    program = {"caddyfile": "caddy", "nginx": "nginx"}[block.language]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine.")
    path = found[1] if (found := re.search(r"handle_path (/\w+)/", block.text)) else ""
    settings = {
        "IRS_WEB_TOKEN": TOKEN,
        "IRS_WEB_HOSTS": NAME,
        "IRS_WEB_TRUSTED_PROXIES": "127.0.0.1",
        "IRS_WEB_ROOT_PATH": path,
    }
    with site_on_a_stack(embedded, tmp_path, **settings) as site:
        port = free_port()
        process = started(block, tmp_path, port, site.port)
        try:
            eventually(lambda: process.poll() is not None or answers(port), within_s=20)
            assert process.poll() is None, (tmp_path / "proxy.log").read_text()
            yield port, path
        finally:
            process.kill()
            process.wait()


def started(block: Block, folder: Path, port: int, page: int) -> subprocess.Popen[bytes]:
    """Start the proxy with what the page shows; certificates are beside the point, and a name that is not ours has none."""
    text = block.text.replace("127.0.0.1:8000", f"127.0.0.1:{page}")
    if block.language == "caddyfile":
        text = "{\n    admin off\n}\n" + text.replace(NAME, f"http://{NAME}:{port}")
        (folder / "Caddyfile").write_text(text)
        command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    else:
        text = re.sub(r" *ssl_certificate.*\n", "", text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};"))
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{text}}}\n"
        )
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with (folder / "proxy.log").open("wb") as log:
        environment = {"HOME": str(folder), "PATH": "/usr/bin:/usr/sbin:/bin:/usr/local/bin"}
        return child.start(command, environment=environment, at_parents_end=signal.SIGKILL, stdout=log, stderr=log)


def answers(port: int) -> bool:
    try:
        with asked(port, "GET", "/healthz"):
            return True
    except OSError:
        return False


@contextmanager
def asked(
    port: int, method: str, path: str, body: bytes | None = None, *, token: str = TOKEN
) -> Iterator[http.client.HTTPResponse]:
    """The answer to one request of somebody who typed the page's name."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    kind = {"Content-Type": "application/json"} if method == "POST" else {}
    try:
        connection.request(method, path, body, {"Host": NAME, "Authorization": f"Bearer {token}"} | kind)
        with connection.getresponse() as answer:
            yield answer
    finally:
        connection.close()


@pytest.mark.parametrize("proxy", SHOWN, ids=[f"{block.language}-{number}" for number, block in enumerate(SHOWN)], indirect=True)
def test_a_photo_is_handed_in_and_followed_through_the_proxy_that_the_page_shows(proxy: tuple[int, str]) -> None:
    port, path = proxy

    with asked(port, "POST", f"{path}/api/jobs", b"{}") as opened:
        assert 201 == opened.status
        job = f"{path}/api/jobs/{json.loads(opened.read())['id']}"
        assert job == opened.headers["Location"]
    # As large as the page takes: the proxy must let it through.
    with asked(port, "PUT", f"{job}/images/0?name=a.jpg", JPEG + bytes(20 * 2**20 - len(JPEG))) as stored:
        assert 201 == stored.status, stored.read()
    with asked(port, "GET", f"{job}/events") as stream:
        # It arrives though the stream goes on: nothing between buffers it.
        assert next(read_events(stream)).data
    with asked(port, "GET", job, token="another") as refused:
        assert 401 == refused.status
