"""Launch templates: what a fleet starts is written once, in numbered versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from irs.local.ec2.faults import Refused
from irs.local.ec2.instances import OWNER, Fields, new_id, tag_list
from irs.local.ec2.lists import select

CREATED_BY = f"arn:aws:iam::{OWNER}:root"


@dataclass(slots=True, kw_only=True)
class Template:
    """One launch template; version *n* is ``versions[n - 1]``: data, description, when (Unix seconds)."""

    id: str
    name: str
    created: float
    default: int = 1
    tags: dict[str, str] = field(default_factory=dict)
    versions: list[Fields] = field(default_factory=list)

    def describe(self) -> Fields:
        """Return what DescribeLaunchTemplates says of it."""
        return {
            "LaunchTemplateId": self.id,
            "LaunchTemplateName": self.name,
            "CreateTime": self.created,
            "CreatedBy": CREATED_BY,
            "DefaultVersionNumber": self.default,
            "LatestVersionNumber": len(self.versions),
            "Tags": tag_list(self.tags),
        }

    def describe_version(self, number: int) -> Fields:
        """Return what DescribeLaunchTemplateVersions says of one version."""
        version = self.versions[number - 1]
        return {
            "LaunchTemplateId": self.id,
            "LaunchTemplateName": self.name,
            "VersionNumber": number,
            "VersionDescription": version["description"],
            "CreateTime": version["created"],
            "CreatedBy": CREATED_BY,
            "DefaultVersion": number == self.default,
            "LaunchTemplateData": version["data"],
        }

    def number(self, version: str) -> int:
        """Return which version is meant by a number, ``$Default``, ``$Latest`` or nothing.

        Raises:
            Refused: there is no such version.
        """
        named = {"": self.default, "$Default": self.default, "$Latest": len(self.versions)}.get(version)
        number = named if named is not None else int(version) if version.isdecimal() else 0
        if not 1 <= number <= len(self.versions):
            message = f"Could not find the specified version {version} for the launch template with ID {self.id}."
            raise Refused("InvalidLaunchTemplateId.VersionNotFound", message)
        return number


_FILTERS: dict[str, Callable[[Template], list[str]]] = {
    "launch-template-id": lambda one: [one.id],
    "launch-template-name": lambda one: [one.name],
}


class Templates:
    """All launch templates, by id."""

    def __init__(self, told: list[Any] | None = None) -> None:
        self.all = {one.id: one for one in (Template(**each) for each in told or ())}

    def create(self, asked: Fields, now: float) -> Fields:
        """Answer CreateLaunchTemplate."""
        name = asked["LaunchTemplateName"]
        if any(one.name == name for one in self.all.values()):
            raise Refused("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
        made = Template(id=new_id("lt"), name=name, created=now, tags=tags_for("launch-template", asked))
        made.versions.append(_version(asked, asked["LaunchTemplateData"], now))
        self.all[made.id] = made
        return {"LaunchTemplate": made.describe()}

    def create_version(self, asked: Fields, now: float) -> Fields:
        """Answer CreateLaunchTemplateVersion; data of ``SourceVersion`` stays where the request has none."""
        one = self.find(asked)
        data = asked["LaunchTemplateData"]
        if source := asked.get("SourceVersion"):
            data = one.versions[one.number(source) - 1]["data"] | data
        one.versions.append(_version(asked, data, now))
        return {"LaunchTemplateVersion": one.describe_version(len(one.versions))}

    def modify(self, asked: Fields) -> Fields:
        """Answer ModifyLaunchTemplate: another default version."""
        one = self.find(asked)
        one.default = one.number(asked.get("DefaultVersion", ""))
        return {"LaunchTemplate": one.describe()}

    def delete(self, asked: Fields) -> Fields:
        """Answer DeleteLaunchTemplate; what runs from it goes on."""
        one = self.find(asked)
        del self.all[one.id]
        return {"LaunchTemplate": one.describe()}

    def describe(self, asked: Fields) -> Fields:
        """Answer DescribeLaunchTemplates."""
        names, ids = asked.get("LaunchTemplateNames", []), asked.get("LaunchTemplateIds", [])
        named = [self.find({"LaunchTemplateName": name}) for name in names] + [self.find({"LaunchTemplateId": id}) for id in ids]
        found = select(named or self.all.values(), asked.get("Filters", ()), _FILTERS)
        return {"LaunchTemplates": [one.describe() for one in found]}

    def describe_versions(self, asked: Fields) -> Fields:
        """Answer DescribeLaunchTemplateVersions: those named, or all from the newest on."""
        one = self.find(asked)
        least, most = int(asked.get("MinVersion") or 1), int(asked.get("MaxVersion") or len(one.versions))
        numbers = [one.number(version) for version in asked.get("Versions", ())] or range(len(one.versions), 0, -1)
        return {"LaunchTemplateVersions": [one.describe_version(number) for number in numbers if least <= number <= most]}

    def find(self, asked: Fields) -> Template:
        """Return the template that a request names by id or by name.

        Raises:
            Refused: none is named, or there is no such template.
        """
        id, name = asked.get("LaunchTemplateId"), asked.get("LaunchTemplateName")
        if bool(id) == bool(name):
            raise Refused("MissingParameter", "Name either LaunchTemplateId or LaunchTemplateName")
        found = [one for one in self.all.values() if name in (None, "", one.name) and id in (None, "", one.id)]
        if not found:
            kind = "InvalidLaunchTemplateId.NotFound" if id else "InvalidLaunchTemplateName.NotFoundException"
            raise Refused(kind, f"The specified launch template, {id or name}, does not exist.")
        return found[0]

    def under(self, asked: Fields) -> Fields:
        """Return a RunInstances request with what its template says where it is silent itself.

        Keys are taken as a whole; only tags of both come together, the request's first.
        """
        if not (named := asked.get("LaunchTemplate")):
            return asked
        one = self.find(named)
        data = one.versions[one.number(named.get("Version", "")) - 1]["data"]
        kinds = {each.get("ResourceType", "") for source in (asked, data) for each in source.get("TagSpecifications", ())}
        tags = [{"ResourceType": kind, "Tags": tag_list(tags_for(kind, data) | tags_for(kind, asked))} for kind in sorted(kinds)]
        return {**data, **asked, "TagSpecifications": tags}


def tags_for(kind: str, asked: Fields) -> dict[str, str]:
    """Return the tags that a request gives to what it makes of ``kind``.

    Raises:
        Refused: a tag's name that only AWS may give.
    """
    lists = [each.get("Tags", ()) for each in asked.get("TagSpecifications", ()) if each.get("ResourceType") == kind]
    return read_tags([tag for tags in lists for tag in tags])


def read_tags(tags: list[Fields]) -> dict[str, str]:
    """Return listed tags by their names. Raises as :func:`tags_for`."""
    found = {tag.get("Key", ""): tag.get("Value", "") for tag in tags}
    for key in found:
        if not key or key.startswith("aws:"):
            raise Refused(
                "InvalidParameterValue", f"The tag key '{key}' is empty, or begins with aws:, which AWS keeps for itself"
            )
    return found


def _version(asked: Fields, data: Fields, now: float) -> Fields:
    return {"data": data, "description": asked.get("VersionDescription"), "created": now}
