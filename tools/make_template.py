"""Makes ``deploy/cloudformation.yaml`` from the settings, the rights of each role and the files of ``deploy/``.

``python tools/make_template.py`` writes it; a test compares it with what this makes, and with what `irs provision` does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import template_machines as machines
import yaml

from irs.provision.queues import DAY_SECONDS, NEWS_VISIBILITY_SECONDS, REQUESTS_DAYS, RESPONSES_DAYS, drops_policy
from irs.provision.rights import FRONT, Place, policy
from irs.records import DROPS, TASKS
from irs.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "deploy" / "cloudformation.yaml"
#: A name of a stack in what is made here, until CloudFormation fills in its own.
_STACK = "stack-parameter"
_HEAD = "# Made by tools/make_template.py: change that, not this.\n"

Json = dict[str, Any]


def make_template() -> Json:
    """Return the template of one stack."""
    # By name, all of them: what the developer's own environment sets must not get in.
    settings = Settings(stack=_STACK, region="${AWS::Region}", endpoint_url="", **_defaults())  # type: ignore[call-arg]
    place = Place(settings, "${AWS::AccountId}", "${AWS::Partition}", "${WorkerRole}")
    resources = {
        **_buckets(settings),
        **_queues(settings),
        **_topics(),
        **_roles(place),
        **machines.network(_tags()),
        **machines.workers(settings, _tags()),
        **machines.front(settings, _tags()),
    }
    parameters = machines.parameters(settings)
    template: Json = _filled(
        {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Description": "irs: image recognition as a service",
            "Metadata": {"AWS::CloudFormation::Interface": {"ParameterGroups": _groups(parameters)}},
            "Parameters": {name: told for name, (_, told) in parameters.items()},
            "Rules": machines.rules(),
            "Conditions": machines.conditions(),
            "Resources": resources,
            "Outputs": machines.outputs(settings),
        }
    )
    return template


def _defaults() -> Json:
    names = (
        "max_receives",
        "visibility_seconds",
        "wait_seconds",
        "input_days",
        "output_days",
        "scaler_cap",
        "scaler_min_workers",
    )
    named = dict.fromkeys(
        ("input_bucket", "output_bucket", "models_bucket", "requests_queue", "responses_queue", "drops_queue"), ""
    )
    return {**named, "readable_buckets": (), **{name: Settings.model_fields[name].default for name in names}}


def _groups(parameters: dict[str, tuple[str, Json]]) -> list[Json]:
    """Return how CloudFormation's form shows the parameters."""
    groups: dict[str, list[str]] = {}
    for name, (group, _) in parameters.items():
        groups.setdefault(group, []).append(name)
    return [{"Label": {"default": group}, "Parameters": names} for group, names in groups.items()]


