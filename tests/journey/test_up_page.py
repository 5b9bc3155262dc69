"""The page as part of `irs up`: at one address for as long as the service is up, and gone with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from waiting import eventually


@dataclass
class Up:
    """One `irs up` without workers; what it says goes to ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def address(self) -> str:
        found = eventually(lambda: re.search(r"page   (http://127\.0\.0\.1:\d+/)", self.said) or self.process.poll(), within_s=60)
        assert isinstance(found, re.Match), self.said
        return str(found[1])

    def page_pid(self) -> int | None:
        """The process of the page that runs now."""
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            if b"web\0--fd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        return None


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts `irs up` on a home of one's own, and ends what is left; its children end with it."""
    started: list[Up] = []

    def start(*arguments: str, home: str = "home", port: str = "0") -> Up:
        log = tmp_path / f"up-{len(started)}.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}
        command = [sys.executable, "-m", "irs.cli", "up", "--home", str(tmp_path / home), "--workers", "0", *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**clean, "IRS_WEB_PORT": port},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(Up(process, log))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}healthz", timeout=60) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_up_serves_the_page_again_at_its_address_after_a_kill_and_takes_it_along(up: Callable[..., Up]) -> None:
    run = up()
    address = run.address()
    assert answers(address)
    first = run.page_pid()
    assert first is not None

    os.kill(first, signal.SIGKILL)
    eventually(lambda: "page   ended with 137, starts again" in run.said)
    assert answers(address)
    second = run.page_pid()
    run.process.send_signal(signal.SIGTERM)

    assert second not in (None, first)
    assert 0 == run.process.wait(30)
    assert not Path(f"/proc/{second}").exists()


@pytest.mark.slow
def test_up_takes_a_free_port_for_the_page_where_the_usual_one_is_taken(up: Callable[..., Up]) -> None:
    first = up()
    port = first.address().rpartition(":")[2].strip("/")

    second = up(home="other", port=port)

    assert first.address() != second.address()
    assert answers(second.address())


def test_a_command_of_up_learns_the_address_of_the_page(up: Callable[..., Up]) -> None:
    run = up("--", "sh", "-c", "echo learnt $IRS_WEB_URL")

    assert 0 == run.process.wait(60)
    assert f"learnt {run.address()}\n" in run.said
