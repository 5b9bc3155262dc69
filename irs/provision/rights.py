"""What each part of a stack may do on AWS: one policy a role, with the least that its work needs.

A policy is read by :func:`policy`; the table of the docs by :func:`table`. SQS knows no rights of their own for
batches: ``sqs:SendMessage`` is that of ``SendMessageBatch`` too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from irs.records import DROPS, RESULTS, TASKS
from irs.records.keys import SCALER_STATE_KEY, TOMBSTONES
from irs.settings import Settings

_TAKE = ("sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility")
_COUNT = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes")
#: Records lie under both: those of jobs, and those of plain calls.
_RECORDS = ("jobs/*", f"{TASKS}*")
#: Images that the page takes one at a time, for programs written for Amazon Rekognition.
_SINGLES = "single/*"
#: Of page and Flower: the names of their secrets below that of the stack.
SECRETS = ("web-token", "flower-password")


@dataclass(frozen=True, slots=True)
class Grant:
    """One statement: ``actions`` on ``resources`` (ARNs), where ``condition`` holds; ``sid`` says what for."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: dict[str, dict[str, str]] = field(default_factory=dict)

    def statement(self) -> dict[str, Any]:
        """Return the statement as IAM takes it."""
        condition = {"Condition": self.condition} if self.condition else {}
        return {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": list(self.actions),
            "Resource": list(self.resources),
            **condition,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stack stands: what its ARNs are made of.

    Attributes:
        worker_role: name of the role that worker instances take on; the scaler may pass this one alone.
    """

    settings: Settings
    account: str
    partition: str = "aws"
    worker_role: str = ""

    def objects(self, bucket: str, *keys: str) -> tuple[str, ...]:
        """ARNs of objects by their keys, which may hold ``*``."""
        return tuple(f"{self.bucket(bucket)}/{key}" for key in keys)

    def bucket(self, name: str) -> str:
        """ARN of a bucket."""
        return f"arn:{self.partition}:s3:::{name}"

    def queue(self, name: str) -> str:
        """ARN of a queue, or of queues by a pattern."""
        return f"arn:{self.partition}:sqs:{self.settings.region}:{self.account}:{name}"

    def topic(self, name: str) -> str:
        """ARN of the stack's topic ``control`` or ``events``."""
        return f"arn:{self.partition}:sns:{self.settings.region}:{self.account}:{self.settings.stack}-{name}"

    def secret(self, name: str) -> str:
        """ARN of a secret of the stack; Secrets Manager adds six characters of its own to its name."""
        manager = f"arn:{self.partition}:secretsmanager:{self.settings.region}:{self.account}"
        return f"{manager}:secret:{self.settings.stack}/{name}-??????"

    def ec2(self, *kinds: str) -> tuple[str, ...]:
        """ARNs of all EC2 resources of some kinds in this region."""
        # An AMI and a snapshot may be another account's, Amazon's own among them.
        return tuple(f"arn:{self.partition}:ec2:{self.settings.region}:*:{kind}/*" for kind in kinds)


def client(place: Place) -> list[Grant]:
    """Who hands images in and reads the answers: `irs recognize`, `irs.Client`, `irs cancel`."""
    names = place.settings
    return [
        Grant("HandIn", ("s3:PutObject",), place.objects(names.input_bucket, "jobs/*")),
        Grant("FindImages", ("s3:ListBucket",), (place.bucket(names.input_bucket),)),
        Grant("Ask", ("sqs:GetQueueUrl", "sqs:SendMessage"), (place.queue(names.requests_queue),)),
        # All of a job, not its ends alone: who cancels an image stores its record.
        Grant("OpenAndCancel", ("s3:PutObject",), place.objects(names.output_bucket, f"{TOMBSTONES}*", *_RECORDS)),
        Grant("ReadRecords", ("s3:GetObject",), place.objects(names.output_bucket, *_RECORDS)),
        Grant("FindRecords", ("s3:ListBucket",), (place.bucket(names.output_bucket),)),
    ]


def web(place: Place) -> list[Grant]:
    """The page: a client that also shows the images, the workers and the queue, and hears the news."""
    names = place.settings
    readable = (names.input_bucket, *names.readable_buckets)
    return [
        *client(place),
        Grant("ShowImages", ("s3:GetObject",), tuple(arn for name in readable for arn in place.objects(name, "*"))),
        Grant("TakeSingles", ("s3:PutObject", "s3:DeleteObject"), place.objects(names.input_bucket, _SINGLES)),
        Grant("SeeWorkers", ("s3:GetObject",), place.objects(names.output_bucket, "workers/*", "models/*", SCALER_STATE_KEY)),
        Grant("HearNews", ("sqs:ReceiveMessage", "sqs:DeleteMessage"), (place.queue(names.responses_queue),)),
        Grant("CountResponses", _COUNT, (place.queue(names.responses_queue),)),
        Grant("CountRequests", ("sqs:GetQueueAttributes",), (place.queue(names.requests_queue),)),
        # Of what is cancelled. Not a client's: who speaks to that topic may stop workers too.
        Grant("TellWorkers", ("sns:Publish",), (place.topic("control"),)),
    ]


def worker(place: Place) -> list[Grant]:
    """A worker: takes tasks, reads images and the model, writes records; knows nothing of EC2."""
    names = place.settings
    readable = (names.input_bucket, *names.readable_buckets)
    read = (*_RECORDS, "desired/*", SCALER_STATE_KEY)
    return [
        Grant("TakeTasks", _TAKE, (place.queue(names.requests_queue),)),
        Grant("SendNews", ("sqs:GetQueueUrl", "sqs:SendMessage"), (place.queue(names.responses_queue),)),
        Grant("ReadImages", ("s3:GetObject",), tuple(arn for name in readable for arn in place.objects(name, "*"))),
        # Without it S3 says 403 and not 404 of an image that is not there.
        Grant("FindImages", ("s3:ListBucket",), tuple(place.bucket(name) for name in readable)),
        Grant("WriteRecords", ("s3:PutObject",), place.objects(names.output_bucket, *_RECORDS, "workers/*", "models/*")),
        Grant("ReadRecordsAndOrders", ("s3:GetObject",), place.objects(names.output_bucket, *read)),
        Grant("FindCancelled", ("s3:ListBucket",), (place.bucket(names.output_bucket),)),
        Grant("FetchModel", ("s3:GetObject",), place.objects(names.models_bucket, "*")),
        Grant("FindModel", ("s3:ListBucket",), (place.bucket(names.models_bucket),)),
        *_monitored(place),
    ]


def flower(place: Place) -> list[Grant]:
    """Flower: hears the events of the workers and commands them; sees the queues."""
    names = place.settings
    queues = (names.requests_queue, names.requests_dead_queue, names.responses_queue, names.drops_queue)
    return [
        Grant("CountQueues", _COUNT, tuple(place.queue(name) for name in queues)),
        Grant("ReadRecords", ("s3:GetObject",), place.objects(names.output_bucket, *_RECORDS, "workers/*")),
        Grant("FindWorkers", ("s3:ListBucket",), (place.bucket(names.output_bucket),)),
        Grant("Cancel", ("s3:PutObject",), place.objects(names.output_bucket, f"{TOMBSTONES}*", *_RECORDS)),
        Grant("CountListeners", ("sns:ListSubscriptionsByTopic",), (place.topic("control"),)),
        *_monitored(place),
    ]


def janitor(place: Place) -> list[Grant]:
    """The janitor: removes what silent owners left, and tells the end of images that killed their workers."""
    names = place.settings
    topics = (place.topic("control"), place.topic("events"))
    return [
        # SQS grants the listing for all queues of an account or for none.
        Grant("ListQueues", ("sqs:ListQueues",), ("*",)),
        Grant("Sweep", ("sqs:ListQueueTags", "sqs:DeleteQueue"), (place.queue(f"{names.stack}-mon-*"),)),
        Grant("ListSubscriptions", ("sns:ListSubscriptionsByTopic",), topics),
        Grant("Unsubscribe", ("sns:Unsubscribe",), ("*",)),
        Grant(
            "ReadDeadLetters",
            ("sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"),
            (place.queue(names.requests_dead_queue),),
        ),
        Grant("CountRequests", _COUNT, (place.queue(names.requests_queue),)),
        Grant("WriteRecords", ("s3:PutObject",), place.objects(names.output_bucket, *_RECORDS)),
        Grant("ReadRecords", ("s3:GetObject",), place.objects(names.output_bucket, *_RECORDS)),
        # Without it S3 says 403 and not 404 of a record that is not there.
        Grant("TellMissing", ("s3:ListBucket",), (place.bucket(names.output_bucket),)),
        Grant("SendNews", ("sqs:GetQueueUrl", "sqs:SendMessage"), (place.queue(names.responses_queue),)),
    ]


def drops(place: Place) -> list[Grant]:
    """The bridge of the drop box: sends a task for each dropped file, and copies its record to ``results/``."""
    names = place.settings
    both = (names.drops_queue, names.requests_queue)
    return [
        Grant("HearOfFiles", ("sqs:ReceiveMessage", "sqs:DeleteMessage"), (place.queue(names.drops_queue),)),
        Grant("CountQueues", _COUNT, tuple(place.queue(name) for name in both)),
        Grant("Ask", ("sqs:SendMessage",), (place.queue(names.requests_queue),)),
        Grant("SeeFiles", ("s3:GetObject",), place.objects(names.input_bucket, f"{DROPS}*")),
        Grant("ReadRecordsAndResults", ("s3:GetObject",), place.objects(names.output_bucket, f"{TASKS}*", f"{RESULTS}*")),
        Grant("WriteResults", ("s3:PutObject",), place.objects(names.output_bucket, f"{RESULTS}*")),
        Grant("FindFilesAndResults", ("s3:ListBucket",), (place.bucket(names.input_bucket), place.bucket(names.output_bucket))),
    ]


def scaler(place: Place) -> list[Grant]:
    """The scaler: counts, and starts and ends instances that carry the tag ``irs:fleet`` of this stack, no other."""
    names = place.settings
    ours = {"StringEquals": {"aws:ResourceTag/irs:fleet": names.stack}}
    asked = {"StringEquals": {"aws:RequestTag/irs:fleet": names.stack}}
    made = {"StringEquals": {"ec2:CreateAction": "RunInstances", "aws:RequestTag/irs:fleet": names.stack}}
    used = ("image", "subnet", "network-interface", "security-group", "launch-template", "key-pair", "spot-instances-request")
    images = f"arn:{place.partition}:ec2:{names.region}::image/*"
    grants = [
        Grant("Count", _COUNT, (place.queue(names.requests_queue),)),
        Grant("SeeWorkers", ("s3:GetObject",), place.objects(names.output_bucket, "workers/*", "scaler/*")),
        Grant("FindWorkers", ("s3:ListBucket",), (place.bucket(names.output_bucket),)),
        Grant("LeadAndOrder", ("s3:PutObject",), place.objects(names.output_bucket, "scaler/*", "desired/*")),
        Grant("Forget", ("s3:DeleteObject",), place.objects(names.output_bucket, "scaler/*", "desired/*", "workers/*")),
        Grant("FollowRolls", ("s3:GetObject",), place.objects(names.models_bucket, "*/current.json")),
        # EC2 knows no narrower right to look.
        Grant("Look", ("ec2:DescribeInstances", "ec2:DescribeSubnets", "ec2:DescribeImages"), ("*",)),
        Grant("LaunchOurs", ("ec2:RunInstances",), place.ec2("instance", "volume"), asked),
        Grant("LaunchWith", ("ec2:RunInstances",), (*place.ec2(*used), images)),
        Grant("TagAtLaunch", ("ec2:CreateTags",), place.ec2("instance", "volume"), made),
        Grant(
            "SteerOurs",
            ("ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances", "ec2:GetConsoleOutput"),
            place.ec2("instance"),
            ours,
        ),
    ]
    once = {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}}
    spot = f"arn:{place.partition}:iam::{place.account}:role/aws-service-role/spot.amazonaws.com/*"
    # The first spot instance of an account brings EC2's own role for them.
    grants.append(Grant("SpotOnce", ("iam:CreateServiceLinkedRole",), (spot,), once))
    if place.worker_role:
        role = f"arn:{place.partition}:iam::{place.account}:role/{place.worker_role}"
        passed = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        grants.append(Grant("PassWorkerRole", ("iam:PassRole",), (role,), passed))
    return grants


