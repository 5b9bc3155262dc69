"""What is for sale: a few instance types, so that a fleet can ask for their cores and prices."""

from __future__ import annotations

from dataclasses import dataclass

from irs.local.ec2.faults import Refused
from irs.local.ec2.instances import Fields
from irs.local.ec2.launch import zones


@dataclass(frozen=True, slots=True)
class Type:
    """One instance type; the price is in dollars an hour, on demand, of us-east-1."""

    name: str
    vcpus: int
    memory_mib: int
    hourly_usd: float
    architecture: str = "x86_64"


TYPES = {
    one.name: one
    for one in (
        Type("c7i.large", 2, 4096, 0.08925),
        Type("c7i.xlarge", 4, 8192, 0.1785),
        Type("c7i.2xlarge", 8, 16384, 0.357),
        Type("c7g.large", 2, 4096, 0.0725, "arm64"),
        Type("c7g.xlarge", 4, 8192, 0.145, "arm64"),
        Type("m7i.large", 2, 8192, 0.1008),
    )
}
#: A usual discount. Here a price moves nothing: capacity is what faults make scarce.
_SPOT_SHARE = 0.4


def describe_types(asked: Fields) -> Fields:
    """Answer DescribeInstanceTypes for the types known here."""
    names = asked.get("InstanceTypes") or list(TYPES)
    if unknown := [name for name in names if name not in TYPES]:
        raise Refused("InvalidInstanceType", f"The following supplied instance types do not exist: [{', '.join(unknown)}]")
    return {"InstanceTypes": [_describe(TYPES[name]) for name in names]}


def spot_prices(asked: Fields, region: str, now: float) -> Fields:
    """Answer DescribeSpotPriceHistory: one price that never moves, in each zone."""
    names = asked.get("InstanceTypes") or list(TYPES)
    wanted = [asked["AvailabilityZone"]] if asked.get("AvailabilityZone") else zones(region)
    prices = [
        {
            "AvailabilityZone": zone,
            "InstanceType": name,
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": f"{TYPES[name].hourly_usd * _SPOT_SHARE:.6f}",
            "Timestamp": now,
        }
        for name in names
        if name in TYPES
        for zone in wanted
    ]
    return {"SpotPriceHistory": prices, "NextToken": ""}


def _describe(one: Type) -> Fields:
    return {
        "InstanceType": one.name,
        "CurrentGeneration": True,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "Hypervisor": "nitro",
        "ProcessorInfo": {"SupportedArchitectures": [one.architecture]},
        "VCpuInfo": {"DefaultVCpus": one.vcpus},
        "MemoryInfo": {"SizeInMiB": one.memory_mib},
    }
