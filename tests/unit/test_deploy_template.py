"""The CloudFormation template: made from the code, like what `irs provision` makes, and shut where it must be."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from formation import ACCOUNT, REGION, ROOT, STACK, TEMPLATE, filled, of_type, read_template
from moto import mock_aws

from irs.cloud import Cloud
from irs.provision import provision
from irs.provision.rights import FRONT, ROLES, Place, policy
from irs.settings import read_settings

#: IAM takes no more characters in all inline policies of one role together, blanks apart.
MOST_INLINE_CHARACTERS = 10_240
#: CloudFormation takes no more of a template that is not in S3 first.
MOST_TEMPLATE_BYTES = 51_200


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    return read_template()


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


def _load_tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # It is run as a program: what lies beside it is found there.
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("make_template", ROOT / "tools/make_template.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_the_template_is_what_the_code_makes_and_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = _load_tool(monkeypatch)

    stored = TEMPLATE.read_text()

    assert tool.to_yaml(tool.make_template()) == stored, "run `python tools/make_template.py`"
    assert len(stored.encode()) <= MOST_TEMPLATE_BYTES


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


def test_nothing_comes_in_to_a_worker_and_web_alone_to_the_front(template: dict[str, Any]) -> None:
    groups = of_type(template, "EC2::SecurityGroup")

    assert "SecurityGroupIngress" not in groups["WorkerGroup"]
    inwards = [(one["FromPort"], one["ToPort"], one["CidrIp"]) for one in groups["FrontGroup"]["SecurityGroupIngress"]]
    assert [(443, 443, "Visitors"), (80, 80, "0.0.0.0/0")] == inwards
    assert {80, 443} == {one["FromPort"] for group in groups.values() for one in group["SecurityGroupEgress"]}


@pytest.mark.parametrize("name", ["WorkerTemplate", "FrontTemplate"])
def test_metadata_asks_for_a_token_and_disks_are_encrypted(template: dict[str, Any], name: str) -> None:
    data = template["Resources"][name]["Properties"]["LaunchTemplateData"]

    assert "required" == data["MetadataOptions"]["HttpTokens"]
    assert [True] == [disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"]]
    assert ("terminate" if name == "WorkerTemplate" else None) == data.get("InstanceInitiatedShutdownBehavior")


def test_each_parameter_stands_in_the_form_once_and_has_a_sentence(template: dict[str, Any]) -> None:
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    assert list(template["Parameters"]) == [name for group in groups for name in group["Parameters"]]
    assert not [name for name, told in template["Parameters"].items() if not told["Description"].endswith(".")]
    # What is refused says what would be taken.
    assert not [
        name
        for name, told in template["Parameters"].items()
        if "AllowedPattern" in told and not told["ConstraintDescription"].startswith("must be ")
    ]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("Stack", "Cats"),
        ("Stack", "a'; reboot; '"),
        ("Wheel", "http://example.com/irs.whl"),
        ("Wheel", "https://example.com/'$(reboot)'.whl"),
        ("Model", "a b"),
        ("Types", "c7i.large, c7a.large"),
        ("Domain", "https://irs.example.com"),
        ("Zone", "example.com"),
        ("Visitors", "everybody"),
    ],
)
def test_what_would_break_the_script_of_an_instance_is_refused(template: dict[str, Any], name: str, bad: str) -> None:
    told = template["Parameters"][name]

    assert not re.fullmatch(told["AllowedPattern"], bad)
    assert "Default" not in told or re.fullmatch(told["AllowedPattern"], told["Default"])


@pytest.mark.parametrize("name", ["Stack", "Network", "Subnets", "Visitors"])
def test_what_nobody_else_can_know_must_be_given(template: dict[str, Any], name: str) -> None:
    assert "Default" not in template["Parameters"][name]


def test_cfn_lint_finds_nothing() -> None:
    # As a program: its own plugins and warnings stay out of this process.
    done = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), "--regions", "us-east-1,eu-central-1", "--", str(TEMPLATE)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert (0, "") == (done.returncode, done.stdout)


def test_checkov_finds_nothing_that_is_not_passed_over_with_a_reason() -> None:
    if (checkov := shutil.which("checkov")) is None:
        pytest.skip("checkov is not on this machine: pipx install checkov.")

    done = subprocess.run(
        [checkov, "--file", str(TEMPLATE), "--framework", "cloudformation", "--output", "json", "--quiet"],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )

    summary = json.loads(done.stdout)["summary"]
    assert (0, 0) == (summary["failed"], summary["parsing_errors"])
    assert summary["passed"] > 50


def test_each_check_that_is_passed_over_says_why(template: dict[str, Any]) -> None:
    skipped = [
        one for made in template["Resources"].values() for one in made.get("Metadata", {}).get("checkov", {"skip": []})["skip"]
    ]

    assert {"CKV_AWS_18", "CKV_AWS_21", "CKV_AWS_26", "CKV_AWS_27", "CKV_AWS_88", "CKV_AWS_149", "CKV_AWS_260"} == {
        one["id"] for one in skipped
    }
    assert min(len(one["comment"].split()) for one in skipped) >= 5
