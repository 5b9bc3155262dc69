"""Simulated hours and weeks of the production loop in a town where everything goes wrong at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scalers import Killed, Scalers
from town import Faults, Town

WEEK_S = 7 * 86_400


def live_through(town: Town, scalers: Scalers, seconds: int) -> None:
    """Hand in images now and then while scalers are stopped, killed, begun anew and told wrong times; then let it rest."""
    chance, end = town.chance, town.t + seconds
    kill_in = [0]

    def strike(action: str) -> None:
        kill_in[0] -= 1
        if kill_in[0] == 0:
            raise Killed(action)

    town.before_call = strike
    while town.t < end:
        if chance.random() < 0.3:
            town.hand_in(round(chance.paretovariate(1.1)) if chance.random() < 0.9 else chance.randint(100, 400))
        unlucky = chance.randrange(len(scalers.loops))
        happening = chance.random()
        is_stopped = 0.04 <= happening < 0.05
        if happening < 0.02:
            scalers.paused_until[unlucky] = town.t + chance.randint(5, 200)
        elif happening < 0.04:
            kill_in[0] = chance.randint(1, 40)
        elif 0.05 <= happening < 0.06:
            scalers.wall_jump_s[unlucky] = chance.uniform(-86_400, 86_400)
        elif 0.06 <= happening < 0.07:
            scalers.store.is_down = True
        elif 0.07 <= happening < 0.12:
            scalers.store.is_down = False
        try:
            if is_stopped:
                # And may be killed in the middle of it.
                scalers.loops[unlucky].close()
            scalers.run(chance.randint(1, 120))
        except Killed:
            scalers.restart(unlucky if scalers.acting is None else scalers.acting)
            scalers.acting = None
            town.pass_s()
        scalers.steps.clear()
    town.before_call, town.faults, scalers.store.is_down = (lambda _: None), Faults(), False
    # A spot instance that was told its end goes; boots that never end are noticed.
    scalers.run_until_rest(within_s=4 * 3600)


def check(town: Town, foreign_ids: list[str]) -> None:
    assert [] == town.harm
    assert set(map(str, range(town.handed_in))) == set(town.records), "images were lost"
    assert ["running"] * len(foreign_ids) == [town.machines[id].state for id in foreign_ids]
    assert [] == town.live


def bad(draw: st.DrawFn) -> Faults:
    rate = st.sampled_from([0.0, 0.05, 0.3])
    return Faults(
        boot_s=(5, draw(st.sampled_from([20, 90, 250]))),
        failed_boot=draw(rate),
        unseen=draw(rate),
        unseen_s=draw(st.integers(1, 100)),
        no_capacity=draw(rate),
        lost_answer=draw(rate),
        throttled=draw(st.sampled_from([0.0, 0.05])),
        lost_reading=draw(st.sampled_from([0.0, 0.05, 0.2])),
        unstored=draw(st.sampled_from([0.0, 0.02, 0.1])),
        spot_end_per_hour=draw(st.sampled_from([0.0, 0.5, 3.0])),
        freeze_per_hour=draw(st.sampled_from([0.0, 0.2])),
    )


@st.composite
def faults(draw: st.DrawFn) -> Faults:
    return bad(draw)


@effort(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), faults=faults(), number=st.integers(1, 3), cap=st.integers(1, 8), pool=st.integers(0, 2))
def test_fleet_loses_no_image_holds_the_cap_touches_nobody_else_and_ends_at_zero_through_an_hour_of_trouble(
    seed: int, faults: Faults, number: int, cap: int, pool: int
) -> None:
    town = Town(seed=seed, cap=cap, faults=faults, service_s=2)
    foreign = [town.add_machine(tags=tags).id for tags in ({}, {"irs:fleet": "other", "irs:role": "worker"})]
    scalers = Scalers(town, number=number, pool=min(pool, cap))

    live_through(town, scalers, 3600)

    check(town, foreign)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fleet_loses_no_image_holds_the_cap_touches_nobody_else_and_ends_at_zero_through_a_week_of_trouble(seed: int) -> None:
    faults = Faults(
        boot_s=(5, 120), failed_boot=0.1, unseen=0.2, unseen_s=60, no_capacity=0.1, lost_answer=0.1, throttled=0.02,
        lost_reading=0.05, unstored=0.02, spot_end_per_hour=0.5, freeze_per_hour=0.05,
    )  # fmt: skip
    town = Town(seed=seed, cap=5, faults=faults, service_s=2)
    foreign = [town.add_machine(tags={}).id]
    scalers = Scalers(town, number=2, pool=seed % 2)

    live_through(town, scalers, WEEK_S)

    check(town, foreign)


def test_leaders_never_overlap_and_each_epoch_is_one_more_than_the_last() -> None:
    town = Town(seed=4, cap=3)
    scalers = Scalers(town, number=3)
    led: list[tuple[int, int, int]] = []
    for _ in range(200):
        town.hand_in(town.chance.randint(0, 5))
        scalers.paused_until[town.chance.randrange(3)] = town.t + town.chance.randint(0, 60)
        scalers.run(10)
        held = [n for n, loop in enumerate(scalers.loops) if loop.leads]
        assert len(held) <= 1
        led += [(town.t, n, scalers.loops[n].epoch) for n in held]

    changes = [(before, after) for before, after in pairwise(led) if before[1] != after[1]]
    assert len(changes) > 5
    assert all(after[2] > before[2] for before, after in changes)
