"""`irs up` as a person runs it: real processes, the embedded cloud, a small model with random weights."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from waiting import eventually

from irs import records
from irs.cloud import Cloud
from irs.records import JobOpen, Options
from irs.settings import read_settings

MODEL = "shufflenet_v2_x0_5@random"
READY_S = 60.0


class Up:
    """One running `irs up`, and what it says on standard error."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "irs.cli", "up", "--home", str(home), *arguments],
            env={**clean, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # In a session of its own no terminal is shared: what a test signals is what `irs up` passes on.
            start_new_session=True,
        )
        self.home, self.lines, self.answers = home, list[str](), list[str]()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stderr, self.lines), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stdout, self.answers), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.started: set[int] = set()

    @staticmethod
    def _read(stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))  # noqa: PERF401 (seen while more come)

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def until_said(self, pattern: str, *, count: int = 1, within_s: float = READY_S) -> None:
        """Wait for ``count`` lines that hold ``pattern``, and remember the processes that run then."""
        eventually(lambda: len(re.findall(pattern, self.said)) >= count or self.process.poll() is not None, within_s=within_s)
        assert len(re.findall(pattern, self.said)) >= count, self.said
        self.started |= set(self.children())

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def child(self, part: str) -> int:
        """The process id of the one child whose command line holds ``part``."""
        (pid,) = [pid for pid in self.children() if part in command_of(pid)]
        return pid

    def wait(self, within_s: float = READY_S) -> int:
        code = self.process.wait(within_s)
        for reader in self._readers:
            reader.join(5)
        return code

    def endpoint(self) -> dict[str, str]:
        """What a client of this cloud needs in its environment."""
        stored = json.loads((self.home / "endpoint.json").read_text())
        return {
            "IRS_ENDPOINT_URL": f"http://127.0.0.1:{stored['port']}",
            "AWS_ACCESS_KEY_ID": stored["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": stored["secret_access_key"],
        }


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that only waits for its parent to look has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Runs:
    """Starts `irs up` on the test's own home, and ends what is left after the test."""

    def __init__(self, home: Path) -> None:
        self.home, self.all = home, list[Up]()

    def __call__(self, *arguments: str, **environment: str) -> Up:
        self.all.append(Up(self.home, *arguments, **environment))
        return self.all[-1]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "home")
    yield runs
    for one in runs.all:
        # Its children end with it, which a test of its own shows.
        one.process.kill()
        one.process.wait()


def test_up_without_a_model_says_what_to_do_and_starts_nothing(up: Runs) -> None:
    run = up()

    assert 2 == run.wait(10)
    assert run.said.startswith("irs: No model is named: ")
    assert 1 == len(run.lines)
    assert not (up.home / "endpoint.json").exists()


def test_up_of_an_unknown_command_says_so_and_starts_nothing(up: Runs) -> None:
    run = up("--workers", "0", "--", "no-such-command")

    assert 2 == run.wait(10)
    assert "irs: There is no command no-such-command" in run.said
    assert not (up.home / "endpoint.json").exists()


