"""The launch template of the embedded cloud's workers, and where its EC2 holds on to the emulator."""

from __future__ import annotations

import base64
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ec2bench import paper_ec2, serve

from irs.cloud import Cloud
from irs.local.ec2.environment import MachineEnvironment
from irs.local.ec2.launch import USER_DATA_BYTES
from irs.local.ec2.worker import make_template, user_data
from irs.local.home import Endpoint
from irs.settings import read_settings


def exported(script: str, tmp_path: Path) -> dict[str, str]:
    """What a script's last command has in its environment."""
    fake = tmp_path / "irs"
    fake.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'\n")
    fake.chmod(0o700)
    done = subprocess.run(["/bin/sh", "-c", script], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, capture_output=True, check=True)
    return dict(json.loads(done.stdout))


def test_the_user_data_becomes_a_worker_with_the_stacks_settings(tmp_path: Path) -> None:
    settings = {
        "IRS_STACK": "irs",
        "IRS_MODEL": "a 'quoted' $HOME; name",
        "IRS_SLOTS": "4",
        "PATH": "/nowhere",
        "AWS_REGION": "r",
    }

    script = user_data(settings)

    assert script.startswith("#!/bin/sh\n")
    assert script.endswith("\nexec irs worker\n")
    told = exported(script, tmp_path)
    assert {"IRS_STACK": "irs", "IRS_MODEL": "a 'quoted' $HOME; name", "IRS_SLOTS": "4"}.items() <= told.items()
    assert not {"AWS_REGION"} & told.keys()


@pytest.mark.parametrize("name", ["IRS_WEB_TOKEN", "IRS_HOME", "IRS_INSTANCE_ID", "IRS_SCALER_CAP", "IRS_ENDPOINT_URL"])
def test_the_user_data_holds_nothing_of_another_room_or_machine(name: str) -> None:
    assert name not in user_data({name: "secret"})


def test_a_model_in_a_folder_is_named_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)

    assert f"export IRS_MODEL={tmp_path / 'mine'}\n" in user_data({"IRS_MODEL": "mine"})
    assert "export IRS_MODEL=resnet18\n" in user_data({"IRS_MODEL": "resnet18"})


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Clients whose EC2 is in this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    made = Cloud(read_settings(stack="mine", endpoint_url="http://127.0.0.1:9"))
    serve(made.client("ec2"), paper_ec2())
    return made


def test_a_template_is_made_once_and_anew_only_where_something_differs(cloud: Cloud) -> None:
    names = {make_template(cloud, {"IRS_MODEL": model}) for model in ("a", "a", "b")}

    ec2 = cloud.client("ec2")
    (told,) = ec2.describe_launch_templates(LaunchTemplateNames=["mine-worker"])["LaunchTemplates"]
    assert ({"mine-worker"}, 2, 2) == (names, told["LatestVersionNumber"], told["DefaultVersionNumber"])


def test_what_runs_from_the_template_carries_the_tags_of_its_fleet_and_ends_for_good(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    make_template(cloud, {"IRS_MODEL": "a"})

    (one,) = ec2.run_instances(LaunchTemplate={"LaunchTemplateName": "mine-worker"}, MinCount=1, MaxCount=1)["Instances"]

    tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
    assert {"irs:system": "mine", "irs:fleet": "mine", "irs:role": "worker"} == tags
    assert "required" == one["MetadataOptions"]["HttpTokens"]
    kept = {
        name: ec2.describe_instance_attribute(InstanceId=one["InstanceId"], Attribute=name)
        for name in ("instanceInitiatedShutdownBehavior", "userData")
    }
    assert "terminate" == kept["instanceInitiatedShutdownBehavior"]["InstanceInitiatedShutdownBehavior"]["Value"]
    body = base64.b64decode(kept["userData"]["UserData"]["Value"])
    assert b"exec irs worker\n" == body[-16:]
    assert len(body) < USER_DATA_BYTES


def test_an_instances_environment_is_its_starters_turned_towards_the_embedded_cloud() -> None:
    endpoint = Endpoint.with_new_keys(port=4000, region="eu-west-1")
    inherited = {"HOME": "/home/me", "AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "t", "IRS_MODEL": "m", "PATH": "/bin"}

    told = MachineEnvironment(inherited, endpoint, quota=1)("i-a")

    assert ("/home/me", "m", endpoint.access_key_id) == (told["HOME"], told["IRS_MODEL"], told["AWS_ACCESS_KEY_ID"])
    assert "http://127.0.0.1:4000/_irs/imds/i-a/" == told["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_EC2_METADATA_DISABLED"} & told.keys()
    assert str(os.cpu_count()) == told["IRS_COMPUTE_THREADS"]
    assert told["PATH"].endswith(":/bin")


def test_what_the_ec2_hooks_into_is_still_there() -> None:
    program = (
        "import inspect\n"
        "from ministack.services import ec2, tagging\n"
        "print(list(inspect.signature(ec2.handle_request).parameters), inspect.iscoroutinefunction(ec2.handle_request))\n"
        "print(type(tagging._RESOURCE_TAG_COLLECTORS).__name__, 'ec2' in tagging._RESOURCE_TAG_COLLECTORS)\n"
        "print(list(inspect.signature(tagging.resource_tags).parameters))\n"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout

    assert (
        inspect.cleandoc(
            """
        ['method', 'path', 'headers', 'body', 'query_params'] True
        dict False
        ['arn']
        """
        )
        == said.strip()
    )
