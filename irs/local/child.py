"""Run a command that ends with its parent: ``python -m irs.local.child SIGNAL PARENT_PID COMMAND…``.

A process that is killed cannot end its children; the kernel does it, when each asks for it before it becomes
the command. The kernel watches the *thread* that started the child: start it from one that stays.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str], *, environment: Mapping[str, str], at_parents_end: signal.Signals, **options: Any
) -> subprocess.Popen[bytes]:
    """Start ``command``; the process id is the command's own.

    Args:
        at_parents_end: what the kernel sends it when the calling thread has ended, for whatever reason.
        options: of ``subprocess.Popen``.
    """
    launcher = [sys.executable, "-m", "irs.local.child", str(int(at_parents_end)), str(os.getpid())]
    return subprocess.Popen([*launcher, *command], env=dict(environment), **options)


def main(arguments: Sequence[str]) -> None:
    """Ask the kernel for the signal, then become the command; ends with 127 if that cannot be started."""
    at_parents_end, parent_pid, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(at_parents_end), 0, 0, 0)
    if os.getppid() != int(parent_pid):
        # It ended before the kernel was asked.
        sys.exit(128 + int(at_parents_end))
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        print(f"irs: {command[0]} cannot be started: {error.strerror}.", file=sys.stderr)  # noqa: T201
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