@pytest.mark.parametrize(("ending", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_up_ends_with_the_exit_code_of_its_command(up: Runs, ending: str, code: int) -> None:
    run = up("--workers", "0", "--", "sh", "-c", f'echo "$IRS_ENDPOINT_URL $AWS_ACCESS_KEY_ID $IRS_HOME"; {ending}')

    assert code == run.wait(), run.said
    expected = run.endpoint()
    assert [f"{expected['IRS_ENDPOINT_URL']} {expected['AWS_ACCESS_KEY_ID']} {up.home}"] == run.answers


def test_up_passes_sigterm_on_to_its_command(up: Runs) -> None:
    run = up("--workers", "0", "--", "sh", "-c", "trap 'exit 5' TERM; echo started; while :; do sleep 0.05; done")
    eventually(lambda: run.answers, within_s=READY_S)

    run.process.terminate()

    assert 5 == run.wait(10), run.said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_an_idle_up_ends_all_within_three_seconds(up: Runs, number: signal.Signals, code: int) -> None:
    run = up("--model", MODEL, "--workers", "1")
    run.until_said("is up")

    began = time.monotonic()
    run.process.send_signal(number)

    assert code == run.wait(10), run.said
    assert time.monotonic() - began < 3
    assert 6 == len(run.started), "cloud, page, Flower, janitor, drop box, worker"
    assert all(is_gone(pid) for pid in run.started)


def test_a_killed_up_leaves_nothing_running(up: Runs) -> None:
    run = up("--model", MODEL, "--workers", "1", "--", "sleep", "1000")
    run.until_said("ready after")
    eventually(lambda: 6 == len(run.children()))
    started = run.children()

    run.process.kill()

    eventually(lambda: all(is_gone(pid) for pid in started), within_s=5)


@pytest.mark.slow
def test_a_second_ctrl_c_kills_a_worker_that_does_not_end(up: Runs) -> None:
    run = up("--model", MODEL, "--workers", "1")
    run.until_said("is up")
    os.kill(run.child("irs.cli worker"), signal.SIGSTOP)

    run.process.send_signal(signal.SIGINT)
    run.until_said("once more kills")
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)

    assert 130 == run.wait(5), run.said
    assert all(is_gone(pid) for pid in run.started)


def test_a_worker_that_dies_is_started_again(up: Runs) -> None:
    run = up("--model", MODEL, "--workers", "1")
    run.until_said("is up")

    os.kill(run.child("irs.cli worker"), signal.SIGKILL)

    run.until_said(r"worker 1 +ended with 137, starts again")
    run.until_said(r"worker 1 +ready after", count=2)


@pytest.mark.parametrize(
    ("model", "workers", "who"),
    [
        pytest.param("no_such_architecture", ("--workers", "1"), "Worker 1", marks=pytest.mark.slow),
        ("no_such_architecture", (), "A worker"),
        pytest.param("./no/folder", (), "A worker", marks=pytest.mark.slow),
    ],
)
def test_a_model_that_cannot_be_used_ends_up_with_its_sentence(up: Runs, model: str, workers: tuple[str, ...], who: str) -> None:
    run = up("--model", model, *workers)

    assert 2 == run.wait(), run.said
    assert run.lines[-1].startswith(f"irs: {who} could not start: "), run.said
    assert Path(model).name in run.lines[-1]
    assert "Traceback" not in run.said


@pytest.mark.slow
def test_an_up_at_rest_runs_no_worker_until_images_come_and_none_when_they_are_done(up: Runs, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (300, 200), (80, 100, 50)).save(tmp_path / "photo.jpg")
    run = up("--model", MODEL)
    run.until_said("is up")
    assert [] == list((up.home / "instances").glob("*.log"))

    recognised = subprocess.run(
        [sys.executable, "-m", "irs.cli", "recognize", "--json", str(tmp_path / "photo.jpg")],
        env={**os.environ, "IRS_HOME": str(up.home), **run.endpoint()},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )

    assert 0 == recognised.returncode, recognised.stderr + run.said
    worker = json.loads(recognised.stdout)["worker"].removeprefix("irs@")
    assert worker.startswith("i-")
    run.until_said("scaler Launch 1")
    # Its first minute is paid on EC2, so it stays that long.
    run.until_said(f"worker {worker} +has ended", within_s=120)


@pytest.mark.slow
def test_images_of_lost_queues_are_sent_again_when_the_cloud_died(up: Runs) -> None:
    run = up("--workers", "0")
    run.until_said("is up")
    job = hand_in(run, images=3, answered=1)

    os.kill(run.child("irs.local.cloud"), signal.SIGKILL)

    run.until_said("2 images without an answer are sent again")
    cloud = cloud_of(run)
    got = cloud.sqs().receive_message(
        QueueUrl=cloud.queue_url(cloud.settings.requests_queue), MaxNumberOfMessages=10, WaitTimeSeconds=5
    )["Messages"]
    bodies = [json.loads(message["Body"]) for message in got]
    assert {records.task_id(job, 1), records.task_id(job, 2)} == {body["headers"]["id"] for body in bodies}
    assert [{"name": "a.png", "top_k": 2}] * 2 == [json.loads(body["body"])[1] for body in bodies]


@pytest.mark.slow
def test_a_second_up_on_one_home_shares_the_cloud_of_the_first(up: Runs) -> None:
    first = up("--workers", "0")
    first.until_said("is up")

    second = up("--workers", "0", "--", "sh", "-c", "echo $IRS_ENDPOINT_URL")

    assert 0 == second.wait(), second.said
    assert [first.endpoint()["IRS_ENDPOINT_URL"]] == second.answers
    assert first.process.poll() is None
    assert not is_gone(first.child("irs.local.cloud"))


def test_commands_in_another_terminal_find_the_running_up(up: Runs) -> None:
    run = up("--workers", "0")
    run.until_said("is up")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}

    status = subprocess.run(
        [sys.executable, "-m", "irs.cli", "status", "--json"],
        env={**clean, "IRS_HOME": str(up.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == status.returncode, status.stderr
    assert run.endpoint()["IRS_ENDPOINT_URL"] == json.loads(status.stdout)["endpoint"]


def test_photos_are_recognised_by_two_words_of_a_shell(up: Runs, tmp_path: Path) -> None:
    from PIL import Image

    for number in range(3):
        Image.new("RGB", (300, 200), (80 * number, 100, 50)).save(tmp_path / f"photo{number}.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    irs = str(Path(sys.executable).with_name("irs"))

    run = up("--model", MODEL, "--", irs, "recognize", "--json", *map(str, sorted(tmp_path.glob("*.jpg"))))

    assert 1 == run.wait(), run.said
    found = {one["image"]["name"]: one for one in map(json.loads, run.answers)}
    assert {"photo0.jpg", "photo1.jpg", "photo2.jpg", "broken.jpg"} == set(found)
    assert "not_an_image" == found.pop("broken.jpg")["error"]["code"]
    assert {(5, MODEL)} == {(len(one["labels"]), one["model"]["name"]) for one in found.values()}


def cloud_of(run: Up) -> Cloud:
    os.environ.update(run.endpoint())
    return Cloud(read_settings())


def hand_in(run: Up, *, images: int, answered: int) -> str:
    """Store the images of a job, its options, and records of the first ones, as a client and workers do."""
    cloud, job = cloud_of(run), records.new_job_id()
    for number in range(images):
        cloud.input.put(records.image_key(job, number, "a.png"), b"png", content_type="image/png")
    opened = JobOpen(job=job, options=Options(top_k=2), created=0.0)
    cloud.output.put(records.open_key(job), opened.to_bytes(), content_type="application/json")
    for number in range(answered):
        cloud.output.put(records.record_key(records.task_id(job, number)), b"{}", content_type="application/json")
    return job
