"""The scaler on the embedded cloud: its store, its orders, its process, and instances that really start and end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from waiting import eventually

from irs.cloud import Cloud
from irs.errors import SetupError
from irs.local.ec2.control import Control
from irs.local.ec2.worker import make_template
from irs.monitoring.beats import read_beats
from irs.monitoring.status import read_status
from irs.records import SCALER_STATE_KEY, Beat, Order, beat_key, order_key
from irs.settings import read_settings
from scaler.book import Book, LeaseFacts, Money
from scaler.orders import S3Orders
from scaler.service import Scaler
from scaler.store import Conflict, S3Store

WITHIN_S = 60.0
SLEEPS = "#!/bin/sh\nexec sleep 600\n"


@pytest.fixture
def fleet(cloud: Cloud, ec2: Control, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A stack whose scaler launches instances that do nothing: what their workers say, the test says for them."""
    name = make_template(cloud, {})
    client = cloud.client("ec2")
    made = client.create_launch_template_version(
        LaunchTemplateName=name, SourceVersion="$Default", LaunchTemplateData={"UserData": _base64(SLEEPS)}
    )["LaunchTemplateVersion"]
    client.modify_launch_template(LaunchTemplateName=name, DefaultVersion=str(made["VersionNumber"]))
    for variable, value in {
        "IRS_SCALER_TEMPLATE": name, "IRS_SCALER_CAP": "3", "IRS_SCALER_PERIOD_SECONDS": "1", "IRS_SCALER_LEASE_SECONDS": "3",
        "IRS_SCALER_BOOT_SECONDS": "1", "IRS_PRICE_PER_HOUR": "3600",
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, value)
    yield Cloud(read_settings())
    ids = [one["InstanceId"] for one in _instances(cloud) if one["State"]["Name"] != "terminated"]
    if ids:
        client.terminate_instances(InstanceIds=ids)
    eventually(lambda: all(one["State"]["Name"] == "terminated" for one in _instances(cloud)), within_s=WITHIN_S)


def _base64(text: str) -> str:
    import base64

    return base64.b64encode(text.encode()).decode()


def _instances(cloud: Cloud) -> list[dict[str, object]]:
    filters = [{"Name": "tag:irs:fleet", "Values": [cloud.settings.stack]}]
    answer = cloud.client("ec2").describe_instances(Filters=filters)
    return [one for group in answer["Reservations"] for one in group["Instances"]]


def states(cloud: Cloud) -> list[str]:
    return [one["State"]["Name"] for one in _instances(cloud)]  # type: ignore[index]


