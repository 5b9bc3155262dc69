"""The states of instances, driven at random with a clock that stands and a host that runs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from ec2bench import Clock, PaperHost, paper_ec2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from irs.errors import SetupError
from irs.local.ec2 import wire
from irs.local.ec2.api import Api
from irs.local.ec2.cloud import TERMINATED_SECONDS, Ec2
from irs.local.ec2.faults import Faults, Place, Refused
from irs.local.ec2.tokens import KEPT_SECONDS

T = TypeVar("T")
QUOTA = 4
SCRIPT = "IyEvYmluL3NoCg=="
ZONES = st.sampled_from(["us-east-1a", "us-east-1b"])
#: What an instance may be refused for.
REFUSALS = {
    "IdempotentInstanceTerminated",
    "IdempotentParameterMismatch",
    "IncorrectInstanceState",
    "InsufficientInstanceCapacity",
    "UnsupportedOperation",
    "VcpuLimitExceeded",
}


def tried(call: Callable[[], T]) -> T | None:
    """What a call returns; None where it is refused for a reason that there can be."""
    try:
        return call()
    except Refused as refused:
        if refused.code not in REFUSALS:
            raise AssertionError(refused) from None
    return None


class Life(RuleBasedStateMachine):
    """All that can happen to instances, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.host = Clock(), PaperHost()
        self.ec2 = Ec2("us-east-1", self.host, quota=QUOTA, clock=self.clock)
        self.tokens: dict[tuple[str, str], tuple[list[str], float]] = {}
        self.ended: set[str] = set()

    def api(self) -> Api:
        return Api(self.ec2)

    @rule(
        most=st.integers(1, 6),
        zone=ZONES,
        market=st.sampled_from(["on-demand", "spot"]),
        shutdown=st.sampled_from(["stop", "terminate"]),
        token=st.sampled_from(["a", "b", "c"]),
    )
    def run(self, most: int, zone: str, market: str, shutdown: str, token: str) -> None:
        asked: dict[str, Any] = {
            "MinCount": 1,
            "MaxCount": most,
            "ImageId": "ami-1",
            "UserData": SCRIPT,
            "ClientToken": token,
            "Placement": {"AvailabilityZone": zone},
            "InstanceInitiatedShutdownBehavior": shutdown,
        }
        if market == "spot":
            asked["InstanceMarketOptions"] = {"MarketType": "spot"}
        before = set(self.ec2.instances)
        answer = tried(lambda: self.api().run_instances(asked))
        if answer is None:
            assert before == set(self.ec2.instances)
            return
        ids = [one["InstanceId"] for one in answer["Instances"]]
        known, _ = self.tokens.setdefault((zone, token), (ids, self.clock.now))
        assert set(ids) <= set(known), "a token launched twice"

    @precondition(lambda self: self.ec2.instances)
    @rule(data=st.data(), what=st.sampled_from(["terminate", "stop", "start", "interrupt"]))
    def change(self, data: st.DataObject, what: str) -> None:
        id = self.any_of(data, set(self.ec2.instances))
        one = self.ec2.instances[id]
        tried(lambda: self.ec2.interrupt(id, after_s=5) if what == "interrupt" else getattr(self.ec2, what)([one]))

    @precondition(lambda self: self.host.up)
    @rule(data=st.data())
    def process_ends(self, data: st.DataObject) -> None:
        id = self.any_of(data, self.host.up)
        self.host.up.remove(id)
        self.ec2.exited(id)

    def any_of(self, data: st.DataObject, ids: set[str]) -> str:
        """One of ``ids``, by age: ids themselves differ from run to run."""
        by_age = sorted(ids, key=lambda one: self.ec2.instances[one].ordinal)
        return by_age[data.draw(st.integers(0, len(by_age) - 1))]

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 10.0, TERMINATED_SECONDS + 1, KEPT_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.ec2.advance()
        for key, (ids, at) in list(self.tokens.items()):
            if self.clock.now - at > KEPT_SECONDS and not set(ids) & set(self.ec2.instances):
                del self.tokens[key]

    @rule(boot=st.sampled_from([0.0, 2.0]), stop=st.sampled_from([0.0, 2.0]), room=st.sampled_from([None, 0, 2]))
    def faults_change(self, boot: float, stop: float, room: int | None) -> None:
        self.ec2.faults = Faults(boot_seconds=boot, stop_seconds=stop, capacity={} if room is None else {"*/*/*": room})

    @rule()
    def restart(self) -> None:
        kept = json.loads(json.dumps(self.ec2.dump()))
        self.host = PaperHost()
        self.ec2 = Ec2("us-east-1", self.host, quota=QUOTA, clock=self.clock)
        self.ec2.load(kept)
        again = self.ec2.dump()
        assert (kept["templates"], kept["tokens"], kept["ordinal"]) == (again["templates"], again["tokens"], again["ordinal"])
        for before, after in zip(kept["instances"], again["instances"], strict=True):
            assert before["state"] not in ("stopped", "terminated") or before == after
            assert after["state"] in ("stopped", "terminated")

    def teardown(self) -> None:
        """However it went, everything can be ended."""
        self.ec2.faults = Faults()
        self.ec2.terminate(list(self.ec2.instances.values()))
        for id in sorted(self.host.up):
            assert id in self.host.halted
            self.host.up.remove(id)
            self.ec2.exited(id)
        self.ec2.advance()
        assert all(one.state == "terminated" for one in self.ec2.instances.values())

    @invariant()
    def no_more_live_than_the_quota_allows(self) -> None:
        assert sum(one.is_alive for one in self.ec2.instances.values()) <= QUOTA

    @invariant()
    def only_what_lives_runs(self) -> None:
        for id in self.host.up:
            assert self.ec2.instances[id].state in ("running", "stopping", "shutting-down")

    @invariant()
    def what_is_terminated_stays_so(self) -> None:
        ended = {id for id, one in self.ec2.instances.items() if one.state == "terminated"}
        assert not {id for id in self.ended - ended if id in self.ec2.instances}
        assert not ended & self.host.up
        self.ended |= ended

    @invariant()
    def the_next_step_is_never_forgotten(self) -> None:
        """What moves by itself has a time, or a process whose end will be told."""
        at = self.ec2.next_step_at()
        for id, one in self.ec2.instances.items():
            if one.state in ("pending", "shutting-down", "stopping") and id not in self.host.up:
                assert at is not None


