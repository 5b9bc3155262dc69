"""The transport against faults: real workers, the embedded cloud, and a proxy that misbehaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from faults import Fault, FaultProxy, Mode
from waiting import eventually

from irs.cloud import Cloud

HERE = Path(__file__).parent
START_S = 30


@dataclass
class Probe:
    """Workers of the probe app on one stack, behind one proxy."""

    cloud: Cloud
    proxy: FaultProxy
    environment: dict[str, str]
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it polls."""
        before = self.proxy.requests["ReceiveMessage"]
        with open(self.log.with_suffix(f".worker{len(self.processes)}"), "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "probe", "worker", "-l", "INFO", "--without-gossip", "--without-mingle"],
                env={**self.environment, **environment},
                cwd=HERE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        eventually(lambda: self.proxy.requests["ReceiveMessage"] > before or process.poll() is not None, within_s=START_S)
        assert process.poll() is None, self.said()
        return process

    def said(self) -> str:
        """What the workers printed."""
        return "\n".join(path.read_text() for path in sorted(self.log.parent.glob("*.worker*")))

    def send(self, *calls: tuple[str, list[Any]], **properties: Any) -> None:
        """Send tasks straight to the cloud, past the proxy, in the form the shipped settings give them."""
        program = (
            "import sys, json, irs.broker, probe\n"
            "with probe.app.producer_pool.acquire(block=True) as p, irs.broker.batch_sends(p):\n"
            "    for name, args in json.load(sys.stdin):\n"
            "        probe.app.send_task(name, args, producer=p, **json.loads(sys.argv[1]))\n"
        )
        endpoint = {"AWS_ENDPOINT_URL": self.proxy.upstream, "IRS_ENDPOINT_URL": self.proxy.upstream}
        subprocess.run(
            [sys.executable, "-c", program, json.dumps(properties)],
            input=json.dumps(calls).encode(),
            env={**self.environment, **endpoint, "PROBE_STOCK": ""},
            cwd=HERE,
            check=True,
            timeout=60,
        )

    def send_raw(self, body: str) -> None:
        self.cloud.sqs().send_message(QueueUrl=self.queue(), MessageBody=body)

    def runs(self, what: str = "end") -> Counter[str]:
        """How often each task argument was begun or ended."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(line.split()[2] for line in lines if line.startswith(what))

    def queue(self, *, dead: bool = False) -> str:
        settings = self.cloud.settings
        return self.cloud.queue_url(settings.requests_dead_queue if dead else settings.requests_queue)

    def depth(self, *, dead: bool = False) -> tuple[int, int]:
        """Messages visible and in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        got = self.cloud.sqs().get_queue_attributes(QueueUrl=self.queue(dead=dead), AttributeNames=names)["Attributes"]
        return int(got[names[0]]), int(got[names[1]])

    def is_empty(self) -> bool:
        return self.depth() == (0, 0)


@pytest.fixture
def probe(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Probe]:
    with FaultProxy(cloud.settings.endpoint_url) as proxy:
        log = tmp_path / "runs.log"
        environment = {
            **stack_environment,
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "IRS_ENDPOINT_URL": proxy.endpoint,
            "PROBE_LOG": str(log),
            "PROBE_STOCK": os.environ.get("PROBE_STOCK", ""),
            "IRS_WAIT_SECONDS": "2",
            "IRS_CUT_POLLS": "1",
        }
        made = Probe(cloud, proxy, environment, log)
        yield made
        for process in made.processes:
            process.kill()
            process.wait()


def numbers(count: int, seconds: float = 0.0) -> list[tuple[str, list[Any]]]:
    return [("probe.work", [number, seconds]) for number in range(count)]


FAULTS: list[Mode | str] = ["500", "503", "400", "403", "cut", "drop", "html", "hang", "refused"]


@pytest.mark.parametrize("mode", FAULTS)
def test_a_worker_takes_messages_again_after_receives_failed(probe: Probe, mode: Mode) -> None:
    worker = probe.start(IRS_VISIBILITY_SECONDS="4")
    if mode == "refused":  # type: ignore[comparison-overlap]
        probe.proxy.refuse()
    else:
        probe.proxy.fault = Fault(mode, frozenset({"ReceiveMessage"}))
        probe.proxy.break_connections()
        seen = probe.proxy.requests["ReceiveMessage"]
        eventually(lambda: probe.proxy.requests["ReceiveMessage"] >= seen + 2)
    probe.send(*numbers(5))
    if mode == "refused":  # type: ignore[comparison-overlap]
        probe.proxy.accept()
    probe.proxy.fault = None

    eventually(lambda: len(probe.runs()) == 5, within_s=15)
    eventually(probe.is_empty)
    assert worker.poll() is None, probe.said()
    # A consumer that starts anew gives back messages whose tasks still run.
    assert "Connection to broker lost" not in probe.said()


def test_a_worker_without_slots_left_by_what_is_no_exception_goes_on(probe: Probe) -> None:
    probe.start(IRS_VISIBILITY_SECONDS="2")
    probe.send(*[("probe.leave", [number]) for number in range(8)], ("probe.fail", [100]))
    eventually(lambda: len(probe.runs("start")) == 9)

    probe.send(*numbers(5))

    eventually(lambda: len(probe.runs()) == 5)
    eventually(lambda: 9 == sum(probe.depth()) + sum(probe.depth(dead=True)))


def test_a_message_whose_task_never_succeeds_is_kept(probe: Probe) -> None:
    probe.start()
    probe.proxy.fault = Fault("500", frozenset({"SendMessage"}))

    probe.send(("probe.unknown", [1]), ("probe.again", [2]), ("probe.fail", [3]), ("probe.passing", [4]))

    eventually(lambda: {"2", "3", "4"} <= set(probe.runs("start")))
    eventually(lambda: "unknown_task" in probe.said() or "unregistered" in probe.said())
    probe.send(*numbers(1))
    eventually(lambda: probe.runs()["0"] == 1)
    eventually(lambda: sum(probe.depth()) == 4)


@pytest.mark.parametrize(
    "body",
    [
        "no JSON at all",
        "[1, 2, 3]",
        json.dumps(
            {"body": "%%%", "properties": {"body_encoding": "base64", "delivery_info": {}}, "headers": {"task": "probe.work"}}
        ),
        json.dumps(
            {"body": "W10=", "properties": {"body_encoding": "rot13", "delivery_info": {}}, "headers": {"task": "probe.work"}}
        ),
        json.dumps({"body": "W10=", "properties": None}),
        json.dumps({"body": "[[1],{},{}]", "properties": {"delivery_info": {}}, "headers": {"task": "probe.work"}}),
        json.dumps(
            {
                "body": "[[1], {}, {",
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "properties": {"delivery_info": {}, "delivery_tag": "a", "body_encoding": "utf-8"},
                "headers": {"task": "probe.work", "id": "a"},
            }
        ),
    ],
    ids=["text", "list", "bad-base64", "unknown-encoding", "null-properties", "no-id", "bad-content"],
)
def test_a_poison_body_never_ends_the_worker(probe: Probe, body: str) -> None:
    worker = probe.start()
    probe.send_raw(body)

    probe.send(*numbers(3))

    eventually(lambda: len(probe.runs()) == 3)
    eventually(lambda: sum(probe.depth()) == 1)
    assert worker.poll() is None, probe.said()


def test_a_task_that_always_fails_runs_as_often_as_a_message_is_received_and_is_kept(probe: Probe) -> None:
    probe.start(IRS_VISIBILITY_SECONDS="2")
    probe.cloud.sqs().set_queue_attributes(
        QueueUrl=probe.queue(), Attributes={"RedrivePolicy": json.dumps(_redrive(probe, receives=2))}
    )

    probe.send(("probe.passing", [1]))

    eventually(lambda: probe.depth(dead=True) == (1, 0), within_s=30)
    assert {"1": 2} == probe.runs("start")
    assert probe.is_empty()


def _redrive(probe: Probe, *, receives: int) -> dict[str, object]:
    sqs = probe.cloud.sqs()
    arn = sqs.get_queue_attributes(QueueUrl=probe.queue(dead=True), AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return {"deadLetterTargetArn": arn, "maxReceiveCount": receives}


def test_tasks_longer_than_the_visibility_timeout_run_once(probe: Probe) -> None:
    # Full with six, so that the second worker, and not the first itself, gets what is not renewed.
    probe.start(IRS_VISIBILITY_SECONDS="2", PROBE_SLOTS="2", PROBE_MULTIPLIER="3")
    probe.send(*numbers(6, seconds=1.5))
    eventually(lambda: probe.runs("start"))
    probe.start(IRS_VISIBILITY_SECONDS="2", PROBE_SLOTS="2", PROBE_MULTIPLIER="3")

    eventually(lambda: len(probe.runs()) == 6, within_s=30)
    eventually(probe.is_empty)
    assert {str(number): 1 for number in range(6)} == probe.runs("start")


def test_a_killed_workers_messages_come_back_when_their_leases_end(probe: Probe) -> None:
    doomed = probe.start(IRS_VISIBILITY_SECONDS="3")
    probe.send(*numbers(8, seconds=1.0))
    eventually(lambda: len(probe.runs("start")) == 4)
    doomed.send_signal(signal.SIGKILL)
    doomed.wait()
    probe.start(IRS_VISIBILITY_SECONDS="3")

    eventually(lambda: len(probe.runs()) == 8, within_s=20)
    eventually(probe.is_empty)


def test_a_message_whose_task_hangs_is_left_to_others_after_its_cap(probe: Probe) -> None:
    probe.start(IRS_VISIBILITY_SECONDS="2", IRS_MAX_LEASE_SECONDS="3", PROBE_SLOTS="1", PROBE_MULTIPLIER="1")
    probe.send(("probe.work", [1, 600]))
    eventually(lambda: probe.runs("start") == {"1": 1})
    probe.start(IRS_VISIBILITY_SECONDS="2", PROBE_SLOTS="1", PROBE_MULTIPLIER="1")

    eventually(lambda: probe.runs("start") == {"1": 2}, within_s=15)
    assert "lease_capped" in probe.said()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_stays_the_same_over_many_tasks(probe: Probe) -> None:
    worker = probe.start(PROBE_SLOTS="16", PROBE_MULTIPLIER="4")
    probe.send(*numbers(2_000))
    eventually(lambda: probe.depth() == (0, 0), within_s=60)
    before_mb = rss_mb(worker.pid)

    probe.send(*numbers(20_000))

    eventually(lambda: probe.depth() == (0, 0), within_s=240)
    assert rss_mb(worker.pid) - before_mb < 20


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def test_a_worker_told_to_stop_finishes_what_runs_and_hands_back_the_rest(probe: Probe) -> None:
    worker = probe.start(PROBE_SLOTS="2", PROBE_MULTIPLIER="4")
    probe.send(*numbers(10, seconds=1.0))
    eventually(lambda: len(probe.runs("start")) == 2)

    worker.terminate()
    worker.wait(20)

    ended = len(probe.runs())
    assert len(probe.runs("start")) == ended >= 2
    assert (10 - ended, 0) == eventually(lambda: probe.depth() if probe.depth()[1] == 0 else None, within_s=2)


def test_many_small_tasks_cost_few_requests_and_use_the_slots(probe: Probe) -> None:
    probe.proxy.delay_s = 0.015
    probe.start(PROBE_SLOTS="16", PROBE_MULTIPLIER="4")
    before = dict(probe.proxy.requests)

    probe.send(*numbers(400, seconds=0.02))

    eventually(lambda: len(probe.runs()) == 400, within_s=30)
    eventually(probe.is_empty)
    sqs = ("ReceiveMessage", "DeleteMessage", "DeleteMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch")
    times = [float(line.split()[4]) for line in probe.log.read_text().splitlines()]
    used = 400 * 0.02 / (16 * (max(times) - min(times)))
    assert used >= 0.5
    asked = sum(probe.proxy.requests[action] - before.get(action, 0) for action in sqs)
    assert asked / 400 <= 0.3
    assert 0 == probe.proxy.requests["ListQueues"] + probe.proxy.requests["CreateQueue"]


def test_sends_that_sqs_refuses_in_part_are_sent_again(probe: Probe) -> None:
    program = (
        "import irs.broker, probe\n"
        "with probe.app.producer_pool.acquire(block=True) as p, irs.broker.batch_sends(p):\n"
        "    for n in range(40): probe.app.send_task('probe.work', [n], producer=p)\n"
    )
    probe.proxy.fault = Fault("500", frozenset({"SendMessageBatch"}), share=0.5)

    subprocess.run([sys.executable, "-c", program], env=probe.environment, cwd=HERE, check=True, timeout=60)

    assert (40, 0) == probe.depth()


def test_a_task_whose_send_was_answered_by_a_page_is_not_taken_for_sent(probe: Probe) -> None:
    probe.proxy.fault = Fault("html", frozenset({"SendMessage"}))
    program = "import probe; probe.app.send_task('probe.work', [0])"

    ran = subprocess.run(
        [sys.executable, "-c", program], env=probe.environment, cwd=HERE, capture_output=True, timeout=60, check=False
    )

    assert "SQS did not take a message" in ran.stderr.decode()
    assert (0, 0) == probe.depth()


def test_a_message_too_long_for_sqs_is_refused_before_it_is_sent(probe: Probe) -> None:
    program = "import probe; probe.app.send_task('probe.work', ['x' * 1_100_000])"

    ran = subprocess.run(
        [sys.executable, "-c", program], env=probe.environment, cwd=HERE, capture_output=True, timeout=60, check=False
    )

    assert "pass a key, not the picture" in ran.stderr.decode()
    assert 0 == probe.proxy.requests["SendMessage"]


def test_a_countdown_waits_in_sqs_and_not_in_the_worker(probe: Probe) -> None:
    probe.start()

    probe.send(*numbers(1), countdown=3)

    delayed = "ApproximateNumberOfMessagesDelayed"
    sqs = probe.cloud.sqs()
    assert "1" == sqs.get_queue_attributes(QueueUrl=probe.queue(), AttributeNames=[delayed])["Attributes"][delayed]
    eventually(lambda: len(probe.runs()) == 1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_is_lost_when_a_worker_is_killed_while_half_of_all_calls_fail(probe: Probe) -> None:
    def start() -> subprocess.Popen[bytes]:
        return probe.start(IRS_VISIBILITY_SECONDS="6", PROBE_MULTIPLIER="3")

    doomed = start()
    start()
    schedule: list[Mode] = ["500", "drop", "hang", "cut", "403"]
    probe.send(*numbers(300, seconds=0.1))
    eventually(lambda: len(probe.runs()) >= 20)
    doomed.kill()
    for mode in schedule:
        probe.proxy.fault = Fault(mode, share=0.5)
        seen = probe.proxy.requests.total()
        eventually(lambda seen=seen: probe.proxy.requests.total() > seen + 5, within_s=30)
    probe.proxy.fault = None
    probe.proxy.refuse()
    probe.proxy.accept()
    start()

    eventually(lambda: len(probe.runs()) == 300, within_s=60)
    eventually(probe.is_empty, within_s=20)
    assert sum(probe.runs().values()) - 300 <= 12
