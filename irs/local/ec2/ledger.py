"""Which process is which instance, on disk: for commands that hurt one, and to end what a killed host left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

INSTANCE_VARIABLE = "IRS_INSTANCE_ID"


@dataclass(frozen=True, slots=True)
class Process:
    """The leader of an instance's group; ``began`` tells it from a later process with its number (clock ticks since boot)."""

    pid: int
    began: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return what is known of a process that runs."""
        return cls(pid, _began(pid) or 0)

    def is_there(self) -> bool:
        """Whether exactly this process runs; one that only waits to be reaped does not."""
        return _began(self.pid) == self.began

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to its whole group; return whether there was one."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class Ledger:
    """The file ``machines.json`` below an embedded cloud's home."""

    def __init__(self, home: Path) -> None:
        self._file = home / "machines.json"

    def write(self, processes: dict[str, Process]) -> None:
        """Store what runs, as a whole."""
        made = self._file.with_suffix(".new")
        made.write_text(json.dumps({id: [one.pid, one.began] for id, one in processes.items()}))
        made.replace(self._file)

    def read(self) -> dict[str, Process]:
        """Return what ran when it was last written; nothing where that cannot be read."""
        try:
            return {id: Process(int(pid), int(began)) for id, (pid, began) in json.loads(self._file.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def sweep(self) -> list[str]:
        """Kill what an earlier host left behind; return the ids of the instances it was."""
        left: list[str] = []
        for id, process in self.read().items():
            if process.is_there():
                process.send(signal.SIGKILL)
                left.append(id)
            elif members := list(_members(process.pid, id)):
                # The leader has gone with its host, what it started has not.
                for pid in members:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                left.append(id)
        self.write({})
        return left


def _began(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] == "Z" else int(stat[19])


def _members(group: int, id: str) -> Iterator[int]:
    """Yield the processes of a group that carry the instance's id: the group's number alone may be another's by now."""
    mark = f"{INSTANCE_VARIABLE}={id}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(stat[2]) == group and mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
