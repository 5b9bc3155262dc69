"""The Celery result backend on records: shipped app, transport, pool and consumer, without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from irs.cloud import Cloud
from irs.records import record_key
from irs.results import RecordStore

HERE = Path(__file__).parent


@dataclass
class Caller:
    """Runs lines of Python as a caller of the service, in a process of their own."""

    cloud: Cloud
    environment: dict[str, str]

    def run(self, program: str) -> object:
        """Return what the program prints, as JSON."""
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=self.environment,
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def caller(cloud: Cloud, stack_environment: dict[str, str]) -> Caller:
    return Caller(cloud, stack_environment | {"IRS_WAIT_SECONDS": "1", "IRS_DRAIN_SECONDS": "1"})


@pytest.fixture
def worker(caller: Caller, tmp_path: Path) -> Iterator[None]:
    with open(tmp_path / "worker.log", "wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "results_probe",
                "worker",
                "-l",
                "INFO",
                "--without-gossip",
                "--without-mingle",
            ],
            env=caller.environment,
            cwd=HERE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield
    process.terminate()
    try:
        process.wait(30)
    finally:
        process.kill()
        sys.stdout.write((tmp_path / "worker.log").read_text())


def test_get_returns_the_record_of_a_delayed_image(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json, sys\n"
        "from irs.tasks import recognize\n"
        "result = recognize.delay('cat.jpg', name='Cat.jpg')\n"
        "record = result.get(timeout=30)\n"
        "print(json.dumps([result.id, result.state, record, [m for m in ('torch', 'PIL') if m in sys.modules]]))\n"
    )

    id, state, record, heavy = got  # type: ignore[misc]
    assert ["SUCCESS", [], "Cat.jpg"] == [state, heavy, record["image"]["name"]]
    assert json.loads(caller.cloud.output.get(record_key(id))) == record
    assert [] == list(caller.cloud.output.list("celery/"))


def test_get_raises_the_code_of_a_failed_record(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json\n"
        "from irs.errors import RecognitionFailed\n"
        "from irs.tasks import recognize\n"
        "result = recognize.delay('bad.jpg')\n"
        "try:\n"
        "    result.get(timeout=30)\n"
        "except RecognitionFailed as error:\n"
        "    print(json.dumps([result.state, error.error_code, error.message, error.task_id == result.id]))\n"
    )

    assert ["FAILURE", "not_an_image", "bad.jpg is no picture.", True] == got


def test_get_gives_up_after_its_timeout_when_no_worker_runs(caller: Caller) -> None:
    got = caller.run(
        "import json, time\n"
        "from celery.exceptions import TimeoutError\n"
        "from irs.tasks import recognize\n"
        "calls = []\n"
        "began = time.monotonic()\n"
        "try:\n"
        "    id = recognize.delay('cat.jpg').id\n"
        "    recognize.backend.wait_for(id, timeout=1.0, on_interval=lambda: calls.append(1))\n"
        "except TimeoutError as error:\n"
        "    print(json.dumps([str(error), time.monotonic() - began, len(calls)]))\n"
    )

    text, took_s, calls = got  # type: ignore[misc]
    assert "No result after 1.0 s" in text
    assert took_s < 10
    # With back-off: as often as each tenth of the interval it would be 20.
    assert 2 <= calls <= 10


def test_a_foreign_celery_app_sends_by_name_and_reads_the_result(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json, os\n"
        "from celery import Celery\n"
        "app = Celery('shop', broker=os.environ['IRS_ENDPOINT_URL'].replace('http://', 'sqs://'))\n"
        "app.conf.result_backend = 'irs.results.backend:Backend'\n"
        "app.conf.task_default_queue = os.environ['IRS_STACK'] + '-requests'\n"
        "app.conf.broker_transport_options = {'region': 'us-east-1', 'is_secure': False}\n"
        "record = app.send_task('irs.recognize', ['cat.jpg'], {'top_k': 1}).get(timeout=30)\n"
        "print(json.dumps(record['labels'][0]['label']))\n"
    )

    assert "cat.jpg" == got


def test_a_group_returns_its_records_in_order(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json\n"
        "from celery import group\n"
        "from irs.tasks import recognize\n"
        "result = group(recognize.s(f'{n}.jpg') for n in range(80)).apply_async()\n"
        "print(json.dumps([record['labels'][0]['label'] for record in result.get(timeout=60)]))\n"
    )

    assert [f"{n}.jpg" for n in range(80)] == got


def test_a_chord_calls_back_with_all_records(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json\n"
        "from celery import chord\n"
        "from irs.tasks import recognize\n"
        "from results_probe import labels\n"
        "result = chord([recognize.s('a.jpg'), recognize.s('b.jpg')])(labels.s())\n"
        "print(json.dumps(result.get(timeout=60)))\n"
    )

    assert ["a.jpg", "b.jpg"] == got


def test_a_chord_with_a_failed_image_fails_with_its_code(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json\n"
        "from celery import chord\n"
        "from celery.exceptions import ChordError\n"
        "from irs.tasks import recognize\n"
        "from results_probe import labels\n"
        "result = chord([recognize.s('a.jpg'), recognize.s('bad.jpg')])(labels.s())\n"
        "try:\n"
        "    result.get(timeout=60, follow_parents=False)\n"
        "except ChordError as error:\n"
        "    print(json.dumps(str(error)))\n"
    )

    assert "not_an_image" in str(got)


def test_a_chain_that_fails_at_its_first_image_tells_so_at_its_last(caller: Caller, worker: None) -> None:
    got = caller.run(
        "import json\n"
        "from celery import chain\n"
        "from irs.errors import RecognitionFailed\n"
        "from irs.tasks import recognize\n"
        "result = chain(recognize.si('bad.jpg'), recognize.si('cat.jpg')).apply_async()\n"
        "try:\n"
        "    result.get(timeout=60)\n"
        "except RecognitionFailed as error:\n"
        "    print(json.dumps([result.id, result.parent.id, error.task_id, error.error_code]))\n"
    )

    last, first, failed, code = got  # type: ignore[misc]
    assert [first, "not_an_image"] == [failed, code]
    assert RecordStore(caller.cloud).find(last) is None


def test_forgetting_a_result_leaves_the_record(caller: Caller, worker: None) -> None:
    id = caller.run(
        "import json\n"
        "from irs.tasks import recognize\n"
        "result = recognize.delay('cat.jpg')\n"
        "result.get(timeout=30)\n"
        "result.forget()\n"
        "print(json.dumps(result.id))\n"
    )

    assert RecordStore(caller.cloud).find(str(id)) is not None
