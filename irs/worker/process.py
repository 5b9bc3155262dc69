"""What the worker's process asks of the system it runs on, measured on two cores with resnet18 in bf16."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The largest that glibc takes; a picture's pixels beyond it go back to the system as soon as they are freed.
_MMAP_BYTES = 32 * 2**20
_KEPT_BYTES = 256 * 2**20


def keep_freed_memory() -> None:
    """Let freed memory wait for the next batch instead of going back to the system.

    Else each batch faults its pages in anew: 400 faults and 0.8 ms of system time an image.
    """
    with suppress(OSError, AttributeError):  # glibc alone has it
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_memory() -> None:
    """Return what loading took and freed to the system: some 150 MB that the C library would keep for itself."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def favour_throughput() -> None:
    """Let the threads that are made from now on wait for a core instead of taking it from one that computes.

    A task thread woken by an answer from S3 would push the model out of its caches, six times an image;
    on a core with nothing else to do it runs at once all the same.
    """
    with suppress(OSError, AttributeError):  # Linux alone has it
        # Not against what somebody chose: idle, or a real-time policy.
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
