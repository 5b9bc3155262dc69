"""Shows that the tests of monitoring fail without what they test: each cure is switched off alone, in a copy of
what is committed.

``python tools/cures.py [WORD…]`` writes a line a cure (those with a word in their name alone) and ends with 1 if a test
went well without its cure. The rows are those of the design's «tests that must fail without each cure». Takes half an hour.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 200


@dataclass(frozen=True, slots=True)
class Cure:
    """What is switched off: in ``file`` the text ``on`` becomes ``off``; ``tests`` are pytest's names in ``tests/``.

    Attributes:
        also: a second file, ``on`` and ``off``, where two places cure the same.
    """

    name: str
    file: str
    on: str
    off: str
    tests: str
    also: tuple[str, str, str] | None = None

    def switch_off(self, folder: Path) -> dict[Path, str]:
        """Write it into the copy; return what stood there before."""
        stood: dict[Path, str] = {}
        for file, on, off in ((self.file, self.on, self.off), *((self.also,) if self.also else ())):
            text = (folder / file).read_text()
            if text.count(on) != 1:
                sys.exit(f"{self.name}: {file} does not hold once what is to be switched off: put it right in tools/cures.py.")
            stood[folder / file] = text
            (folder / file).write_text(text.replace(on, off))
        return stood


CONTROL, EVENTS = "service/test_monitoring_control.py", "service/test_monitoring_events.py"
QUEUES, FAULTS, COST = "service/test_monitoring_queues.py", "service/test_monitoring_faults.py", "service/test_monitoring_cost.py"
CANCEL, FLOWER, PARTS = "service/test_monitoring_cancel.py", "service/test_monitoring_flower.py", "unit/test_monitoring_parts.py"
PING = f"{CONTROL}::test_ping_gets_one_reply_of_each_worker_and_waits_no_longer"
ONCE = f"{EVENTS}::test_a_watcher_sees_each_step_of_two_hundred_tasks_once"
SHAPE = f"{QUEUES}::test_a_queue_keeps_little_says_whose_it_is_and_lets_its_topic_alone_send"
GRACEFUL = f"{CONTROL}::test_workers_that_end_by_either_way_leave_no_queue"
WIDE = f"{COST}::test_starting_workers_costs_as_much_each_however_many_there_are"
LATER = f"{CANCEL}::test_what_is_cancelled_by_any_of_the_four_ways_is_answered_by_no_worker_born_later"
HELD = "service/test_worker_life_cancel.py::test_an_image_is_dropped_without_a_record_at_each_stage_it_is_cancelled_before"

CURES = (
    Cure(
        "1 the transport says that it has fan-out",
        "irs/broker/fanout.py",
        'implements = transport.Transport.implements.extend(exchange_type=frozenset({"direct", "fanout"}))',
        "implements = transport.Transport.implements",
        PING,
    ),
    Cure(
        "2 the exchange of events is a fan-out",
        "irs/broker/fanout.py",
        '"fanout" if exchange in EXCHANGES else type',
        '"fanout" if exchange == "celery.pidbox" else type',
        ONCE,
    ),
    Cure("3 replies go to their queue by its name", "irs/monitoring/control.py", "def _publish_reply(", "def _unused(", PING),
    Cure(
        "4 who watches receives and deletes without an event loop",
        "irs/broker/fanout.py",
        "        if kind_of(queue) is None:\n            super()._get_bulk",
        "        if True:\n            super()._get_bulk",
        ONCE,
        also=("irs/broker/transport.py", "    def _delete_message(", "    def _unused("),
    ),
    Cure(
        "5 Flower's page of the broker",
        "irs/monitoring/flower.py",
        "flower.utils.broker.Broker.__new__ = broker\n",
        "pass\n",
        f"{FLOWER}::test_the_broker_page_counts_all_queues_of_the_stack",
    ),
    Cure(
        "5 Flower is open to others with a password alone",
        "irs/monitoring/flower.py",
        "    if has_password or is_loopback(address):\n",
        "    if True:\n",
        f"{FLOWER}::test_flower_refuses_to_be_open_to_others_without_a_password",
    ),
    Cure(
        "5 Flower's /metrics asks for the password",
        "irs/monitoring/flower.py",
        '        r"/metrics": (r"/metrics", _Metrics),\n',
        "",
        f"{FLOWER}::test_flower_with_a_password_shows_nothing_without_it",
    ),
    Cure(
        "6 a poll lasts no longer than its caller waits",
        "irs/broker/fanout.py",
        "WAIT_S if self._timeout_s is None else min(WAIT_S, math.ceil(self._timeout_s))",
        "WAIT_S",
        f"{EVENTS}::test_a_poll_for_events_lasts_no_longer_than_its_caller_waits",
    ),
    Cure(
        "7 names that no queue had before: a worker started again",
        "irs/broker/ephemeral.py",
        "{kind}-{str(ULID()).lower()}",
        "{kind}-{(__import__('sys').argv[5:6] or [str(ULID()).lower()])[0].replace('@', '-')}",
        f"{FAULTS}::test_worker_does_not_obey_what_its_killed_predecessor_was_told",
    ),
    Cure(
        "7 names that no queue had before: short, and each once",
        "irs/broker/ephemeral.py",
        "{kind}-{str(ULID()).lower()}",
        "{kind}-{socket.gethostname()}",
        f"{PARTS}::test_names_are_short_enough_for_sqs_and_never_the_same",
    ),
    Cure(
        "8 the engine asks what is cancelled",
        "irs/worker/cancelled.py",
        "return bool(ids) and (",
        "return False and (",
        LATER,
    ),
    Cure(
        "8 the engine asks at each stage",
        "irs/worker/engine.py",
        "        if task_id not in self._cancelled:\n",
        "        if True:\n",
        HELD,
    ),
    Cure(
        "8 what is revoked is stored first",
        "irs/monitoring/control.py",
        "        if command in _LASTING:\n",
        "        if False:\n",
        f"{LATER} {FLOWER}::test_what_flower_revokes_is_stored_for_workers_born_later",
    ),
    Cure(
        "8 who cancels tells workers at once",
        "irs/client/broadcast.py",
        "    telling.start()\n    telling.join(WAIT_S)\n",
        "",
        f"{CANCEL}::test_irs_cancel_tells_all_workers_of_a_job_and_of_an_image",
    ),
    Cure(
        "9 the pool grows and shrinks",
        "irs/worker/pool.py",
        "    def grow(",
        "    def _grow(",
        f"{CONTROL}::test_pool_grows_and_shrinks_by_slots_and_so_does_the_number_of_images_in_work",
    ),
    Cure(
        "10 channels share their clients",
        "irs/cloud.py",
        "            if key not in self._made:\n                config",
        "            if True:\n                config",
        f"{QUEUES}::test_ten_channels_share_their_clients",
    ),
    Cure(
        "11 no channel lists all queues",
        "irs/broker/transport.py",
        "    def _update_queue_cache(",
        "    def _unused(",
        WIDE,
    ),
    Cure(
        "12 no worker looks at its neighbours' subscriptions",
        "irs/broker/fanout.py",
        "        # A queue is subscribed when it is made.\n        pass",
        '        self.queues.sns().list_subscriptions_by_topic(TopicArn=self.queues.places.topic_arn("control"))',
        WIDE,
    ),
    Cure(
        "13 one queue of replies a process",
        "irs/monitoring/replies.py",
        "            if self._listener is None:\n                queues",
        "            if True:\n                queues",
        f"{CONTROL}::test_fifty_commands_from_eight_threads_share_one_queue_and_each_gets_its_own_reply",
    ),
    Cure(
        "14 a late reply makes no queue",
        "irs/monitoring/replies.py",
        "            # Too new to be known everywhere",
        '            self._sqs.call("CreateQueue", {"QueueName": due[0].url.rpartition("/")[2]})\n            # Too new',
        f"{CONTROL}::test_a_reply_to_a_process_that_is_gone_makes_no_queue",
    ),
    Cure(
        "15 queues go with their owner",
        "irs/broker/ephemeral.py",
        "        if not queues:\n            return\n        remover",
        "        return\n        remover",
        GRACEFUL,
    ),
    Cure(
        "15 what Flower leaves at its end",
        "irs/broker/ephemeral.py",
        "        if not queues:\n            return\n        remover",
        "        return\n        remover",
        f"{FLOWER}::test_flower_remembers_over_a_restart_and_leaves_no_queue",
    ),
    Cure(
        "16 a queue of one's own keeps little",
        "irs/broker/ephemeral.py",
        '{"MessageRetentionPeriod": str(RETENTION_S[kind]), "VisibilityTimeout": str(VISIBILITY_S)}',
        "dict[str, str]()",
        SHAPE,
    ),
    Cure(
        "16 its topic alone may send to it",
        "irs/broker/ephemeral.py",
        '            attributes["Policy"] = json.dumps(self._policy(name, topic))\n',
        "            pass\n",
        SHAPE,
    ),
    Cure(
        "17 the janitor removes what a killed owner left",
        "irs/monitoring/janitor.py",
        "return seen.isdecimal() and now",
        "return False and now",
        f"{QUEUES}::test_janitor_removes_what_a_killed_owner_left_and_leaves_a_living_one",
    ),
    Cure(
        "17 owners say that they live",
        "irs/broker/ephemeral.py",
        "self._cloud.sqs().tag_queue(",
        "dict(",
        f"{FAULTS}::test_janitor_leaves_the_queues_of_the_living",
    ),
    Cure(
        "17 the janitor goes by tags, not by names",
        "irs/monitoring/janitor.py",
        '        if "irs:kind" not in tags or tags.get("irs:system") != self._cloud.settings.stack:\n            return False\n',
        "",
        f"{QUEUES}::test_janitor_removes_no_queue_that_is_not_some_processs_own",
    ),
    Cure(
        "18 a thread of its own publishes events",
        "irs/monitoring/events.py",
        "self.outbox.put(self._prepare_event(type, fields, blind=blind), at_once=type in _AT_ONCE)",
        "self._publish_batch([self._prepare_event(type, fields, blind=blind)])",
        f"{EVENTS}::test_no_event_is_published_by_the_event_loop_or_a_task",
    ),
    Cure(
        "18 events go in batches",
        "irs/monitoring/outbox.py",
        "min(MOST_EVENTS, len(self._waiting))",
        "min(1, len(self._waiting))",
        ONCE,
    ),
    Cure(
        "18 events wait while SNS is away",
        "irs/monitoring/outbox.py",
        "            return False\n        return True",
        "            return True\n        return True",
        f"{EVENTS}::test_tasks_go_on_while_sns_is_away_and_their_events_come_afterwards",
    ),
    Cure(
        "18 not more than memory holds",
        "irs/monitoring/outbox.py",
        "            if len(self._waiting) > MOST_WAITING:\n",
        "            if False:\n",
        f"{PARTS}::test_the_oldest_events_are_dropped_and_counted_when_too_many_wait",
    ),
    Cure(
        "19 nobody watching ends events of tasks",
        "irs/monitoring/events.py",
        "time.monotonic() + lease_s",
        'float("inf")',
        f"{EVENTS}::test_nobody_watching_for_a_minute_ends_events_of_tasks_and_not_the_heartbeat",
    ),
    Cure(
        "21 what is no command costs no queue",
        "irs/monitoring/control.py",
        "    def handle_message(self, body: Any, message",
        "    def _unused(self, body: Any, message",
        f"{CONTROL}::test_what_is_no_command_ends_no_worker_and_costs_no_queue",
    ),
    Cure(
        "21 a worker whose queue is gone makes another",
        "irs/broker/listener.py",
        "                if is_gone(error):\n                    self._replace()\n",
        "                if is_gone(error):\n                    pass\n",
        f"{CONTROL}::test_worker_whose_queue_is_deleted_listens_on_another",
    ),
    Cure(
        "22 no answer to a poll for commands ends listening",
        "irs/broker/listener.py",
        "                if self._ended.is_set():\n                    break\n                if is_gone",
        "                if not is_gone(error):\n                    raise\n                if is_gone",
        f"{FAULTS}::test_worker_lives_through_a_cloud_that_fails_to_answer_its_polls",
    ),
    Cure(
        "22 no answer to a poll for tasks ends polling",
        "irs/broker/poller.py",
        "                fault = error\n",
        "                raise\n",
        f"{FAULTS}::test_worker_lives_through_a_cloud_that_fails_to_answer_its_polls",
    ),
    Cure(
        "a batch that comes twice counts once",
        "irs/broker/listener.py",
        "            if tag in self._tags:\n                return False\n",
        "",
        f"{EVENTS}::test_a_batch_that_is_delivered_twice_counts_once",
    ),
    Cure(
        "a stale command is not obeyed",
        "irs/monitoring/control.py",
        "(age_s := time.time() - born) > STALE_S",
        "(age_s := time.time() - born) > 1e9",
        f"{CONTROL}::test_a_stale_command_is_not_obeyed",
    ),
)


def copy_tree(folder: Path) -> Path:
    """Copy what is committed, with a virtual environment in which ``irs`` is the copy; return its Python."""
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    python = folder / ".venv" / "bin" / "python"
    places = next((folder / ".venv" / "lib").glob("python*/site-packages"))
    # Ours first; what is not ours from where this runs, whose own way to `irs` is in a file that is not read from here.
    ours = next(Path(sys.executable).parents[1].glob("lib/python*/site-packages"))
    (places / "cures.pth").write_text(f"{folder}\n{ours}\n")
    for script in ("irs", "celery", "pytest"):
        _, _, rest = Path(sys.executable).with_name(script).read_text().partition("\n")
        (made := python.with_name(script)).write_text(f"#!{python}\n{rest}")
        made.chmod(0o755)
    return python


def run_tests(folder: Path, python: Path, tests: str) -> int:
    """Run tests of the copy; return pytest's exit code, and end what they left running."""
    names = [f"tests/{name}" for name in tests.split()]
    command = [str(python.with_name("pytest")), "-q", "-m", "", "-x", "-n0", f"--timeout={LONGEST_S}", *names]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / "last.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        code = process.wait()
    # A test that is broken off ends no worker of its own.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return code


