"""The launch template of the embedded cloud's workers; on AWS it comes with the stack.

The end of the user data's process is the end of its instance, as ``poweroff`` is there.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irs.cloud import Cloud

#: Any id does: there is no image to start from but this machine.
IMAGE = "ami-00000000000000000"
INSTANCE_TYPE = "c7i.large"
#: Of one process or one machine, of the page, of the scaler, or secret.
_OTHERS = (
    "IRS_ENDPOINT_URL",
    "IRS_FLOWER_",
    "IRS_HEALTH_PORT",
    "IRS_HOME",
    "IRS_INSTANCE_ID",
    "IRS_LAUNCH",
    "IRS_LOCAL_",
    "IRS_PARENT_PID",
)
_OTHER_ROOMS = ("IRS_SCALER_", "IRS_WEB_")


def template_name(stack: str) -> str:
    """Return the name of a stack's launch template."""
    return f"{stack}-worker"


def user_data(environment: Mapping[str, str]) -> str:
    """Return the script of a worker with the settings of ``environment``."""
    lines = ["#!/bin/sh"]
    for name, value in sorted(environment.items()):
        if name.startswith("IRS_") and not name.startswith(_OTHERS + _OTHER_ROOMS):
            # A folder by its full name: the instance starts elsewhere.
            told = str(Path(value).absolute()) if name == "IRS_MODEL" and value and Path(value).is_dir() else value
            lines.append(f"export {name}={shlex.quote(told)}")
    # exec: else the shell would be what the instance's end reaches, and not the worker.
    return "\n".join((*lines, "exec irs worker", ""))


def make_template(cloud: Cloud, environment: Mapping[str, str] | None = None) -> str:
    """Bring a stack's launch template to what ``environment`` says, this process's by default; return its name.

    May run twice: a new version is made only where something differs.
    """
    from botocore.exceptions import ClientError

    ec2, stack = cloud.client("ec2"), cloud.settings.stack
    name, data = template_name(stack), _data(stack, user_data(os.environ if environment is None else environment))
    try:
        found = ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Default"])["LaunchTemplateVersions"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "InvalidLaunchTemplateName.NotFoundException":
            raise
        tags = [{"ResourceType": "launch-template", "Tags": [{"Key": "irs:system", "Value": stack}]}]
        ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data, TagSpecifications=tags)
        return name
    if found[0]["LaunchTemplateData"] != data:
        made = ec2.create_launch_template_version(LaunchTemplateName=name, LaunchTemplateData=data)["LaunchTemplateVersion"]
        ec2.modify_launch_template(LaunchTemplateName=name, DefaultVersion=str(made["VersionNumber"]))
    return name


def _data(stack: str, script: str) -> dict[str, Any]:
    tags = {"irs:system": stack, "irs:fleet": stack, "irs:role": "worker"}
    return {
        "ImageId": IMAGE,
        "InstanceType": INSTANCE_TYPE,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
        ],
        "UserData": base64.b64encode(script.encode()).decode(),
    }
