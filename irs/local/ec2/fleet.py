"""CreateFleet of type ``instant``: one call that tries places in order until enough is launched."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from irs.local.ec2.cloud import Ec2
from irs.local.ec2.faults import Refused
from irs.local.ec2.instances import Fields
from irs.local.ec2.templates import tags_for


def create_fleet(ec2: Ec2, asked: Fields) -> Fields:
    """Answer CreateFleet; a place without room is told among the errors, and the next one is tried.

    Raises:
        Refused: a type other than ``instant``, or a template that is not there.
    """
    if asked.get("Type") != "instant":
        raise Refused("UnsupportedOperation", "Only fleets of type instant are offered here")
    target = asked["TargetCapacitySpecification"]
    missing, market = target["TotalTargetCapacity"], target.get("DefaultTargetCapacityType", "on-demand")
    groups: list[Fields] = []
    errors: list[Fields] = []
    for told, order in _orders(ec2, asked):
        place = {"LaunchTemplateAndOverrides": told, "Lifecycle": market}
        if missing <= 0:
            break
        if market == "spot":
            order["InstanceMarketOptions"] = {"MarketType": "spot"}
        try:
            made = ec2.launch(order | {"MinCount": 1, "MaxCount": missing})
        except Refused as refused:
            errors.append({**place, "ErrorCode": refused.code, "ErrorMessage": refused.message})
            continue
        missing -= len(made)
        groups.append({**place, "InstanceIds": [one.id for one in made], "InstanceType": made[0].type})
    return {"FleetId": f"fleet-{uuid.uuid4()}", "Errors": errors, "Instances": groups}


def _orders(ec2: Ec2, asked: Fields) -> Iterator[tuple[Fields, Fields]]:
    """Yield each place of a fleet as it is told, and as an order for it."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags_for("instance", asked).items()]}]
    for config in asked["LaunchTemplateConfigs"]:
        named = config.get("LaunchTemplateSpecification", {})
        for override in config.get("Overrides") or [{}]:
            order: Fields = {"LaunchTemplate": named, "TagSpecifications": tags, "ClientToken": asked.get("ClientToken", "")}
            if "InstanceType" in override:
                order["InstanceType"] = override["InstanceType"]
            if "AvailabilityZone" in override:
                order["Placement"] = {"AvailabilityZone": override["AvailabilityZone"]}
            yield {"LaunchTemplateSpecification": named, "Overrides": override}, ec2.templates.under(order)
