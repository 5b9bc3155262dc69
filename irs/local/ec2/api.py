"""EC2's actions: a form comes in, XML goes out, and faults strike in between."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

from irs.local.ec2 import catalog, launch, wire
from irs.local.ec2.cloud import Ec2
from irs.local.ec2.faults import Lost, Place, Refused
from irs.local.ec2.fleet import create_fleet
from irs.local.ec2.instances import FILTERS, OWNER, Fields, Instance
from irs.local.ec2.lists import page, select
from irs.local.ec2.templates import Template, read_tags

_ID = re.compile(r"i-[0-9a-f]{8,17}")
_LOOKING = ("Describe", "Get")
_OURS = re.compile(r"(i|lt)-[0-9a-f]{8,17}")


class Api:
    """The actions of one :class:`Ec2`."""

    def __init__(self, ec2: Ec2) -> None:
        self.ec2 = ec2

    @staticmethod
    def load() -> None:
        """Read what the first call would else wait for."""
        wire.load(_ACTIONS)

    @staticmethod
    def offers(form: str) -> bool:
        """Whether a call is answered here. Tags are, on instances and launch templates alone."""
        action = wire.action_of(form)
        if action not in ("CreateTags", "DeleteTags"):
            return action in _ACTIONS
        try:
            _, asked = wire.parse(form)
        except Refused:
            return True
        return all(_OURS.fullmatch(id) for id in asked["Resources"])

    def handle(self, form: str) -> tuple[int, bytes]:
        """Carry out a call that :meth:`offers`; return HTTP status and XML.

        Raises:
            Lost: it was carried out, and no answer may reach the caller.
        """
        is_lost = False
        try:
            action, asked = wire.parse(form)
            self.ec2.advance()
            is_lost = self.ec2.faults.strike(action, self._place(action, asked))
            if asked.get("DryRun"):
                raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
            self.ec2.has_changed |= not action.startswith(_LOOKING)
            status, xml = 200, wire.answer(action, _ACTIONS[action](self, asked))
        except Refused as refused:
            status, xml = refused.status, wire.fault(refused.code, refused.message)
        if is_lost:
            raise Lost
        return status, xml

    def _place(self, action: str, asked: Fields) -> Place | None:
        """Return where a launch goes, checked, so that a fault can strike there alone."""
        if action != "RunInstances":
            return None
        order = self.ec2.templates.under(asked)
        launch.check(order, self.ec2.region)
        return self.ec2.place_for(order)

    # Launching

    def run_instances(self, asked: Fields) -> Fields:
        """RunInstances."""

        def carry_out() -> Fields:
            return _reservation(self.ec2.launch(self.ec2.templates.under(asked)))

        answer, known = self._once(
            "RunInstances", asked, carry_out, lambda told: [one["InstanceId"] for one in told["Instances"]]
        )
        return _reservation(self._still(known)) if known else answer

    def create_fleet(self, asked: Fields) -> Fields:
        """CreateFleet."""

        def ids_of(told: Fields) -> list[str]:
            return [id for group in told["Instances"] for id in group["InstanceIds"]]

        answer, known = self._once("CreateFleet", asked, lambda: create_fleet(self.ec2, asked), ids_of)
        if not known:
            return answer
        groups = [{"InstanceType": one.type, "Lifecycle": one.market, "InstanceIds": [one.id]} for one in self._still(known)]
        return {"FleetId": asked["ClientToken"], "Errors": [], "Instances": groups}

    def create_template(self, asked: Fields) -> Fields:
        """CreateLaunchTemplate."""
        return self._kept("CreateLaunchTemplate", asked, lambda: self.ec2.templates.create(asked, self.ec2.clock()))

    def create_template_version(self, asked: Fields) -> Fields:
        """CreateLaunchTemplateVersion."""
        return self._kept(
            "CreateLaunchTemplateVersion", asked, lambda: self.ec2.templates.create_version(asked, self.ec2.clock())
        )

    def _kept(self, action: str, asked: Fields, carry_out: Callable[[], Fields]) -> Fields:
        return self._once(action, asked, carry_out, lambda _: [])[0]

    def _once(
        self, action: str, asked: Fields, carry_out: Callable[[], Fields], ids_of: Callable[[Fields], list[str]]
    ) -> tuple[Fields, list[str]]:
        return self.ec2.tokens.once(action, asked, self.ec2.clock(), carry_out, ids_of)

    def _still(self, ids: list[str]) -> list[Instance]:
        """Return what an earlier launch with the same token has made, as it is now."""
        known = [self.ec2.instances[id] for id in ids if id in self.ec2.instances]
        if all(one.state == "terminated" for one in known):
            raise Refused("IdempotentInstanceTerminated", "What this client token launched has been terminated: use a new one")
        return known

    # Changing

    def terminate(self, asked: Fields) -> Fields:
        """TerminateInstances."""
        return {"TerminatingInstances": self._changes(asked, self.ec2.terminate)}

    def stop(self, asked: Fields) -> Fields:
        """StopInstances."""
        return {"StoppingInstances": self._changes(asked, self.ec2.stop)}

    def start(self, asked: Fields) -> Fields:
        """StartInstances."""
        return {"StartingInstances": self._changes(asked, self.ec2.start)}

    def _changes(self, asked: Fields, change: Callable[[list[Instance]], None]) -> list[Fields]:
        found = self._found(asked["InstanceIds"])
        before = [one.state_now() for one in found]
        change(found)
        return [
            {"InstanceId": one.id, "PreviousState": was, "CurrentState": one.state_now()}
            for one, was in zip(found, before, strict=True)
        ]

    def create_tags(self, asked: Fields) -> Fields:
        """CreateTags."""
        tags = read_tags(asked["Tags"])
        for one in self._tagged(asked["Resources"]):
            one.tags |= tags
        return {}

    def delete_tags(self, asked: Fields) -> Fields:
        """DeleteTags: those named, of a named value only if it is that one; all where none is named."""
        for one in self._tagged(asked["Resources"]):
            for tag in asked.get("Tags") or [{"Key": key} for key in one.tags]:
                if tag["Key"] in one.tags and tag.get("Value", one.tags[tag["Key"]]) == one.tags[tag["Key"]]:
                    del one.tags[tag["Key"]]
        return {}

    def _tagged(self, ids: list[str]) -> list[Instance | Template]:
        templates = [self.ec2.templates.find({"LaunchTemplateId": id}) for id in ids if id.startswith("lt-")]
        return [*self._found([id for id in ids if not id.startswith("lt-")]), *templates]

    # Describing

    def describe_instances(self, asked: Fields) -> Fields:
        """DescribeInstances."""
        shown, more = self._selected(asked)
        reservations: dict[str, list[Instance]] = {}
        for one in shown:
            reservations.setdefault(one.reservation, []).append(one)
        return {"Reservations": [_reservation(group) for group in reservations.values()], "NextToken": more}

    def describe_status(self, asked: Fields) -> Fields:
        """DescribeInstanceStatus: of running ones, unless all are asked for."""
        shown, more = self._selected(asked, lambda one: asked.get("IncludeAllInstances") or one.state == "running")
        return {"InstanceStatuses": [_status(one) for one in shown], "NextToken": more}

    def _selected(
        self, asked: Fields, is_wanted: Callable[[Instance], Any] = lambda _: True
    ) -> tuple[list[Instance], str | None]:
        ids = asked.get("InstanceIds")
        named = self._found(ids) if ids else [one for one in self.ec2.instances.values() if self._is_seen(one)]
        found = sorted(filter(is_wanted, select(named, asked.get("Filters", ()), FILTERS)), key=lambda one: one.ordinal)
        return page(found, asked)

    def describe_attribute(self, asked: Fields) -> Fields:
        """DescribeInstanceAttribute."""
        (one,) = self._found([asked["InstanceId"]])
        known: dict[str, Fields] = {
            "userData": {"UserData": {"Value": one.user_data} if one.user_data else {}},
            "instanceType": {"InstanceType": {"Value": one.type}},
            "instanceInitiatedShutdownBehavior": {"InstanceInitiatedShutdownBehavior": {"Value": one.shutdown}},
            "disableApiTermination": {"DisableApiTermination": {"Value": False}},
        }
        if asked["Attribute"] not in known:
            raise Refused("InvalidParameterValue", f"Value ({asked['Attribute']}) for parameter attribute is invalid.")
        return {"InstanceId": one.id, **known[asked["Attribute"]]}

    def console_output(self, asked: Fields) -> Fields:
        """GetConsoleOutput."""
        (one,) = self._found([asked["InstanceId"]])
        said = base64.b64encode(self.ec2.host.output(one.id)).decode()
        return {"InstanceId": one.id, "Timestamp": self.ec2.clock(), "Output": said}

    def spot_prices(self, asked: Fields) -> Fields:
        """DescribeSpotPriceHistory."""
        return catalog.spot_prices(asked, self.ec2.region, self.ec2.clock())

    def _found(self, ids: list[str]) -> list[Instance]:
        """Return the instances of these ids, each once.

        Raises:
            Refused: one of them is malformed, or not there (or not yet seen): then nothing is done to any.
        """
        if malformed := [id for id in ids if not _ID.fullmatch(id)]:
            raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{malformed[0]}"')
        found = {id: self.ec2.instances.get(id) for id in ids}
        seen = [one for one in found.values() if one is not None and self._is_seen(one)]
        if missing := sorted(found.keys() - {one.id for one in seen}):
            told = f"ID '{missing[0]}' does" if len(missing) == 1 else f"IDs '{', '.join(missing)}' do"
            raise Refused("InvalidInstanceID.NotFound", f"The instance {told} not exist")
        return seen

    def _is_seen(self, one: Instance) -> bool:
        # From birth on: a stopped instance that starts again is known for long.
        return self.ec2.clock() >= one.born + self.ec2.faults.unseen_seconds


_ACTIONS: dict[str, Callable[[Api, Fields], Fields]] = {
    "CreateFleet": Api.create_fleet,
    "CreateLaunchTemplate": Api.create_template,
    "CreateLaunchTemplateVersion": Api.create_template_version,
    "CreateTags": Api.create_tags,
    "DeleteLaunchTemplate": lambda api, asked: api.ec2.templates.delete(asked),
    "DeleteTags": Api.delete_tags,
    "DescribeInstanceAttribute": Api.describe_attribute,
    "DescribeInstanceStatus": Api.describe_status,
    "DescribeInstanceTypes": lambda _, asked: catalog.describe_types(asked),
    "DescribeInstances": Api.describe_instances,
    "DescribeLaunchTemplateVersions": lambda api, asked: api.ec2.templates.describe_versions(asked),
    "DescribeLaunchTemplates": lambda api, asked: api.ec2.templates.describe(asked),
    "DescribeSpotPriceHistory": Api.spot_prices,
    "GetConsoleOutput": Api.console_output,
    "ModifyLaunchTemplate": lambda api, asked: api.ec2.templates.modify(asked),
    "RunInstances": Api.run_instances,
    "StartInstances": Api.start,
    "StopInstances": Api.stop,
    "TerminateInstances": Api.terminate,
}


def _reservation(instances: list[Instance]) -> Fields:
    told = [one.describe() for one in instances]
    return {"ReservationId": instances[0].reservation, "OwnerId": OWNER, "Groups": [], "Instances": told}


def _status(one: Instance) -> Fields:
    health = "ok" if one.state == "running" else "not-applicable"
    summary = {"Status": health, "Details": []}
    return {
        "InstanceId": one.id,
        "AvailabilityZone": one.zone,
        "InstanceState": one.state_now(),
        "InstanceStatus": summary,
        "SystemStatus": summary,
        "Events": [],
    }
