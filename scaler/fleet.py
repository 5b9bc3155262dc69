"""What the loop asks of EC2, in its own words: EC2 itself, a false one in tests and the simulator's all answer to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from irs.errors import PassingError
from scaler.book import Intent
from scaler.observation import Pair

#: Tags of every instance of ours, given with the launch and never afterwards.
FLEET, ROLE, LAUNCH, EPOCH, SYSTEM = "irs:fleet", "irs:role", "irs:launch", "irs:epoch", "irs:system"
WORKER = "worker"

Ec2State = Literal["pending", "running", "shutting-down", "terminated", "stopping", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance with our tags, as EC2 tells.

    Attributes:
        launched_at: EC2's LaunchTime in Unix seconds; of a started one the start.
        launch: its tag ``irs:launch``.
        reason: EC2's code for its end, such as ``Server.SpotInstanceTermination``.
    """

    id: str
    state: Ec2State
    pair: Pair
    launched_at: float
    launch: str = ""
    reason: str = ""


class Refused(PassingError):
    """EC2 said no, and nothing was done. ``refusal`` is EC2's code, such as ``InsufficientInstanceCapacity``."""

    code = "ec2_refused"

    def __init__(self, refusal: str, detail: str) -> None:
        super().__init__(f"{refusal}: {detail}")
        self.refusal = refusal


class Throttled(PassingError):
    """EC2 was asked too often; nothing was done."""

    code = "ec2_throttled"


class Unanswered(PassingError):
    """EC2 may have done it or not: the same call is repeated with the same token."""

    code = "ec2_unanswered"


class Ec2(Protocol):
    """Instances of one fleet. Every call may raise :class:`Throttled` and :class:`Unanswered`."""

    def describe(self) -> list[Instance]:
        """Return all instances with our tags, those that ended of late too; new ones may be missing for seconds.

        Raises:
            Refused: this process may not ask.
        """

    def run(self, intent: Intent) -> list[str]:
        """Launch 1 to ``intent.count`` instances in its place; return their ids. Raises :class:`Refused`."""

    def start(self, intent: Intent) -> list[str]:
        """Start the stopped instances ``intent.ids``; return those that start. Raises :class:`Refused`."""

    def end(self, id: str, *, keep: bool) -> None:
        """End an instance if it still has our tags, or only stop it; may run twice. Raises :class:`Refused`."""

    def console(self, id: str) -> str:
        """Return the last lines that an instance wrote to its console; "" if there are none."""


#: What tells that one place has nothing to give.
NO_CAPACITY = frozenset(
    {
        "InsufficientInstanceCapacity",
        "InsufficientHostCapacity",
        "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "SpotMaxPriceTooLow",
        "MaxSpotInstanceCountExceeded",
        "Unsupported",
    }
)
#: The account allows no more, wherever it is asked.
QUOTA = frozenset({"InstanceLimitExceeded", "VcpuLimitExceeded"})
#: The token is spent: what came of it has ended, or was asked for otherwise by an earlier book of the same fleet.
SPENT = frozenset({"IdempotentInstanceTerminated", "IdempotentParameterMismatch"})
