"""What the template's instances run at their start, run: a front and its workers, as instances of the embedded EC2.

Their user data is the template's own. Changed are the paths, so that a machine's root is a folder, and the endpoint;
``systemctl`` is the one of tests/systemctl.py.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from formation import ROOT, user_data
from keeper import free_port, secrets_manager
from leftovers import processes_of
from waiting import eventually

from irs.client import Client
from irs.cloud import Cloud
from irs.local.ec2.control import Control
from irs.local.ec2.worker import IMAGE

TOKEN, PASSWORD = secrets.token_hex(32), secrets.token_hex(16)
WITHIN_S = 60.0


class Machine:
    """A folder that is the root of an instance, on which irs is installed."""

    def __init__(self, root: Path, endpoint: str) -> None:
        self.root, self._endpoint = root, endpoint
        for part in ("machine", "worker", "front"):
            for file in (ROOT / "deploy" / part).iterdir():
                self._write(f"opt/irs/share/irs/{part}/{file.name}", self._moved(file.read_text()))
        for program in ("irs", "python"):
            self._write(f"opt/irs/bin/{program}", f'#!/bin/sh\nexec {Path(sys.executable).with_name(program)} "$@"\n')
        self._write("bin/systemctl", f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/systemctl.py "$@"\n')
        (root / "run").mkdir()

    def script(self, told: str, **more: object) -> str:
        """Return user data that runs on this machine, with further variables."""
        moved = self._moved(told).replace("IRS_ENDPOINT_URL=''", f"IRS_ENDPOINT_URL='{self._endpoint}'")
        head, _, rest = moved.partition("\n")
        variables = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "MACHINE": self.root, **more}
        return "\n".join((head, *(f"export {name}='{value}'" for name, value in variables.items()), rest))

    def _moved(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(?=(?:opt|etc|run)/(?!caddy\.))", f"{self.root}/", text)

    def _write(self, place: str, text: str) -> None:
        file = self.root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)


@pytest.fixture
def health_port() -> int:
    return free_port()


@pytest.fixture
def worker_script(cloud: Cloud, tmp_path: Path, health_port: int) -> str:
    settings = cloud.settings
    told = user_data("WorkerTemplate", {"Stack": settings.stack, "AWS::Region": settings.region})
    return Machine(tmp_path / "worker", settings.endpoint_url).script(told, IRS_HEALTH_PORT=health_port)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    from skimage import data
    from skimage.io import imsave

    imsave(tmp_path / "cat.jpg", data.chelsea())
    return tmp_path / "cat.jpg"


def run(client: Any, script: str, stack: str) -> str:
    """Run an instance that has the tag of its stack; return its id."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "irs:system", "Value": stack}]}]
    asked = {"ImageId": IMAGE, "InstanceType": "c7i.large", "InstanceInitiatedShutdownBehavior": "terminate"}
    made = client.run_instances(MinCount=1, MaxCount=1, UserData=script, TagSpecifications=tags, **asked)
    return str(made["Instances"][0]["InstanceId"])


def state(client: Any, id: str) -> str:
    (found,) = client.describe_instances(InstanceIds=[id])["Reservations"]
    return str(found["Instances"][0]["State"]["Name"])


def console(client: Any, id: str) -> str:
    return str(client.get_console_output(InstanceId=id).get("Output", ""))


def test_a_workers_user_data_starts_it_and_the_end_of_the_worker_is_that_of_its_instance(
    cloud: Cloud, ec2: Control, worker_script: str, health_port: int, photo: Path
) -> None:
    client = cloud.client("ec2")
    id = run(client, worker_script, cloud.settings.stack)

    (record,) = Client(cloud.settings).recognize(photo).wait(timeout=WITHIN_S)

    assert ("ok", id) == (record.status, record.worker.removeprefix("irs@") if record.worker else None), console(client, id)
    (pid,) = [pid for pid in processes_of(id) if b"irs\0worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert is_healthy(health_port)
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: state(client, id) == "terminated", within_s=WITHIN_S)
    assert not is_healthy(health_port)
    assert "irs-worker.service has ended: poweroff" in console(client, id)


