"""The host: each instance's user data as a process of its own, with its children in one group.

For an event loop in the main thread: the kernel ends a machine with the *thread* that started it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from irs.local import child
from irs.local.daemon import forget_old_logs
from irs.local.ec2.ledger import INSTANCE_VARIABLE, Ledger, Process

log = logging.getLogger(__name__)

#: What GetConsoleOutput shows, as on AWS.
CONSOLE_BYTES = 64 * 1024
_KILL_S = 5.0
_LOOK_S = 0.02


class Machines:
    """The processes of all instances of one embedded cloud.

    Args:
        home: the ledger is kept here, scripts and logs in ``instances/`` below it.
        environment: what makes the environment of an instance.
        exited: told when nothing of an instance runs any more.
        drain_s: time between SIGTERM and SIGKILL.
    """

    def __init__(
        self, home: Path, *, environment: Callable[[str], Mapping[str, str]], exited: Callable[[str], None], drain_s: float
    ) -> None:
        self._folder, self._ledger = home / "instances", Ledger(home)
        self._environment, self._exited, self._drain_s = environment, exited, drain_s
        #: What runs, or is about to: then there is no process yet.
        self._alive: dict[str, Process | None] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}
        # The loop itself keeps no reference to a task.
        self._tasks: set[asyncio.Task[None]] = set()

    def sweep(self) -> None:
        """Begin: end what an earlier host left behind, and forget logs that nobody wrote to for a week."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for id in self._ledger.sweep():
            log.warning("machine left behind, ended now instance=%s", id)
        forget_old_logs(self._folder)

    def boot(self, id: str, script: bytes) -> None:
        """Run a script as the instance ``id``; returns at once, and it counts as running from now on."""
        # A halt that comes before the process is there must wait for it, not miss it.
        self._alive[id] = None
        self._keep(asyncio.get_running_loop().create_task(self._live(id, script)))

    def halt(self, id: str) -> None:
        """Send SIGTERM, and SIGKILL when the drain's time is over; returns at once."""
        if id in self._alive and id not in self._ending:
            self._ending[id] = asyncio.get_running_loop().create_task(self._end(id))

    def running(self, id: str) -> bool:
        """Whether anything of it runs, or is about to."""
        return id in self._alive

    def output(self, id: str) -> bytes:
        """Return the end of what it has said, of all its starts."""
        try:
            with (self._folder / f"{id}.log").open("rb") as said:
                said.seek(max(0, said.seek(0, os.SEEK_END) - CONSOLE_BYTES))
                return said.read()
        except FileNotFoundError:
            return b""

    async def close(self) -> None:
        """Halt all, and wait until nothing runs: at most the drain's time and a few seconds."""
        for id in list(self._alive):
            self.halt(id)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain_s + 2 * _KILL_S)

    async def _live(self, id: str, script: bytes) -> None:
        file = self._folder / f"{id}.sh"
        try:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as body:
                body.write(script)
            with (self._folder / f"{id}.log").open("ab") as said:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", child.__file__, str(int(signal.SIGKILL)), str(os.getpid())),
                    *("/bin/sh", str(file)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=said,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                    env={**self._environment(id), INSTANCE_VARIABLE: id},
                )
            self._alive[id] = leader = Process.of(process.pid)
            self._write()
            await process.wait()
            # What it started and left in its group ends with it.
            leader.send(signal.SIGKILL)
        except OSError as error:
            log.error("machine cannot be started instance=%s error=%s", id, error)
        finally:
            file.unlink(missing_ok=True)
            del self._alive[id]
            if ending := self._ending.pop(id, None):
                # Else it would end the next start of the same instance.
                ending.cancel()
            self._write()
            self._exited(id)

    async def _end(self, id: str) -> None:
        for number, patience_s in ((signal.SIGTERM, self._drain_s), (signal.SIGKILL, _KILL_S)):
            is_sent, end = False, time.monotonic() + patience_s
            while time.monotonic() < end:
                if not is_sent and (process := self._alive.get(id)):
                    is_sent = process.send(number)
                await asyncio.sleep(_LOOK_S)
        log.error("machine does not end instance=%s", id)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _write(self) -> None:
        try:
            self._ledger.write({id: process for id, process in self._alive.items() if process})
        except OSError as error:
            # Missed by the next host alone; what runs must not be taken for ended over it.
            log.error("machines cannot be stored error=%s", error)
