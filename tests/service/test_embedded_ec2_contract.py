"""What we rely on of EC2, as AWS documents it: one truth table for ours, with and without a server, and for moto.

What a test says is what the EC2 API reference says. Where moto differs an ``xfail`` says how, and is strict, so that
an upstream fix is noticed; what it has no means for runs on ours alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from contract import refusal
from ec2bench import IMAGE, REGION, Bench, benches, on_embedded, on_moto, on_paper

from irs.local import EmbeddedCloud
from irs.local.ec2.control import Control

OURS = ("paper", "embedded")
ALL = (*OURS, "moto")
ZONES = [f"{REGION}{letter}" for letter in "abc"]


@pytest.fixture
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with ExitStack() as stack:
        if request.param == "embedded":
            running: EmbeddedCloud = request.getfixturevalue("embedded")
            control: Control = request.getfixturevalue("ec2")
            for variable, value in running.environment.items():
                monkeypatch.setenv(variable, value)
            made = on_embedded(control, running.endpoint)
        else:
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            if request.param == "moto":
                from moto import mock_aws

                stack.enter_context(mock_aws())
            made = on_paper() if request.param == "paper" else on_moto()
        yield made
        if request.param == "embedded":
            made.faults()
            made.end_all()


def spec(kind: str, **tags: str) -> dict[str, Any]:
    return {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def tags_of(one: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}


def states_of(answer: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    return [(one["PreviousState"]["Name"], one["CurrentState"]["Name"]) for one in answer[kind]]


# Idempotence


@benches(*ALL, moto="it ignores ClientToken: two instances")
def test_a_token_that_comes_twice_launches_once(bench: Bench) -> None:
    first = bench.run(ClientToken=bench.fleet)

    second = bench.run(ClientToken=bench.fleet)

    assert first["ReservationId"] == second["ReservationId"]
    assert 1 == len(bench.mine())


@benches(*ALL, moto="it ignores ClientToken: 200")
def test_a_token_with_other_parameters_is_refused(bench: Bench) -> None:
    bench.run(ClientToken=bench.fleet)

    assert "IdempotentParameterMismatch" == refusal(lambda: bench.run(ClientToken=bench.fleet, InstanceType="c7i.xlarge"))


@benches(*ALL, moto="it ignores ClientToken: launches again")
def test_a_token_whose_instance_was_terminated_is_refused(bench: Bench) -> None:
    (id,) = bench.ids(ClientToken=bench.fleet)
    bench.client.terminate_instances(InstanceIds=[id])
    bench.until_state(id, "terminated")

    assert "IdempotentInstanceTerminated" == refusal(lambda: bench.run(ClientToken=bench.fleet))


@benches(*ALL, moto="it ignores ClientToken: three instances")
def test_a_token_belongs_to_the_zone_that_is_named(bench: Bench) -> None:
    asked = [bench.ids(ClientToken=bench.fleet, Placement={"AvailabilityZone": ZONES[number]})[0] for number in (0, 1, 0)]

    assert asked[0] == asked[2] != asked[1]
    assert 2 == len(bench.mine())


@benches(*ALL, moto="it ignores ClientToken: launches again, and the second call is accepted")
def test_a_fleets_token_launches_once_and_refuses_other_parameters(bench: Bench) -> None:
    bench.client.create_launch_template(
        LaunchTemplateName=bench.fleet, LaunchTemplateData={"ImageId": IMAGE, "InstanceType": "c7i.large"}
    )

    first, second = (fleet(bench, ClientToken=bench.fleet) for _ in range(2))

    assert fleet_ids(first) == fleet_ids(second)
    assert "IdempotentParameterMismatch" == refusal(lambda: fleet(bench, ClientToken=bench.fleet, capacity=3))
    bench.client.terminate_instances(InstanceIds=fleet_ids(first))


def fleet(bench: Bench, *, capacity: int = 2, overrides: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    config: dict[str, Any] = {"LaunchTemplateSpecification": {"LaunchTemplateName": bench.fleet, "Version": "$Latest"}}
    if overrides:
        config["Overrides"] = [{"InstanceType": type} for type in overrides]
    got: dict[str, Any] = bench.client.create_fleet(
        Type="instant",
        LaunchTemplateConfigs=[config],
        TargetCapacitySpecification={"TotalTargetCapacity": capacity, "DefaultTargetCapacityType": "on-demand"},
        **more,
    )
    return got


def fleet_ids(answer: dict[str, Any]) -> list[str]:
    return sorted(id for group in answer["Instances"] for id in group["InstanceIds"])


# Counts and capacity


@benches(*ALL, moto="it ignores MaxCount: 1")
def test_as_many_are_launched_as_there_is_room_for(bench: Bench) -> None:
    assert 5 == len(bench.ids(MinCount=1, MaxCount=5))


@benches(*OURS)
def test_scarce_capacity_gives_fewer_and_then_refuses(bench: Bench) -> None:
    bench.faults(capacity={"m7i.large/*/*": 3})

    some = bench.ids(InstanceType="m7i.large", MinCount=1, MaxCount=5)

    assert 3 == len(some)
    assert "InsufficientInstanceCapacity" == refusal(lambda: bench.run(InstanceType="m7i.large"))


@benches(*OURS)
def test_a_zone_without_room_is_refused_while_another_has_some(bench: Bench) -> None:
    bench.faults(capacity={f"c7i.large/{ZONES[0]}/*": 0})

    refused = refusal(lambda: bench.run(Placement={"AvailabilityZone": ZONES[0]}))
    (id,) = bench.ids(Placement={"AvailabilityZone": ZONES[1]})

    assert "InsufficientInstanceCapacity" == refused
    assert ZONES[1] == bench.one(id)["Placement"]["AvailabilityZone"]


@benches(*OURS)
def test_more_than_the_limit_of_the_account_is_refused_and_asks_for_it_too_when_started(bench: Bench) -> None:
    (stopped,) = bench.ids()
    bench.until_state(stopped, "running")
    bench.client.stop_instances(InstanceIds=[stopped])
    bench.until_state(stopped, "stopped")
    bench.faults(quota=1)
    bench.run()

    assert "VcpuLimitExceeded" == refusal(bench.run)
    assert "VcpuLimitExceeded" == refusal(lambda: bench.client.start_instances(InstanceIds=[stopped]))


@benches(*OURS)
def test_a_fleet_goes_on_to_the_next_type_and_tells_what_was_refused(bench: Bench) -> None:
    bench.client.create_launch_template(
        LaunchTemplateName=bench.fleet,
        LaunchTemplateData={"ImageId": IMAGE, "TagSpecifications": [spec("instance", **{"irs:fleet": bench.fleet})]},
    )
    bench.faults(capacity={"c7i.large/*/*": 1})

    some = fleet(bench, capacity=3, overrides=("c7i.large", "c7i.xlarge"))
    bench.faults(capacity={"*/*/*": 0})
    none = fleet(bench, capacity=3, overrides=("c7i.large", "c7i.xlarge"))

    assert [("c7i.large", 1), ("c7i.xlarge", 2)] == [(one["InstanceType"], len(one["InstanceIds"])) for one in some["Instances"]]
    assert (0, ["InsufficientInstanceCapacity"] * 2) == (len(fleet_ids(none)), [one["ErrorCode"] for one in none["Errors"]])


# Calls that go wrong


@benches(*OURS)
def test_a_throttled_call_succeeds_by_boto3s_own_retries(bench: Bench) -> None:
    bench.faults(rules=[{"action": "DescribeInstances", "code": "RequestLimitExceeded", "times": 2}])

    answer = bench.retrying.describe_instances()

    assert 2 == answer["ResponseMetadata"]["RetryAttempts"]


@benches(*OURS)
def test_a_lost_answer_is_asked_for_again_by_boto3_and_launches_once(bench: Bench) -> None:
    bench.faults(rules=[{"action": "RunInstances", "lose": True}])

    answer = bench.run(bench.retrying)

    assert 1 == answer["ResponseMetadata"]["RetryAttempts"]
    assert [answer["Instances"][0]["InstanceId"]] == [one["InstanceId"] for one in bench.mine()]


@benches(*OURS)
def test_a_refused_launch_leaves_no_token(bench: Bench) -> None:
    bench.faults(rules=[{"action": "RunInstances", "code": "RequestLimitExceeded", "where": {"market": "on-demand"}}])

    assert "RequestLimitExceeded" == refusal(lambda: bench.run(ClientToken=bench.fleet))
    assert 1 == len(bench.ids(ClientToken=bench.fleet))


@benches(*ALL)
def test_a_dry_run_launches_nothing(bench: Bench) -> None:
    assert "DryRunOperation" == refusal(lambda: bench.run(DryRun=True))
    assert [] == bench.mine()


@benches(*ALL, moto="of 16 KiB of user data and more it takes any")
def test_user_data_above_16_kib_is_refused(bench: Bench) -> None:
    bench.run(UserData="x" * 16_384)

    assert "InvalidParameterValue" == refusal(lambda: bench.run(UserData="x" * 16_385))


# States


@benches(*ALL, moto="running at the first look")
def test_an_instance_is_pending_until_it_has_booted(bench: Bench) -> None:
    bench.faults(boot_seconds=1)

    answer = bench.run()
    id = answer["Instances"][0]["InstanceId"]

    assert ["pending", "pending"] == [answer["Instances"][0]["State"]["Name"], bench.state(id)]
    assert 16 == bench.until_state(id, "running")["State"]["Code"]


@benches(*ALL, moto="terminated at once; again it is shutting-down")
def test_a_terminated_instance_goes_through_shutting_down_and_says_why(bench: Bench) -> None:
    (id,) = bench.ids()
    bench.until_state(id, "running")
    bench.faults(stop_seconds=1)

    first = states_of(bench.client.terminate_instances(InstanceIds=[id]), "TerminatingInstances")
    between = bench.state(id)
    ended = bench.until_state(id, "terminated")
    again = states_of(bench.client.terminate_instances(InstanceIds=[id]), "TerminatingInstances")

    assert [("running", "shutting-down")] == first
    assert ("shutting-down", "Client.UserInitiatedShutdown") == (between, ended["StateReason"]["Code"])
    assert ended["StateTransitionReason"].startswith("User initiated")
    assert [("terminated", "terminated")] == again


@benches(*OURS)
def test_a_new_instance_may_not_be_seen_at_once(bench: Bench) -> None:
    bench.faults(unseen_seconds=1)
    (id,) = bench.ids()

    assert "NotFound" == refusal(lambda: bench.one(id))
    assert [] == bench.mine()
    bench.until(bench.mine)
    assert id == bench.one(id)["InstanceId"]


@benches(*ALL, moto="it takes terminated ones, and spot instances stop")
def test_instances_stop_and_start_unless_they_are_terminated_or_of_a_spot_request(bench: Bench) -> None:
    kept, ended = bench.ids(), bench.ids()
    (spot,) = bench.ids(InstanceMarketOptions={"MarketType": "spot"})
    for id in (*kept, *ended, spot):
        bench.until_state(id, "running")
    bench.client.terminate_instances(InstanceIds=ended)
    bench.until_state(ended[0], "terminated")

    stopping = states_of(bench.client.stop_instances(InstanceIds=kept), "StoppingInstances")
    bench.until_state(kept[0], "stopped")
    starting = states_of(bench.client.start_instances(InstanceIds=kept), "StartingInstances")

    assert [("running", "stopping")] == stopping
    assert [("stopped", "pending")] == starting
    assert "IncorrectInstanceState" == refusal(lambda: bench.client.stop_instances(InstanceIds=ended))
    assert "IncorrectInstanceState" == refusal(lambda: bench.client.start_instances(InstanceIds=ended))
    assert "UnsupportedOperation" == refusal(lambda: bench.client.stop_instances(InstanceIds=[spot]))
    bench.until_state(kept[0], "running")


@benches(*ALL, moto="a running one that is started is pending")
def test_starting_what_runs_is_harmless_and_one_unknown_id_ends_nothing(bench: Bench) -> None:
    (id,) = bench.ids()
    bench.until_state(id, "running")

    started = states_of(bench.client.start_instances(InstanceIds=[id]), "StartingInstances")
    unknown = "i-" + 17 * "0"

    assert [("running", "running")] == started
    assert "NotFound" == refusal(lambda: bench.client.terminate_instances(InstanceIds=[id, unknown]))
    assert "running" == bench.state(id)


@benches(*ALL)
def test_the_status_tells_running_ones_alone_unless_all_are_asked_for(bench: Bench) -> None:
    up, down = bench.ids()[0], bench.ids()[0]
    for id in (up, down):
        bench.until_state(id, "running")
    bench.client.stop_instances(InstanceIds=[down])
    bench.until_state(down, "stopped")

    def told(**asked: Any) -> set[str]:
        answer = bench.client.describe_instance_status(InstanceIds=[up, down], **asked)["InstanceStatuses"]
        return {one["InstanceId"] for one in answer}

    assert ({up}, {up, down}) == (told(), told(IncludeAllInstances=True))


# Lists


@benches(*ALL, moto="a malformed id is not found")
def test_unknown_and_malformed_ids_are_told_apart(bench: Bench) -> None:
    assert "NotFound" == refusal(lambda: bench.one("i-" + 17 * "0"))
    assert "Malformed" == refusal(lambda: bench.one("worker-1"))


@benches(*OURS, "moto", moto="HTTP 500, and no answer that can be read")
def test_an_unknown_filter_is_refused(bench: Bench) -> None:
    bench.run()

    code = refusal(lambda: bench.client.describe_instances(Filters=[{"Name": "no-such-filter", "Values": ["x"]}]))

    assert "InvalidParameterValue" == code


@benches(*ALL, moto="500 at instance-lifecycle")
def test_filters_narrow_by_tag_key_lifecycle_token_state_zone_and_wildcard(bench: Bench) -> None:
    tags = {"irs:fleet": bench.fleet, "irs:launch": "run [1]"}
    (spot,) = bench.ids(
        InstanceMarketOptions={"MarketType": "spot"},
        ClientToken=bench.fleet,
        Placement={"AvailabilityZone": ZONES[1]},
        TagSpecifications=[spec("instance", **tags)],
    )
    (other,) = bench.ids(Placement={"AvailabilityZone": ZONES[0]})
    bench.until(lambda: bench.state(spot) == bench.state(other) == "running")

    def found(name: str, *values: str) -> set[str]:
        return {one["InstanceId"] for one in bench.mine(Filters=[{"Name": name, "Values": list(values)}])}

    both = {spot, other}
    assert ({spot}, {spot}, set()) == (found("tag-key", "irs:launch"), found("tag:irs:launch", "run [1]"), found("tag-key", "x"))
    assert ({spot}, set()) == (found("instance-lifecycle", "spot"), found("instance-lifecycle", "on-demand"))
    assert ({spot}, {spot}) == (found("client-token", bench.fleet), found("availability-zone", ZONES[1]))
    assert (both, both, set()) == (
        found("instance-state-code", "16"),
        found("instance-state-name", "r*g"),
        found("tag-key", "r?"),
    )
    assert both == found("instance-state-name", "stopped", "running")


@benches(*ALL, moto="it pages by reservation: 12 on one page")
def test_a_list_comes_in_pages_of_instances(bench: Bench) -> None:
    ids = bench.ids(MinCount=12, MaxCount=12)
    filters = [{"Name": "tag:irs:fleet", "Values": [bench.fleet]}]

    pages = list(bench.client.get_paginator("describe_instances").paginate(Filters=filters, MaxResults=5))

    found = [[one["InstanceId"] for group in page["Reservations"] for one in group["Instances"]] for page in pages]
    assert [5, 5, 2] == [len(page) for page in found]
    assert sorted(ids) == sorted(id for page in found for id in page)


@benches(*ALL, moto="it takes a page of 2")
def test_page_sizes_are_checked_and_do_not_go_with_ids(bench: Bench) -> None:
    (id,) = bench.ids()

    assert "InvalidParameterCombination" == refusal(lambda: bench.client.describe_instances(InstanceIds=[id], MaxResults=5))
    assert "InvalidParameterValue" == refusal(lambda: bench.client.describe_instances(MaxResults=2))


@benches(*ALL)
def test_one_of_three_is_described_by_its_id_and_all_by_their_fleet(bench: Bench) -> None:
    ids = [bench.ids()[0] for _ in range(3)]

    assert (ids[1], set(ids)) == (bench.one(ids[1])["InstanceId"], {one["InstanceId"] for one in bench.mine()})


@benches(*ALL)
def test_tags_are_set_and_taken_away(bench: Bench) -> None:
    (id,) = bench.ids()

    bench.client.create_tags(Resources=[id], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "ü <&>"}])
    both = tags_of(bench.one(id))
    bench.client.delete_tags(Resources=[id], Tags=[{"Key": "a"}])

    assert ("1", "ü <&>") == (both["a"], both["b"])
    assert {"irs:fleet": bench.fleet, "b": "ü <&>"} == tags_of(bench.one(id))


# Launch templates


@benches(*ALL)
def test_a_template_is_made_once(bench: Bench) -> None:
    data = {"ImageId": IMAGE}
    bench.client.create_launch_template(LaunchTemplateName=bench.fleet, LaunchTemplateData=data)

    code = refusal(lambda: bench.client.create_launch_template(LaunchTemplateName=bench.fleet, LaunchTemplateData=data))

    assert "AlreadyExistsException" == code


@benches(*ALL, moto="no spot, and it would stop instead of terminating")
def test_a_launch_takes_all_over_from_its_template(bench: Bench) -> None:
    bench.client.create_launch_template(
        LaunchTemplateName=bench.fleet,
        LaunchTemplateData={
            "ImageId": IMAGE,
            "InstanceType": "c7i.xlarge",
            "UserData": base64.b64encode(b"hello").decode(),
            "InstanceInitiatedShutdownBehavior": "terminate",
            "InstanceMarketOptions": {"MarketType": "spot"},
            "TagSpecifications": [spec("instance", of="template", both="template")],
        },
    )

    answer = bench.client.run_instances(
        LaunchTemplate={"LaunchTemplateName": bench.fleet},
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[spec("instance", **{"irs:fleet": bench.fleet, "both": "request"})],
    )

    one = answer["Instances"][0]
    seen = tags_of(bench.one(one["InstanceId"]))
    assert ("c7i.xlarge", "spot") == (one["InstanceType"], one.get("InstanceLifecycle"))
    assert {"of": "template", "both": "request", "irs:fleet": bench.fleet}.items() <= seen.items()
    assert base64.b64encode(b"hello").decode() == attribute(bench, one, "userData", "UserData")
    assert "terminate" == attribute(bench, one, "instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior")


def attribute(bench: Bench, one: dict[str, Any], asked: str, told: str) -> str:
    answer = bench.client.describe_instance_attribute(InstanceId=one["InstanceId"], Attribute=asked)
    return str(answer[told]["Value"])


@benches(*ALL, moto="the image of the source is lost")
def test_a_version_from_a_source_keeps_what_it_does_not_change(bench: Bench) -> None:
    name = {"LaunchTemplateName": bench.fleet}
    bench.client.create_launch_template(**name, LaunchTemplateData={"ImageId": IMAGE, "InstanceType": "c7i.large"})

    bench.client.create_launch_template_version(**name, SourceVersion="1", LaunchTemplateData={"InstanceType": "c7i.xlarge"})

    (latest,) = bench.client.describe_launch_template_versions(**name, Versions=["$Latest"])["LaunchTemplateVersions"]
    assert (2, IMAGE, "c7i.xlarge") == (
        latest["VersionNumber"],
        latest["LaunchTemplateData"].get("ImageId"),
        latest["LaunchTemplateData"]["InstanceType"],
    )


# What is for sale, and the rest


@benches(*OURS, "moto")
def test_types_tell_their_cores_and_spot_prices_are_there(bench: Bench) -> None:
    (told,) = bench.client.describe_instance_types(InstanceTypes=["c7i.large"])["InstanceTypes"]
    prices = bench.client.describe_spot_price_history(InstanceTypes=["c7i.large"])["SpotPriceHistory"]

    assert 2 == told["VCpuInfo"]["DefaultVCpus"]
    assert prices
    assert all(float(one["SpotPrice"]) > 0 for one in prices)


@benches("embedded", "moto")
def test_what_is_not_offered_here_is_answered_all_the_same(bench: Bench) -> None:
    assert bench.client.describe_vpcs()["Vpcs"]
    assert 3 <= len(bench.client.describe_availability_zones()["AvailabilityZones"])


@benches("embedded")
def test_the_console_shows_what_the_instance_said(bench: Bench) -> None:
    (id,) = bench.ids(UserData="#!/bin/sh\necho booted as $IRS_INSTANCE_ID\nexec sleep 60\n")

    said = bench.until(lambda: bench.client.get_console_output(InstanceId=id)["Output"])

    assert f"booted as {id}\n" == said
