"""One instance: what it is, the states it goes through, and how EC2 describes it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from irs.local.ec2.faults import Place

Fields = dict[str, Any]

OWNER = "000000000000"
CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
#: States in which it takes room, and a process of it may run.
ALIVE = frozenset(("pending", "running", "shutting-down", "stopping"))
ENDED = frozenset(("shutting-down", "terminated"))

BY_USER = "Client.UserInitiatedShutdown"
BY_ITSELF = "Client.InstanceInitiatedShutdown"
BY_SPOT = "Server.SpotInstanceTermination"
BY_FAULT = "Server.InternalError"
_MESSAGES = {
    BY_USER: "User initiated shutdown",
    BY_ITSELF: "Instance initiated shutdown",
    BY_SPOT: "Spot instance termination",
    BY_FAULT: "Internal error on launch",
}


def new_id(kind: str) -> str:
    """Return an id as AWS's are: 68 random bits behind what it is of, such as ``i-0f3…``."""
    return f"{kind}-{secrets.token_hex(9)[:17]}"


@dataclass(slots=True, kw_only=True)
class Instance:
    """What is on record of one instance; times are Unix seconds.

    Attributes:
        ordinal: counts up over all instances, so that pages of a list neither skip nor repeat one.
        user_data: base64, as it came.
        shutdown: what an end from inside means: ``stop`` or ``terminate``.
        born, launched: first and last start.
        since: when the state was entered.
        notice: when a spot instance that was told so will be taken away.
    """

    id: str
    ordinal: int
    reservation: str
    index: int
    token: str
    type: str
    zone: str
    market: str
    image: str
    born: float
    launched: float
    since: float
    state: str = "pending"
    reason: str = ""
    subnet: str = ""
    key: str = ""
    groups: list[str] = field(default_factory=list)
    profile: Fields = field(default_factory=dict)
    metadata: Fields = field(default_factory=dict)
    user_data: str = ""
    shutdown: str = "stop"
    tags: dict[str, str] = field(default_factory=dict)
    spot_request: str = ""
    is_persistent: bool = False
    notice: float | None = None

    @property
    def place(self) -> Place:
        """What it takes room of."""
        return Place(self.type, self.zone, self.market)

    @property
    def is_alive(self) -> bool:
        """Whether it takes room."""
        return self.state in ALIVE

    def move(self, state: str, now: float, reason: str = "") -> None:
        """Enter a state; a reason once given stays until the next start."""
        self.state, self.since = state, now
        self.reason = reason or ("" if state == "pending" else self.reason)

    def state_now(self) -> Fields:
        """Return the state as EC2 tells it."""
        return {"Code": CODES[self.state], "Name": self.state}

    def describe(self) -> Fields:
        """Return what DescribeInstances says of it."""
        told: Fields = {
            "InstanceId": self.id,
            "ImageId": self.image,
            "InstanceType": self.type,
            "State": self.state_now(),
            "StateTransitionReason": self._transition(),
            "AmiLaunchIndex": self.index,
            "LaunchTime": self.launched,
            "Placement": {"AvailabilityZone": self.zone, "GroupName": "", "Tenancy": "default"},
            "ClientToken": self.token,
            "Architecture": "x86_64",
            "Hypervisor": "nitro",
            "VirtualizationType": "hvm",
            "RootDeviceType": "ebs",
            "RootDeviceName": "/dev/xvda",
            "BlockDeviceMappings": [],
            "NetworkInterfaces": [],
            "ProductCodes": [],
            "EbsOptimized": False,
            "Monitoring": {"State": "disabled"},
            "PrivateDnsName": "",
            "PublicDnsName": "",
            "SecurityGroups": [{"GroupId": group} for group in self.groups],
            "Tags": tag_list(self.tags),
            "MetadataOptions": {"State": "applied", "HttpTokens": "required", "HttpEndpoint": "enabled", **self.metadata},
        }
        optional = {
            "KeyName": self.key,
            "SubnetId": self.subnet,
            "IamInstanceProfile": self.profile,
            "SpotInstanceRequestId": self.spot_request,
            "InstanceLifecycle": "spot" if self.market == "spot" else "",
            "StateReason": {"Code": self.reason, "Message": f"{self.reason}: {_MESSAGES[self.reason]}"} if self.reason else {},
        }
        return told | {name: value for name, value in optional.items() if value}

    def _transition(self) -> str:
        if not self.reason:
            return ""
        when = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
        return f"User initiated ({when})" if self.reason == BY_USER else f"{self.reason} ({when})"


#: What a filter is compared with. Of an instance on demand AWS says nothing as its lifecycle.
FILTERS: dict[str, Callable[[Instance], list[str]]] = {
    "availability-zone": lambda one: [one.zone],
    "client-token": lambda one: [one.token],
    "image-id": lambda one: [one.image],
    "instance-id": lambda one: [one.id],
    "instance-lifecycle": lambda one: ["spot"] if one.market == "spot" else [],
    "instance-state-code": lambda one: [str(CODES[one.state])],
    "instance-state-name": lambda one: [one.state],
    "instance-type": lambda one: [one.type],
    "key-name": lambda one: [one.key],
    "owner-id": lambda _: [OWNER],
    "reservation-id": lambda one: [one.reservation],
    "spot-instance-request-id": lambda one: [one.spot_request],
    "state-reason-code": lambda one: [one.reason],
    "subnet-id": lambda one: [one.subnet],
}


def plain(record: Any) -> Fields:
    """Return the members of a dataclass with slots, as they are: ``asdict`` copies them, at ten times the cost."""
    return {name: getattr(record, name) for name in record.__slots__}


def tag_list(tags: dict[str, str]) -> list[Fields]:
    """Return tags as EC2 lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]
