"""One EC2 to try things on: ours without a server, ours in the embedded cloud, or moto's, by the same boto3 calls."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError
from waiting import eventually

from irs.local.ec2.api import Api
from irs.local.ec2.cloud import Ec2
from irs.local.ec2.control import Control
from irs.local.ec2.faults import Faults, Lost
from irs.local.ec2.worker import IMAGE

T = TypeVar("T")
REGION = "us-east-1"
START = 1_790_000_000.0


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class PaperHost:
    """A host that runs nothing and remembers what it was told."""

    up: set[str] = field(default_factory=set)
    booted: list[tuple[str, bytes]] = field(default_factory=list)
    halted: list[str] = field(default_factory=list)

    def boot(self, id: str, script: bytes) -> None:
        assert id not in self.up, f"{id} would run twice"
        self.up.add(id)
        self.booted.append((id, script))

    def halt(self, id: str) -> None:
        self.halted.append(id)

    def running(self, id: str) -> bool:
        return id in self.up

    def output(self, id: str) -> bytes:
        return f"{id} says hello\n".encode()


def paper_ec2(**options: Any) -> Ec2:
    """An EC2 on a clock that stands and a host that runs nothing."""
    return Ec2(REGION, PaperHost(), **{"quota": 1000, "clock": Clock(), **options})


def serve(client: Any, ec2: Ec2) -> None:
    """Let a boto3 client talk to ``ec2`` in this process, past all sockets."""
    api = Api(ec2)

    def answer(request: Any, **_: Any) -> AWSResponse:
        body = request.body if isinstance(request.body, str) else request.body.decode()
        try:
            status, xml = api.handle(body)
        except Lost:
            raise ConnectionClosedError(endpoint_url=request.url) from None
        raw = io.BytesIO(xml)
        raw.stream = lambda *_, **__: iter((raw.read(),))  # type: ignore[attr-defined]
        return AWSResponse(request.url, status, {"Content-Type": "text/xml"}, raw)

    # By its id: the one that was there before goes.
    client.meta.events.unregister("before-send.ec2", unique_id="bench")
    client.meta.events.register("before-send.ec2", answer, unique_id="bench")


@dataclass
class Bench:
    """One EC2, and a fleet's name that no other test uses.

    Attributes:
        client: one try a call, so that each answer is seen.
        retrying: as boto3 is used, three tries.
        faults: replaces what goes wrong; does nothing where there are no means to.
    """

    name: str
    client: Any
    retrying: Any
    faults: Callable[..., None]
    clock: Clock | None = None
    fleet: str = field(default_factory=lambda: f"t-{secrets.token_hex(4)}")

    def run(self, client: Any = None, **asked: Any) -> dict[str, Any]:
        """Run one instance of this fleet, or as ``asked``."""
        tags = [{"Key": "irs:fleet", "Value": self.fleet}]
        plain = {
            "ImageId": IMAGE,
            "InstanceType": "c7i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        }
        got: dict[str, Any] = (client or self.client).run_instances(**{**plain, **asked})
        return got

    def ids(self, **asked: Any) -> list[str]:
        """Run as ``asked``; return the ids."""
        return [one["InstanceId"] for one in self.run(**asked)["Instances"]]

    def mine(self, **asked: Any) -> list[dict[str, Any]]:
        """All instances of this fleet that are listed."""
        filters = [{"Name": "tag:irs:fleet", "Values": [self.fleet]}, *asked.pop("Filters", ())]
        pages = self.client.get_paginator("describe_instances").paginate(Filters=filters, **asked)
        return [one for page in pages for group in page["Reservations"] for one in group["Instances"]]

    def state(self, id: str) -> str:
        """The state of one instance."""
        return str(self.one(id)["State"]["Name"])

    def one(self, id: str) -> dict[str, Any]:
        """What is said of one instance."""
        found: dict[str, Any] = self.client.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]
        return found

    def until(self, check: Callable[[], T]) -> T:
        """Let time pass until ``check()`` holds: on a clock of our own, or really."""
        if self.clock is None:
            return eventually(check, within_s=30)
        for _ in range(1000):
            if value := check():
                return value
            self.clock.now += 0.1
        raise AssertionError(f"still {check()!r} after 100 s")

    def until_state(self, id: str, state: str) -> dict[str, Any]:
        self.until(lambda: self.state(id) == state)
        return self.one(id)

    def end_all(self) -> None:
        """Terminate what is left of this fleet."""
        if left := [one["InstanceId"] for one in self.mine() if one["State"]["Name"] != "terminated"]:
            self.client.terminate_instances(InstanceIds=left)


@cache
def make_clients(endpoint: str | None = None) -> tuple[Any, Any]:
    """An EC2 client of one try a call, and one of three; made once, since to read EC2's model takes a second.

    The keys are those of the environment at the first call.
    """
    session = boto3.Session(region_name=REGION)
    configs = [Config(retries={"total_max_attempts": tries, "mode": "standard"}, read_timeout=30) for tries in (1, 3)]
    one, three = (session.client("ec2", endpoint_url=endpoint, config=config) for config in configs)
    return one, three


def on_paper() -> Bench:
    """Ours, without a server."""
    ec2 = paper_ec2()
    one, three = make_clients("http://127.0.0.1:9")
    for client in (one, three):
        serve(client, ec2)

    def faults(**told: Any) -> None:
        ec2.faults = Faults.from_json(told)

    return Bench("paper", one, three, faults, clock=ec2.clock)  # type: ignore[arg-type]


def on_embedded(control: Control, endpoint: str) -> Bench:
    """Ours, in the embedded cloud; the keys are those of the environment."""
    one, three = make_clients(endpoint)
    return Bench("embedded", one, three, lambda **told: control.put(**{"quota": 1000, **told}))


def on_moto() -> Bench:
    """moto's, inside ``mock_aws``: nothing goes wrong there on demand."""
    return Bench("moto", *make_clients(), lambda **_: None)


def benches(*names: str, moto: str = "") -> pytest.MarkDecorator:
    """Run on these; ``moto`` says in which way that is known not to do what AWS does.

    moto costs 12 s of CPU here: it is asked for its opinion with the slow tests.
    """
    marks = [pytest.mark.slow, *([pytest.mark.xfail(strict=True, reason=moto)] if moto else [])]
    params = [pytest.param(name, marks=marks if name == "moto" else ()) for name in names]
    return pytest.mark.parametrize("bench", params, indirect=True)
