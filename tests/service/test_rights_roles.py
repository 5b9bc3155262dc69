"""Each role of a stack, with its own key, on an embedded cloud that evaluates IAM policies."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from keeper import ROOT_KEY, secrets_manager
from roles import WORK, Scene

from irs.cloud import Cloud
from irs.local import EmbeddedCloud, start_embedded_cloud
from irs.provision import provision
from irs.provision.rights import ROLES, SECRETS, Grant, Place, policy
from irs.records import beat_key, new_job_id, order_key
from irs.settings import read_settings

ACCOUNT = "000000000000"
#: The emulator evaluates one resource of a launch, its AMI; what a launch makes and its tags it lets pass. Of an object
#: that is not there it says 404 to everybody. Secrets Manager is no part of it: it has a test of its own.
UNSEEN = {
    ("ReadSecrets", "secretsmanager:GetSecretValue"),
    ("TellMissing", "s3:ListBucket"),
    ("LaunchOurs", "ec2:RunInstances"),
    ("TagAtLaunch", "ec2:CreateTags"),
    ("SpotOnce", "iam:CreateServiceLinkedRole"),
    ("PassWorkerRole", "iam:PassRole"),
}
#: On AWS the right to do it to one message is the right to do it to ten; the emulator asks for the ten by name.
BATCHED = frozenset(("sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"))

#: How a refusal is told, by AWS and by us.
REFUSED = ("not authorized", "AccessDenied", "Unauthorized", "Forbidden")


@dataclass
class Account:
    """An account with one stack in it, and a user for each role; keys are passed through the environment."""

    running: EmbeddedCloud
    root: Cloud
    keys: dict[str, dict[str, str]]

    @property
    def place(self) -> Place:
        return Place(self.root.settings, ACCOUNT, worker_role="worker")

    def allow(self, role: str, grants: list[Grant]) -> None:
        statements = [replace(one, actions=_as_emulated(one.actions)).statement() for one in grants if one.actions]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        self.root.client("iam").put_user_policy(UserName=role, PolicyName="work", PolicyDocument=document)

    def cloud_of(self, role: str) -> Cloud:
        os.environ.update(self.keys[role])
        cloud = Cloud(self.root.settings)
        assert self.keys[role]["AWS_ACCESS_KEY_ID"] == cloud.session().get_credentials().access_key  # type: ignore[union-attr]
        return cloud

    def work(self, role: str, grants: list[Grant]) -> None:
        """Let the role do its work on a job of its own with these rights."""
        self.allow(role, grants)
        scene = Scene(self.root, self.cloud_of(role), new_job_id())
        self.root.input.put(scene.image, b"image", content_type="application/octet-stream")
        scene.letters()
        try:
            WORK[role](scene)
        finally:
            for queue in ("requests", "requests_dead", "responses", "drops"):
                self.root.sqs().purge_queue(QueueUrl=self.root.queue_url(getattr(self.root.settings, f"{queue}_queue")))


def _as_emulated(actions: tuple[str, ...]) -> tuple[str, ...]:
    return actions + tuple(f"{action}Batch" for action in actions if action in BATCHED)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, _clean_session: None) -> Iterator[EmbeddedCloud]:
    with start_embedded_cloud(tmp_path_factory.mktemp("rights"), die_with_thread=False, checks_rights=True) as found:
        yield found


@pytest.fixture(scope="module")
def account(running: EmbeddedCloud) -> Account:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**running.environment, "IRS_STACK": f"t-{secrets.token_hex(3)}"}.items():
            patch.setenv(name, value)
        root = Cloud(read_settings())
        assert root.session().get_credentials()
        provision(root)
        iam, keys = root.client("iam"), dict[str, dict[str, str]]()
        for role in ROLES:
            iam.create_user(UserName=role)
            made = iam.create_access_key(UserName=role)["AccessKey"]
            keys[role] = {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
        for key in (beat_key("i-1"), order_key("i-1")):
            root.output.put(key, b"{}", content_type="application/json")
        root.bucket(root.settings.models_bucket).put("model/weights", b"weights", content_type="application/octet-stream")
        # Made while its key is in the environment.
        root.client("sns"), root.client("ec2"), root.sqs(), root.client("sns", read_seconds=5.0, attempts=2)
    return Account(running, root, keys)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_does_its_work_with_its_policy(account: Account, role: str) -> None:
    account.work(role, ROLES[role](account.place))


def _short(role: str) -> Iterator[tuple[int, str]]:
    settings = read_settings()
    for number, grant in enumerate(ROLES[role](Place(settings, ACCOUNT, worker_role="worker"))):
        yield from ((number, action) for action in grant.actions if (grant.sid, action) not in UNSEEN)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_a_role_fails_at_its_work_without_any_one_action_of_its_policy(account: Account, role: str) -> None:
    spare, odd = list[tuple[str, str]](), list[tuple[str, str, str]]()
    for number, action in _short(role):
        grants = ROLES[role](account.place)
        taken = grants[number]
        grants[number] = replace(taken, actions=tuple(one for one in taken.actions if one != action))
        try:
            account.work(role, grants)
        except Exception as error:  # what each part makes of a refusal is its own; that it was one is told below
            if not any(word in f"{type(error).__name__} {error}" for word in REFUSED):
                odd.append((taken.sid, action, f"{type(error).__name__}: {error}"))
        else:
            spare.append((taken.sid, action))

    assert ([], []) == (spare, odd)


def test_the_front_reads_the_secrets_of_its_stack_and_of_no_other_and_none_without_the_right(tmp_path: Path) -> None:
    settings = read_settings(stack="irs", region="us-east-1")
    document = json.dumps(policy("boot", Place(settings, ACCOUNT)))
    names = [f"{stack}/{name}" for stack in ("irs", "irs-too", "mine-irs") for name in SECRETS]

    with secrets_manager(tmp_path, checks_rights=True) as endpoint:

        def client(service: str, key: str = ROOT_KEY, secret: str = ROOT_KEY) -> Any:
            keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
            return boto3.client(service, endpoint_url=endpoint, region_name=settings.region, **keys)

        for name in names:
            client("secretsmanager").create_secret(Name=name, SecretString=f"that of {name}")
        iam = client("iam")
        iam.create_user(UserName="boot")
        made = iam.create_access_key(UserName="boot")["AccessKey"]
        mine = client("secretsmanager", made["AccessKeyId"], made["SecretAccessKey"])

        def readable() -> list[str]:
            read = []
            for name in names:
                with suppress(mine.exceptions.ClientError):
                    read.append(mine.get_secret_value(SecretId=name)["SecretString"])
            return read

        assert [] == readable()
        iam.put_user_policy(UserName="boot", PolicyName="boot", PolicyDocument=document)
        assert ["that of irs/web-token", "that of irs/flower-password"] == readable()
