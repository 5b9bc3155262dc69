"""The template deployed on moto as far as moto goes: what stands there, and what its instances are told."""

from __future__ import annotations

import base64
import re
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from formation import REGION, STACK, TEMPLATE, read_template
from moto import mock_aws

from irs.cloud import Cloud
from irs.settings import Settings, read_settings
from scaler.book import Intent
from scaler.ec2 import connect

#: EC2 takes no more.
MOST_USER_DATA_BYTES = 16 * 1024
#: Of the front's variables those that its scripts and Caddy read.
NOT_SETTINGS = {"wheel", "address", "domain"}
#: What moto's CloudFormation does not make, and says so: bucket and queue policies, the two secrets.
UNKNOWN_TO_MOTO = {"S3::BucketPolicy", "SQS::QueuePolicy", "SecretsManager::Secret"}


@dataclass
class Deployed:
    """The template as moto's CloudFormation made it; what moto passed over, by type."""

    template: dict[str, Any]
    stack: dict[str, Any]
    given: dict[str, str]
    made: dict[str, str]
    passed_over: set[str]

    @property
    def outputs(self) -> dict[str, str]:
        return {one["OutputKey"]: one["OutputValue"] for one in self.stack["Outputs"]}


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    with pytest.MonkeyPatch.context() as patch, mock_aws(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        ec2, formation = boto3.client("ec2"), boto3.client("cloudformation")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        boto3.client("ssm").put_parameter(Name="cat-image", Value=image, Type="String")
        zone = boto3.client("route53").create_hosted_zone(Name="example.org", CallerReference="cats")["HostedZone"]["Id"]
        given = {
            "Stack": STACK,
            "Image": "cat-image",
            "Network": ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
            "Subnets": ",".join(one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]),
            "Visitors": "203.0.113.0/24",
            "Domain": "irs.example.org",
            "Zone": zone.rpartition("/")[2],
            "PricePerHour": "0.1",
            "Budget": "12.5",
            "InputDays": "3",
            "OutputDays": "60",
        }
        # moto asks for the default too, and knows no parameters of Debian's.
        body = TEMPLATE.read_text().replace("    Default: /aws/service/debian/release/12/latest/amd64\n", "")
        formation.create_stack(
            StackName=STACK,
            TemplateBody=body,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        (stack,) = formation.describe_stacks(StackName=STACK)["Stacks"]
        resources = formation.list_stack_resources(StackName=STACK)["StackResourceSummaries"]
        made = {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources if one["LogicalResourceId"]}
        unknown = {found[1] for one in said if (found := re.match(r"Tried to parse AWS::(\S+) but", str(one.message)))}
        yield Deployed(read_template(), stack, given, made, unknown)


def test_an_emulator_makes_all_that_it_knows_of_the_template(deployed: Deployed) -> None:
    assert "CREATE_COMPLETE" == deployed.stack["StackStatus"]
    assert UNKNOWN_TO_MOTO == deployed.passed_over
    known = {name for name, one in deployed.template["Resources"].items() if one["Type"][5:] not in UNKNOWN_TO_MOTO}
    assert known == set(deployed.made)


def test_a_deployed_stack_says_where_its_page_is_and_how_to_open_it(deployed: Deployed) -> None:
    (address,) = boto3.client("ec2").describe_addresses()["Addresses"]
    records = boto3.client("route53").list_resource_record_sets(HostedZoneId=deployed.given["Zone"])

    assert "https://irs.example.org/" == deployed.outputs["Page"]
    assert "https://irs.example.org/flower/" == deployed.outputs["Flower"]
    assert address["PublicIp"] == deployed.outputs["Address"]
    assert deployed.outputs["WebToken"].endswith(f"--secret-id {STACK}/web-token")
    assert [address["PublicIp"]] in [
        [one["Value"] for one in record.get("ResourceRecords", ())] for record in records["ResourceRecordSets"]
    ]


def test_the_front_of_a_deployed_stack_stands_once_with_settings_that_are_read(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    (one,) = group["Instances"]
    told = exported(user_data(one["InstanceId"]))

    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings()

    assert (1, 1, 1) == (group["MinSize"], group["MaxSize"], group["DesiredCapacity"])
    assert not [name for name in told if name.removeprefix("IRS_").lower() not in {*Settings.model_fields, *NOT_SETTINGS}]
    assert (STACK, REGION, "", True) == (settings.stack, settings.region, settings.endpoint_url, settings.monitoring)
    assert (("irs.example.org",), ("127.0.0.1",)) == (settings.web_hosts, settings.web_trusted_proxies)
    assert (f"{STACK}-worker:$Latest", ("spot", "on-demand"), 19) == (
        settings.scaler_template,
        settings.scaler_markets,
        settings.scaler_cap,
    )
    assert (0.1, 12.5) == (settings.price_per_hour, settings.budget_per_day)
    # The page says until when what it shows is kept.
    assert (3, 60) == (settings.input_days, settings.output_days)
    assert group["VPCZoneIdentifier"] == ",".join(settings.scaler_subnets)
    assert not [name for name in told if "TOKEN" in name or "PASSWORD" in name]


def test_the_scaler_of_a_deployed_stack_launches_workers_of_its_template(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (group,) = boto3.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    for name, value in exported(user_data(group["Instances"][0]["InstanceId"])).items():
        monkeypatch.setenv(name, value)
    # moto knows no type but its own catalogue's, and no spot market for it.
    monkeypatch.setenv("IRS_SCALER_MARKETS", "on-demand")
    fleet = connect(Cloud(read_settings()))

    (id,) = fleet.run(Intent(launch=f"{STACK}-1", pair=fleet.candidates[0], count=1, at=0.0))

    told = exported(user_data(id))
    assert {"IRS_STACK": STACK, "IRS_MODEL": "imagenet200", "IRS_MONITORING": "1", "IRS_ENDPOINT_URL": ""}.items() <= told.items()
    assert [id] == [one.id for one in fleet.describe()]


def user_data(id: str) -> str:
    """Return the script that an instance of moto was given."""
    said = boto3.client("ec2").describe_instance_attribute(InstanceId=id, Attribute="userData")["UserData"]["Value"]
    return base64.b64decode(said).decode()


def exported(script: str) -> dict[str, str]:
    """Return what a shell exports that runs the script's head."""
    head = "".join(line for line in script.splitlines(keepends=True) if line.startswith("export IRS_"))
    said = subprocess.run(
        ["/bin/sh", "-c", f"{head}\nenv"], env={}, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if line.startswith("IRS_"))


@pytest.mark.parametrize("name", ["WorkerTemplate", "FrontTemplate"])
def test_what_an_instance_runs_at_its_start_is_a_script_that_the_shell_takes(deployed: Deployed, name: str) -> None:
    (version,) = boto3.client("ec2").describe_launch_template_versions(LaunchTemplateId=deployed.made[name])[
        "LaunchTemplateVersions"
    ]
    script = base64.b64decode(version["LaunchTemplateData"]["UserData"])

    assert script.startswith(b"#!/bin/sh\nexport IRS_STACK='cat-pictures'\n")
    assert len(script) <= MOST_USER_DATA_BYTES
    subprocess.run(["/bin/sh", "-n"], input=script, check=True, timeout=30)