TestLife = pytest.mark.filterwarnings("ignore")(Life.TestCase)
TestLife.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))


def order(**more: Any) -> dict[str, Any]:
    return {"MinCount": 1, "MaxCount": 1, "ImageId": "ami-1", "UserData": SCRIPT, **more}


def test_a_stopped_instance_boots_the_same_user_data_under_the_same_id_also_after_a_restart() -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order())
    ec2.advance()
    ec2.stop([one])
    ec2.host.up.clear()
    ec2.exited(one.id)

    later = paper_ec2(clock=ec2.clock)
    later.load(json.loads(json.dumps(ec2.dump())))
    later.start([later.instances[one.id]])
    later.advance()

    assert [(one.id, b"#!/bin/sh\n")] == later.host.booted


def test_what_ran_is_terminated_by_an_internal_error_after_a_restart() -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order())
    ec2.advance()

    later = paper_ec2(clock=ec2.clock)
    later.load(json.loads(json.dumps(ec2.dump())))

    told = later.instances[one.id].describe()
    assert ("terminated", "Server.InternalError") == (told["State"]["Name"], told["StateReason"]["Code"])


@pytest.mark.parametrize("part", ["instances", "templates", "tokens"])
def test_what_cannot_be_read_after_a_restart_leaves_nothing_half_taken_up(part: str) -> None:
    ec2 = paper_ec2()
    ec2.launch(order())
    ec2.advance()
    kept = json.loads(json.dumps(ec2.dump()))
    kept[part] = {"x": {"later": 1}} if part == "tokens" else [{"later": 1}]

    later = paper_ec2(clock=ec2.clock)
    with pytest.raises(TypeError):
        later.load(kept)

    assert {} == later.instances


