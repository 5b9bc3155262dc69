"""The queues of a process's own: how they are made, that they go, and what the janitor does with those left behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from monitors import own_queues, subscriptions
from waiting import eventually

from irs.broker.ephemeral import RETENTION_S, EphemeralQueues, Kind, is_gone, new_name, prefix
from irs.broker.listener import Listener
from irs.cloud import Cloud
from irs.errors import QueueUnavailable
from irs.monitoring.janitor import Janitor

_OWNER = """
import sys
from irs.broker.ephemeral import queues_of
from irs.cloud import get_cloud
for kind in ("pidbox", "events", "reply"):
    queues_of(get_cloud()).make(kind)
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def queues(cloud: Cloud) -> Iterator[EphemeralQueues]:
    made = EphemeralQueues(cloud)
    yield made
    made.remove_all()


def owner(environment: dict[str, str], **more: str) -> subprocess.Popen[str]:
    """A process that has one queue of each kind until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        env={**environment, **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "made\n" == process.stdout.readline()
    return process


def end(process: subprocess.Popen[str], *, is_killed: bool = False) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    if is_killed:
        process.kill()
    process.stdin.close()
    process.wait(timeout=30)
    process.stdout.close()


def attributes(cloud: Cloud, url: str) -> dict[str, Any]:
    return dict(cloud.sqs().get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])


@pytest.mark.parametrize(("kind", "topic"), [("pidbox", "control"), ("events", "events"), ("reply", None)])
def test_a_queue_keeps_little_says_whose_it_is_and_lets_its_topic_alone_send(
    cloud: Cloud, queues: EphemeralQueues, kind: Kind, topic: str | None
) -> None:
    made = queues.make(kind)

    told, tags = attributes(cloud, made.url), cloud.sqs().list_queue_tags(QueueUrl=made.url)["Tags"]
    assert (str(RETENTION_S[kind]), "30") == (told["MessageRetentionPeriod"], told["VisibilityTimeout"])
    assert {"irs:system", "irs:kind", "irs:boot", "irs:owner", "irs:born", "irs:seen"} == set(tags)
    assert (kind, cloud.settings.stack) == (tags["irs:kind"], tags["irs:system"])
    if topic is None:
        assert "Policy" not in told
        assert [] == subscriptions(cloud)
        return
    (statement,) = json.loads(told["Policy"])["Statement"]
    (found,) = cloud.client("sns").list_subscriptions_by_topic(TopicArn=queues.places.topic_arn(topic))["Subscriptions"]
    assert (told["QueueArn"], "sqs:SendMessage") == (statement["Resource"], statement["Action"])
    assert {"ArnEquals": {"aws:SourceArn": found["TopicArn"]}} == statement["Condition"]
    assert (told["QueueArn"], made.subscription) == (found["Endpoint"], found["SubscriptionArn"])
    assert [made.name] == own_queues(cloud)


def test_a_removed_queue_is_gone_with_its_subscription_and_its_name(cloud: Cloud, queues: EphemeralQueues) -> None:
    first = queues.make("events")

    queues.remove(first)

    assert [] == own_queues(cloud) == subscriptions(cloud)
    assert first.name != queues.make("events").name


def test_a_process_that_ends_takes_its_queues_with_it(cloud: Cloud, stack_environment: dict[str, str]) -> None:
    process = owner(stack_environment)
    assert 3 == len(own_queues(cloud))

    end(process)

    assert [] == own_queues(cloud) == subscriptions(cloud)


def test_queues_are_not_made_anew_by_a_thread_that_outlives_them(cloud: Cloud, queues: EphemeralQueues) -> None:
    listener = Listener(cloud, queues, "pidbox", deliver=lambda _: None)

    queues.remove_all()

    with pytest.raises(QueueUnavailable):
        queues.make("pidbox")
    listener.end()
    assert [] == own_queues(cloud)


def test_janitor_removes_what_a_killed_owner_left_and_leaves_a_living_one(
    cloud: Cloud, stack_environment: dict[str, str]
) -> None:
    dead, living = owner(stack_environment, IRS_MONITORING_LEASE_SECONDS="3"), None
    try:
        left = own_queues(cloud)
        living = owner(stack_environment, IRS_MONITORING_LEASE_SECONDS="3")
        end(dead, is_killed=True)
        stays = sorted(set(own_queues(cloud)) - set(left))
        short = Cloud(cloud.settings.model_copy(update={"monitoring_lease_seconds": 3.0}))
        janitor, gone = Janitor(short), set[str]()

        eventually(lambda: gone.update(janitor.sweep().queues) or gone >= set(left), within_s=30, every_s=0.5)

        assert set(left) == gone
        assert stays == own_queues(cloud)
        assert sorted(name for name in stays if "-reply-" not in name) == subscriptions(cloud)
    finally:
        for process in (dead, living):
            if process is not None and process.poll() is None:
                end(process)


def test_janitor_removes_no_queue_that_is_not_some_processs_own(cloud: Cloud) -> None:
    stack, sqs = cloud.settings.stack, cloud.sqs()
    names = [new_name(stack, "pidbox"), f"{prefix(stack)}2-requests"]
    other = {"irs:system": f"{stack}-mon-2", "irs:kind": "pidbox", "irs:seen": "1"}
    sqs.create_queue(QueueName=names[0])
    sqs.create_queue(QueueName=names[1], tags=other)
    works = [cloud.settings.requests_queue, cloud.settings.requests_dead_queue, cloud.settings.responses_queue]

    swept = Janitor(cloud).sweep(now=time.time() + 1e6)

    assert () == swept.queues
    assert sorted(names) == own_queues(cloud)
    assert all(sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in works)


def test_janitor_forgets_a_subscription_whose_queue_was_missing_twice(cloud: Cloud, queues: EphemeralQueues) -> None:
    lost = queues.make("events")
    cloud.sqs().delete_queue(QueueUrl=lost.url)
    janitor = Janitor(cloud)

    first, second = janitor.sweep(), janitor.sweep()

    assert ((), (lost.name,)) == (first.subscriptions, second.subscriptions)
    assert [] == subscriptions(cloud)


def test_janitor_as_a_command_goes_one_round_and_answers_in_json(cloud: Cloud, stack_environment: dict[str, str]) -> None:
    process = owner(stack_environment)
    end(process, is_killed=True)
    left = own_queues(cloud)
    environment = {**stack_environment, "IRS_MONITORING_LEASE_SECONDS": "3"}
    command = [sys.executable, "-m", "irs.cli", "janitor", "--once"]

    def swept() -> Any:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert 0 == done.returncode, done.stderr
        return json.loads(done.stdout)["queues"]

    assert left == sorted(eventually(swept, within_s=30))
    assert [] == own_queues(cloud) == subscriptions(cloud)


def test_ten_channels_share_their_clients(cloud: Cloud) -> None:
    from kombu import Connection

    with Connection("sqs://", transport="irs.broker.fanout:Transport") as connection:
        channels = [connection.channel() for _ in range(10)]
        for channel in channels:
            channel.cloud = cloud

        assert 1 == len({id(channel.sqs()) for channel in channels})
        assert 1 == len({id(channel.queues.sns()) for channel in channels})


def test_what_sqs_says_of_a_queue_that_is_gone_is_understood(cloud: Cloud, queues: EphemeralQueues) -> None:
    made = queues.make("reply")
    queues.remove(made)

    with pytest.raises(Exception, match=r"(?i)queue") as refused:
        cloud.sqs().receive_message(QueueUrl=made.url)

    assert is_gone(refused.value)
