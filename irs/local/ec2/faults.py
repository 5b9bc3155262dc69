"""What goes wrong on demand: refusals, answers that get lost, slow boots, capacity that is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from irs.errors import SetupError

_STATUS = {
    "DryRunOperation": 412,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "RequestLimitExceeded": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
}


class Place(NamedTuple):
    """Where an instance is bought: what there may be no room in."""

    type: str
    zone: str
    market: str


class Refused(Exception):
    """EC2's answer is a refusal; ``code`` is AWS's own, the sentence is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code: clients decide by it whether to try again."""
        return _STATUS.get(self.code, 400)


class Lost(Exception):
    """The call was carried out, and its caller must not learn of it: the connection is to break."""


@dataclass(slots=True, kw_only=True)
class Rule:
    """Strikes the next ``times`` calls of one action, or of all for ``*``.

    Attributes:
        code: the refusal.
        lose: the call is carried out instead, and its answer lost.
        where: of RunInstances only those of this ``type``, ``zone`` or ``market``.
    """

    action: str
    code: str = "RequestLimitExceeded"
    times: int = 1
    lose: bool = False
    where: dict[str, str] = field(default_factory=dict)

    def strikes(self, action: str, place: Place | None) -> bool:
        """Whether it applies to this call."""
        told = place._asdict() if place else {}
        return self.times > 0 and self.action in (action, "*") and all(told.get(key) == self.where[key] for key in self.where)


@dataclass(slots=True, kw_only=True)
class Faults:
    """All that is wrong now; replaced as a whole, and nothing is wrong by default.

    Attributes:
        boot_seconds: how long an instance stays ``pending``.
        stop_seconds: how long it stays ``stopping`` or ``shutting-down`` at least.
        unseen_seconds: how long a new instance is missing in lists, and not found by its id.
        quota: instances that may live at once; None: what the machine is good for.
        capacity: room of ``type/zone/market``, of which parts may be ``*`` from the right; the closest one counts.
    """

    boot_seconds: float = 0.0
    stop_seconds: float = 0.0
    unseen_seconds: float = 0.0
    quota: int | None = None
    capacity: dict[str, int] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)

    @classmethod
    def from_json(cls, told: Any) -> Self:
        """Read what was put over HTTP.

        Raises:
            SetupError: it makes no sense.
        """
        try:
            made = cls(**{**told, "rules": [Rule(**rule) for rule in told.get("rules", ())]})
            times = (made.boot_seconds, made.stop_seconds, made.unseen_seconds)
            rooms = (made.quota or 0, *made.capacity.values(), *(rule.times for rule in made.rules))
            if not all(math.isfinite(one) and one >= 0 for one in (*times, *rooms)):
                raise ValueError("times and counts are 0 or more")
            if wrong := [key for key in made.capacity if len(key.split("/")) != 3]:
                raise ValueError(f"{wrong[0]} is not type/zone/market")
            if any(not isinstance(rule.where, Mapping) for rule in made.rules):
                raise ValueError("`where` of a rule has members")
        except (TypeError, ValueError, AttributeError) as error:
            raise SetupError(f"These faults cannot be read ({error}): see docs/embedded-ec2.md for what can be wrong.") from None
        return made

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` reads."""
        return asdict(self)

    def strike(self, action: str, place: Place | None = None) -> bool:
        """Count one call against the first rule that applies; return whether its answer is to be lost.

        Raises:
            Refused: the rule says so.
        """
        rule = next((rule for rule in self.rules if rule.strikes(action, place)), None)
        if rule is None:
            return False
        rule.times -= 1
        if not rule.lose:
            raise Refused(rule.code, f"{action} is refused by a fault that was asked for")
        return True

    def room(self, place: Place, taken: Iterable[Place]) -> float:
        """Return how many more instances fit into ``place`` beside those of ``taken``; infinite without a limit."""
        for known in range(len(place), -1, -1):
            near = place[:known]
            limit = self.capacity.get("/".join((*near, *"*" * (len(place) - known))))
            if limit is not None:
                return limit - sum(other[:known] == near for other in taken)
        return math.inf
