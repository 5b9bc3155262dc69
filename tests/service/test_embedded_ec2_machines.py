"""The host of instances: real processes, in this process's own event loop, and nothing left of them in /proc."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from leftovers import processes_of
from waiting import eventually

from irs.local.ec2.ledger import INSTANCE_VARIABLE, Ledger, Process
from irs.local.ec2.machines import CONSOLE_BYTES, Machines

WITHIN_S = 30.0


class Hosted:
    """Machines on a folder, and which of them have ended."""

    def __init__(self, home: Path, drain_s: float) -> None:
        self.ended: list[str] = []
        self.machines = Machines(home, environment=lambda _: dict(os.environ), exited=self.ended.append, drain_s=drain_s)
        self.machines.sweep()

    async def until(self, check: Callable[[], object]) -> None:
        """Wait without standing in the way of what is waited for."""
        await asyncio.to_thread(eventually, check, within_s=WITHIN_S)

    async def until_said(self, id: str, said: bytes) -> None:
        await self.until(lambda: said in self.machines.output(id))


def hosted(home: Path, drive: Callable[[Hosted], Coroutine[Any, Any, None]], *, drain_s: float = WITHIN_S) -> Hosted:
    """Run ``drive`` beside machines, and close them."""

    async def main() -> Hosted:
        made = Hosted(home, drain_s)
        try:
            await drive(made)
        finally:
            await made.machines.close()
        return made

    return asyncio.run(main())


def script(*lines: str) -> bytes:
    return "\n".join(("#!/bin/sh", *lines, "")).encode()


def test_a_machine_runs_its_script_with_its_own_id_and_no_input(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        host.machines.boot("i-a", script(f"echo I am ${INSTANCE_VARIABLE}", "wc -c"))
        assert host.machines.running("i-a")
        await host.until(lambda: host.ended)
        assert not host.machines.running("i-a")

    host = hosted(tmp_path, drive)

    assert ["i-a"] == host.ended
    assert b"I am i-a\n0\n" == host.machines.output("i-a")
    assert [] == list(tmp_path.glob("instances/*.sh"))


def test_a_machine_that_is_halted_may_finish_what_it_holds(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        host.machines.boot("i-a", script("trap 'echo drained; exit 0' TERM", "echo up", "while :; do sleep 0.05; done"))
        await host.until_said("i-a", b"up")
        host.machines.halt("i-a")
        await host.until(lambda: host.ended)

    host = hosted(tmp_path, drive)

    assert b"up\ndrained\n" == host.machines.output("i-a").replace(b"Terminated\n", b"")


def test_a_machine_that_does_not_hear_is_killed_when_its_time_is_over(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        host.machines.boot("i-a", script("trap '' TERM", "echo up", "while :; do sleep 0.05; done"))
        await host.until_said("i-a", b"up")
        host.machines.halt("i-a")
        await host.until(lambda: host.ended)

    hosted(tmp_path, drive, drain_s=0.2)

    assert [] == processes_of("i-a")


def test_what_a_machine_started_ends_with_it(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        host.machines.boot("i-a", script("sleep 300 &", "exit 3"))
        await host.until(lambda: host.ended)

    hosted(tmp_path, drive)

    eventually(lambda: not processes_of("i-a"), within_s=WITHIN_S)


def test_a_machine_that_is_halted_before_it_has_a_process_ends_all_the_same(tmp_path: Path) -> None:
    ids = [f"i-{number}" for number in range(5)]

    async def drive(host: Hosted) -> None:
        for id in ids:
            host.machines.boot(id, script("exec sleep 300"))
            host.machines.halt(id)
        await host.until(lambda: len(host.ended) == len(ids))

    hosted(tmp_path, drive)

    assert [] == [pid for id in ids for pid in processes_of(id)]


def test_the_next_start_of_a_machine_is_not_ended_by_the_halt_of_the_one_before(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        for count in (1, 2, 3):
            host.machines.boot("i-a", script("exec sleep 300"))
            host.machines.halt("i-a")
            await host.until(lambda count=count: len(host.ended) == count)
        host.machines.boot("i-a", script("sleep 1", "echo lived"))
        await host.until_said("i-a", b"lived")

    hosted(tmp_path, drive, drain_s=0.3)


def test_a_machine_that_cannot_be_started_is_told_as_ended(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        (tmp_path / "instances" / "i-a.log").mkdir()
        host.machines.boot("i-a", script("true"))
        await host.until(lambda: host.ended)

    assert ["i-a"] == hosted(tmp_path, drive).ended


def test_a_machine_that_cannot_be_put_on_record_runs_all_the_same_and_is_ended_like_any_other(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        (tmp_path / "machines.new").mkdir()
        host.machines.boot("i-a", script("echo up", "exec sleep 300"))
        await host.until_said("i-a", b"up")
        assert host.machines.running("i-a")
        host.machines.halt("i-a")
        await host.until(lambda: host.ended)

    assert ["i-a"] == hosted(tmp_path, drive).ended
    assert [] == processes_of("i-a")


def test_the_console_holds_the_end_of_a_long_output(tmp_path: Path) -> None:
    async def drive(host: Hosted) -> None:
        host.machines.boot("i-a", script("head -c 200000 /dev/zero | tr '\\0' x", "echo the end"))
        await host.until(lambda: host.ended)

    said = hosted(tmp_path, drive).machines.output("i-a")

    assert (CONSOLE_BYTES, b"xxxthe end\n") == (len(said), said[-11:])


HOST = """
import asyncio, os, sys
from pathlib import Path
from irs.local.ec2.machines import Machines

async def main():
    machines = Machines(Path(sys.argv[1]), environment=lambda _: dict(os.environ), exited=print, drain_s=1)
    machines.sweep()
    machines.boot("i-lost", sys.argv[2].encode())
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def killed_host(tmp_path: Path) -> Callable[[bytes], None]:
    """A host of the machine ``i-lost`` that is killed once that says «up»."""

    def run(body: bytes) -> None:
        with subprocess.Popen([sys.executable, "-c", HOST, str(tmp_path), body.decode()]) as host:
            said = tmp_path / "instances" / "i-lost.log"
            eventually(lambda: said.exists() and b"up" in said.read_bytes() and Ledger(tmp_path).read(), within_s=WITHIN_S)
            host.kill()

    return run


def test_machines_end_with_a_host_that_is_killed(killed_host: Callable[[bytes], None]) -> None:
    killed_host(script("echo up", "exec sleep 300"))

    eventually(lambda: not processes_of("i-lost"), within_s=WITHIN_S)


def test_what_outlived_a_killed_host_is_ended_by_the_next(killed_host: Callable[[bytes], None], tmp_path: Path) -> None:
    """A script without ``exec``: the kernel ends the shell, and not what it started."""
    killed_host(script("sleep 300 &", "echo up", "wait"))
    assert processes_of("i-lost")

    assert ["i-lost"] == Ledger(tmp_path).sweep()

    eventually(lambda: not processes_of("i-lost"), within_s=WITHIN_S)
    assert [] == Ledger(tmp_path).sweep()


def test_a_process_that_only_has_the_number_of_a_machine_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as other:
        Ledger(tmp_path).write({"i-old": Process(other.pid, Process.of(other.pid).began - 1)})

        swept = Ledger(tmp_path).sweep()

        assert ([], None) == (swept, other.poll())
        os.killpg(other.pid, signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"i-a": 3}', '{"i-a": ["x", 1]}'])
def test_a_ledger_that_makes_no_sense_names_no_machine(tmp_path: Path, text: str) -> None:
    (tmp_path / "machines.json").write_text(text)

    assert {} == Ledger(tmp_path).read()