def main() -> None:
    """Switch off each cure, and tell."""
    wanted = [cure for cure in CURES if not sys.argv[1:] or any(word in cure.name for word in sys.argv[1:])]
    if not wanted:
        sys.exit("No cure has such a word in its name; they are:\n" + "\n".join(cure.name for cure in CURES))
    well = 0
    with tempfile.TemporaryDirectory(prefix="irs-cures-") as made:
        folder = Path(made)
        python = copy_tree(folder)
        tests = dict.fromkeys(name for cure in wanted for name in cure.tests.split())
        if run_tests(folder, python, " ".join(tests)):
            sys.exit(f"A test fails already with all cures in place:\n{(folder / 'last.log').read_text()[-3000:]}")
        for cure in wanted:
            stood = cure.switch_off(folder)
            try:
                # 1: a test failed. Anything else is no proof: none was found, or the copy cannot be read.
                code = run_tests(folder, python, cure.tests)
            finally:
                for path, text in stood.items():
                    path.write_text(text)
            well += code != 1
            told = {0: "WENT WELL", 1: "fails"}.get(code, f"pytest ended with {code}")
            sys.stdout.write(f"{told:10} without «{cure.name}»: {cure.tests}\n")
            sys.stdout.flush()
            if code != 1:
                sys.stdout.write((folder / "last.log").read_text()[-1500:])
    sys.exit(bool(well))


if __name__ == "__main__":
    main()
