"""A Secrets Manager for tests, in a process of its own: the embedded cloud has none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import eventually

#: Its own way of saying "as whoever owns the account".
ROOT_KEY = "test"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def secrets_manager(folder: Path, *, checks_rights: bool = False) -> Iterator[str]:
    """Run it; the address of its endpoint. With ``checks_rights`` IAM is there too, and its policies hold."""
    port = free_port()
    told = {
        "SERVICES": "secretsmanager,iam,sts",
        "AUTH": str(checks_rights).lower(),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "STATE_DIR": str(folder),
        "AWS_ACCESS_KEY_ID": ROOT_KEY,
        "AWS_SECRET_ACCESS_KEY": ROOT_KEY,
        # It starts nothing beside.
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-c", "from ministack.app import main; main()"]
    with subprocess.Popen(command, env={**os.environ, **told}, cwd=folder) as process:
        try:
            eventually(lambda: _is_open(port), within_s=60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
