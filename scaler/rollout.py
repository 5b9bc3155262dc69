"""A new model: workers that serve another one are replaced by turns, the new one first.

A worker serves the model of its start to its end. So a few more are launched than the load needs; once they are ready as
many old ones drain: they finish what they hold and leave, though images wait. Where the cap has no room, old ones go first.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from scaler.observation import Observation, Worker
from scaler.policy import Decision

log = logging.getLogger(__name__)

#: Of the workers needed one in so many is replaced at once, when one is known to be able to serve the new model.
SHARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a new model asks for now: launches beside those of the policy, and who shall drain."""

    launch: int = 0
    drain: frozenset[str] = frozenset()


def turn(seen: Observation, behind: Collection[str], told: Collection[str], *, need: int, cap: int) -> Turn:
    """Return the next turn; nothing new while one is under way.

    Args:
        behind: workers that serve another model than the one of now.
        told: those that were told to drain.
        need: workers that the policy wants, beside this.
    """
    ready = seen.of_phase("ready")
    old = [worker for worker in ready if worker.id in behind]
    draining = frozenset(worker.id for worker in old if worker.id in told)
    if not old or draining or seen.of_phase("requested", "booting", "leaving"):
        return Turn(drain=draining)
    # The first one shows whether the new model can be served at all.
    at_once = max(1, need // SHARE) if len(old) < len(ready) else 1
    room, spare = cap - len(seen.workers), len(ready) - need
    if spare > 0 or room <= 0:
        return Turn(drain=frozenset(worker.id for worker in sorted(old, key=_worth)[: min(at_once, max(1, spare))]))
    return Turn(launch=min(at_once, room))


class Rollout:
    """Follows one rolled model after the other; made anew by each leader."""

    def __init__(self) -> None:
        self._refused: str | None = None

    def follow(
        self,
        decision: Decision,
        seen: Observation,
        *,
        serving: Mapping[str, str],
        current: str | None,
        told: frozenset[str],
        may_launch: bool,
        has_failed: bool,
        cap: int,
    ) -> tuple[Decision, frozenset[str]]:
        """Return the decision with what the new model asks for, and who shall drain.

        Args:
            serving: digest of the model that each worker serves; ``current`` is what all shall serve, None: what they do.
            told: workers that were told to drain.
            may_launch: whether who leaves could be replaced.
            has_failed: whether a boot has failed since the last look.
        """
        behind = {id for id, digest in serving.items() if current and digest != current}
        behind &= {worker.id for worker in seen.of_phase("ready")}
        if has_failed and behind and current != self._refused:
            # Whole in the bucket, and yet no model for this release: the others stay with what they can serve.
            self._refused = current
            log.error("roll stopped", extra={"digest": current, "serving_another": len(behind)})
        if not behind or "need" not in decision.numbers or not may_launch or current == self._refused:
            return decision, told & behind
        # What still boots is what replaces the old ones, though the load does not need it.
        decision = replace(decision, cancel=frozenset())
        if decision.launch:
            return decision, told & behind
        next_turn = turn(seen, behind, told, need=int(decision.numbers["need"]), cap=cap)
        if next_turn.launch or next_turn.drain - told:
            done = f"Launch {next_turn.launch}" if next_turn.launch else f"Drain {len(next_turn.drain)}"
            another = f"{len(behind)} worker{'s serve' if len(behind) > 1 else ' serves'} another"
            reason = f"{done}: the model is {str(current)[:12]} now, and {another}."
            decision = replace(decision, launch=next_turn.launch, kind="roll", reason=reason)
        return decision, next_turn.drain


def _worth(worker: Worker) -> tuple[int, float, str]:
    return worker.busy, worker.launched_at, worker.id
