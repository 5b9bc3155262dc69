"""The machines of the template: its parameters, network, workers, and the instance in front with what opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irs.provision.rights import SECRETS
from irs.settings import Settings

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
_TYPE = r"[a-z0-9-]+\.[a-z0-9-]+"
_EVERYBODY = "0.0.0.0/0"

Json = dict[str, Any]


def parameters(settings: Settings) -> dict[str, tuple[str, Json]]:
    """Return the parameters by name, each with the title of its group."""
    service, fleet, front, data = "The service", "Workers and their cost", "The page", "How long data is kept"
    policies = ["classic", "latency", "balanced", "eco"]
    return {
        "Stack": (
            service,
            _text(
                "Prefix of all names, and IRS_STACK of each program. Bucket names are global: take one that nobody has.",
                pattern="[a-z0-9][a-z0-9-]{0,40}",
                says="small letters, digits and hyphens, 41 at most",
            ),
        ),
        "Image": (
            service,
            {
                "Type": "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>",
                "Default": "/aws/service/debian/release/12/latest/amd64",
                "Description": "Name of the SSM parameter that holds the AMI: yours of deploy/image, or plain Debian 12.",
            },
        ),
        "Wheel": (
            service,
            _text(
                "Address of irs' wheel, installed at each start where the image holds none; with an image of yours empty.",
                default="",
                pattern=r"(https://[^'\s\\]+\.whl)?",
                says="https://...whl, or nothing",
            ),
        ),
        "Model": (
            service,
            _text(
                "IRS_MODEL of the workers: imagenet200 comes with irs; a name of torchvision; s3://STACK-models/name.",
                default="imagenet200",
                pattern=r"[\w./:-]+",
                says="a model by its name or its s3:// address",
            ),
        ),
        "Network": (service, {"Type": "AWS::EC2::VPC::Id", "Description": "The VPC of all instances."}),
        "Subnets": (
            service,
            {
                "Type": "List<AWS::EC2::Subnet::Id>",
                "Description": "Its subnets, one a zone, that give public addresses; at least two zones.",
            },
        ),
        "Types": (
            fleet,
            _text(
                "Instance types of workers, separated by commas, the best first; all of the image's architecture.",
                default="c7i.large,c7a.large,c6i.large",
                pattern=f"{_TYPE}(,{_TYPE})*",
                says="types such as c7i.large, separated by commas without blanks",
            ),
        ),
        "Markets": (
            fleet,
            _text(
                "Where workers are bought, the preferred market first; spot costs about half and may be taken away.",
                default="spot,on-demand",
                allowed=["spot,on-demand", "on-demand,spot", "on-demand", "spot"],
            ),
        ),
        "Policy": (
            fleet,
            _text("What a wait is worth: latency is quick, eco is cheap; docs/scaler.md.", default="balanced", allowed=policies),
        ),
        "Cap": (fleet, _number("Workers at most.", settings.scaler_cap, least=1, most=1000)),
        "MinWorkers": (fleet, _number("Workers that always stand.", settings.scaler_min_workers, least=0, most=1000)),
        "PricePerHour": (
            fleet,
            _number("Dollars for one hour of one worker, for what is told of costs; 0: unknown.", 0, least=0),
        ),
        "Budget": (
            fleet,
            _number("Dollars of workers a day after which none is launched; 0: no limit. Needs PricePerHour.", 0, least=0),
        ),
        "Domain": (
            front,
            _text(
                "Name of the page, such as irs.example.com; Caddy gets its certificate. Empty: the address, and a warning.",
                default="",
                pattern=r"([a-z0-9-]+(\.[a-z0-9-]+)+)?",
                says="a name such as irs.example.com, or nothing",
            ),
        ),
        "Zone": (
            front,
            _text(
                "Id of Route 53's hosted zone of that name, for its record to be made. Empty: make it yourself.",
                default="",
                pattern="(Z[A-Z0-9]+)?",
                says="an id such as Z0123456789ABC, or nothing",
            ),
        ),
        "Visitors": (
            front,
            _text(
                "Addresses that may reach page and Flower, such as 203.0.113.0/24; 0.0.0.0/0 is everybody with the token.",
                pattern=r"\d+\.\d+\.\d+\.\d+/\d+",
                says="a network such as 203.0.113.0/24",
            ),
        ),
        "FrontType": (
            front,
            _text(
                "Instance type of page, scaler, janitor, drop box and Flower, of the image's architecture; 2 GiB of memory do.",
                default="t3a.small",
                pattern=_TYPE,
                says="a type such as t3a.small",
            ),
        ),
        "InputDays": (data, _number("Days until images expire.", settings.input_days, least=1)),
        "OutputDays": (data, _number("Days until records expire.", settings.output_days, least=1)),
    }


def rules() -> Json:
    """Return what must fit together, each with the sentence that CloudFormation says when it does not."""

    def given(name: str, nothing: str) -> Json:
        return {"Fn::Not": [{"Fn::Equals": [{"Ref": name}, nothing]}]}

    return {
        "ZoneNeedsDomain": {
            "RuleCondition": given("Zone", ""),
            "Assertions": [{"Assert": given("Domain", ""), "AssertDescription": "Zone is given without Domain: name both."}],
        },
        "BudgetNeedsPrice": {
            "RuleCondition": given("Budget", "0"),
            "Assertions": [
                {
                    "Assert": given("PricePerHour", "0"),
                    "AssertDescription": "Budget is given without PricePerHour, the dollars for one hour of one worker.",
                }
            ],
        },
    }


def conditions() -> Json:
    """Return what depends on what was given."""
    return {f"Has{name}": {"Fn::Not": [{"Fn::Equals": [{"Ref": name}, ""]}]} for name in ("Domain", "Zone")}


def network(tags: list[Json]) -> Json:
    """Return the security groups: nothing comes in to a worker."""

    def port(number: int, cidr: object, why: str) -> Json:
        return {"IpProtocol": "tcp", "FromPort": number, "ToPort": number, "CidrIp": cidr, "Description": why}

    out = [port(443, _EVERYBODY, "AWS, packages, models"), port(80, _EVERYBODY, "packages of Debian, which are signed")]
    inwards = [
        port(443, {"Ref": "Visitors"}, "page and Flower"),
        port(80, _EVERYBODY, "the certificate authority asks here; others are sent on to HTTPS"),
    ]
    return {
        "WorkerGroup": _group("workers: nothing in, HTTPS out", tags, SecurityGroupEgress=out),
        "FrontGroup": {
            **_group("page and Flower: HTTPS in and out", tags, SecurityGroupIngress=inwards, SecurityGroupEgress=out),
            **passed_over(
                CKV_AWS_260="Let's Encrypt asks from addresses it does not tell; nothing but its answer and a redirect"
            ),
        },
    }


def workers(settings: Settings, tags: list[Json]) -> Json:
    """Return the launch template of workers; types, markets and subnets are the scaler's."""
    told = {
        "STACK": {"Ref": "Stack"},
        "REGION": {"Ref": "AWS::Region"},
        # Given and empty: AWS itself.
        "ENDPOINT_URL": "",
        "MODEL": {"Ref": "Model"},
        "MONITORING": "1",
        "WHEEL": {"Ref": "Wheel"},
    }
    data = {
        **_machine("Worker", told),
        "SecurityGroupIds": [{"Fn::GetAtt": ["WorkerGroup", "GroupId"]}],
        "InstanceInitiatedShutdownBehavior": "terminate",
    }
    return {"WorkerTemplate": _template(f"{settings.stack}-worker", data, tags)}


