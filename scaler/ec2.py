"""EC2 itself, by boto3: one fleet's instances, told apart by their tags, launched with the token of a stored intent."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from irs.cloud import Cloud
from irs.errors import MissingResource, PassingError, SetupError, Unreachable
from irs.settings import Settings
from scaler.book import Intent
from scaler.fleet import EPOCH, FLEET, LAUNCH, ROLE, SYSTEM, WORKER, Instance, Refused, Throttled, Unanswered
from scaler.observation import Pair

log = logging.getLogger(__name__)

#: Under a third of the shortest lease: after it the outcome is unknown, and asked for again with the same token.
WITHIN_S = 4.0
PAGE = 200
_THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"})
#: Said with a 5xx, and yet a plain no.
_CAPACITY = "Insufficient"
_MOST_USER_DATA_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What an instance is made of, a launch template apart.

    Attributes:
        template: id or name of a launch template, a version after a colon; "" for none.
        image: AMI; "" where the template names it.
        subnets: subnet by zone; empty: the template's, or the default one of the zone.
        profile: name or ARN of the instance profile.
        user_data: what the instance runs at its start.
        root_disk: the AMI's root device and its GiB (0: the AMI's own), which is encrypted; "" leaves disks to the template.
    """

    template: str = ""
    image: str = ""
    subnets: dict[str, str]
    security_groups: tuple[str, ...] = ()
    profile: str = ""
    user_data: str = ""
    root_disk: tuple[str, int] = ("", 0)


