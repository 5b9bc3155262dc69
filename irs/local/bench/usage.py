"""What a process used, read from /proc: CPU milliseconds and peak memory, its children included."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def cpu_ms(pid: int) -> float:
    """Return user and system time of ``pid`` and its living descendants, in milliseconds (10 ms ticks)."""
    return sum(_own_cpu_ms(one) for one in _tree(pid))


def peak_rss_mb(pid: int) -> float:
    """Return the largest resident memory so far, in MB, of ``pid`` and its living descendants summed."""
    return sum(_peak_kb(one) for one in _tree(pid)) / 1024


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def _own_cpu_ms(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) * _TICK_MS


def _peak_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