def say(cloud: Cloud, id: str, phase: str, **more: object) -> None:
    beat = Beat(
        instance=id, boot="b", host="h", pid=1, phase=phase, at=time.time(), started=time.time() - 2,  # type: ignore[arg-type]
        ready_after_s=1.0, slots=2, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    cloud.output.put(beat_key(id), beat.to_bytes(), content_type="application/json")


def send(cloud: Cloud, count: int) -> None:
    url = cloud.queue_url(cloud.settings.requests_queue)
    for _ in range(count):
        cloud.sqs().send_message(QueueUrl=url, MessageBody="an image")


@contextmanager
def running(cloud: Cloud, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "irs.cli", "scaler", "run", "--json-logs", *arguments]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


# The store


def test_store_lets_one_of_two_writes_win_and_tells_the_other(cloud: Cloud) -> None:
    first, second = S3Store(cloud), S3Store(cloud)
    book = Book(lease=LeaseFacts(holder="a", nonce="n", epoch=1), money=Money(day="2026-01-31", usd=1.25))

    made = first.write(book, None, 0.0)
    with pytest.raises(Conflict):
        second.write(book, None, 0.0)
    changed = first.write(replace(book, serial=5), made, 0.0)
    with pytest.raises(Conflict):
        second.write(book, made, 0.0)

    stored = second.read(100.0)
    assert stored is not None
    assert (changed, 5, 1.25) == (stored.etag, stored.book.serial, stored.book.money.usd)


def test_store_reads_none_before_the_first_write_and_says_so_of_what_is_no_book(cloud: Cloud) -> None:
    store = S3Store(cloud)
    before = store.read(0.0)
    cloud.output.put(SCALER_STATE_KEY, b"rubbish", content_type="text/plain")

    stored = store.read(0.0)

    assert before is None
    assert stored is not None
    assert not stored.is_readable


def test_probe_accepts_a_store_with_conditional_writes_and_leaves_nothing(cloud: Cloud) -> None:
    S3Store(cloud).probe()

    assert [] == [one.key for one in cloud.output.list("scaler/")]


def test_probe_refuses_a_store_that_ignores_conditions(cloud: Cloud) -> None:
    store = S3Store(cloud)
    heedless = cloud.client("s3", read_seconds=4.0, attempts=1, pool=4)
    # As a store that has never heard of them: the conditions are taken off on the way.
    heedless.meta.events.register(
        "provide-client-params.s3.PutObject",
        lambda params, **_: {name: value for name, value in params.items() if name not in ("IfMatch", "IfNoneMatch")},
    )

    with pytest.raises(SetupError, match="ignores conditional writes"):
        store.probe()
    assert [] == [one.key for one in cloud.output.list("scaler/")]


def test_orders_stand_where_workers_read_them_until_they_are_revoked(cloud: Cloud) -> None:
    orders = S3Orders(cloud, wall=lambda: 1_790_000_000.0)
    orders.retire("i-1", launch="s-1-1", why="none is needed")

    order = Order.from_json(cloud.output.get(order_key("i-1")))
    standing = orders.standing()
    orders.revoke("i-1")
    orders.revoke("i-1")

    assert Order(order="retire", launch="s-1-1", since=1_790_000_000.0, why="none is needed") == order
    assert ({"i-1"}, set()) == (standing, orders.standing())


def test_forgotten_instance_leaves_neither_beat_nor_order(cloud: Cloud) -> None:
    orders = S3Orders(cloud, wall=time.time)
    say(cloud, "i-1", "drained")
    orders.retire("i-1", launch="", why="")

    orders.forget("i-1")

    assert ([], set()) == (read_beats(cloud), orders.standing())


# The loop on real calls


def test_scaler_launches_for_the_queue_retires_when_it_is_empty_and_ends_only_who_has_drained(fleet: Cloud) -> None:
    scaler = Scaler(fleet)
    send(fleet, 1)
    eventually(lambda: scaler.step().launched, within_s=WITHIN_S, every_s=0.5)
    (id,) = eventually(lambda: [str(one["InstanceId"]) for one in _instances(fleet)], within_s=WITHIN_S)

    say(fleet, id, "busy", busy_slots=1)
    fleet.sqs().purge_queue(QueueUrl=fleet.queue_url(fleet.settings.requests_queue))
    # A worker of less than a minute is not sent home: its first minute is paid.
    scaler.loop.plan = replace(scaler.plan, policy=replace(scaler.plan.policy, min_age_s=0.0))
    say(fleet, id, "ready", completed=1)
    order = eventually(lambda: scaler.step() and id in S3Orders(fleet, wall=time.time).standing(), within_s=WITHIN_S, every_s=0.5)
    before = states(fleet)
    say(fleet, id, "drained", completed=1)
    eventually(lambda: scaler.step() and states(fleet) == ["terminated"], within_s=WITHIN_S, every_s=0.5)

    assert order
    assert before[0] in ("pending", "running")


def test_launch_whose_answer_is_lost_is_one_instance(fleet: Cloud, ec2: Control) -> None:
    # Its dry run at the start is a RunInstances too.
    scaler = Scaler(fleet)
    ec2.add(rules=[{"action": "RunInstances", "lose": True}])
    send(fleet, 1)

    eventually(lambda: scaler.step() and ec2.faults()["rules"][0]["times"] == 0, within_s=WITHIN_S, every_s=0.5)
    for _ in range(3):
        scaler.step()

    assert 1 == len(_instances(fleet))


def test_cap_holds_while_new_instances_are_not_listed_and_scalers_come_and_go(fleet: Cloud, ec2: Control) -> None:
    ec2.add(unseen_seconds=5.0)
    send(fleet, 200)
    for _ in range(4):
        scaler = Scaler(fleet)
        eventually(lambda scaler=scaler: scaler.step().leads, within_s=WITHIN_S, every_s=0.3)
        for _ in range(3):
            scaler.step()
        scaler.loop.close()

    eventually(lambda: len(_instances(fleet)) == 3, within_s=WITHIN_S)
    assert 3 == len(_instances(fleet))


def test_quota_of_the_account_is_met_once_and_told(fleet: Cloud, ec2: Control) -> None:
    ec2.add(quota=len([s for s in _all_states(fleet) if s not in ("terminated", "stopped")]))
    scaler = Scaler(fleet)
    send(fleet, 10)
    kinds = [eventually(scaler.step, within_s=WITHIN_S).decision.kind]

    eventually(lambda: kinds.append(scaler.step().decision.kind) or "quota" in kinds, within_s=WITHIN_S, every_s=0.5)

    assert [] == _instances(fleet)


def _all_states(cloud: Cloud) -> list[str]:
    answer = cloud.client("ec2").describe_instances()
    return [one["State"]["Name"] for group in answer["Reservations"] for one in group["Instances"]]


# The process


def test_process_tells_health_metrics_and_status_and_hands_its_lease_on_at_sigterm(
    fleet: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRS_SCALER_PORT", "0")
    send(fleet, 1)
    with running(fleet) as process:
        assert process.stderr is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(iter(process.stderr.readline, "")), daemon=True)  # type: ignore[union-attr]
        reader.start()
        address = eventually(lambda: re.search(r"http://127\.0\.0\.1:\d+", "".join(lines)), within_s=WITHIN_S)[0]
        metrics = eventually(
            lambda: (text := _get(f"{address}/metrics")) and "irs_scaler_leads 1.0" in text and text, within_s=WITHIN_S
        )
        eventually(lambda: len(_instances(fleet)) == 1, within_s=WITHIN_S)
        ready, alive = _get(f"{address}/readyz"), _get(f"{address}/healthz")
        seen = eventually(lambda: read_status(fleet).scaler, within_s=WITHIN_S)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=WITHIN_S)
        reader.join(timeout=WITHIN_S)

    stored = S3Store(fleet).read(0.0)
    assert (0, "ok\n", "ok\n") == (code, ready, alive)
    assert f'celery_queue_length{{queue_name="{fleet.settings.requests_queue}"}}' in metrics
    assert seen.cap == 3
    assert seen.reason
    assert stored is not None
    assert (0.0, "") == (stored.book.lease.ttl_s, stored.book.lease.holder)
    decided = [json.loads(line) for line in lines if '"decided"' in line]
    assert any(one["launch"] == 1 and one["reason"].startswith("Launch 1") for one in decided)


def test_dry_run_decides_and_changes_nothing(fleet: Cloud) -> None:
    send(fleet, 30)
    scaler = Scaler(fleet, dry=True)

    decisions = [scaler.step().decision for _ in range(14)]

    assert any(one.launch or one.kind == "adopting" for one in decisions)
    assert ([], None) == (_instances(fleet), S3Store(fleet).read(0.0))


def test_process_without_a_fleet_says_what_to_set(cloud: Cloud) -> None:
    with running(cloud) as process:
        _, said = process.communicate(timeout=WITHIN_S)

    assert 2 == process.returncode
    assert "set IRS_SCALER_TEMPLATE" in said


def _get(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return str(error.read().decode())