@pytest.mark.parametrize(("shutdown", "state"), [("stop", "stopped"), ("terminate", "terminated")])
def test_the_end_of_the_process_is_the_shutdown_of_its_instance(shutdown: str, state: str) -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order(InstanceInitiatedShutdownBehavior=shutdown))
    ec2.advance()

    ec2.host.up.clear()
    ec2.exited(one.id)

    assert (state, "Client.InstanceInitiatedShutdown") == (one.state, one.reason)


def test_a_spot_instance_is_taken_away_at_the_time_of_its_notice() -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order(InstanceMarketOptions={"MarketType": "spot"}))
    ec2.advance()

    ec2.interrupt(one.id, after_s=120)
    ec2.clock.now += 119
    ec2.advance()
    before = one.state
    assert ec2.clock.now + 1 == ec2.next_step_at()
    ec2.clock.now += 1
    ec2.advance()

    assert ("running", "shutting-down", "Server.SpotInstanceTermination") == (before, one.state, one.reason)
    assert [one.id] == ec2.host.halted


def test_an_instance_on_demand_is_never_interrupted() -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order())

    with pytest.raises(Refused, match="only spot instances are interrupted"):
        ec2.interrupt(one.id)


def test_user_data_that_is_no_script_runs_nothing_and_ends_all_the_same() -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order(UserData=""))
    ec2.advance()
    before = one.state

    ec2.terminate([one])
    ec2.advance()

    assert ("running", "terminated", []) == (before, one.state, ec2.host.booted)


def test_a_terminated_instance_leaves_the_lists_after_an_hour() -> None:
    ec2 = paper_ec2()
    (one,) = ec2.launch(order())
    ec2.terminate([one])
    ec2.advance()

    ec2.clock.now += TERMINATED_SECONDS
    ec2.advance()

    assert {} == ec2.instances


def test_a_page_hides_nothing_when_an_instance_leaves_between_two() -> None:
    ec2 = paper_ec2()
    ids = [one.id for one in ec2.launch(order(MinCount=12, MaxCount=12))]
    api = Api(ec2)
    first = api.describe_instances({"MaxResults": 5})

    del ec2.instances[ids[0]]
    second = api.describe_instances({"MaxResults": 10, "NextToken": first["NextToken"]})

    assert ids[5:] == [one["InstanceId"] for group in second["Reservations"] for one in group["Instances"]]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"boot_seconds": -1}, "0 or more"),
        ({"boot_seconds": "long"}, "must be real number"),
        ({"weather": "bad"}, "weather"),
        ({"rules": [{"when": "never"}]}, "when"),
        ({"capacity": {"c7i.large": 1}}, "type/zone/market"),
        ([], "not a mapping"),
    ],
)
def test_faults_that_make_no_sense_are_told_in_one_sentence(told: Any, said: str) -> None:
    with pytest.raises(SetupError, match=f"cannot be read .*{said}"):
        Faults.from_json(told)


def test_the_closest_capacity_counts() -> None:
    faults = Faults(capacity={"*/*/*": 0, "a.b/*/*": 2, "a.b/z1/*": 1, "a.b/z1/spot": 5})
    place = Place("a.b", "z1", "spot")
    rooms = [faults.room(place, [place]), faults.room(place._replace(market="on-demand"), [place])]
    rooms += [faults.room(place._replace(zone="z2"), [place]), faults.room(place._replace(type="c.d"), [place])]

    assert [4, 0, 1, -1] == rooms


def test_every_action_that_is_offered_is_in_the_model() -> None:
    wire.load(("RunInstances",))

    assert Api.offers("Action=RunInstances&MinCount=1")
    assert not Api.offers("Action=DescribeVpcs")
    assert Api.offers("Action=CreateTags&ResourceId.1=i-0123456789abcdef0&Tag.1.Key=a&Tag.1.Value=b")
    assert not Api.offers("Action=CreateTags&ResourceId.1=sg-0123456789abcdef0&Tag.1.Key=a&Tag.1.Value=b")