def boot(place: Place) -> list[Grant]:
    """The front instance at its start: takes the stack's address, and reads what opens page and Flower."""
    names = place.settings
    ours = {"StringEquals": {"aws:ResourceTag/irs:system": names.stack}}
    return [
        Grant("TakeAddress", ("ec2:AssociateAddress",), place.ec2("elastic-ip", "instance", "network-interface"), ours),
        Grant("ReadSecrets", ("secretsmanager:GetSecretValue",), tuple(place.secret(name) for name in SECRETS)),
    ]


def _monitored(place: Place) -> list[Grant]:
    """Events and control: queues of one's own, subscribed to the topics, and both topics to speak on."""
    topics = (place.topic("control"), place.topic("events"))
    own = place.queue(f"{place.settings.stack}-mon-*")
    return [
        Grant(
            "OwnQueues",
            (
                "sqs:CreateQueue",
                "sqs:TagQueue",
                "sqs:SendMessage",
                "sqs:ReceiveMessage",
                "sqs:DeleteMessage",
                "sqs:DeleteQueue",
            ),
            (own,),
        ),
        Grant("SpeakAndListen", ("sns:Publish", "sns:Subscribe"), topics),
        # SNS grants it for all subscriptions or for none; their names hold 128 random bits.
        Grant("Unsubscribe", ("sns:Unsubscribe",), ("*",)),
    ]


#: What one account's parts are; the front instance runs :data:`FRONT` together.
ROLES: dict[str, Callable[[Place], list[Grant]]] = {
    "client": client,
    "web": web,
    "worker": worker,
    "scaler": scaler,
    "janitor": janitor,
    "flower": flower,
    "drops": drops,
    "boot": boot,
}
FRONT = ("web", "scaler", "janitor", "flower", "drops", "boot")


def policy(role: str, place: Place) -> dict[str, Any]:
    """Return the policy document of a role of :data:`ROLES`."""
    return {"Version": "2012-10-17", "Statement": [grant.statement() for grant in ROLES[role](place)]}


def table(place: Place) -> str:
    """Return all rights as a Markdown table, a line a statement."""
    lines = ["| role | for | actions | on | where |", "| --- | --- | --- | --- | --- |"]
    for role, grants in ROLES.items():
        for grant in grants(place):
            where = "; ".join(f"`{key}` is `{value}`" for test in grant.condition.values() for key, value in test.items())
            actions, on = (", ".join(f"`{one}`" for one in many) for many in (grant.actions, grant.resources))
            lines.append(f"| {role} | {grant.sid} | {actions} | {on} | {where} |")
    return "\n".join(lines)
