"""No image is lost, none fails and none is left over, whatever networks, clouds and kernels do meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import Fault, FaultProxy, Mode
from waiting import eventually
from workers import Running, Workers, picture, through

from irs.cloud import Cloud

IMAGES = 300
SQS = frozenset(
    {
        *("GetQueueUrl", "GetQueueAttributes", "ReceiveMessage", "SendMessage", "SendMessageBatch"),
        *("DeleteMessage", "DeleteMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch"),
    }
)
S3 = frozenset({"GET", "PUT"})
#: Of S3 a 403 is an answer: the image may not be read. An expired key is told by 400.
SCHEDULES: dict[frozenset[str], list[Mode]] = {
    SQS: ["500", "drop", "hang", "cut", "403"],
    S3: ["500", "drop", "hang", "cut", "503", "400"],
}


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with FaultProxy(cloud.settings.endpoint_url) as made:
        yield made


@pytest.fixture
def workers(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path, proxy: FaultProxy) -> Iterator[Workers]:
    with Workers(cloud, stack_environment | through(proxy.endpoint), tmp_path) as made:
        yield made


def bodies(count: int) -> list[bytes]:
    """The photos over and over, or pictures made up where there are none."""
    photos = sorted((Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "photos").glob("*.JPEG"))
    found = [photo.read_bytes() for photo in photos] or [picture(seed) for seed in range(100)]
    return [found[number % len(found)] for number in range(count)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("actions", [pytest.param(SQS, id="sqs"), pytest.param(S3, id="s3", marks=pytest.mark.slow)])
def test_each_image_is_answered_while_a_worker_is_killed_and_half_of_all_calls_fail(
    workers: Workers, proxy: FaultProxy, actions: frozenset[str]
) -> None:
    def start() -> Running:
        return workers.start(
            IRS_VISIBILITY_SECONDS="6", IRS_SLOTS="4", IRS_COMPUTE_THREADS="1", IRS_CACHE_ENTRIES="0", IRS_FETCH_SECONDS="2"
        )

    def asked() -> int:
        return sum(proxy.requests[action] for action in actions)

    doomed, _ = start(), start()
    # Each image takes its time, so that there is a middle.
    proxy.delay_s = 0.12
    job = workers.client.recognize([(f"{number}.jpg", body) for number, body in enumerate(bodies(IMAGES))])
    eventually(lambda: job.progress().done >= 20)
    doomed.kill()
    for mode in SCHEDULES[actions]:
        proxy.fault = Fault(mode, actions, share=0.5)
        seen = asked()
        eventually(lambda seen=seen: asked() > seen + 10, within_s=30)
    assert job.progress().done < IMAGES, "the faults came too late"
    proxy.fault = None
    proxy.refuse()
    proxy.accept()
    proxy.delay_s = 0.0
    start()

    found = job.wait(timeout=90)

    assert {"ok": IMAGES} == Counter(record.status for record in found)
    assert list(range(IMAGES)) == [record.number for record in found]
    eventually(workers.is_empty, within_s=20)
    assert (0, 0) == workers.depth(is_dead=True)
    # Killed with some in hand, and those alone came again.
    assert 1 <= sum(record.receives > 1 for record in found) <= 60
