"""A worker that its scaler has left behind, on the scaler's real state and a clock of the test's."""

from __future__ import annotations

import pytest

from irs.cloud import Cloud
from irs.records import SCALER_STATE_KEY
from irs.worker.outlive import Outliving

LIMIT_S = 900.0
LAUNCH = "irs-7-1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def outliving(cloud: Cloud, clock: Clock, *, limit_s: float = LIMIT_S, is_named: bool = True) -> Outliving:
    return Outliving(cloud, limit_s=limit_s, is_named=is_named, clock=clock)


def live(one: Outliving, clock: Clock, *, launch: str | None, for_s: float, cloud: Cloud, is_led: bool = False) -> float | None:
    """Let time pass without work; return after how long it was over, None if it never was."""
    began = clock.now
    while clock.now - began <= for_s:
        if is_led:
            cloud.output.put(SCALER_STATE_KEY, f"{clock.now}".encode(), content_type="application/json")
        if one.is_due(launch):
            one.look()
        if one.is_over(launch):
            return clock.now - began
        clock.now += 30
    return None


def test_a_launched_worker_is_over_after_the_limit_whatever_an_old_state_says(cloud: Cloud) -> None:
    cloud.output.put(SCALER_STATE_KEY, b"of last week", content_type="application/json")
    clock = Clock()

    assert LIMIT_S == live(outliving(cloud, clock), clock, launch=LAUNCH, for_s=2000, cloud=cloud)


@pytest.mark.parametrize("launch", [LAUNCH, None])
def test_a_worker_that_sees_its_scaler_stays_and_is_over_only_after_it(cloud: Cloud, launch: str | None) -> None:
    clock = Clock()
    one = outliving(cloud, clock)
    assert live(one, clock, launch=launch, for_s=3 * LIMIT_S, cloud=cloud, is_led=True) is None

    over_s = live(one, clock, launch=launch, for_s=2000, cloud=cloud)

    assert over_s is not None
    assert 0.9 * LIMIT_S <= over_s <= 1.1 * LIMIT_S


def test_a_worker_that_has_work_is_needed(cloud: Cloud) -> None:
    clock = Clock()
    one = outliving(cloud, clock)
    clock.now += 10 * LIMIT_S
    one.note_work()

    assert LIMIT_S == live(one, clock, launch=LAUNCH, for_s=2000, cloud=cloud)


@pytest.mark.parametrize("is_led", [False, True], ids=["no scaler", "somebody's scaler"])
def test_a_worker_started_by_hand_stays_and_asks_for_no_scaler(cloud: Cloud, is_led: bool) -> None:
    clock = Clock()
    one = outliving(cloud, clock, is_named=False)

    assert live(one, clock, launch=None, for_s=3 * LIMIT_S, cloud=cloud, is_led=is_led) is None
    assert not one.is_due(None)


def test_a_named_worker_that_never_saw_a_scaler_stays(cloud: Cloud) -> None:
    cloud.output.put(SCALER_STATE_KEY, b"of last week", content_type="application/json")
    clock = Clock()

    assert live(outliving(cloud, clock), clock, launch=None, for_s=3 * LIMIT_S, cloud=cloud) is None


def test_no_worker_is_over_where_the_limit_is_turned_off(cloud: Cloud) -> None:
    clock = Clock()

    assert live(outliving(cloud, clock, limit_s=0), clock, launch=LAUNCH, for_s=3 * LIMIT_S, cloud=cloud) is None
