"""How the embedded cloud starts, is found, and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from awsclients import clients
from rawhttp import begin
from waiting import eventually

from irs.errors import SetupError
from irs.local import EmbeddedCloud

Start = Callable[..., EmbeddedCloud]

PARENT = """
import sys
from pathlib import Path
from irs.local import start_embedded_cloud
cloud = start_embedded_cloud(Path(sys.argv[1]), die_with_thread=sys.argv[2] == "thread")
print(cloud.pid, flush=True)
sys.stdin.read()
"""


def is_gone(pid: int) -> bool:
    try:
        return "Z" == Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


def test_the_command_says_in_one_json_line_where_it_listens_and_ends_at_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "irs.local.cloud", "--home", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())

        process.terminate()

        assert 0 == process.wait(10)
        assert b"" == process.stdout.read()
    assert {"ready": True, "endpoint": said["endpoint"], "pid": process.pid, "version": "1.5.33"} == said
    assert said["endpoint"].startswith("http://127.0.0.1:")


def test_it_listens_on_127_0_0_1_alone(embedded: EmbeddedCloud) -> None:
    links = [os.readlink(fd) for fd in Path(f"/proc/{embedded.pid}/fd").iterdir()]
    lines = [line.split() for line in Path(f"/proc/{embedded.pid}/net/tcp").read_text().splitlines()[1:]]
    lines += [line.split() for line in Path(f"/proc/{embedded.pid}/net/tcp6").read_text().splitlines()[1:]]

    listening = [line[1] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in links]

    port = int(embedded.endpoint.rpartition(":")[2])
    assert [f"0100007F:{port:04X}"] == listening


def test_a_stop_waits_for_no_long_poll(start: Start) -> None:
    running = start()
    aws = clients()
    queue = aws.queue()
    polls = [begin(running, "ReceiveMessage", QueueUrl=queue, WaitTimeSeconds=20) for _ in range(3)]
    aws.counts(queue)

    begun = time.monotonic()
    running.stop()
    took_s = time.monotonic() - begun

    assert took_s < 2
    assert 0 == running.poll()
    assert [200] * 3 == [poll.getresponse().status for poll in polls]
    for poll in polls:
        poll.close()


def test_a_stop_may_be_asked_for_twice_and_by_the_end_of_a_context(start: Start) -> None:
    with start() as running:
        assert running.poll() is None

    running.stop()

    assert 0 == running.poll()


@pytest.mark.parametrize("watch", ["thread", "pipe"])
def test_it_ends_when_its_parent_is_killed(tmp_path: Path, watch: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "home"), watch], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())

        parent.kill()

        eventually(lambda: is_gone(pid))
    assert (tmp_path / "home/state/sqs.json").exists()


def test_it_ends_when_its_standard_input_ends(start: Start) -> None:
    running = start()
    assert running._process is not None
    assert running._process.stdin is not None

    running._process.stdin.close()

    assert 0 == running._process.wait(10)


def test_it_ends_with_its_parent_even_if_that_is_gone_before_it_begins(tmp_path: Path) -> None:
    environment = os.environ | {"IRS_PARENT_PID": "1" if os.getpid() != 1 else "2"}
    command = [sys.executable, "-m", "irs.local.cloud", "--home", str(tmp_path)]

    ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)

    assert (0, b"") == (ended.returncode, ended.stdout)


def test_ctrl_c_at_the_terminal_does_not_reach_it(embedded: EmbeddedCloud) -> None:
    assert os.getsid(0) != os.getsid(embedded.pid)
    assert os.getpgid(0) != os.getpgid(embedded.pid)


def test_a_second_start_on_the_same_home_uses_the_first_and_leaves_it_running(start: Start) -> None:
    first = start()

    second = start()
    second.stop()

    assert (True, False) == (first.is_ours, second.is_ours)
    assert (first.endpoint, first.pid, first.environment) == (second.endpoint, second.pid, second.environment)
    assert (None, None) == (first.poll(), second.poll())
    first.stop()
    assert 0 == second.poll()


def test_of_many_starts_at_once_one_makes_it_and_all_use_it(start: Start) -> None:
    running: list[EmbeddedCloud] = []
    threads = [threading.Thread(target=lambda: running.append(start())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [False, False, False, True] == sorted(each.is_ours for each in running)
    assert 1 == len({each.endpoint for each in running})


def test_a_port_that_is_taken_is_told_in_one_sentence(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(SetupError, match=rf"^Port {port} is taken: choose another one"):
            start(port=port)


def test_it_listens_on_the_port_asked_for(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    assert f"http://127.0.0.1:{port}" == start(port=port).endpoint


def test_a_child_that_dies_is_told_with_the_end_of_its_log(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nfor n in $(seq 30); do echo line $n >&2; done\nexit 3\n")
    broken.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(broken))

    with pytest.raises(SetupError) as told:
        start()

    assert "did not start (exit code 3)" in str(told.value)
    assert [f"line {number}" for number in range(11, 31)] == str(told.value).splitlines()[1:]


def test_a_home_that_is_a_file_is_told_in_one_sentence(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SetupError, match=r"^The folder .*/file cannot be used .*: name another in IRS_HOME"):
        start(tmp_path / "file")


def test_keys_are_readable_by_their_owner_alone(start: Start, tmp_path: Path) -> None:
    start()

    assert (0o700, 0o600) == tuple((tmp_path / "home" / name).stat().st_mode & 0o777 for name in ("", "endpoint.json"))


def test_the_callers_own_settings_and_files_do_not_reach_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    for name, value in {"AUTH": "true", "AWS_PROFILE": "none", "HTTP_PROXY": "http://127.0.0.1:1", "PYTHONPATH": "."}.items():
        monkeypatch.setenv(name, value)

    start()
    monkeypatch.delenv("AWS_PROFILE")

    assert clients().queue()


def test_sigint_ends_it_in_order_too(start: Start, tmp_path: Path) -> None:
    running = start()

    os.kill(running.pid, signal.SIGINT)

    eventually(lambda: running.poll() is not None)
    assert 0 == running.poll()
    assert (tmp_path / "home/state/sqs.json").exists()
