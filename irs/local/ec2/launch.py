"""What a RunInstances request asks for, checked, and the instances made of it."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from irs.local.ec2.faults import Refused
from irs.local.ec2.instances import Fields, Instance, new_id
from irs.local.ec2.templates import tags_for

USER_DATA_BYTES = 16 * 1024
_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")


def zones(region: str) -> list[str]:
    """Return the availability zones of a region."""
    return [region + letter for letter in "abc"]


def check(order: Fields, region: str) -> None:
    """Check a request that has its template's data under it.

    Raises:
        Refused: something is missing or wrong.
    """
    if not order.get("ImageId"):
        raise Refused("MissingParameter", "The request must contain the parameter ImageId")
    type = type_of(order)
    if not _TYPE.fullmatch(type):
        raise Refused("InvalidParameterValue", f"Invalid value '{type}' for InstanceType.")
    zone = zone_of(order)
    if zone and zone not in zones(region):
        raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
    if not 1 <= order["MinCount"] <= order["MaxCount"]:
        raise Refused("InvalidParameterValue", "MinCount must be at least 1, and MaxCount not below it")
    if order.get("InstanceInitiatedShutdownBehavior", "stop") not in ("stop", "terminate"):
        raise Refused("InvalidParameterValue", "InstanceInitiatedShutdownBehavior must be stop or terminate")
    if market_of(order) not in ("on-demand", "spot"):
        raise Refused("InvalidParameterValue", f"Invalid value '{market_of(order)}' for MarketType: spot, or none at all")
    _check_user_data(order.get("UserData", ""))


def type_of(order: Fields) -> str:
    """Return the instance type; AWS's own default where none is named."""
    return str(order.get("InstanceType") or "m1.small")


def zone_of(order: Fields) -> str:
    """Return the zone that is named; empty for none."""
    return str(order.get("Placement", {}).get("AvailabilityZone") or "")


def market_of(order: Fields) -> str:
    """Return ``spot`` or ``on-demand``."""
    return str(order.get("InstanceMarketOptions", {}).get("MarketType") or "on-demand")


def make(order: Fields, *, count: int, zone: str, ordinal: int, now: float) -> list[Instance]:
    """Return ``count`` new instances of one reservation in ``zone``, counted from ``ordinal``."""
    is_spot = market_of(order) == "spot"
    spot: dict[str, Any] = order.get("InstanceMarketOptions", {}).get("SpotOptions", {})
    reservation, tags = new_id("r"), tags_for("instance", order)
    return [
        Instance(
            id=new_id("i"),
            ordinal=ordinal + index,
            reservation=reservation,
            index=index,
            token=order.get("ClientToken", ""),
            type=type_of(order),
            zone=zone,
            market=market_of(order),
            image=order["ImageId"],
            born=now,
            launched=now,
            since=now,
            subnet=order.get("SubnetId", ""),
            key=order.get("KeyName", ""),
            groups=list(order.get("SecurityGroupIds", ())),
            profile=dict(order.get("IamInstanceProfile", {})),
            metadata=dict(order.get("MetadataOptions", {})),
            user_data=order.get("UserData", ""),
            shutdown=order.get("InstanceInitiatedShutdownBehavior", "stop"),
            tags=dict(tags),
            spot_request=new_id("sir") if is_spot else "",
            is_persistent=spot.get("SpotInstanceType") == "persistent",
        )
        for index in range(count)
    ]


def script_of(instance: Instance) -> bytes:
    """Return the user data if it is a script; empty, where the instance runs nothing."""
    body = base64.b64decode(instance.user_data)
    return body if body.startswith(b"#!") else b""


def _check_user_data(text: str) -> None:
    try:
        size_bytes = len(base64.b64decode(text, validate=True))
    except binascii.Error:
        raise Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.") from None
    if size_bytes > USER_DATA_BYTES:
        raise Refused("InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES} bytes")