def front(settings: Settings, tags: list[Json]) -> Json:
    """Return the one instance in front: its address, what opens it, its launch template and its group."""
    name = {"Fn::If": ["HasDomain", {"Ref": "Domain"}, {"Ref": "FrontAddress"}]}
    told = {
        "STACK": {"Ref": "Stack"},
        "REGION": {"Ref": "AWS::Region"},
        "ENDPOINT_URL": "",
        "MONITORING": "1",
        "WHEEL": {"Ref": "Wheel"},
        "ADDRESS": {"Fn::GetAtt": ["FrontAddress", "AllocationId"]},
        "DOMAIN": name,
        "WEB_HOSTS": name,
        # Caddy, of this machine.
        "WEB_TRUSTED_PROXIES": "127.0.0.1",
        "FLOWER_URL": {"Fn::Join": ["", ["https://", name, "/flower/"]]},
        # The page says until when what it shows is kept.
        "INPUT_DAYS": {"Ref": "InputDays"},
        "OUTPUT_DAYS": {"Ref": "OutputDays"},
        # The scaler asks what it stands for, and has workers follow when it is rolled.
        "MODEL": {"Ref": "Model"},
        "SCALER_TEMPLATE": f"{settings.stack}-worker:$Latest",
        "SCALER_SUBNETS": {"Fn::Join": [",", {"Ref": "Subnets"}]},
        "SCALER_TYPES": {"Ref": "Types"},
        "SCALER_MARKETS": {"Ref": "Markets"},
        "SCALER_POLICY": {"Ref": "Policy"},
        "SCALER_CAP": {"Ref": "Cap"},
        "SCALER_MIN_WORKERS": {"Ref": "MinWorkers"},
        "PRICE_PER_HOUR": {"Ref": "PricePerHour"},
        "BUDGET_PER_DAY": {"Ref": "Budget"},
    }
    card = {
        "DeviceIndex": 0,
        # Until it has taken the stack's address.
        "AssociatePublicIpAddress": True,
        "Groups": [{"Fn::GetAtt": ["FrontGroup", "GroupId"]}],
    }
    # By their tag the instance may take the address.
    tagged = [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "network-interface", "volume")]
    data = {
        **_machine("Front", told),
        "InstanceType": {"Ref": "FrontType"},
        "NetworkInterfaces": [card],
        "TagSpecifications": tagged,
    }
    template = {
        "LaunchTemplateId": {"Ref": "FrontTemplate"},
        "Version": {"Fn::GetAtt": ["FrontTemplate", "LatestVersionNumber"]},
    }
    label = {"Key": "Name", "Value": f"{settings.stack}-front", "PropagateAtLaunch": True}
    group = {
        "MinSize": "1",
        "MaxSize": "1",
        "VPCZoneIdentifier": {"Ref": "Subnets"},
        "LaunchTemplate": template,
        "Tags": [label, *({**tag, "PropagateAtLaunch": True} for tag in tags)],
    }
    record = {
        "HostedZoneId": {"Ref": "Zone"},
        "Name": {"Ref": "Domain"},
        "Type": "A",
        "TTL": "60",
        "ResourceRecords": [{"Ref": "FrontAddress"}],
    }
    return {
        **{_name(secret): _secret(f"{settings.stack}/{secret}", tags) for secret in SECRETS},
        "FrontAddress": {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc", "Tags": tags}},
        "FrontTemplate": {
            **_template(f"{settings.stack}-front", data, tags),
            **passed_over(CKV_AWS_88="it is what the page is reached at"),
        },
        "FrontGroupOfOne": {
            "Type": "AWS::AutoScaling::AutoScalingGroup",
            # The new one can only take the address once the old one is gone.
            "UpdatePolicy": {"AutoScalingRollingUpdate": {"MaxBatchSize": 1, "MinInstancesInService": 0}},
            "Properties": group,
            # It reads them at its start.
            "DependsOn": [_name(secret) for secret in SECRETS],
        },
        "FrontRecord": {"Type": "AWS::Route53::RecordSet", "Condition": "HasZone", "Properties": record},
    }


def outputs(settings: Settings) -> Json:
    """Return what a person needs next."""
    name = {"Fn::If": ["HasDomain", {"Ref": "Domain"}, {"Ref": "FrontAddress"}]}
    ask = "aws secretsmanager get-secret-value --query SecretString --output text --secret-id"
    return {
        "Page": {"Description": "the page", "Value": {"Fn::Join": ["", ["https://", name, "/"]]}},
        "Flower": {"Description": "Flower; the user is irs", "Value": {"Fn::Join": ["", ["https://", name, "/flower/"]]}},
        "Address": {"Description": "where the domain must point", "Value": {"Ref": "FrontAddress"}},
        "WebToken": {"Description": "says the token of the page", "Value": f"{ask} {settings.stack}/web-token"},
        "FlowerPassword": {"Description": "says Flower's password", "Value": f"{ask} {settings.stack}/flower-password"},
        "WorkerTemplate": {"Description": "launch template of workers", "Value": {"Ref": "WorkerTemplate"}},
        "ClientPolicy": {"Description": "for users and roles that hand images in", "Value": {"Ref": "ClientPolicy"}},
    }


def passed_over(**checks: str) -> Json:
    """Return the metadata by which checkov passes over checks, each with its reason."""
    return {"Metadata": {"checkov": {"skip": [{"id": id, "comment": why} for id, why in checks.items()]}}}


def _machine(role: str, told: Json) -> Json:
    """Return what workers and front have alike: image, rights, metadata, disk, and the script they run."""
    script: list[Any] = ["#!/bin/sh\n"]
    for variable, value in told.items():
        script += [f"export IRS_{variable}='", value, "'\n"]
    script.append(f"cat > /run/irs-install.sh <<'FILE'\n{_text_of('machine/install.sh')}FILE\n")
    script.append(_text_of(f"{role.lower()}/boot.sh").removeprefix("#!/bin/sh\n"))
    return {
        "ImageId": {"Ref": "Image"},
        "IamInstanceProfile": {"Arn": {"Fn::GetAtt": [f"{role}Profile", "Arn"]}},
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
            "InstanceMetadataTags": "enabled",
        },
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 16, "VolumeType": "gp3", "Encrypted": True}},
        ],
        "UserData": {"Fn::Base64": {"Fn::Join": ["", _joined(script)]}},
    }


