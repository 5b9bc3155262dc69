"""The CloudFormation template: made from the code, like what `irs provision` makes, and shut where it must be."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from irs.cloud import Cloud
from irs.provision import provision
from irs.provision.rights import FRONT, ROLES, Place, policy
from irs.settings import read_settings

ROOT = Path(__file__).resolve().parents[2]
STACK, REGION, ACCOUNT = "cat-pictures", "eu-central-1", "123456789012"
#: IAM takes no more characters in all inline policies of one role together, blanks apart.
MOST_INLINE_CHARACTERS = 10_240
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


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    found: dict[str, Any] = filled(yaml.safe_load((ROOT / "deploy/cloudformation.yaml").read_text()))
    return found


@pytest.fixture
def provisioned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """What `irs provision` makes on AWS, by moto."""
    for name, value in {"IRS_STACK": STACK, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        cloud = Cloud(read_settings())
        cloud.session().events.register("provide-client-params.sqs.SetQueueAttributes", _keep_attributes)
        provision(cloud)
        yield cloud
    _SET.clear()


#: What was set on queues after their making, by URL: moto keeps no RedriveAllowPolicy.
_SET: dict[str, dict[str, str]] = {}


def _keep_attributes(params: dict[str, Any], **_: Any) -> None:
    _SET.setdefault(params["QueueUrl"], {}).update(params["Attributes"])


def of_type(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {name: one["Properties"] for name, one in template["Resources"].items() if one["Type"] == f"AWS::{kind}"}


def test_the_template_is_what_the_code_makes() -> None:
    spec = importlib.util.spec_from_file_location("make_template", ROOT / "tools/make_template.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    stored = (ROOT / "deploy/cloudformation.yaml").read_text()

    assert tool.to_yaml(tool.make_template()) == stored, "run `python tools/make_template.py`"


def test_the_template_makes_the_buckets_that_provision_makes(template: dict[str, Any], provisioned: Cloud) -> None:
    s3 = provisioned.client("s3")
    made = {}
    for name in (bucket["Name"] for bucket in s3.list_buckets()["Buckets"]):
        rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
        encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        made[name] = {
            "blocked": s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            "owned": s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"],
            "encrypted": [rule["ApplyServerSideEncryptionByDefault"] for rule in encryption],
            "policy": json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]),
            "told": [
                (one["QueueArn"].rpartition(":")[2], *one["Events"], one["Filter"]["Key"]["FilterRules"][0]["Value"])
                for one in s3.get_bucket_notification_configuration(Bucket=name).get("QueueConfigurations", [])
            ],
            "rules": {rule["ID"]: (rule["Filter"]["Prefix"], rule.get("Expiration", {}).get("Days")) for rule in rules},
        }

    policies = {filled({"Ref": one["Bucket"]}): one["PolicyDocument"] for one in of_type(template, "S3::BucketPolicy").values()}
    told = {
        one["BucketName"]: {
            "blocked": one["PublicAccessBlockConfiguration"],
            "owned": one["OwnershipControls"],
            "encrypted": [
                rule["ServerSideEncryptionByDefault"] for rule in one["BucketEncryption"]["ServerSideEncryptionConfiguration"]
            ],
            "policy": policies[name],
            "told": [
                (f"{STACK}-drops", told["Event"], told["Filter"]["S3Key"]["Rules"][0]["Value"])
                for told in one.get("NotificationConfiguration", {}).get("QueueConfigurations", [])
            ],
            "rules": {
                rule["Id"]: (rule.get("Prefix", ""), rule.get("ExpirationInDays"))
                for rule in one["LifecycleConfiguration"]["Rules"]
            },
        }
        for name, one in of_type(template, "S3::Bucket").items()
    }
    assert made == told


def test_the_template_makes_the_queues_and_topics_that_provision_makes(template: dict[str, Any], provisioned: Cloud) -> None:
    sqs, sns = provisioned.sqs(), provisioned.client("sns")
    urls = sqs.list_queues()["QueueUrls"]
    read = partial(sqs.get_queue_attributes, AttributeNames=["All"])
    found = {url.rpartition("/")[2]: read(QueueUrl=url)["Attributes"] | _SET.get(url, {}) for url in urls}

    told = {one["QueueName"]: one for one in of_type(template, "SQS::Queue").values()}
    assert set(found) == set(told)
    for name, properties in told.items():
        for key in properties.keys() - {"QueueName", "Tags"}:
            want, has = properties[key], found[name][key]
            assert want == (json.loads(has) if isinstance(want, dict | bool) else int(has)), (name, key)
    unset = {"MessageRetentionPeriod": 345_600, "VisibilityTimeout": 30, "ReceiveMessageWaitTimeSeconds": 0}
    for name, key in ((name, key) for name in found for key in unset):
        assert int(found[name][key]) == told[name].get(key, unset[key]), (name, key)
    (drops,) = of_type(template, "SQS::QueuePolicy").values()
    assert json.loads(found[f"{STACK}-drops"]["Policy"]) == drops["PolicyDocument"]
    topics = {one["TopicArn"].rpartition(":")[2] for one in sns.list_topics()["Topics"]}
    assert topics == {one["TopicName"] for one in of_type(template, "SNS::Topic").values()}


@pytest.mark.parametrize(("name", "parts"), [("WorkerRole", ("worker",)), ("FrontRole", FRONT)])
def test_a_role_of_the_template_has_the_rights_of_its_parts(template: dict[str, Any], name: str, parts: tuple[str, ...]) -> None:
    settings = read_settings().model_copy(update={"region": REGION})
    place = Place(type(settings)(stack=STACK, region=REGION), ACCOUNT, worker_role="worker-role")

    told = template["Resources"][name]["Properties"]["Policies"]

    assert {part: policy(part, place) for part in parts} == {one["PolicyName"]: one["PolicyDocument"] for one in told}
    assert sum(len(re.sub(r"\s", "", json.dumps(one["PolicyDocument"]))) for one in told) <= MOST_INLINE_CHARACTERS


def test_no_role_may_do_all_of_a_service_or_touch_names_of_others() -> None:
    place = Place(read_settings(), ACCOUNT)
    boundless = {
        (role, action)
        for role, grants in ROLES.items()
        for grant in grants(place)
        for action in grant.actions
        if grant.resources == ("*",)
    }

    assert not [action for grants in ROLES.values() for grant in grants(place) for action in grant.actions if "*" in action]
    looks = {("scaler", f"ec2:Describe{what}") for what in ("Instances", "Subnets", "Images")}
    left = {(role, "sns:Unsubscribe") for role in ("worker", "flower", "janitor")}
    assert looks | left | {("janitor", "sqs:ListQueues")} == boundless


def test_nothing_comes_in_to_a_worker_and_its_metadata_asks_for_a_token(template: dict[str, Any]) -> None:
    worker = template["Resources"]["WorkerGroup"]["Properties"]
    data = template["Resources"]["WorkerTemplate"]["Properties"]["LaunchTemplateData"]

    assert "SecurityGroupIngress" not in worker
    assert "required" == data["MetadataOptions"]["HttpTokens"]
    assert all(disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"])
    assert "terminate" == data["InstanceInitiatedShutdownBehavior"]
    assert [443] == [one["FromPort"] for one in template["Resources"]["FrontGroup"]["Properties"]["SecurityGroupIngress"]]


# What moto does not make (bucket policies) it says and passes over.
@pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning")
def test_an_emulator_makes_what_it_knows_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        ec2 = boto3.client("ec2")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        boto3.client("ssm").put_parameter(Name="worker-image", Value=image, Type="String")
        network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        given = {"Stack": STACK, "Network": network, "WorkerImage": "worker-image"}
        formation = boto3.client("cloudformation")

        formation.create_stack(
            StackName=STACK,
            TemplateBody=(ROOT / "deploy/cloudformation.yaml").read_text(),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
            Capabilities=["CAPABILITY_IAM"],
        )

        (stack,) = formation.describe_stacks(StackName=STACK)["Stacks"]
        assert "CREATE_COMPLETE" == stack["StackStatus"]
        assert f"{STACK}-input" in {one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]}
        versions = ec2.describe_launch_template_versions(LaunchTemplateName=f"{STACK}-worker")["LaunchTemplateVersions"]
        assert "terminate" == versions[0]["LaunchTemplateData"]["InstanceInitiatedShutdownBehavior"]


def test_what_a_worker_runs_at_its_start_is_a_script_that_bash_takes(template: dict[str, Any], tmp_path: Path) -> None:
    data = template["Resources"]["WorkerTemplate"]["Properties"]["LaunchTemplateData"]
    script = "".join(str(one) for one in data["UserData"]["Fn::Base64"]["Fn::Join"][1])

    assert script.startswith("#!/bin/bash\nexport IRS_STACK='cat-pictures'\n")
    assert len(script.encode()) <= 16 * 1024
    subprocess.run(["bash", "-n"], input=script.encode(), check=True, timeout=30)


def test_the_unit_of_a_worker_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not on this machine.")
    unit = tmp_path / "irs-worker.service"
    text = (ROOT / "deploy/worker/irs-worker.service").read_text()
    # The program of an instance is not on this machine.
    unit.write_text(text.replace("/opt/irs/bin/irs", "/bin/true"))

    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True, timeout=60)

    assert (0, []) == (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line])
