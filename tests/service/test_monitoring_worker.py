"""A worker that is looked at: its metrics, its lines, the story of its images."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from exported import Exported, alert_queries, queries
from monitors import FlowerSite
from prometheus_client.parser import text_string_to_metric_families
from serving import free_port
from waiting import eventually
from webpages import WebPages
from workers import IRS, Running, Workers, picture, workers_on_a_stack

from irs import records
from irs.client import Client
from irs.cloud import Cloud
from irs.errors import BadOptions, StorageUnavailable
from irs.local import EmbeddedCloud
from irs.monitoring.trace import read_trace
from irs.records import Record
from irs.tally import Call
from scaler.book import Book
from scaler.life import FleetNow
from scaler.loop import Step
from scaler.metrics import Metrics as ScalerMetrics
from scaler.observation import Observation, Worker
from scaler.policy import Decision
from scaler.state import State

GOOD = 5


@pytest.fixture(scope="module")
def workers(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with workers_on_a_stack(embedded, tmp_path_factory.mktemp("seen"), IRS_MONITORING="1") as made:
        yield made


@pytest.fixture(scope="module")
def running(workers: Workers) -> Running:
    return workers.start(IRS_HEALTH_PORT="0")


@pytest.fixture(scope="module")
def answered(workers: Workers, running: Running) -> list[Record]:
    """Five pictures and what is none."""
    ids = workers.sent(*(picture(900 + number) for number in range(GOOD)), b"no picture at all")
    return workers.answered(ids)


def running_address(running: Running) -> str:
    address = re.search(r"health address=(\S+)readyz", running.said)
    assert address, running.said
    return address[1]


def fetched(address: str) -> str:
    with urllib.request.urlopen(f"{address}metrics", timeout=30) as answer:
        return str(answer.read().decode())


def samples(running: Running) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(fetched(running_address(running)))
        for one in family.samples
    }


def value(running: Running, metric: str, /, **labels: str) -> float:
    """The sum of a metric over the labels that are not named."""
    return sum(found for (key, has), found in samples(running).items() if key == metric and labels.items() <= dict(has).items())


def irs(workers: Workers, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IRS, *arguments], env=workers.environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_worker_counts_its_images_tasks_stages_and_calls(workers: Workers, running: Running, answered: list[Record]) -> None:
    # Counted once the record stands, which its reader may see first.
    eventually(lambda: value(running, "celery_task_failed_total") >= 1)
    queue, task = workers.cloud.settings.requests_queue, {"name": "irs.recognize", "hostname": "irs@w0"}

    assert GOOD <= value(running, "irs_images_total", outcome="ok", code="")
    assert 1 <= value(running, "irs_images_total", outcome="failed", code="not_an_image")
    assert GOOD + 1 <= value(running, "celery_task_received_total", **task, queue_name=queue)
    assert GOOD <= value(running, "celery_task_succeeded_total", **task, queue_name=queue)
    assert 1 <= value(running, "celery_task_failed_total", **task, exception="not_an_image")
    assert GOOD + 1 <= value(running, "celery_task_runtime_count", **task, queue_name=queue)
    for stage in ("fetch", "store"):
        assert GOOD + 1 <= value(running, "irs_stage_seconds_count", stage=stage)
    for stage in ("decode", "batch", "model"):
        assert GOOD <= value(running, "irs_stage_seconds_count", stage=stage)
    eventually(lambda: value(running, "irs_stage_seconds_count", stage="ack") >= GOOD + 1)
    assert GOOD + 1 <= value(running, "irs_queue_wait_seconds_count", queue=queue)
    assert GOOD + 1 <= value(running, "irs_receives_per_image_bucket", le="1.0")
    assert GOOD <= value(running, "irs_batch_size_sum", model="tiny")
    assert 1 == value(running, "irs_ready", model="tiny")
    assert 1 == value(running, "celery_worker_up", hostname="irs@w0")
    # One GET and one PUT an image, besides beats.
    assert GOOD + 1 <= value(running, "irs_aws_requests_total", service="s3", operation="GetObject", code="200")
    assert GOOD + 1 <= value(running, "irs_aws_requests_total", service="s3", operation="PutObject", code="200")
    assert 1 <= value(running, "irs_aws_requests_total", service="sqs", operation="ReceiveMessage", code="200")
    assert 0 == value(running, "irs_aws_errors_total", service="s3")


def test_no_label_of_a_metric_holds_a_job_or_a_task(running: Running, answered: list[Record]) -> None:
    job = answered[0].job or ""

    assert not [labels for _, labels in samples(running) if any(job in text for _, text in labels)]


def test_celery_finds_the_app_by_the_name_of_the_package(workers: Workers, running: Running) -> None:
    command = [str(Path(IRS).with_name("celery")), "-A", "irs", "inspect", "registered", "--json", "--timeout", "20"]

    done = subprocess.run(command, env=workers.environment, capture_output=True, text=True, timeout=60, check=False)

    assert 0 == done.returncode, done.stderr
    assert {"irs@w0": ["irs.recognize"]} == json.loads(done.stdout.strip().splitlines()[-1])


def test_each_line_of_an_image_names_it(running: Running, answered: list[Record]) -> None:
    """Of those that are answered no line is written; of the failed one whatever is written."""
    failed = answered[-1]
    lines = [line for line in running.said.splitlines() if failed.job and failed.job in line]

    assert any(" stored " in line for line in lines)
    assert all(f" task_id={failed.task_id} job={failed.job} number={failed.number} " in line for line in lines)


@pytest.mark.slow
def test_a_worker_says_in_json_once_a_minute_what_it_did_and_each_line_of_an_image_names_it(workers: Workers) -> None:
    """On a stack of the module, beside its worker: what both were handed in this one tells its share of."""
    speaking = workers.start(IRS_LOG_JSON="1", IRS_INSTANCE_ID="speaks")
    began = time.monotonic()
    lines = lambda: [json.loads(line) for line in speaking.said.splitlines()]  # noqa: E731

    def share() -> list[str]:
        ids = workers.sent(*[b"no picture"] * 4, picture(77))
        workers.answered(ids)
        return [id for id in ids[:4] if any(line.get("task_id") == id for line in lines())]

    failed = eventually(share, within_s=30)
    minute = eventually(lambda: [line for line in lines() if line["event"] == "minute"], within_s=75, every_s=0.5)[0]

    assert 45 < time.monotonic() - began < 80
    assert {"images", "failed", "dropped", "returned", "mean_batch", "busy", "waited_s"} <= set(minute)
    assert len(failed) <= minute["failed"] <= minute["images"]
    for id in failed:
        job, _, number = id.partition(".")
        of_it = [line for line in lines() if id in json.dumps(line)]
        assert {(id, job, int(number))} == {(line["task_id"], line["job"], line["number"]) for line in of_it}


def test_trace_tells_where_the_time_of_an_image_went(workers: Workers, answered: list[Record]) -> None:
    record = answered[0]

    done = irs(workers, "trace", f"{record.job}/0", "--json", "--price-per-hour", "0.1")
    shown = irs(workers, "trace", record.task_id)

    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout)
    assert ["queued", "fetched", "decoded", "batched", "inferred", "stored"] == [step["stage"] for step in told["steps"]]
    assert pytest.approx(told["total_s"], abs=1e-3) == sum(step["took_s"] for step in told["steps"])
    assert ("irs@w0", 1) == (told["worker"], told["receive"])
    assert record.batch is not None
    assert {"number": record.batch.number, "size": record.batch.size} == told["batch"]
    assert told["usd"] > told["usd_worker"] > 0
    assert 0 == shown.returncode, shown.stderr
    assert all(stage in shown.stdout for stage in ("queued", "inferred", "stored", "in all", "irs@w0"))


def test_trace_of_a_failed_image_tells_its_code(workers: Workers, answered: list[Record]) -> None:
    done = irs(workers, "trace", answered[-1].task_id)

    assert 0 == done.returncode, done.stderr
    assert "failed: not_an_image: " in done.stdout


def test_batches_that_ran_are_those_that_the_records_tell(answered: list[Record]) -> None:
    """Images of one model call name the same number and its size."""
    by_number: dict[int, list[int]] = {}
    for record in answered[:GOOD]:
        assert record.batch is not None
        by_number.setdefault(record.batch.number, []).append(record.batch.size)

    assert all(len(sizes) == sizes[0] and len(set(sizes)) == 1 for sizes in by_number.values())


def test_trace_of_what_has_no_record_says_in_one_sentence_what_is_known(workers: Workers, running: Running) -> None:
    done = irs(workers, "trace", f"{records.new_job_id()}/0")

    assert 2 == done.returncode
    assert "is not known: check its id; records are kept 30 days" in done.stderr
    assert 1 == len(done.stderr.strip().splitlines())


def test_trace_tells_waiting_missing_and_cancelled_images_apart(cloud: Cloud) -> None:
    client = Client(cloud.settings)
    waits, cancelled = (client.recognize([("a.jpg", picture(seed))]) for seed in (1, 2))
    cancelled.cancel()
    opened = client.open().job

    def why(id: str) -> str:
        with pytest.raises(BadOptions) as told:
            read_trace(cloud, id, price=(None, "unknown"))
        return str(told.value)

    waiting = "has no record yet: it waits or is in work (2 messages waiting and 0 in work, with 0 workers: start one"
    assert waiting in why(records.task_id(waits.id, 0))
    assert "has no image 1: it holds 1, numbered from 0" in why(records.task_id(waits.id, 1))
    assert "is still open, and its image 3 has not arrived" in why(records.task_id(opened, 3))
    assert "no-such-task has no record: it waits or is in work, or no such task was sent" in why("no-such-task")
    found = read_trace(cloud, records.task_id(cancelled.id, 0), price=(None, "unknown"))
    assert ("cancelled", (), 0.0) == (found.status, found.steps, found.usd_worker or 0.0)


#: The table of the design: each metric with its labels, and whose it is.
TABLE = {
    **{
        f"celery_task_{what}_total": {"name", "hostname", "queue_name"}
        for what in ("received", "started", "succeeded", "retried", "revoked", "rejected")
    },
    "celery_task_failed_total": {"name", "hostname", "queue_name", "exception"},
    "celery_task_runtime_bucket": {"name", "hostname", "queue_name", "le"},
    "celery_worker_up": {"hostname"},
    "celery_worker_tasks_active": {"hostname"},
    "celery_queue_length": {"queue_name"},
    "celery_active_worker_count": {"queue_name"},
    "celery_active_process_count": {"queue_name"},
    "irs_queue_in_flight": {"queue"},
    "irs_queue_delayed": {"queue"},
    "irs_queue_oldest_seconds": {"queue"},
    "irs_dead_letters": {"queue"},
    "irs_images_total": {"outcome", "code"},
    "irs_queue_wait_seconds_bucket": {"queue", "le"},
    "irs_stage_seconds_bucket": {"stage", "le"},
    "irs_batch_size_bucket": {"model", "le"},
    "irs_receives_per_image_bucket": {"le"},
    "irs_slots": {"model", "digest"},
    "irs_slots_busy": {"model", "digest"},
    "irs_model_loaded_info": {"model", "digest"},
    "irs_ready": {"model", "digest"},
    "irs_aws_requests_total": {"service", "operation", "code"},
    "irs_aws_errors_total": {"service", "operation", "code"},
    "irs_aws_request_seconds_bucket": {"service", "operation", "code", "le"},
    "irs_events_sent_total": set(),
    "irs_events_dropped_total": set(),
    "irs_event_lease_seconds": set(),
    "irs_scaler_desired": set(),
    "irs_scaler_running": set(),
    "irs_scaler_starting": set(),
    "irs_scaler_decisions_total": {"policy", "reason"},
    "irs_instance_seconds_total": set(),
    "irs_cost_dollars_total": set(),
    "irs_control_commands_total": {"command"},
    "irs_mon_queues": {"kind"},
    "irs_mon_reaped_total": {"kind"},
    # Of the drop box, which is younger than the table.
    **{f"irs_drops_{what}": set() for what in ("messages_total", "sent_total", "results_total", "waiting", "in_flight")},
}


@pytest.fixture(scope="module")
def shown(
    workers: Workers, running: Running, answered: list[Record], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """What the processes of one stack show, by their name: worker, scaler, janitor, drop box, page, Flower."""
    folder = tmp_path_factory.mktemp("shown")
    ports = {"janitor": free_port(), "drops": free_port()}
    told = {f"IRS_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    environment = {**workers.environment, **told, "IRS_JANITOR_SECONDS": "1"}
    silent = {"stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    beside = [subprocess.Popen([IRS, name], env=environment, **silent) for name in ports]
    site = FlowerSite(workers.environment, folder)
    try:
        with WebPages(workers.cloud, workers.environment, folder) as pages:
            page = pages.start()
            site.start()
            # A watcher sends a command, and renews a lease; two calls that fail are counted here, where the scaler is.
            eventually(lambda: value(running, "irs_control_commands_total") >= 1, within_s=60, every_s=0.2)
            with suppress(StorageUnavailable), Call("s3", "GetObject"):
                raise StorageUnavailable("no answer")
            yield {
                "worker": fetched(running_address(running)),
                "scaler": scaler_text(workers.cloud),
                # The janitor's once it has gone a round.
                "janitor": eventually(
                    lambda: text_with('irs_mon_queues{kind="pidbox"}', ports["janitor"]), within_s=60, every_s=0.2
                ),
                "drops": eventually(lambda: text_with("irs_drops_waiting 0", ports["drops"]), within_s=60, every_s=0.2),
                "page": fetched(f"http://{page.host}:{page.port}/"),
                "flower": site.ask("/metrics")[1],
            }
    finally:
        site.kill()
        for one in beside:
            one.send_signal(signal.SIGTERM)
        assert [0] * len(beside) == [one.wait(30) for one in beside]


def scaler_text(cloud: Cloud) -> str:
    """What a scaler shows after a look at queue and fleet, which it leaves as they are."""
    metrics = ScalerMetrics(cloud.settings.requests_queue, "balanced")
    seen = Observation(visible=3, inflight=1, delayed=0, oldest_wait_s=2.0)
    numbers = {"need": 1.0, "rate_per_s": 9.0, "boot_s": 5.0}
    fleet = FleetNow(workers=(Worker(id="i-1", phase="ready", launched_at=0.0),))
    decision = Decision(state=State(), kind="backlog", reason="Launch 1", numbers=numbers)
    metrics.observe(Step(now=1.0, leads=True, decision=decision, seen=seen, fleet=fleet, book=Book(), ended={}))
    return metrics.text()[0].decode()


def text_with(what: str, port: int) -> str:
    """What a process shows on a port, once that is among it; "" before."""
    with suppress(OSError):
        text = fetched(f"http://127.0.0.1:{port}/")
        return text if what in text else ""
    return ""


def test_each_metric_of_the_table_is_shown_with_its_labels(shown: dict[str, str]) -> None:
    exported = Exported.of(*shown.values())

    assert TABLE == {name: exported.labels.get(name) for name in TABLE}


def test_every_process_counts_its_calls_to_aws(shown: dict[str, str]) -> None:
    assert ["drops", "flower", "janitor", "page", "scaler", "worker"] == sorted(
        name for name, text in shown.items() if re.search(r"^irs_aws_requests_total\{.+\} [1-9]", text, re.MULTILINE)
    )


@pytest.mark.parametrize("name", ["service.json", "fleet.json"])
def test_a_dashboard_asks_for_what_processes_show(shown: dict[str, str], name: str) -> None:
    exported = Exported.of(*shown.values())

    assert [] == [missing for query in queries(name) for missing in exported.missing(query)]


def test_the_alerts_ask_for_what_processes_show(shown: dict[str, str]) -> None:
    exported = Exported.of(*shown.values())

    assert [] == [missing for query in alert_queries() for missing in exported.missing(query)]


@pytest.mark.parametrize(
    ("query", "missing"),
    [
        ("sum(irs_unknown_total)", ["irs_unknown_total"]),
        ('irs_images_total{colour="red"}', ["irs_images_total{colour}"]),
        ("sum by (colour) (irs_images_total)", ["irs_images_total{colour}"]),
    ],
)
def test_what_nobody_shows_is_noticed(shown: dict[str, str], query: str, missing: list[str]) -> None:
    assert missing == list(Exported.of(*shown.values()).missing(query))