class CloudEc2:
    """EC2 of one account and region, as far as it carries the tags of ``fleet``."""

    def __init__(self, client: Any, blueprint: Blueprint, candidates: tuple[Pair, ...], *, fleet: str) -> None:
        self._ec2, self._blueprint, self._fleet = client, blueprint, fleet
        self.candidates = candidates

    def describe(self) -> list[Instance]:
        """As :meth:`scaler.fleet.Ec2.describe`."""
        with _told():
            pages = self._ec2.get_paginator("describe_instances").paginate(
                Filters=self._ours(), PaginationConfig={"PageSize": PAGE}
            )
            found = [one for page in pages for reservation in page["Reservations"] for one in reservation["Instances"]]
        return sorted((self._instance(one) for one in found), key=lambda one: (one.launched_at, one.id))

    def run(self, intent: Intent) -> list[str]:
        """As :meth:`scaler.fleet.Ec2.run`."""
        with _told():
            answer = self._ec2.run_instances(**self._request(intent))
        return [one["InstanceId"] for one in answer["Instances"]]

    def start(self, intent: Intent) -> list[str]:
        """As :meth:`scaler.fleet.Ec2.start`."""
        mine = self._confirmed(intent.ids)
        if not mine:
            raise Refused("InvalidInstanceID.NotFound", f"none of {', '.join(intent.ids)} is stopped any more")
        with _told():
            answer = self._ec2.start_instances(InstanceIds=mine)
        return [one["InstanceId"] for one in answer["StartingInstances"]]

    def end(self, id: str, *, keep: bool) -> None:
        """As :meth:`scaler.fleet.Ec2.end`: asked for once more by id and tags, for tags may be taken off."""
        if not self._confirmed((id,)):
            log.warning("instance not ended", extra={"instance": id, "reason": "it has our tags no more"})
            return
        with _told():
            # One id a call: a policy with a condition on tags then speaks of this very instance.
            (self._ec2.stop_instances if keep else self._ec2.terminate_instances)(InstanceIds=[id])

    def console(self, id: str) -> str:
        """As :meth:`scaler.fleet.Ec2.console`."""
        with _told():
            said = self._ec2.get_console_output(InstanceId=id).get("Output", "")
        try:
            # AWS says it in base64, which botocore undoes for some versions of its model only.
            return base64.b64decode(said, validate=True).decode(errors="replace")
        except ValueError:
            return str(said)

    def check(self) -> None:
        """Ask EC2 once whether a launch in the first place would be allowed; changes nothing.

        Raises:
            SetupError: it would not; says why. No answer is no refusal.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        sample = Intent(launch=f"{self._fleet}-0-0", pair=self.candidates[0], count=1, at=0.0)
        try:
            self._ec2.run_instances(**{**self._request(sample), "DryRun": True})
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
            if code == "DryRunOperation" or code in _THROTTLED or status >= 500:
                return
            raise SetupError(f"EC2 would launch no worker: {error.response['Error'].get('Message', code)} ({code}).") from None
        except BotoCoreError as error:
            log.warning("ec2 not asked", extra={"reason": str(error)})

    def _ours(self) -> list[dict[str, Any]]:
        return [{"Name": f"tag:{FLEET}", "Values": [self._fleet]}, {"Name": f"tag:{ROLE}", "Values": [WORKER]}]

    def _confirmed(self, ids: tuple[str, ...]) -> list[str]:
        with _told():
            # By filter, not by id: an unknown id would be an error for all.
            answer = self._ec2.describe_instances(Filters=[*self._ours(), {"Name": "instance-id", "Values": list(ids)}])
        found = {one["InstanceId"] for reservation in answer["Reservations"] for one in reservation["Instances"]}
        return [id for id in ids if id in found]

    def _instance(self, said: dict[str, Any]) -> Instance:
        tags = {tag["Key"]: tag["Value"] for tag in said.get("Tags", ())}
        # A place is told as it was asked for: what was left to EC2 tells no places apart.
        first = self.candidates[0]
        return Instance(
            id=said["InstanceId"],
            state=said["State"]["Name"],
            pair=Pair(
                said.get("InstanceType", "") if first.type else "",
                said.get("Placement", {}).get("AvailabilityZone", "") if first.zone else "",
                "spot" if said.get("InstanceLifecycle") == "spot" else "on-demand",
            ),
            launched_at=said["LaunchTime"].timestamp(),
            launch=tags.get(LAUNCH, ""),
            reason=said.get("StateReason", {}).get("Code", ""),
        )

    def _request(self, intent: Intent) -> dict[str, Any]:
        plan, pair = self._blueprint, intent.pair
        tags = {FLEET: self._fleet, ROLE: WORKER, SYSTEM: self._fleet, LAUNCH: intent.launch, EPOCH: intent.epoch}
        listed = [{"Key": key, "Value": value} for key, value in tags.items()]
        asked: dict[str, Any] = {
            "MinCount": 1,
            "MaxCount": intent.count,
            "ClientToken": intent.token,
            "TagSpecifications": [{"ResourceType": kind, "Tags": listed} for kind in ("instance", "volume")],
            "InstanceInitiatedShutdownBehavior": "terminate",
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled", "InstanceMetadataTags": "enabled"},
        }
        if plan.template:
            asked["LaunchTemplate"] = _template(plan.template)
        if plan.image:
            asked["ImageId"] = plan.image
        if pair.type:
            asked["InstanceType"] = pair.type
        if pair.zone in plan.subnets:
            asked["SubnetId"] = plan.subnets[pair.zone]
        elif pair.zone:
            asked["Placement"] = {"AvailabilityZone": pair.zone}
        if pair.market == "spot":
            once = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
            asked["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": once}
        if plan.security_groups:
            asked["SecurityGroupIds"] = list(plan.security_groups)
        if plan.profile:
            asked["IamInstanceProfile"] = {"Arn" if plan.profile.startswith("arn:") else "Name": plan.profile}
        if plan.user_data:
            asked["UserData"] = plan.user_data
        device, size_gib = plan.root_disk
        if device:
            disk = {"Encrypted": True, "DeleteOnTermination": True, "VolumeType": "gp3"}
            asked["BlockDeviceMappings"] = [{"DeviceName": device, "Ebs": disk | ({"VolumeSize": size_gib} if size_gib else {})}]
        return asked


def connect(cloud: Cloud) -> CloudEc2:
    """Return EC2; its candidates stand in the user's order: types, then zones, then markets.

    Raises:
        SetupError: nothing says what to launch, or what says so is not there.
        Unreachable: EC2 does not answer.
    """
    settings = cloud.settings
    if not settings.scaler_template and not settings.scaler_image:
        raise SetupError(
            "Nothing says what a worker instance is made of: set IRS_SCALER_TEMPLATE to a launch template, or IRS_SCALER_IMAGE"
            " to an AMI and IRS_SCALER_TYPES to instance types."
        )
    # Retries are the loop's: botocore's own would go on after the lease has run out.
    client = cloud.client("ec2", read_seconds=WITHIN_S, attempts=1)
    try:
        subnets = _subnets(client, settings.scaler_subnets)
        blueprint = Blueprint(
            template=settings.scaler_template,
            image=settings.scaler_image,
            subnets=subnets,
            security_groups=settings.scaler_security_groups,
            profile=settings.scaler_profile,
            user_data=_user_data(settings.scaler_user_data),
            root_disk=_root_disk(client, settings.scaler_image),
        )
    except Refused as error:
        raise SetupError(f"EC2 does not know what IRS_SCALER_SUBNETS or IRS_SCALER_IMAGE name: {error}.") from None
    except PassingError as error:
        raise Unreachable(f"EC2 does not answer: {error}") from None
    return CloudEc2(client, blueprint, _candidates(settings, tuple(subnets)), fleet=settings.stack)


def _candidates(settings: Settings, subnet_zones: tuple[str, ...]) -> tuple[Pair, ...]:
    markets: tuple[Literal["spot", "on-demand"], ...] = settings.scaler_markets
    zones = settings.scaler_zones or subnet_zones or ("",)
    return tuple(Pair(type_, zone, market) for type_ in settings.scaler_types or ("",) for zone in zones for market in markets)


def _subnets(client: Any, ids: tuple[str, ...]) -> dict[str, str]:
    if not ids:
        return {}
    with _told():
        found = client.describe_subnets(SubnetIds=list(ids))["Subnets"]
    zones = {one["SubnetId"]: one["AvailabilityZone"] for one in found}
    return {zones[id]: id for id in reversed(ids)}


def _root_disk(client: Any, image: str) -> tuple[str, int]:
    if not image:
        return "", 0
    with _told():
        found = client.describe_images(ImageIds=[image])["Images"]
    if not found:
        raise MissingResource(f"There is no AMI {image} in this region: set IRS_SCALER_IMAGE.")
    device = str(found[0].get("RootDeviceName") or "/dev/xvda")
    disks = {one.get("DeviceName"): one.get("Ebs", {}) for one in found[0].get("BlockDeviceMappings", ())}
    return device, int(disks.get(device, {}).get("VolumeSize") or 0)


def _user_data(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SetupError(f"IRS_SCALER_USER_DATA: {path} cannot be read: {said}.") from None
    if len(text.encode()) > _MOST_USER_DATA_BYTES:
        raise SetupError(f"IRS_SCALER_USER_DATA: {path} has more than 16 KiB, which EC2 refuses.")
    return text


def _template(named: str) -> dict[str, str]:
    name, _, version = named.partition(":")
    return {"LaunchTemplateId" if name.startswith("lt-") else "LaunchTemplateName": name, "Version": version or "$Default"}


@contextmanager
def _told() -> Iterator[None]:
    """Turn what boto3 raises into what the loop knows: no, too often, or nobody knows."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code, text = str(error.response["Error"].get("Code", "")), str(error.response["Error"].get("Message", ""))
        status = int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0))
        if code in _THROTTLED:
            raise Throttled(f"{code}: {text}") from None
        if status >= 500 and not code.startswith(_CAPACITY):
            raise Unanswered(f"{code}: {text}") from None
        raise Refused(code, text) from None
    except (BotoCoreError, OSError) as error:
        raise Unanswered(str(error)) from None
