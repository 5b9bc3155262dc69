"""What was done to which resource, and the one way in which a difference is corrected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Action = Literal["created", "changed", "kept", "would create", "would change"]


@dataclass(frozen=True, slots=True)
class Change:
    """What was done, or would be done, to one resource; ``detail`` names what differed."""

    resource: str
    action: Action
    detail: str = ""


class Ledger:
    """The changes of one run, one for each resource, in the order of their first mention."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self._by_resource: dict[str, Change] = {}

    @property
    def changes(self) -> list[Change]:
        """All that was noted."""
        return list(self._by_resource.values())

    def create(self, resource: str, write: Callable[[], object]) -> bool:
        """Make what is missing; return whether it is there now (not after a dry run)."""
        if not self.dry_run:
            write()
        self._by_resource[resource] = Change(resource, "would create" if self.dry_run else "created")
        return not self.dry_run

    def correct(self, resource: str, aspect: str, write: Callable[[], object] | None) -> None:
        """Note an aspect that is as it should be (``write`` is None), or bring it there."""
        before = self._by_resource.setdefault(resource, Change(resource, "kept"))
        if write is None:
            return
        if not self.dry_run:
            write()
        if before.action in ("kept", "changed", "would change"):
            aspects = ", ".join(filter(None, (before.detail, aspect)))
            self._by_resource[resource] = Change(resource, "would change" if self.dry_run else "changed", aspects)
