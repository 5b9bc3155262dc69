"""``irs train`` as a process that is stopped and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shapes import make_shapes
from waiting import eventually

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start ``irs train`` on a small set; what still runs at the end is killed."""
    images = make_shapes(tmp_path / "squares")
    started: list[subprocess.Popen[str]] = []

    def begin(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "irs.cli", "train", str(images), "--out", str(tmp_path / "out")]
        command += ["--architecture", "shufflenet_v2_x0_5", "--batch-size", "16", "--side", "32", *more]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_says_how_to_go_on(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = start("--epochs", "500")
    eventually(lambda: checkpoints(tmp_path / "out-run"), within_s=60)

    process.send_signal(number)
    _, errors = process.communicate(timeout=60)

    assert 130 == process.returncode
    assert "the same command again goes on from there" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_training_goes_on_and_writes_its_model(start: Start, tmp_path: Path) -> None:
    doomed = start("--epochs", "3")
    eventually(lambda: checkpoints(tmp_path / "out-run"), within_s=60)
    doomed.kill()
    doomed.wait(timeout=30)

    answers, errors = start("--epochs", "3").communicate(timeout=100)

    assert "Going on after step" in errors
    assert "pictures right" in answers
    assert (tmp_path / "out" / "model.json").exists()


def test_a_folder_that_is_not_there_ends_with_wrong_use(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "irs.cli", "train", str(tmp_path / "none"), "--out", str(tmp_path / "out")]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert 2 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "There is no folder" in done.stderr
