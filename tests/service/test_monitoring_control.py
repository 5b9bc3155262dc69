"""Remote control over SNS and SQS: commands to all, one reply from each, and no queue left behind."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from monitors import Crew, crew_on_a_stack, own_queues, subscriptions
from waiting import eventually

from irs.broker.ephemeral import new_name
from irs.local import EmbeddedCloud


def boxes(crew: Crew) -> list[str]:
    return [name for name in own_queues(crew.cloud) if "-pidbox-" in name]


def test_ping_gets_one_reply_of_each_worker_and_waits_no_longer(crew: Crew) -> None:
    replies = crew.do("control.ping(timeout=20)")

    assert [{"irs@w0": {"ok": "pong"}}, {"irs@w1": {"ok": "pong"}}] == sorted(replies, key=str)
    assert crew.commander.took_s < 10


def test_a_destination_alone_answers_and_the_wait_ends_with_it(crew: Crew) -> None:
    replies = crew.do("control.ping(destination=['irs@w1'], timeout=20)")

    assert [{"irs@w1": {"ok": "pong"}}] == replies
    assert crew.commander.took_s < 10


@pytest.mark.parametrize(
    "method",
    ["active", "active_queues", "clock", "conf", "registered", "report", "reserved", "revoked", "scheduled", "stats"],
)
def test_inspect_hears_each_worker_once(crew: Crew, method: str) -> None:
    replies = crew.do(f"inspect('{method}')")

    assert {"irs@w0", "irs@w1"} == set(replies)
    assert not any(isinstance(reply, dict) and "error" in reply for reply in replies.values())


def test_celery_on_the_command_line_sees_both_workers(crew: Crew) -> None:
    status = crew.watched.celery("status")

    assert 0 == status.returncode, status.stderr
    assert "2 nodes online" in status.stdout


def test_fifty_commands_from_eight_threads_share_one_queue_and_each_gets_its_own_reply(crew: Crew) -> None:
    crew.do("control.ping(timeout=20)")
    crew.proxy.counts.clear()

    told = crew.do("ask_from_threads(50, 8)")

    assert [[worker] for worker, _ in told] == [list(*replies) for _, replies in told]
    assert 0 == crew.proxy.of("CreateQueue")


def test_a_reply_to_a_process_that_is_gone_makes_no_queue(crew: Crew) -> None:
    gone, before = new_name(crew.cloud.settings.stack, "reply"), own_queues(crew.cloud)
    command = {"method": "ping", "arguments": {}, "destination": None, "ticket": "t"}
    reply_to = {"exchange": "reply.celery.pidbox", "routing_key": gone}
    crew.proxy.counts.clear()

    crew.do(f"publish_raw('celery.pidbox', {command | {'reply_to': reply_to}!r})")

    eventually(lambda: crew.proxy.counts["SendMessageBatch reply"] >= 2, within_s=30)
    crew.do("control.ping(timeout=20)")
    assert before == [name for name in own_queues(crew.cloud) if name in before]
    assert gone not in own_queues(crew.cloud)


def test_a_command_cannot_make_a_worker_write_to_a_queue_of_tasks(crew: Crew) -> None:
    crew.proxy.counts.clear()
    command = {"method": "ping", "arguments": {}, "destination": None, "ticket": "t"}
    reply_to = {"exchange": "reply.celery.pidbox", "routing_key": crew.cloud.settings.requests_queue}

    crew.do(f"publish_raw('celery.pidbox', {command | {'reply_to': reply_to}!r})")

    eventually(lambda: "no_reply_queue" in crew.watched.said("w0"), within_s=30)
    assert 0 == crew.proxy.counts["SendMessageBatch requests"]


@pytest.mark.parametrize("body", [["no", "command"], "text", {"method": 3}, {"method": "no_such", "arguments": {}}, {}])
def test_what_is_no_command_ends_no_worker_and_costs_no_queue(crew: Crew, body: object) -> None:
    before = boxes(crew)

    crew.do(f"publish_raw('celery.pidbox', {body!r})")

    assert 2 == len(crew.do("control.ping(timeout=20)"))
    assert before == boxes(crew)


def test_a_stale_command_is_not_obeyed(crew: Crew) -> None:
    command = {"method": "shutdown", "arguments": {}, "destination": ["irs@w0"]}

    crew.do(f"publish_raw('celery.pidbox', {command!r}, born={time.time() - 61})")

    eventually(lambda: "stale_command" in crew.watched.said("w0"), within_s=30)
    assert 2 == len(crew.do("control.ping(timeout=20)"))


def test_worker_whose_queue_is_deleted_listens_on_another(crew: Crew) -> None:
    first, *_ = boxes(crew)
    crew.proxy.counts.clear()

    crew.cloud.sqs().delete_queue(QueueUrl=crew.cloud.sqs().get_queue_url(QueueName=first)["QueueUrl"])

    eventually(lambda: len(boxes(crew)) == 2 and first not in boxes(crew), within_s=20)
    assert 2 == len(crew.do("control.ping(timeout=20)"))
    assert first not in subscriptions(crew.cloud)
    # The poll that found it gone, and the delete of its owner; the other worker's may be among them.
    assert crew.proxy.counts["ReceiveMessage pidbox"] < 10


def test_pool_grows_and_shrinks_by_slots_and_so_does_the_number_of_images_in_work(crew: Crew) -> None:
    grown = crew.do("control.pool_grow(2, destination=['irs@w0'], reply=True, timeout=20)")
    larger = crew.do("inspect('stats', destination=['irs@w0'])")["irs@w0"]["pool"]["max-concurrency"]
    most_of_larger = most_in_work(crew)
    crew.do("control.pool_shrink(2, destination=['irs@w0'], reply=True, timeout=20)")
    smaller = crew.do("inspect('stats', destination=['irs@w0'])")["irs@w0"]["pool"]["max-concurrency"]
    most_of_smaller = most_in_work(crew)

    assert [{"irs@w0": {"ok": "pool will grow"}}] == grown
    assert (6, 4) == (larger, smaller) == (most_of_larger, most_of_smaller)


def most_in_work(crew: Crew) -> int:
    """Send more than two workers hold in work at once; return the most that one had, until all were done."""
    ids, seen = crew.do("send(30, seconds=0.3)"), [0]
    said = lambda: crew.watched.said("w0") + crew.watched.said("w1")  # noqa: E731

    def is_over() -> bool:
        seen.append(len(crew.do("inspect('active', destination=['irs@w0'])")["irs@w0"]))
        return all(f"[{id}] succeeded" in said() for id in ids)

    eventually(is_over, within_s=40)
    return max(seen)


def test_a_rate_limit_is_set_and_a_wrong_one_refused(crew: Crew) -> None:
    refused = crew.do("control.rate_limit('watched.work', 'often', reply=True, timeout=20)")
    taken = crew.do("control.rate_limit('watched.work', '0', reply=True, timeout=20)")

    assert all("error" in reply for one in refused for reply in one.values())
    assert 2 == len(taken)
    assert all("ok" in reply for one in taken for reply in one.values())


def test_worker_leaves_a_queue_when_it_is_told_to_and_takes_from_it_again(crew: Crew) -> None:
    queue = crew.cloud.settings.requests_queue
    said = lambda: crew.watched.said("w0") + crew.watched.said("w1")  # noqa: E731

    crew.do(f"control.cancel_consumer('{queue}', reply=True, timeout=20)")
    eventually(lambda: not any(crew.do("inspect('active_queues')").values()), within_s=20)
    ids = crew.do("send(10)")
    crew.proxy.counts.clear()
    eventually(lambda: crew.do("inspect('ping')") and crew.proxy.counts["ReceiveMessage pidbox"] >= 4, within_s=20)
    before = [id for id in ids if f"[{id}] succeeded" in said()]
    crew.do(f"control.add_consumer('{queue}', reply=True, timeout=20)")

    # Sooner than the lease of a message that a poll under way brought and dropped: 30 s.
    eventually(lambda: all(f"[{id}] succeeded" in said() for id in ids), within_s=20)
    assert [] == before
    eventually(lambda: {1} == {len(queues) for queues in crew.do("inspect('active_queues')").values()}, within_s=10)


def test_a_revoked_task_runs_on_no_worker_and_is_told_to_those_born_later(crew: Crew) -> None:
    told = crew.do("control.revoke('00000000-aaaa-bbbb-cccc-000000000001', reply=True, timeout=20)")

    assert 2 == len(told)
    assert ["00000000-aaaa-bbbb-cccc-000000000001"] == crew.do("inspect('revoked')")["irs@w1"]
    stored = [one.key for one in crew.cloud.output.list("cancelled/")]
    assert [".00000000-aaaa-bbbb-cccc-000000000001"] == [key[len("cancelled/") + 26 :] for key in stored]
    record = json.loads(crew.cloud.output.get("tasks/00000000-aaaa-bbbb-cccc-000000000001.json"))
    assert "cancelled" == record["status"]


@pytest.mark.slow
def test_workers_that_end_by_either_way_leave_no_queue(embedded: EmbeddedCloud, tmp_path: Path) -> None:
    with crew_on_a_stack(embedded, tmp_path) as crew:
        assert Counter({"pidbox": 2}) == Counter(name.split("-mon-")[1].split("-")[0] for name in own_queues(crew.cloud))

        replies = crew.do("control.shutdown(destination=['irs@w0'], reply=True, timeout=20)")
        by_command = crew.watched.processes["w0"].wait(timeout=40)
        by_signal = crew.watched.stop("w1")
        cloud = crew.cloud

    assert [{"irs@w0": {"ok": "draining, then ending"}}] == replies
    assert (0, 0) == (by_command, by_signal)
    # The commanding process has ended too.
    assert [] == own_queues(cloud)
    assert [] == subscriptions(cloud)
