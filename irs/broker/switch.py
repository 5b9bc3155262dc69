"""The switch of this process's pollers: pause them, resume them, let them hasten, ask how they are."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Health:
    """How the intake of this process is.

    Attributes:
        polling_ok: every poller is heard of, and SQS answers; True when nothing is consumed.
        stuck: messages held longer than ``IRS_MAX_LEASE_SECONDS``: their task hangs.
        held: messages received and not yet acknowledged, handed back or lost.
        undeleted: acknowledged, and their delete not yet confirmed.
        emptied_at: when (``time.monotonic``) a receive last came back empty; None before, and once a message came since.
    """

    polling_ok: bool = True
    stuck: int = 0
    held: int = 0
    undeleted: int = 0
    emptied_at: float | None = None


class Switched(Protocol):
    """Something that polls."""

    def health(self) -> Health:
        """Return how it is."""

    def wake(self) -> None:
        """Look at :func:`is_paused` again."""


# Iterating and joining at once is an error of the set's.
_lock = threading.Lock()
_members: weakref.WeakSet[Switched] = weakref.WeakSet()
_reason: str | None = None
_longest_wait_s: int | None = None


def join(member: Switched) -> None:
    """Let ``member`` be paused, resumed and asked."""
    with _lock:
        _members.add(member)


def leave(member: Switched) -> None:
    """Forget ``member``: it polls no more."""
    with _lock:
        _members.discard(member)


def _present() -> list[Switched]:
    with _lock:
        return list(_members)


def is_paused() -> bool:
    """Whether no message may be taken now. A receive under way still delivers."""
    return _reason is not None


def pause(reason: str) -> None:
    """Take no more messages until :func:`resume`."""
    global _reason
    _reason = reason


def resume() -> None:
    """Take messages again."""
    global _reason
    _reason = None
    for member in _present():
        member.wake()


def hasten(wait_s: int) -> None:
    """Let each long poll last exactly ``wait_s`` until :func:`relax`: the queue's end is noticed sooner, at more requests."""
    global _longest_wait_s
    _longest_wait_s = wait_s


def relax() -> None:
    """Let long polls last as they are set to again."""
    global _longest_wait_s
    _longest_wait_s = None


def poll_wait_s(usual_s: int) -> int:
    """Return how long a long poll lasts now, of those that last ``usual_s``."""
    return usual_s if _longest_wait_s is None else _longest_wait_s


def health() -> Health:
    """Return the health of all pollers of this process together."""
    all_ = [member.health() for member in _present()]
    return Health(
        polling_ok=all(one.polling_ok for one in all_),
        stuck=sum(one.stuck for one in all_),
        held=sum(one.held for one in all_),
        undeleted=sum(one.undeleted for one in all_),
        emptied_at=max((one.emptied_at for one in all_ if one.emptied_at is not None), default=None),
    )