def _joined(parts: list[Any]) -> list[Any]:
    """Return the parts with texts that follow each other as one."""
    made: list[Any] = []
    for part in parts:
        if isinstance(part, str) and made and isinstance(made[-1], str):
            made[-1] += part
        else:
            made.append(part)
    return made


def _text_of(source: str) -> str:
    return (DEPLOY / source).read_text()


def _template(name: str, data: Json, tags: list[Json]) -> Json:
    properties = {
        "LaunchTemplateName": name,
        "LaunchTemplateData": data,
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": tags}],
    }
    return {"Type": "AWS::EC2::LaunchTemplate", "Properties": properties}


def _group(description: str, tags: list[Json], **rules: list[Json]) -> Json:
    properties = {"GroupDescription": description, "VpcId": {"Ref": "Network"}, **rules, "Tags": tags}
    return {"Type": "AWS::EC2::SecurityGroup", "Properties": properties}


def _secret(name: str, tags: list[Json]) -> Json:
    made = {"PasswordLength": 48, "ExcludePunctuation": True}
    return {
        "Type": "AWS::SecretsManager::Secret",
        "Properties": {
            "Name": name,
            "Description": "made with the stack, read by its front instance",
            "GenerateSecretString": made,
        }
        | {"Tags": tags},
        **passed_over(CKV_AWS_149="AWS' own key encrypts it; one of yours would cost more than the whole secret"),
    }


def _name(secret: str) -> str:
    return "".join(word.capitalize() for word in secret.split("-"))


def _text(description: str, *, default: str | None = None, pattern: str = "", says: str = "", allowed: Any = None) -> Json:
    told: Json = {"Type": "String", "Description": description}
    if default is not None:
        told["Default"] = default
    if allowed:
        return {**told, "AllowedValues": allowed}
    return {**told, "AllowedPattern": pattern, "ConstraintDescription": f"must be {says}"}


def _number(description: str, default: float, *, least: int, most: int | None = None) -> Json:
    told: Json = {"Type": "Number", "Default": default, "MinValue": least, "Description": description}
    return told if most is None else {**told, "MaxValue": most}