def _buckets(settings: Settings) -> Json:
    expiries: dict[str, list[Json]] = {
        "Input": [_rule("images", ExpirationInDays={"Ref": "InputDays"})],
        "Output": [
            _rule("records", ExpirationInDays={"Ref": "OutputDays"}),
            _rule("cancelled", Prefix="cancelled/", ExpirationInDays=REQUESTS_DAYS + 1),
        ],
        "Models": [],
    }
    names = {"Input": settings.input_bucket, "Output": settings.output_bucket, "Models": settings.models_bucket}
    # What S3 tells the drop box's queue of.
    told = {"Input": DROPS, "Output": TASKS}
    made: Json = {}
    for kind, rules in expiries.items():
        aborted = _rule("abort-uploads", AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})
        blocked = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        encrypted = {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        made[f"{kind}Bucket"] = {
            "Type": "AWS::S3::Bucket",
            # Images, records and models outlive a stack that is deleted by mistake.
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {
                "BucketName": names[kind],
                "PublicAccessBlockConfiguration": dict.fromkeys(blocked, True),
                "OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
                "BucketEncryption": {"ServerSideEncryptionConfiguration": [encrypted]},
                "LifecycleConfiguration": {"Rules": [aborted, *rules]},
                "Tags": _tags(),
            },
            **machines.passed_over(
                CKV_AWS_18="its log would hold names of images for nobody to read, and cost what they cost",
                CKV_AWS_21="what expires must be gone, and each key is written once",
            ),
        }
        if kind in told:
            made[f"{kind}Bucket"]["DependsOn"] = "DropsQueuePolicy"
            made[f"{kind}Bucket"]["Properties"]["NotificationConfiguration"] = {
                "QueueConfigurations": [
                    {
                        "Event": "s3:ObjectCreated:*",
                        "Queue": {"Fn::GetAtt": ["DropsQueue", "Arn"]},
                        "Filter": {"S3Key": {"Rules": [{"Name": "prefix", "Value": told[kind]}]}},
                    }
                ]
            }
        arn = f"arn:${{AWS::Partition}}:s3:::{names[kind]}"
        statement = {
            "Sid": "irs-tls-only",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        made[f"{kind}BucketPolicy"] = {
            "Type": "AWS::S3::BucketPolicy",
            "Properties": {
                "Bucket": {"Ref": f"{kind}Bucket"},
                "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]},
            },
        }
    return made


def _queues(settings: Settings) -> Json:
    days, dead = REQUESTS_DAYS * DAY_SECONDS, settings.requests_dead_queue
    # By names and not by references: each of the two names the other.
    arn, s3 = "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:", "arn:${AWS::Partition}:s3:::"
    return {
        "DeadQueue": _queue(
            dead,
            MessageRetentionPeriod=days,
            RedriveAllowPolicy={"redrivePermission": "byQueue", "sourceQueueArns": [arn + settings.requests_queue]},
        ),
        "RequestsQueue": {
            **_queue(
                settings.requests_queue,
                MessageRetentionPeriod=days,
                VisibilityTimeout=settings.visibility_seconds,
                ReceiveMessageWaitTimeSeconds=settings.wait_seconds,
                RedrivePolicy={"deadLetterTargetArn": arn + dead, "maxReceiveCount": settings.max_receives},
            ),
            "DependsOn": "DeadQueue",
        },
        "ResponsesQueue": _queue(
            settings.responses_queue,
            MessageRetentionPeriod=RESPONSES_DAYS * DAY_SECONDS,
            VisibilityTimeout=NEWS_VISIBILITY_SECONDS,
            ReceiveMessageWaitTimeSeconds=settings.wait_seconds,
        ),
        "DropsQueue": _queue(
            settings.drops_queue,
            MessageRetentionPeriod=days,
            VisibilityTimeout=settings.visibility_seconds,
            ReceiveMessageWaitTimeSeconds=settings.wait_seconds,
        ),
        "DropsQueuePolicy": {
            "Type": "AWS::SQS::QueuePolicy",
            "Properties": {
                "Queues": [{"Ref": "DropsQueue"}],
                "PolicyDocument": drops_policy(
                    arn + settings.drops_queue, [s3 + settings.input_bucket, s3 + settings.output_bucket], "${AWS::AccountId}"
                ),
            },
        },
    }


def _queue(name: str, **properties: Any) -> Json:
    return {
        "Type": "AWS::SQS::Queue",
        "Properties": {"QueueName": name, **properties, "SqsManagedSseEnabled": True, "Tags": _tags()},
        **machines.passed_over(CKV_AWS_27="SQS encrypts it with a key of its own, at no cost a request"),
    }


def _topics() -> Json:
    return {
        f"{name.capitalize()}Topic": {
            "Type": "AWS::SNS::Topic",
            "Properties": {"TopicName": f"{_STACK}-{name}", "Tags": _tags()},
            **machines.passed_over(CKV_AWS_26="it keeps nothing; the queues behind it are encrypted"),
        }
        for name in ("control", "events")
    }


def _roles(place: Place) -> Json:
    made: Json = {}
    for name, parts in (("Worker", ("worker",)), ("Front", FRONT)):
        trusted = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        made[f"{name}Role"] = {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trusted]},
                "Policies": [{"PolicyName": part, "PolicyDocument": policy(part, place)} for part in parts],
                "Tags": _tags(),
            },
        }
        made[f"{name}Profile"] = {"Type": "AWS::IAM::InstanceProfile", "Properties": {"Roles": [{"Ref": f"{name}Role"}]}}
    made["ClientPolicy"] = {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"Description": "hand images in and read the answers", "PolicyDocument": policy("client", place)},
    }
    return made


def _rule(name: str, **action: Any) -> Json:
    return {"Id": f"irs-{name}", "Status": "Enabled", **action}


def _tags() -> list[Json]:
    return [{"Key": "irs:system", "Value": _STACK}]


def _filled(told: Any) -> Any:
    """Put the parameter into names; what holds ``${...}`` is then for CloudFormation to fill in."""
    if isinstance(told, dict):
        return {key: _filled(value) for key, value in told.items()}
    if isinstance(told, (list, tuple)):
        return [_filled(value) for value in told]
    if not isinstance(told, str):
        return told
    text = told.replace(_STACK, "${Stack}")
    return {"Fn::Sub": text} if re.search(r"\$\{(Stack|WorkerRole|AWS::\w+)\}", text) else text


def to_yaml(template: Json) -> str:
    """Return the template as it is stored."""

    class Plain(yaml.SafeDumper):
        # What is read by people says each thing where it is used.
        def ignore_aliases(self, _data: Any) -> bool:
            return True

    def block(dumper: Plain, text: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if text.count("\n") > 1 else None)

    def mapping(dumper: Plain, told: Json) -> yaml.Node:
        # Their short forms: CloudFormation takes no template of more than 51,200 bytes by itself.
        match told:
            case {"Ref": name}:
                return dumper.represent_scalar("!Ref", name)
            case {"Fn::Sub": str(text)}:
                return dumper.represent_scalar("!Sub", text)
            case {"Fn::GetAtt": [name, attribute]}:
                return dumper.represent_scalar("!GetAtt", f"{name}.{attribute}")
        return dumper.represent_dict(told)

    Plain.add_representer(str, block)
    Plain.add_representer(dict, mapping)
    return _HEAD + yaml.dump(template, Dumper=Plain, sort_keys=False, width=130, allow_unicode=True)


if __name__ == "__main__":
    OUT.write_text(to_yaml(make_template()))
