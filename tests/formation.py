"""The CloudFormation template as tests read it: its short forms as long ones, and filled in as for one stack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "deploy/cloudformation.yaml"
STACK, REGION, ACCOUNT = "cat-pictures", "eu-central-1", "123456789012"
_KNOWN = {
    "Stack": STACK,
    "WorkerRole": "worker-role",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "InputDays": 7,
    "OutputDays": 30,
}


def filled(told: Any) -> Any:
    """Return a part of the template as CloudFormation fills it in."""
    if isinstance(told, list):
        return [filled(one) for one in told]
    if not isinstance(told, dict):
        return told
    match told:
        case {"Ref": name}:
            return _KNOWN.get(name, name)
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: str(_KNOWN[found[1]]), text)
    return {key: filled(value) for key, value in told.items()}


class _Loader(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions as the long ones."""


def _long(_: _Loader, name: str, node: yaml.ScalarNode) -> dict[str, Any]:
    if name == "GetAtt":
        return {"Fn::GetAtt": node.value.split(".", 1)}
    return {name if name == "Ref" else f"Fn::{name}": node.value}


_Loader.add_multi_constructor("!", _long)


def read_template() -> dict[str, Any]:
    """Return the template, filled in."""
    # A subclass of the safe one.
    found: dict[str, Any] = filled(yaml.load(TEMPLATE.read_text(), Loader=_Loader))
    return found


def of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """Return the properties of all resources of a type, by name."""
    return {name: one["Properties"] for name, one in template["Resources"].items() if one["Type"] == f"AWS::{kind}"}


def user_data(resource: str, given: dict[str, str]) -> str:
    """Return the script of a launch template as CloudFormation makes it of parameters and of attributes (``Name.Attribute``)."""
    told = yaml.load(TEMPLATE.read_text(), Loader=_Loader)
    known = {name: str(one["Default"]) for name, one in told["Parameters"].items() if "Default" in one} | given

    def said(part: Any) -> str:
        match part:
            case {"Ref": name}:
                text = known[name]
            case {"Fn::GetAtt": [name, attribute]}:
                text = known[f"{name}.{attribute}"]
            case {"Fn::Sub": pattern}:
                text = re.sub(r"\$\{([\w:]+)\}", lambda found: known[found[1]], pattern)
            case {"Fn::If": [condition, so, else_]}:
                text = said(so if known[condition.removeprefix("Has")] else else_)
            case {"Fn::Join": [between, list(parts)]}:
                text = between.join(said(one) for one in parts)
            case {"Fn::Join": [between, {"Ref": name}]}:
                text = known[name].replace(",", between)
            case {"Fn::Base64": inner}:
                text = said(inner)
            case _:
                text = str(part)
        return text

    return said(told["Resources"][resource]["Properties"]["LaunchTemplateData"]["UserData"])
