"""The scaler's calls of EC2, on an EC2 that behaves as AWS documents it, and on moto as a second opinion."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ec2bench import IMAGE, Bench, on_moto, on_paper
from moto import mock_aws

from irs.cloud import Cloud
from irs.errors import SetupError
from irs.settings import Settings
from scaler import Pair
from scaler.book import Book, Intent, LeaseFacts
from scaler.ec2 import Blueprint, CloudEc2, connect
from scaler.fleet import Refused, Throttled, Unanswered

HERE = Pair("c7i.large", "us-east-1a", "on-demand")
SPOT = HERE._replace(market="spot")
PLAIN = Blueprint(image=IMAGE, subnets={}, user_data="#!/bin/sh\nexec irs worker\n")


@pytest.fixture(params=["paper", "moto"])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    if request.param == "paper":
        yield on_paper()
        return
    with mock_aws():
        made = on_moto()
        made.client.meta.events.unregister("before-send.ec2", unique_id="bench")
        yield made


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return on_paper()


def ec2_of(bench: Bench, blueprint: Blueprint = PLAIN, *, fleet: str = "") -> CloudEc2:
    return CloudEc2(bench.client, blueprint, (HERE, SPOT), fleet=fleet or bench.fleet)


def intent(bench: Bench, *, count: int = 1, pair: Pair = HERE, n: int = 1) -> Intent:
    return Intent(launch=f"{bench.fleet}-7-{n}", pair=pair, count=count, at=0.0)


def test_every_instance_has_our_tags_from_its_birth(bench: Bench) -> None:
    (id,) = ec2_of(bench).run(intent(bench))

    one = bench.one(id)
    tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
    assert {
        "irs:fleet": bench.fleet,
        "irs:role": "worker",
        "irs:system": bench.fleet,
        "irs:launch": f"{bench.fleet}-7-1",
    }.items() <= (tags.items())
    assert "7" == tags["irs:epoch"]


def test_request_asks_for_tokens_of_the_metadata_service_and_for_encrypted_disks_that_go_with_the_instance(paper: Bench) -> None:
    asked: dict[str, Any] = {}
    paper.client.meta.events.register("provide-client-params.ec2.RunInstances", lambda params, **_: asked.update(params))
    blueprint = replace(PLAIN, root_disk=("/dev/xvda", 0), profile="arn:aws:iam::1:instance-profile/w", security_groups=("sg-1",))

    ec2_of(paper, blueprint).run(intent(paper, count=3, pair=SPOT))

    assert "required" == asked["MetadataOptions"]["HttpTokens"]
    assert "terminate" == asked["InstanceInitiatedShutdownBehavior"]
    assert [{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "DeleteOnTermination": True, "VolumeType": "gp3"}}] == (
        asked["BlockDeviceMappings"]
    )
    assert (1, 3) == (asked["MinCount"], asked["MaxCount"])
    assert ("spot", "one-time") == (
        asked["InstanceMarketOptions"]["MarketType"],
        asked["InstanceMarketOptions"]["SpotOptions"]["SpotInstanceType"],
    )
    assert {"Arn": "arn:aws:iam::1:instance-profile/w"} == asked["IamInstanceProfile"]
    assert 64 == len(asked["ClientToken"])


def test_same_intent_asked_again_is_the_same_instances_and_another_attempt_is_others(paper: Bench) -> None:
    ec2, first = ec2_of(paper), intent(paper, count=3)

    ids = ec2.run(first)

    assert ids == ec2.run(first)
    assert not set(ids) & set(ec2.run(replace(first, attempt=1)))
    assert 6 == len(ec2.describe())


def test_token_differs_for_each_launch_attempt_and_place(paper: Bench) -> None:
    one = intent(paper)
    others = [
        replace(one, launch="x"),
        replace(one, attempt=1),
        replace(one, pair=SPOT),
        replace(one, pair=Pair("a", "b", "spot")),
    ]

    assert 5 == len({each.token for each in (one, *others)})
    assert one.token == replace(one, why="other words", at=9.0).token


def test_describe_goes_through_all_pages_and_sees_our_fleet_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scaler.ec2.PAGE", 5)
    ec2 = ec2_of(bench)
    ids = {id for n in range(7) for id in ec2.run(intent(bench, count=2, n=n))}
    ec2_of(bench, fleet="another").run(replace(intent(bench), launch="another-1"))
    bench.run(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "irs:fleet", "Value": bench.fleet}]}])

    seen = ec2.describe()

    # moto launches MinCount, whatever MaxCount says.
    assert ids == {one.id for one in seen}
    assert len(ids) == (14 if bench.name == "paper" else 7)
    assert {HERE} == {one.pair for one in seen}


def test_end_leaves_an_instance_alone_that_is_not_ours_or_not_any_more(bench: Bench) -> None:
    ec2 = ec2_of(bench)
    (ours,) = ec2.run(intent(bench))
    (theirs,) = ec2_of(bench, fleet="another").run(replace(intent(bench), launch="another-1"))
    bench.until_state(ours, "running")
    bench.client.delete_tags(Resources=[ours], Tags=[{"Key": "irs:role"}])

    ec2.end(ours, keep=False)
    ec2.end(theirs, keep=False)
    ec2.end("i-0123456789abcdef0", keep=False)

    assert {"running"} == {bench.until_state(id, "running")["State"]["Name"] for id in (ours, theirs)}


def test_end_terminates_and_may_run_twice(bench: Bench) -> None:
    ec2 = ec2_of(bench)
    (id,) = ec2.run(intent(bench))
    bench.until_state(id, "running")

    ec2.end(id, keep=False)
    ec2.end(id, keep=False)

    assert bench.state(id) in ("shutting-down", "terminated")


def test_end_that_keeps_stops_and_start_brings_the_same_instance_back(bench: Bench) -> None:
    ec2 = ec2_of(bench)
    (id,) = ec2.run(intent(bench))
    bench.until_state(id, "running")
    ec2.end(id, keep=True)
    if bench.clock is not None:
        bench.clock.now += 60

    assert bench.state(id) in ("stopping", "stopped")
    if bench.name == "moto":
        assert [id] == ec2.start(replace(intent(bench), ids=(id,), pooled=True))


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ({"capacity": {"*/*/*": 0}}, Refused, "InsufficientInstanceCapacity"),
        ({"quota": 0}, Refused, "VcpuLimitExceeded"),
        ({"rules": [{"action": "RunInstances", "code": "RequestLimitExceeded"}]}, Throttled, ""),
        ({"rules": [{"action": "RunInstances", "code": "UnauthorizedOperation"}]}, Refused, "UnauthorizedOperation"),
        ({"rules": [{"action": "RunInstances", "code": "InternalError"}]}, Unanswered, ""),
        ({"rules": [{"action": "RunInstances", "lose": True}]}, Unanswered, ""),
    ],
)
def test_refusals_throttling_and_lost_answers_are_told_apart(
    paper: Bench, fault: dict[str, Any], kind: type[Exception], code: str
) -> None:
    paper.faults(**fault)

    with pytest.raises(kind) as told:
        ec2_of(paper).run(intent(paper))

    assert code == getattr(told.value, "refusal", "")


def test_launch_whose_answer_is_lost_is_there_and_asked_again_is_one(paper: Bench) -> None:
    paper.faults(rules=[{"action": "RunInstances", "lose": True}])
    ec2 = ec2_of(paper)
    with pytest.raises(Unanswered):
        ec2.run(intent(paper))

    ids = ec2.run(intent(paper))

    assert ids == [one.id for one in ec2.describe()]
    assert 1 == len(ids)


def test_launch_in_doubt_is_repeated_by_the_next_leader_with_the_very_same_request(paper: Bench) -> None:
    """With another tag in it EC2 would answer IdempotentParameterMismatch."""
    paper.faults(rules=[{"action": "RunInstances", "lose": True}])
    book = Book(lease=LeaseFacts(epoch=7), intents=(intent(paper),))
    with pytest.raises(Unanswered):
        ec2_of(paper).run(book.intents[0])

    handed_on = Book.from_json({**book.to_json(0.0), "lease": {"epoch": 8, "nonce": "another"}}, 50.0)

    assert 1 == len(ec2_of(paper).run(handed_on.intents[0]))
    assert 1 == len(ec2_of(paper).describe())


def test_check_says_what_ec2_would_refuse_and_launches_nothing(paper: Bench) -> None:
    ec2_of(paper).check()
    paper.faults(rules=[{"action": "RunInstances", "code": "UnauthorizedOperation"}])

    with pytest.raises(SetupError, match="EC2 would launch no worker"):
        ec2_of(paper).check()
    assert [] == ec2_of(paper).describe()


def test_place_with_less_room_gives_what_it_has(paper: Bench) -> None:
    paper.faults(capacity={"c7i.large/us-east-1a/on-demand": 2})

    assert 2 == len(ec2_of(paper).run(intent(paper, count=5)))


def test_console_is_told_as_text(paper: Bench) -> None:
    ec2 = ec2_of(paper)
    (id,) = ec2.run(intent(paper))

    assert "says hello" in ec2.console(id)


# What is made of the settings


def connected(bench: Bench, monkeypatch: pytest.MonkeyPatch, **settings: object) -> CloudEc2:
    cloud = Cloud(Settings(stack="s", region="us-east-1", endpoint_url="", **settings))  # type: ignore[arg-type]
    monkeypatch.setattr(cloud, "client", lambda *_, **__: bench.client)
    return connect(cloud)


def test_candidates_are_types_then_zones_then_markets_in_the_users_order(paper: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ec2 = connected(
        paper, monkeypatch, scaler_template="w:3", scaler_types="a.large,b.large", scaler_zones="z1,z2",
        scaler_markets="spot,on-demand",
    )  # fmt: skip

    first, second, *_, last = ec2.candidates
    assert 8 == len(ec2.candidates)
    assert (Pair("a.large", "z1", "spot"), Pair("a.large", "z1", "on-demand"), Pair("b.large", "z2", "on-demand")) == (
        first,
        second,
        last,
    )


def test_image_brings_its_root_device_and_user_data_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "start.sh"
    script.write_text("#!/bin/sh\nexec irs worker\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        bench = on_moto()
        bench.client.meta.events.unregister("before-send.ec2", unique_id="bench")
        image = bench.client.describe_images(Owners=["amazon"])["Images"][0]
        subnet = bench.client.describe_subnets()["Subnets"][0]
        ec2 = connected(
            bench, monkeypatch, scaler_image=image["ImageId"], scaler_types="c7i.large", scaler_subnets=subnet["SubnetId"],
            scaler_user_data=str(script),
        )  # fmt: skip
        (id,) = ec2.run(Intent(launch="s-1-1", pair=ec2.candidates[0], count=1, at=0.0))
        one = bench.one(id)
        said = bench.client.describe_instance_attribute(InstanceId=id, Attribute="userData")["UserData"]["Value"]
        volume = bench.client.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [id]}])["Volumes"][0]

    assert subnet["AvailabilityZone"] == ec2.candidates[0].zone
    assert subnet["SubnetId"] == one["SubnetId"]
    assert script.read_text() == base64.b64decode(said).decode()
    assert volume["Encrypted"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "set IRS_SCALER_TEMPLATE to a launch template, or IRS_SCALER_IMAGE"),
        ({"scaler_template": "w", "scaler_user_data": "/nowhere/start.sh"}, "/nowhere/start.sh cannot be read"),
        ({"scaler_image": "ami-0", "scaler_subnets": "subnet-0"}, "EC2 does not know what IRS_SCALER_SUBNETS"),
    ],
)
def test_settings_that_launch_nothing_are_refused_in_a_sentence(
    settings: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        bench = on_moto()
        bench.client.meta.events.unregister("before-send.ec2", unique_id="bench")
        with pytest.raises(SetupError, match=sentence):
            connected(bench, monkeypatch, **settings)
