"""What holds launches back besides the policy: places EC2 refused, quotas, boots that fail. Values in, values out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from scaler.observation import Pair

#: A place that refused is asked again after a minute, then after twice as long each time, up to a quarter of an hour.
BLOCK_S, LONGEST_BLOCK_S, JITTER = 60.0, 900.0, 0.2
#: A quota that was met is tried again after ten minutes.
CEILING_S = 600.0
#: So many boots failed in a row open the breaker: one trial every five minutes until one succeeds.
FAILURES, TRIAL_S = 3, 300.0
#: After a spot notice its place is left alone for five minutes; more than two in ten minutes leave the spot market.
NOTICE_BLOCK_S, NOTICES, NOTICES_S = 300.0, 2, 600.0


class Block(NamedTuple):
    """A place not to be asked before ``until``; it has refused ``refusals`` times in a row."""

    until: float
    refusals: int


class Room(NamedTuple):
    """Launches allowed now; ``why`` there are no more, as part of a sentence."""

    launches: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What EC2 taught.

    Attributes:
        ceiling: instances that the account's quota allows, until ``ceiling_until``.
        failed_boots: boots that failed since the last one that succeeded.
        refused: why EC2 refuses all launches of this kind; "" while it does not.
        tried_at: the last launch while the breaker was open.
        notices: when spot instances were taken away, of late.
    """

    blocks: Mapping[Pair, Block] = field(default_factory=dict)
    ceiling: int | None = None
    ceiling_until: float = 0.0
    failed_boots: int = 0
    refused: str = ""
    tried_at: float | None = None
    notices: tuple[float, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether the breaker is open."""
        return bool(self.refused) or self.failed_boots >= FAILURES

    def room(self, now: float, *, live: int, booting: int) -> Room:
        """Return the launches allowed at ``now`` with ``live`` instances, ``booting`` of them not ready yet."""
        if self.is_broken:
            what = f"EC2 refuses ({self.refused})" if self.refused else f"{self.failed_boots} boots in a row have failed"
            next_s = 0.0 if self.tried_at is None else self.tried_at + TRIAL_S - now
            if booting or next_s > 0:
                return Room(0, f"{what}; one is tried again in {max(0.0, next_s):.0f} s")
            return Room(1, f"{what}; one is tried")
        if self.ceiling is not None and now < self.ceiling_until:
            return Room(
                max(0, self.ceiling - live),
                f"the account's quota holds {self.ceiling}; it is tried again in {self.ceiling_until - now:.0f} s",
            )
        return Room(10**6, "")

    def blocked_until(self, candidates: Iterable[Pair], now: float) -> dict[Pair, float]:
        """Return the places not to be asked now; all of the spot market after too many notices."""
        recent = [at for at in self.notices if now - at < NOTICES_S]
        until = {pair: block.until for pair, block in self.blocks.items() if block.until > now}
        places = list(candidates)
        if len(recent) > NOTICES and any(pair.market == "on-demand" for pair in places):
            back_at = sorted(recent)[-NOTICES - 1] + NOTICES_S
            until |= {pair: max(back_at, until.get(pair, 0.0)) for pair in places if pair.market == "spot"}
        return until

    # What happened

    def after_refusal(self, pair: Pair, now: float, seed: str) -> Self:
        """The place has no capacity: it is left alone for a while; ``seed`` decides the jitter."""
        refusals = self.blocks[pair].refusals + 1 if pair in self.blocks else 1
        length_s = min(BLOCK_S * 2 ** min(refusals - 1, 10), LONGEST_BLOCK_S)
        share = int.from_bytes(hashlib.sha256(f"{seed}|{refusals}".encode()).digest()[:4]) / 2**32
        return replace(self, blocks={**self.blocks, pair: Block(now + length_s * (1 + JITTER * share), refusals)})

    def after_launch(self, pair: Pair, now: float) -> Self:
        """EC2 gave what was asked of the place; with the breaker open this was the trial."""
        blocks = {place: block for place, block in self.blocks.items() if place != pair}
        return replace(self, blocks=blocks, refused="", tried_at=now if self.is_broken else self.tried_at)

    def after_quota(self, live: int, now: float) -> Self:
        """The quota is met with ``live`` instances."""
        return replace(self, ceiling=live, ceiling_until=now + CEILING_S)

    def after_fault(self, refused: str, now: float) -> Self:
        """EC2 refuses the launch itself, whatever the place."""
        return replace(self, refused=refused, tried_at=now)

    def after_boots(self, *, failed: int, succeeded: int, now: float) -> Self:
        """Boots ended; one that succeeded closes the breaker."""
        if succeeded:
            return replace(self, failed_boots=0, tried_at=None)
        count = self.failed_boots + failed
        # The clock of the trials runs from the failure that opened the breaker.
        opens = failed and count >= FAILURES > self.failed_boots
        return replace(self, failed_boots=count, tried_at=now if opens else self.tried_at)

    def after_notice(self, pair: Pair, now: float) -> Self:
        """A spot instance is being taken away."""
        known = self.blocks.get(pair, Block(now, 0))
        block = known._replace(until=max(known.until, now + NOTICE_BLOCK_S))
        recent = tuple(at for at in self.notices if now - at < NOTICES_S)
        return replace(self, blocks={**self.blocks, pair: block}, notices=(*recent, now)[-19:])

    # To text and back

    def to_json(self, now: float) -> dict[str, Any]:
        """Return plain JSON values; times as seconds from ``now``."""
        return {
            "blocks": [[*pair, block.until - now, block.refusals] for pair, block in self.blocks.items()],
            "ceiling": self.ceiling,
            "ceiling_until": self.ceiling_until - now,
            "failed_boots": self.failed_boots,
            "refused": self.refused,
            "tried_at": None if self.tried_at is None else now - self.tried_at,
            "notices": [now - at for at in self.notices],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], now: float) -> Self:
        """Return what :meth:`to_json` wrote; raises KeyError, TypeError or ValueError."""
        tried_s = document["tried_at"]
        return cls(
            blocks={Pair(kind, zone, market): Block(now + until, n) for kind, zone, market, until, n in document["blocks"]},
            ceiling=document["ceiling"],
            ceiling_until=now + document["ceiling_until"],
            failed_boots=int(document["failed_boots"]),
            refused=str(document["refused"]),
            tried_at=None if tried_s is None else now - tried_s,
            notices=tuple(now - age for age in document["notices"]),
        )


def next_place(candidates: tuple[Pair, ...], blocked: Mapping[Pair, float], turn: int) -> Pair | None:
    """Return the place that the next launch asks: in the user's order, zones in turn, those that refused left out."""
    return next((pair for pair in rotated(candidates, turn) if pair not in blocked), None)


def rotated(candidates: tuple[Pair, ...], turn: int) -> list[Pair]:
    """Return the candidates, types and markets in their order and the zones of each type begun at ``turn``."""
    types = list(dict.fromkeys(pair.type for pair in candidates))
    ordered = []
    for kind in types:
        mine = [pair for pair in candidates if pair.type == kind]
        zones = list(dict.fromkeys(pair.zone for pair in mine))
        start = turn % len(zones)
        rank = {zone: n for n, zone in enumerate(zones[start:] + zones[:start])}
        ordered += sorted(mine, key=lambda pair: rank[pair.zone])
    return ordered
