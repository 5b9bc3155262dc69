"""What ``scaler/state.json`` holds: the lease, the policy's memory, what was asked of EC2, and the last decision.

One object, so that one compare-and-swap chain guards it all: who writes it leads. Times in memory are on the clock of
the process that holds the book; in the text they are ages, so that no two machines' clocks are ever compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from scaler.limits import Limits
from scaler.observation import Pair
from scaler.state import State

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseFacts:
    """Who leads. ``ttl_s`` 0: nobody, a successor may take it at once; ``seq`` grows with each write."""

    holder: str = ""
    nonce: str = ""
    epoch: int = 0
    seq: int = 0
    ttl_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Instances asked of one place: stored before EC2 is called, kept until EC2 shows them.

    Attributes:
        launch: ``<fleet>-<epoch>-<n>``, the tag ``irs:launch`` of what comes of it.
        attempt: grows with each place that refused.
        count: instances asked for, never changed within an attempt: EC2 would refuse its token.
        at: when it was first stored; ``answered_at`` when EC2 named ``ids``.
        pooled: ``ids`` are stopped instances to be started; that needs no token.
    """

    launch: str
    attempt: int = 0
    pair: Pair
    count: int
    at: float
    ids: tuple[str, ...] = ()
    answered_at: float | None = None
    pooled: bool = False
    why: str = ""

    @property
    def epoch(self) -> str:
        """The epoch in which it was first stored: whoever repeats the call must ask for the very same."""
        return self.launch.rsplit("-", 2)[-2] if self.launch.count("-") >= 2 else ""

    @property
    def token(self) -> str:
        """The ClientToken: whoever repeats this attempt gets the same instances."""
        text = "|".join((self.launch, str(self.attempt), *self.pair))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """What the fleet has cost on one day (UTC): dollars and instance-seconds; ``wall`` is when it was last added to."""

    day: str = ""
    usd: float = 0.0
    instance_s: float = 0.0
    wall: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The last decision, for people: ``irs status`` shows it. ``wall``: Unix seconds."""

    wall: float
    kind: str
    reason: str
    policy: str
    cap: int
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All that a leader hands on to the next one.

    Attributes:
        serial: launches of this epoch so far.
        known: ids of booting instances that came of an intent; any other one is an orphan.
        ending: instances that were told to end, and why: stored before EC2 is told.
    """

    lease: LeaseFacts = field(default_factory=LeaseFacts)
    policy: State = field(default_factory=State)
    intents: tuple[Intent, ...] = ()
    limits: Limits = field(default_factory=Limits)
    serial: int = 0
    known: frozenset[str] = frozenset()
    ending: Mapping[str, str] = field(default_factory=dict)
    money: Money = field(default_factory=Money)
    said: Said | None = None

    def to_json(self, now: float) -> dict[str, Any]:
        """Return plain JSON values; times become ages at ``now``."""
        return {
            "version": VERSION,
            "lease": asdict(self.lease),
            "policy": self.policy.to_json(now),
            "intents": [_intent_json(intent, now) for intent in self.intents],
            "limits": self.limits.to_json(now),
            "serial": self.serial,
            "known": sorted(self.known),
            "ending": dict(self.ending),
            "money": asdict(self.money),
            "said": None if self.said is None else {**asdict(self.said), "numbers": dict(self.said.numbers)},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], now: float) -> Self:
        """Return the book behind :meth:`to_json`; what of it cannot be read starts anew, the lease apart.

        Raises:
            ValueError: the lease itself cannot be read.
        """
        try:
            book = cls(lease=LeaseFacts(**document["lease"]))
            if not isinstance(book.lease.epoch, int) or not isinstance(book.lease.nonce, str):
                raise TypeError("epoch")
        except (KeyError, TypeError) as error:
            raise ValueError(f"no book of the scaler: {error}") from None
        # Each part for itself: a memory that a later version wrote otherwise must not cost what EC2 was asked for.
        readers: dict[str, Callable[[Any], Any]] = {
            "policy": lambda it: State.from_json(it, now),
            "intents": lambda it: tuple(_intent_of(one, now) for one in it),
            "limits": lambda it: Limits.from_json(it, now),
            "serial": int,
            "known": frozenset,
            "ending": dict,
            "money": lambda it: Money(day=str(it["day"]), **{name: float(it[name]) for name in ("usd", "instance_s", "wall")}),
            "said": lambda it: None if it is None else Said(**it),
        }
        for name, reader in readers.items():
            try:
                book = replace(book, **{name: reader(document[name])})
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return book


def pair_key(pair: Pair) -> str:
    """Return a place as text."""
    return "|".join(pair)


def pair_of(text: str) -> Pair:
    """Return the place behind :func:`pair_key`; raises ValueError."""
    type_, zone, market = text.split("|")
    return Pair(type_, zone, _market(market))


def _market(text: str) -> Literal["on-demand", "spot"]:
    if text == "spot":
        return "spot"
    if text == "on-demand":
        return "on-demand"
    raise ValueError(f"{text!r} is no market")


def _intent_json(intent: Intent, now: float) -> dict[str, Any]:
    answered_s = None if intent.answered_at is None else now - intent.answered_at
    return {**asdict(intent), "pair": pair_key(intent.pair), "at": now - intent.at, "answered_at": answered_s}


def _intent_of(document: Mapping[str, Any], now: float) -> Intent:
    answered_s = document["answered_at"]
    changed = {
        "pair": pair_of(document["pair"]),
        "at": now - document["at"],
        "answered_at": None if answered_s is None else now - answered_s,
        "ids": tuple(map(str, document["ids"])),
        "count": int(document["count"]),
        "attempt": int(document["attempt"]),
    }
    return Intent(**{**document, **changed})
