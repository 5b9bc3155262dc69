"""The switch of this process's pollers: pause them, resume them, ask how they are."""

from __future__ import annotations

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
    """

    polling_ok: bool = True
    stuck: int = 0
    held: int = 0
    undeleted: int = 0


class Switched(Protocol):
    """Something that polls."""

    def health(self) -> Health:
        """Return how it is."""

    def wake(self) -> None:
        """Look at :func:`is_paused` again."""


_members: weakref.WeakSet[Switched] = weakref.WeakSet()
_reason: str | None = None


def join(member: Switched) -> None:
    """Let ``member`` be paused, resumed and asked."""
    _members.add(member)


def leave(member: Switched) -> None:
    """Forget ``member``: it polls no more."""
    _members.discard(member)


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
    for member in list(_members):
        member.wake()


def health() -> Health:
    """Return the health of all pollers of this process together."""
    all_ = [member.health() for member in list(_members)]
    return Health(
        polling_ok=all(one.polling_ok for one in all_),
        stuck=sum(one.stuck for one in all_),
        held=sum(one.held for one in all_),
        undeleted=sum(one.undeleted for one in all_),
    )
