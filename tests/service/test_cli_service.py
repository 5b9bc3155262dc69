"""The command line against the embedded cloud: what is answered, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import FaultProxy
from waiting import eventually

from irs import records
from irs.cloud import Cloud
from irs.local import EmbeddedCloud
from irs.records import Beat, Fault, ImageFacts, Label, ModelFacts, Record, beat_key
from irs.results import RecordStore

IRS = [sys.executable, "-m", "irs.cli"]
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def irs(stack_environment: dict[str, str]) -> Shell:
    """Run the command to its end; text of both streams."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*IRS, *arguments], env=stack_environment | environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture
def answering(cloud: Cloud) -> Iterator[None]:
    """Answer each message of the request queue with a record, as a worker would: a name with `bad` in it fails."""
    ended = threading.Event()
    url = cloud.queue_url(cloud.settings.requests_queue)

    def answer() -> None:
        while not ended.is_set():
            got = cloud.sqs().receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in got.get("Messages", ()):
                body = json.loads(message["Body"])
                (key,), options, _ = json.loads(body["body"])
                RecordStore(cloud).put(recorded(body["headers"]["id"], key, options))
                cloud.sqs().delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    ended.set()
    thread.join()


def recorded(task_id: str, key: str, options: dict[str, object]) -> Record:
    job, number = records.split_task_id(task_id) or (None, None)
    facts = ImageFacts(name=str(options["name"]), key=key, sha256="ab" * 32)
    if "bad" in str(options["name"]):
        error = Fault(code="damaged", message="It is damaged.")
        return Record(task_id=task_id, job=job, number=number, status="failed", image=facts, error=error)
    labels = tuple(Label(label=f"label {rank}", wnid=None, confidence=0.5 / (rank + 1)) for rank in range(2))
    return Record(task_id=task_id, job=job, number=number, status="ok", image=facts, labels=labels, sure=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b [red].jpg", "c.jpg"):
        (folder / name).write_bytes(b"bytes of " + name.encode())
    return folder


@pytest.mark.usefixtures("answering")
def test_recognize_writes_aligned_lines_in_the_given_order_into_a_pipe(irs: Shell, photos: Path) -> None:
    ran = irs("recognize", str(photos / "c.jpg"), str(photos))

    assert 0 == ran.returncode, ran.stderr
    lines = [line.split(maxsplit=0) for line in ran.stdout.splitlines()]
    assert ["FILE         LABEL    CONFIDENCE  REMARK"] == lines[0]
    assert ["c.jpg", "a.jpg", "b [red].jpg", "c.jpg"] == [line[:13].strip() for line in ran.stdout.splitlines()[1:]]
    assert all("label 0  50 %" in line for line in ran.stdout.splitlines()[1:])


@pytest.mark.usefixtures("answering")
def test_recognize_ends_with_one_when_some_image_failed(irs: Shell, photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"x")

    ran = irs("recognize", str(photos), str(photos / "missing.jpg"), "--json")

    assert 1 == ran.returncode, ran.stderr
    found = {one["image"]["name"]: one["error"] and one["error"]["code"] for one in map(json.loads, ran.stdout.splitlines())}
    assert {"a.jpg": None, "b [red].jpg": None, "c.jpg": None, "bad.jpg": "damaged", "missing.jpg": "not_found"} == found


@pytest.mark.usefixtures("answering")
def test_recognize_writes_csv_with_a_line_an_image(irs: Shell, photos: Path) -> None:
    ran = irs("recognize", str(photos), "--csv", "--top-k", "2")

    assert 0 == ran.returncode, ran.stderr
    rows = list(csv.DictReader(io.StringIO(ran.stdout)))
    assert [("a.jpg", "label 0", "0.5000", "label 1")] == [
        (row["file"], row["label"], row["confidence"], row["label_2"]) for row in rows[:1]
    ]
    assert 3 == len(rows)


@pytest.mark.usefixtures("answering")
def test_recognize_reads_an_image_from_standard_input(stack_environment: dict[str, str]) -> None:
    ran = subprocess.run(
        [*IRS, "recognize", "-", "--json"], env=stack_environment, input=b"bytes", capture_output=True, timeout=60, check=False
    )

    assert 0 == ran.returncode, ran.stderr
    assert "stdin" == json.loads(ran.stdout)["image"]["name"]


@pytest.mark.usefixtures("answering")
def test_recognize_follows_a_job_that_was_handed_in_before(irs: Shell, photos: Path) -> None:
    first = irs("recognize", str(photos), "--json")
    job = json.loads(first.stdout.splitlines()[0])["job"]

    again = irs("recognize", "--job", job, "--json")

    assert 0 == again.returncode, again.stderr
    assert sorted(first.stdout.splitlines()) == sorted(again.stdout.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a.jpg", "--json", "--csv"),
        ("a.jpg", "--top-k", "0"),
        ("a.jpg", "--min-confidence", "2"),
        ("a.jpg", "--job", "x"),
        ("--job", "x"),
        (".",),
    ],
    ids=" ".join,
)
def test_recognize_used_wrongly_ends_with_two_and_says_why(irs: Shell, arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    there = [str(tmp_path / "empty") if one == "." else one for one in arguments]

    ran = irs("recognize", *there)

    assert 2 == ran.returncode
    assert "" == ran.stdout
    assert ran.stderr
    assert "Traceback" not in ran.stderr


def test_recognize_without_an_answer_in_time_tells_how_to_go_on(irs: Shell, photos: Path) -> None:
    ran = irs("recognize", str(photos), "--timeout", "1", "--csv")

    assert 1 == ran.returncode
    assert 1 == len(ran.stdout.splitlines())
    assert "3 of 3 images without a record" in ran.stderr
    assert "`irs recognize --job " in ran.stderr


def test_recognize_says_that_no_worker_runs(irs: Shell, photos: Path) -> None:
    ran = irs("recognize", str(photos), "--timeout", "6")

    assert "No worker is running: start one with `irs worker` or `irs up`." in ran.stderr.splitlines()
    # No head of a table without a line under it.
    assert "" == ran.stdout


def test_ctrl_c_while_waiting_ends_with_130_and_names_the_job(
    stack_environment: dict[str, str], photos: Path, cloud: Cloud
) -> None:
    with subprocess.Popen(
        [*IRS, "recognize", str(photos)], env=stack_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        eventually(lambda: any(one.key.endswith("manifest.json") for one in cloud.output.list("jobs/")), within_s=20)
        eventually(lambda: any("waiting" in name for name in [thread_state(process.pid)]))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert 130 == process.returncode
    assert "goes on without this" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("answering")
def test_a_job_whose_handing_in_was_broken_off_is_named_and_goes_on(
    stack_environment: dict[str, str], photos: Path, cloud: Cloud
) -> None:
    with subprocess.Popen(
        [*IRS, "recognize", str(photos), "-"],
        env=stack_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # The fourth, standard input, is still to come.
        eventually(lambda: 3 == sum(one.key.endswith("jpg") for one in cloud.input.list("jobs/")), within_s=20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate("bytes", timeout=20)

    assert 130 == process.returncode
    found = re.search(r"irs: job (\S+) broke off; `irs recognize --job \1` with the same images goes on with it", said)
    assert found, said

    ran = subprocess.run(
        [*IRS, "recognize", "--json", "--job", found[1], str(photos), "-"],
        env=stack_environment,
        input="bytes",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {found[1]} == {one["job"] for one in answers}
    assert [0, 1, 2, 3] == sorted(one["number"] for one in answers)


def thread_state(pid: int) -> str:
    """Say `waiting` once the process sleeps: it has nothing to do but to wait for records."""
    return "waiting" if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S" else "working"


def test_a_queue_that_is_not_there_is_not_reachable(irs: Shell, photos: Path) -> None:
    ran = irs("recognize", str(photos), IRS_STACK="no-such-stack")

    assert 3 == ran.returncode
    assert "irs: Queue no-such-stack-requests is not there: run `irs provision` first.\n" == ran.stderr


@pytest.mark.usefixtures("answering")
def test_a_terminal_gets_a_table_and_no_markup_of_names(stack_environment: dict[str, str], photos: Path) -> None:
    screen = on_terminal(["recognize", str(photos)], stack_environment)

    assert "b [red].jpg" in screen
    assert "\x1b[" in screen
    assert "50 %" in screen


def on_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """Run the command with a terminal for its streams and return all it wrote there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*IRS, *arguments], env=environment | {"TERM": "xterm-256color", "COLUMNS": "120"}, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 65536):
                seen += part
        except OSError:
            # Linux's way to say that the other side has closed.
            pass
        os.close(ours)
    assert 0 == process.returncode, seen
    return seen.decode()


def test_status_counts_messages_and_shows_workers_with_the_age_of_their_beat(irs: Shell, cloud: Cloud) -> None:
    cloud.sqs().send_message(QueueUrl=cloud.queue_url(cloud.settings.requests_queue), MessageBody="x")
    now = time.time()
    facts = ModelFacts(name="resnet18", digest="sha256:0")
    for instance, phase, age_s in (("a", "busy", 1), ("b", "ready", 120), ("c", "stopped", 1), ("d", "ready", 9000)):
        beat = Beat(
            instance=instance,
            boot="b",
            host="h",
            pid=1,
            phase=phase,
            at=now - age_s,
            started=now - 9999,
            model=facts,
            slots=32,
            busy_slots=3,
            completed=41,
        )
        cloud.output.put(beat_key(instance), beat.to_bytes(), content_type="application/json")

    as_json, as_table = irs("status", "--json"), irs("status")

    assert 0 == as_json.returncode == as_table.returncode
    seen = json.loads(as_json.stdout)
    assert [1, 0, 0] == [queue["visible"] for queue in seen["queues"]]
    assert [("a", "busy"), ("b", "silent")] == [(one["beat"]["instance"], one["phase"]) for one in seen["workers"]]
    assert f"{cloud.settings.requests_queue}       1        0          0" in as_table.stdout
    assert any(line.startswith("a ") and "resnet18" in line and "3/32" in line and "41" in line for line in lines_of(as_table))


def lines_of(ran: subprocess.CompletedProcess[str]) -> list[str]:
    return ran.stdout.splitlines()


def test_status_of_a_stack_without_workers_says_how_to_start_one(irs: Shell) -> None:
    ran = irs("status")

    assert 0 == ran.returncode
    assert "No worker runs: start one with `irs worker` or `irs up`." in ran.stderr


def test_status_is_watched_until_ctrl_c_through_an_outage(stack_environment: dict[str, str], cloud: Cloud) -> None:
    with FaultProxy(cloud.settings.endpoint_url) as proxy:
        environment = stack_environment | {"IRS_ENDPOINT_URL": proxy.endpoint}
        with subprocess.Popen(
            [*IRS, "status", "--watch", "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert 0 == json.loads(process.stdout.readline())["queues"][0]["visible"]
            proxy.refuse()
            assert process.stderr.readline().startswith("irs: ")
            proxy.accept()
            assert 0 == json.loads(process.stdout.readline())["queues"][0]["visible"]
            process.send_signal(signal.SIGINT)
            assert 130 == process.wait(10)


def test_provision_says_first_what_it_would_do_then_does_it_once(irs: Shell) -> None:
    stack = {"IRS_STACK": f"p-{os.urandom(4).hex()}"}

    planned, made, again = (
        irs("provision", "--dry-run", "--json", **stack),
        irs("provision", "--json", **stack),
        irs("provision", "--json", **stack),
    )

    actions = [[json.loads(line)["action"] for line in lines_of(ran)] for ran in (planned, made, again)]
    assert 0 == planned.returncode == made.returncode == again.returncode
    assert {"would create"} == set(actions[0])
    assert {"created"} == set(actions[1])
    assert {"kept"} == set(actions[2])


def test_dlq_lists_and_moves_back(irs: Shell, cloud: Cloud) -> None:
    cloud.sqs().send_message(QueueUrl=cloud.queue_url(cloud.settings.requests_dead_queue), MessageBody="strange")

    listed, moved, empty = irs("dlq", "list", "--json"), irs("dlq", "redrive"), irs("dlq", "list")

    assert 0 == listed.returncode == moved.returncode == empty.returncode
    assert json.loads(listed.stdout)["task_id"] is None
    assert "1\n" == moved.stdout
    assert ("", "The dead-letter queue is empty.\n") == (empty.stdout, empty.stderr)


def test_a_worker_without_its_queue_is_not_reachable(irs: Shell) -> None:
    ran = irs("worker", "--model", "resnet18@random", IRS_STACK="no-such-stack")

    assert 3 == ran.returncode
    assert "irs: Queue no-such-stack-requests is not there: run `irs provision` first.\n" == ran.stderr


@pytest.mark.parametrize("command", [("status",), ("worker", "--model", "resnet18@random")], ids=["status", "worker"])
def test_a_command_in_another_terminal_speaks_to_the_running_irs_up_unless_an_endpoint_is_named(
    start: Callable[..., EmbeddedCloud], tmp_path: Path, command: tuple[str, ...]
) -> None:
    running = start(tmp_path / "home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_ACCESS", "AWS_ENDPOINT"))}
    environment |= {"IRS_HOME": str(tmp_path / "home"), "IRS_STACK": "no-such-stack"}
    # Named and empty it means AWS, which is played by what does not answer.
    aws = {"IRS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a"}

    joined, apart = (
        subprocess.run([*IRS, *command], env=environment | more, capture_output=True, text=True, timeout=60, check=False)
        for more in ({}, aws)
    )

    assert joined.stderr.splitlines() == [
        f"irs: speaking to the `irs up` of this machine at {running.endpoint}",
        "irs: Queue no-such-stack-requests is not there: run `irs provision` first.",
    ]
    assert (3, 3) == (joined.returncode, apart.returncode)
    assert running.endpoint not in apart.stderr
    assert "127.0.0.1:1/" in apart.stderr