def is_healthy(port: int) -> bool:
    """Whether the container image's own check finds a program healthy."""
    (command,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    _, *arguments = json.loads(command)
    environment = {**os.environ, "IRS_HEALTH_PORT": str(port)}
    done = subprocess.run([sys.executable, *arguments], env=environment, check=False, capture_output=True, timeout=30)
    return done.returncode == 0


def test_an_instance_whose_image_holds_no_irs_and_that_is_told_no_wheel_says_so_and_ends(
    cloud: Cloud, ec2: Control, worker_script: str
) -> None:
    client = cloud.client("ec2")
    # As if it were not there.
    script = worker_script.replace("/opt/irs/bin/irs", "/opt/irs/bin/not-there")

    id = run(client, script, cloud.settings.stack)

    eventually(lambda: state(client, id) == "terminated", within_s=WITHIN_S)
    said = console(client, id)
    assert "irs: this image holds no irs and no wheel is named: set the parameter Wheel" in said
    assert said.rstrip().endswith("poweroff")


@pytest.fixture
def secret_keeper(tmp_path: Path) -> Iterator[str]:
    """A Secrets Manager; the address of its endpoint."""
    with secrets_manager(tmp_path) as endpoint:
        yield endpoint


@dataclass
class Front:
    """A front instance that runs, as browsers reach it."""

    id: str
    machine: Path
    port: int

    @property
    def authority(self) -> Path:
        """Caddy's own, whose certificate it shows for this machine's name."""
        return self.machine / "var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str, bytes]:
        """Return status, where it leads, and body; the certificate is checked."""
        context = ssl.create_default_context(cafile=str(self.authority))
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", body, headers, method=method)
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), _Stay(), urllib.request.ProxyHandler({})
        )
        try:
            with opener.open(request, timeout=WITHIN_S) as answer:
                return answer.status, "", answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Location", ""), error.read()

    def answers(self) -> bool:
        """Whether the page behind Caddy does, and Flower; a certificate takes Caddy a moment."""
        try:
            return (200, 401) == (self.ask("/healthz")[0], self.ask("/flower/workers")[0])
        except OSError:
            return False


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


@pytest.fixture
def front(cloud: Cloud, ec2: Control, worker_script: str, secret_keeper: str, tmp_path: Path) -> Iterator[Front]:
    """The front of a stack whose launch template, address and secrets are there, as the template makes them."""
    if shutil.which("caddy") is None:
        pytest.skip("Caddy is not on this machine.")
    settings, client = cloud.settings, cloud.client("ec2")
    tags = [{"Key": "irs:system", "Value": settings.stack}]
    client.create_launch_template(
        LaunchTemplateName=f"{settings.stack}-worker",
        LaunchTemplateData={
            "ImageId": IMAGE,
            "UserData": base64.b64encode(worker_script.encode()).decode(),
            "InstanceInitiatedShutdownBehavior": "terminate",
        },
    )
    kept = boto3.client("secretsmanager", endpoint_url=secret_keeper)
    for name, value in (("web-token", TOKEN), ("flower-password", PASSWORD)):
        kept.create_secret(Name=f"{settings.stack}/{name}", SecretString=value)
    address = client.allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}])
    told = user_data(
        "FrontTemplate",
        {
            "Stack": settings.stack,
            "AWS::Region": settings.region,
            "Subnets": client.describe_subnets()["Subnets"][0]["SubnetId"],
            "FrontAddress.AllocationId": address["AllocationId"],
            "FrontAddress": address["PublicIp"],
            "Domain": "localhost",
        },
    )
    names = ("IRS_WEB_PORT", "IRS_FLOWER_PORT", "IRS_HTTP_PORT", "IRS_HTTPS_PORT")
    ports = {name: str(free_port()) for name in names}
    machine = Machine(tmp_path / "front", settings.endpoint_url)
    script = machine.script(told, **ports, AWS_ENDPOINT_URL_SECRETS_MANAGER=secret_keeper, IRS_SCALER_PERIOD_SECONDS=1)
    # A machine goes on when its user data has ended.
    id = run(client, f"{script}exec sleep 600\n", settings.stack)
    made = Front(id, machine.root, int(ports["IRS_HTTPS_PORT"]))
    try:
        eventually(made.answers, within_s=WITHIN_S)
        yield made
    except AssertionError as error:
        raise AssertionError(f"{error}\n{console(client, id)}") from error
    finally:
        found = client.describe_instances(Filters=[{"Name": "tag:irs:system", "Values": [settings.stack]}])["Reservations"]
        client.terminate_instances(InstanceIds=[one["InstanceId"] for group in found for one in group["Instances"]])
        client.release_address(AllocationId=address["AllocationId"])


