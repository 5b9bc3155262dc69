"""The whole loop on one machine: images in an empty system, instances of the embedded EC2, real workers, and back to zero."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from leftovers import processes_of
from waiting import eventually
from workers import Workers, picture, workers_on_a_stack, write_model

from irs.cloud import Cloud
from irs.local import EmbeddedCloud
from irs.local.ec2.control import Control
from irs.local.ec2.worker import make_template, template_name
from irs.models.registry import Registry
from irs.models.rolls import roll
from irs.settings import read_settings
from scaler import measure
from scaler import model as current
from scaler.book import Book
from scaler.service import Scaler
from scaler.simulate import Assumptions, simulate
from scaler.trace import make_trace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WITHIN_S = 300.0


@pytest.fixture
def workers(embedded: EmbeddedCloud, ec2: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    settings = {"IRS_WAIT_SECONDS": "2", "IRS_SCALER_CAP": "2", "IRS_SCALER_PERIOD_SECONDS": "2", "IRS_SCALER_BOOT_SECONDS": "10"}
    with workers_on_a_stack(embedded, tmp_path, **settings) as made:
        make_template(made.cloud, {**os.environ, "IRS_MODEL": made.model})
        monkeypatch.setenv("IRS_SCALER_TEMPLATE", template_name(made.cloud.settings.stack))
        yield made
        left = [one["InstanceId"] for one in instances(made.cloud) if one["State"]["Name"] != "terminated"]
        if left:
            made.cloud.client("ec2").terminate_instances(InstanceIds=left)
        eventually(lambda: not live(made.cloud), within_s=WITHIN_S)


def instances(cloud: Cloud) -> list[dict[str, dict[str, str]]]:
    filters = [{"Name": "tag:irs:fleet", "Values": [cloud.settings.stack]}]
    answer = cloud.client("ec2").describe_instances(Filters=filters)
    return [one for group in answer["Reservations"] for one in group["Instances"]]


def live(cloud: Cloud) -> list[str]:
    return [str(one["InstanceId"]) for one in instances(cloud) if one["State"]["Name"] != "terminated"]


@contextmanager
def scaling() -> Iterator[Scaler]:
    """A scaler that runs, in a thread of its own."""
    scaler, ended = Scaler(Cloud(read_settings())), threading.Event()
    thread = threading.Thread(target=scaler.run, args=(ended,), daemon=True)
    thread.start()
    try:
        yield scaler
    finally:
        ended.set()
        thread.join(timeout=60)


def instance_s(scaler: Scaler) -> float:
    """Seconds of instances that the scaler has counted."""
    return book(scaler).money.instance_s


def simulated_instance_s(scaler: Scaler, *, images: int) -> float:
    """The same load on the simulator, with the rate and the boot times that the scaler has measured."""
    policy, state = scaler.plan.policy, book(scaler).policy
    rate = measure.rate_per_s(state, policy, by_busy_time=True)
    boots = [took_s for kind in state.boots.values() for took_s in kind]
    world = Assumptions(
        slots=2, service_s=2 / rate, service_cv=0, boot_s=sum(boots) / len(boots), boot_sigma=0, lag_s=0, noise=0, min_bill_s=0,
        cap=policy.cap, tail_s=600,
    )  # fmt: skip
    settings = replace(policy, rate_per_s=rate)
    return simulate(make_trace("burst", {1: images}, horizon_s=2), "balanced", assumed=world, settings=settings).billed_s


def book(scaler: Scaler) -> Book:
    stored = scaler.store.read(0.0)
    assert stored is not None
    return stored.book


def test_300_images_in_an_empty_system_bring_workers_up_are_answered_once_and_leave_no_instance(workers: Workers) -> None:
    with scaling() as scaler:
        ids = workers.sent(*[picture(seed) for seed in range(300)])
        told = workers.answered(ids, within_s=WITHIN_S)
        launched = live(workers.cloud)
        eventually(lambda: not live(workers.cloud), within_s=WITHIN_S)

    assert ["ok"] * 300 == [record.status for record in told]
    assert {1} == {record.receives for record in told}
    assert 1 <= len(launched) <= 2
    assert workers.is_empty()
    assert simulated_instance_s(scaler, images=300) == pytest.approx(instance_s(scaler), rel=0.25)
    assert [] == [pid for one in instances(workers.cloud) for pid in processes_of(str(one["InstanceId"]))]


def test_row_4_every_image_is_answered_though_workers_are_told_to_leave_and_called_back_all_the_time(workers: Workers) -> None:
    with scaling() as scaler:
        ids = workers.sent(*[picture(seed) for seed in range(200)])
        eventually(lambda: any(workers.store.find_many(ids)), within_s=WITHIN_S)
        orders = scaler.orders
        for _ in range(10):
            for id in live(workers.cloud):
                orders.retire(id, launch="", why="a test")
            ids += workers.sent(*[picture(seed) for seed in range(len(ids), len(ids) + 20)])
            for id in live(workers.cloud):
                orders.revoke(id)
        told = workers.answered(ids, within_s=WITHIN_S)

    assert {"ok"} == {record.status for record in told}
    # What a worker that leaves has received and not begun, it hands back at once: one receive more, and no wait.
    assert {1, 2} >= {record.receives for record in told}


def pushed(cloud: Cloud, directory: Path, *, resize: int) -> Any:
    """Push and roll a model that has a digest of its own; return its address."""
    described = json.loads((directory / "model.json").read_text())
    described["preprocess"]["resize"] = resize
    (directory / "model.json").write_text(json.dumps(described))
    registry = Registry(cloud)
    return roll(registry, registry.push(directory)[0])[0]


@pytest.mark.parametrize("quota", [1, 2])
def test_workers_that_the_scaler_started_follow_a_roll_under_load_and_every_image_is_answered_once(
    workers: Workers, ec2: Control, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: int
) -> None:
    monkeypatch.setattr(current, "LOOK_S", 1.0)
    ec2.add(quota=quota)
    directory = write_model(tmp_path / "rolled")
    first = pushed(workers.cloud, directory, resize=72)
    monkeypatch.setenv("IRS_MODEL", f"s3://{first.bucket}/{first.name}")
    make_template(workers.cloud, dict(os.environ))
    with scaling():
        ids = workers.sent(*[picture(seed) for seed in range(40)])
        workers.answered(ids, within_s=WITHIN_S)

        second = pushed(workers.cloud, directory, resize=80)
        new = f"sha256:{second.digest}"

        def serves_new() -> bool:
            # The queue is never empty: nobody is sent home for want of work.
            if workers.depth()[0] < 50:
                ids.extend(workers.sent(*[picture(seed) for seed in range(50)]))
            last = workers.store.find_many(ids[-200:])
            return any(record is not None and record.model is not None and record.model.digest == new for record in last)

        eventually(serves_new, within_s=WITHIN_S, every_s=0.2)
        told = workers.answered(ids, within_s=WITHIN_S)
        eventually(lambda: not live(workers.cloud), within_s=WITHIN_S)

    digests = [record.model.digest for record in told if record.model is not None]
    assert {"ok"} == {record.status for record in told}
    assert {f"sha256:{first.digest}", new} == set(digests)
    # What a worker that drains has not begun, it hands back: one receive more, and no wait for a lease.
    assert {1, 2} >= {record.receives for record in told}
