"""News through a real response queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from faults import Fault, FaultProxy
from waiting import eventually

from irs.cloud import Cloud
from irs.records import ImageFacts, NewsItem, Record
from irs.results.news import NewsReader, NewsSender
from irs.settings import read_settings


def a_record(id: str, name: str = "cat.jpg") -> Record:
    return Record(task_id=id, status="ok", image=ImageFacts(name=name, key="k"))


def take(cloud: Cloud, count: int) -> list[NewsItem]:
    """Return the news once ``count`` are there."""
    reader, came = NewsReader(cloud), list[NewsItem]()
    eventually(lambda: (came.extend(reader.receive(wait_s=1)), len(came) >= count)[1])
    return came


@pytest.fixture
def proxy(cloud: Cloud) -> Iterator[FaultProxy]:
    with FaultProxy(cloud.settings.endpoint_url) as made:
        yield made


@pytest.fixture
def proxied(cloud: Cloud, proxy: FaultProxy) -> Cloud:
    return Cloud(read_settings(endpoint_url=proxy.endpoint, stack=cloud.settings.stack, news_seconds=0.5))


def test_reader_gets_each_record_once_and_leaves_an_empty_queue(cloud: Cloud) -> None:
    sender = NewsSender(cloud)
    for n in range(120):
        sender.add(a_record(f"t{n}"))
    sender.close()

    came = take(cloud, 120)

    assert {NewsItem.of(a_record(f"t{n}")) for n in range(120)} == set(came)
    assert 120 == len(came)
    assert [] == NewsReader(cloud).receive(wait_s=0)


def test_sender_gathers_a_burst_into_few_messages(proxied: Cloud, proxy: FaultProxy) -> None:
    sender = NewsSender(proxied)
    for n in range(120):
        sender.add(a_record(f"t{n}"))

    take(proxied, 120)

    # The leading edge alone, then full ones.
    assert proxy.requests["SendMessage"] <= 4
    sender.close()


def test_sender_sends_the_first_after_a_quiet_time_at_once(cloud: Cloud) -> None:
    slow = Cloud(read_settings(endpoint_url=cloud.settings.endpoint_url, stack=cloud.settings.stack, news_seconds=5))
    sender = NewsSender(slow)
    began = time.monotonic()
    sender.add(a_record("a"))

    came = take(cloud, 1)

    assert ["a"] == [item.task_id for item in came]
    assert time.monotonic() - began < slow.settings.news_seconds
    sender.close()


def test_sender_keeps_every_message_small_when_names_are_long(cloud: Cloud) -> None:
    sender = NewsSender(cloud)
    for n in range(50):
        sender.add(a_record(f"{n}" + "x" * 3000, name="ü" * 100_000))
    sender.close()

    came = take(cloud, 50)

    assert 50 == len(came)
    assert {500} == {len(item.name or "") for item in came}


def test_sender_neither_raises_nor_blocks_while_the_queue_fails(proxied: Cloud, proxy: FaultProxy) -> None:
    proxy.fault = Fault("500", frozenset({"SendMessage"}))
    sender = NewsSender(proxied)
    began = time.monotonic()
    for n in range(1000):
        sender.add(a_record(f"t{n}"))
    took_s = time.monotonic() - began
    eventually(lambda: proxy.requests["SendMessage"] > 0)
    proxy.fault = None

    came = take(proxied, 1000)

    assert 1000 == len({item.task_id for item in came})
    assert took_s < 2
    sender.close()


def test_reader_skips_what_is_no_news(cloud: Cloud) -> None:
    url = cloud.queue_url(cloud.settings.responses_queue)
    cloud.sqs().send_message(QueueUrl=url, MessageBody="hello")
    sender = NewsSender(cloud)
    sender.add(replace(a_record("a"), sure=True))
    sender.close()

    came = take(cloud, 1)

    assert [("a", True)] == [(item.task_id, item.sure) for item in came]