@pytest.mark.slow
def test_a_fronts_user_data_starts_a_page_that_brings_up_workers_and_answers(front: Front, cloud: Cloud, photo: Path) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    basic = {"Authorization": "Basic " + base64.b64encode(f"irs:{PASSWORD}".encode()).decode()}

    # Nobody without the token, and nobody without the password.
    status, leads_to, _ = front.ask("/", Accept="text/html")
    assert (303, "/login?next=/") == (status, leads_to)
    assert 401 == front.ask("/api/status")[0]
    assert (302, "/flower/") == front.ask("/flower")[:2]
    assert 401 == front.ask("/flower/workers")[0]
    status, _, page = front.ask("/flower/workers", **basic)
    assert 200 == status
    assert b'"/flower/static/' in page
    # The address is taken.
    addresses = cloud.client("ec2").describe_addresses(Filters=[{"Name": "instance-id", "Values": [front.id]}])["Addresses"]
    assert [front.id] == [one["InstanceId"] for one in addresses]

    # One image, by TLS through Caddy to the page, to the queue, for which the scaler launches a worker.
    opened = json.loads(front.ask("/api/jobs", "POST", b"{}", **bearer, **{"Content-Type": "application/json"})[2])
    job = opened["id"]
    assert 201 == front.ask(f"/api/jobs/{job}/images/0?name=cat.jpg", "PUT", photo.read_bytes(), **bearer)[0]
    front.ask(f"/api/jobs/{job}/close", "POST", b'{"count": 1}', **bearer, **{"Content-Type": "application/json"})

    def answered() -> Any:
        told = json.loads(front.ask(f"/api/jobs/{job}/results.json", **bearer)[2])
        return told["results"] if told["job"]["ok"] else None

    (result,) = eventually(answered, within_s=WITHIN_S)
    assert "cat.jpg" == result["image"]["name"]
    # The worker is the scaler's, and reads the drop box's tasks too.
    fleet = [{"Name": "tag:irs:fleet", "Values": [cloud.settings.stack]}]
    (launched,) = cloud.client("ec2").describe_instances(Filters=fleet)["Reservations"]
    assert launched["Instances"][0]["InstanceId"] in result["worker"]
    cloud.input.put("drop/cat.jpg", photo.read_bytes(), content_type="image/jpeg")
    eventually(lambda: ["results/cat.jpg.json"] == [one.key for one in cloud.output.list("results/")], within_s=WITHIN_S)
    assert {"web", "scaler run", "janitor", "drops", "flower -- --url_prefix=flower"} == commands_of(front.machine)


def commands_of(machine: Path) -> set[str]:
    """Return what irs runs as on a machine."""
    mark, found = f"MACHINE={machine}".encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            program, _, arguments = (
                (folder / "cmdline").read_bytes().decode().rstrip("\0").replace("\0", " ").partition("/bin/irs ")
            )
            if program and arguments and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(arguments)
    return found
