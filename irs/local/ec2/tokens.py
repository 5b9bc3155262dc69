"""Client tokens: a call that comes twice is carried out once, and answered twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from irs.local.ec2.faults import Refused
from irs.local.ec2.instances import Fields, plain

#: Twice as long as AWS keeps one at least, and much longer than the record of an ended instance.
KEPT_SECONDS = 48 * 3600


@dataclass(slots=True, kw_only=True)
class Once:
    """What was asked with one token.

    Attributes:
        told: digest of the parameters.
        ids: the instances that were launched.
        answer: of a call that launches nothing; what launches is answered with what its instances are by then.
    """

    told: str
    ids: list[str]
    answer: Fields | None
    at: float


class Tokens:
    """Tokens of the last two days, and of whatever lives.

    A named zone belongs to the token: the same token with another zone is another launch, as on AWS.
    """

    def __init__(self, told: dict[str, Any] | None = None) -> None:
        self._all = {key: Once(**each) for key, each in (told or {}).items()}

    def once(
        self, action: str, asked: Fields, now: float, carry_out: Callable[[], Fields], ids_of: Callable[[Fields], list[str]]
    ) -> tuple[Fields, list[str]]:
        """Carry a call out unless its token is known; return its answer and, of an earlier launch, the ids to tell.

        Raises:
            Refused: the token stands for other parameters. What ``carry_out`` raises leaves no token.
        """
        if not (token := asked.get("ClientToken")):
            return carry_out(), []
        zone = asked.get("Placement", {}).get("AvailabilityZone") or asked.get("SubnetId", "")
        key = f"{action} {zone} {token}"
        # Whether it is a trial changes nothing in what is asked.
        parameters = json.dumps({name: asked[name] for name in asked if name != "DryRun"}, sort_keys=True, default=str)
        told = hashlib.sha256(parameters.encode()).hexdigest()
        known = self._all.get(key)
        if known is None:
            answer = carry_out()
            ids = ids_of(answer)
            self._all[key] = Once(told=told, ids=ids, answer=None if ids else answer, at=now)
            return answer, []
        if known.told != told:
            raise Refused(
                "IdempotentParameterMismatch", f"The client token {token} was used before, with other parameters: use a new one"
            )
        return known.answer or {}, known.ids

    def forget(self, now: float, lives: Callable[[str], bool]) -> None:
        """Drop what is older than two days and launched nothing that is still there."""
        old = [key for key, each in self._all.items() if now - each.at > KEPT_SECONDS and not any(map(lives, each.ids))]
        for key in old:
            del self._all[key]

    def dump(self) -> dict[str, Any]:
        """Return all, for JSON."""
        return {key: plain(each) for key, each in self._all.items()}
