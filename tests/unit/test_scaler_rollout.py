"""A new model under load: workers are replaced by turns, no image waits for its lease, and a broken one costs one boot."""

from __future__ import annotations

from collections import Counter

import pytest
from scalers import Killed, Scalers
from town import ON_DEMAND, Faults, Town

from irs.broker import Health
from irs.records import Order
from irs.worker.retire import Retirement
from scaler import Observation, Worker
from scaler.rollout import Turn, turn

OLD, NEW = "aaaa", "bbbb"


def worked(town: Town, scalers: Scalers, seconds: int, *, per_s: int) -> list[int]:
    """Let time pass under a load that never ends; return how many workers were ready in each step's time."""
    ready = []
    for _ in range(seconds // 5):
        town.hand_in(5 * per_s)
        scalers.run(5)
        ready.append(sum(one.phase in ("busy", "ready", "retiring") for one in town.live))
    return ready


def models(town: Town) -> Counter[str]:
    return Counter(one.model for one in town.live)


@pytest.fixture
def town() -> Town:
    return Town(cap=8, service_s=2, faults=Faults(boot_s=(40, 40)))


@pytest.fixture
def scalers(town: Town) -> Scalers:
    """Four workers or so, all with images in hand."""
    scalers = Scalers(town, candidates=(ON_DEMAND,))
    worked(town, scalers, 400, per_s=3)
    assert {OLD} == set(models(town))
    return scalers


def test_new_model_replaces_every_worker_under_load_and_no_image_waits_for_its_lease(town: Town, scalers: Scalers) -> None:
    town.model = NEW
    ready = worked(town, scalers, 900, per_s=3)

    assert {NEW} == set(models(town))
    # The new one comes first: there are never fewer than such a load needs.
    assert min(ready) >= 3
    assert "roll" in scalers.kinds
    scalers.run_until_rest()
    assert (0, []) == (town.redelivered, town.harm)


def test_fleet_at_its_cap_lets_the_old_ones_go_first_and_one_alone_until_a_new_one_is_ready() -> None:
    town = Town(cap=4, service_s=4, faults=Faults(boot_s=(40, 40)))
    scalers = Scalers(town, candidates=(ON_DEMAND,))
    worked(town, scalers, 400, per_s=3)
    assert 4 == len(town.live)

    town.model = NEW
    ready = worked(town, scalers, 900, per_s=3)

    assert {NEW} == set(models(town))
    assert 3 == min(ready)
    assert (0, []) == (town.redelivered, town.harm)


def test_model_that_no_worker_can_start_with_is_tried_once_and_nobody_drains_for_it_until_another_is_rolled(
    town: Town, scalers: Scalers, caplog: pytest.LogCaptureFixture
) -> None:
    scalers.steps.clear()
    town.model, town.broken_models = "0bad", {"0bad"}
    drains = set[str]()
    for _ in range(20):
        ready = worked(town, scalers, 60, per_s=3)
        drains |= town.drains
    rolls = scalers.kinds.count("roll")
    town.model = NEW
    worked(town, scalers, 900, per_s=3)

    assert (1, set()) == (rolls, drains)
    assert min(ready) >= 3
    assert ["0bad"] == [record.digest for record in caplog.records if record.message == "roll stopped"]  # type: ignore[attr-defined]
    assert {NEW} == set(models(town))


def test_nobody_drains_while_the_budget_of_the_day_forbids_to_replace_it(town: Town) -> None:
    scalers = Scalers(town, candidates=(ON_DEMAND,), budget_per_day_usd=0.3)
    worked(town, scalers, 600, per_s=3)
    old = {one.id for one in town.live}

    town.model = NEW
    worked(town, scalers, 600, per_s=3)

    assert old == {one.id for one in town.live}
    assert set() == town.drains


def test_new_model_replaces_the_one_worker_that_always_stands_though_it_boots_longer_than_a_boot_is_waited_for() -> None:
    town = Town(cap=3, faults=Faults(boot_s=(100, 100)))
    scalers = Scalers(town, candidates=(ON_DEMAND,), min_workers=1)
    scalers.run(300)
    launched = len(town.tokens)

    town.model = NEW
    scalers.run(600)

    assert {NEW: 1} == models(town)
    assert 1 == len(town.tokens) - launched


@pytest.mark.parametrize("action", ["drain", "run", "end"])
def test_roll_goes_on_under_another_leader_when_the_first_one_is_killed_in_its_middle(
    town: Town, scalers: Scalers, action: str
) -> None:
    left = iter([True])

    def strike(said: str) -> None:
        if said == action and next(left, False):
            raise Killed(said)

    town.model, town.before_call = NEW, strike
    for _ in range(240):
        town.hand_in(15)
        try:
            scalers.run(5)
        except Killed:
            scalers.restart()
            town.pass_s(5 - town.t % 5)

    assert {NEW} == set(models(town))
    assert next(left, True), "it was never killed"
    scalers.run_until_rest()
    assert (0, []) == (town.redelivered, town.harm)


def test_model_that_cannot_be_read_leaves_all_workers_as_they_are(town: Town, scalers: Scalers) -> None:
    old = {one.id for one in town.live}
    town.model = None  # type: ignore[assignment]

    worked(town, scalers, 300, per_s=3)

    assert old == {one.id for one in town.live}


def test_turns_are_one_until_the_new_model_serves_and_then_a_quarter_of_the_need() -> None:
    workers = tuple(Worker(id=f"w{n:02}", phase="ready", launched_at=float(n)) for n in range(12))
    seen, ids = Observation(visible=9, inflight=9, workers=workers), {worker.id for worker in workers}

    assert Turn(launch=1) == turn(seen, ids, (), need=12, cap=19)
    assert Turn(launch=3) == turn(seen, ids - {"w00"}, (), need=12, cap=19)
    assert Turn(drain=frozenset({"w01", "w02"})) == turn(seen, ids - {"w00"}, (), need=10, cap=19)
    # What was begun is brought to its end first.
    assert Turn(drain=frozenset({"w05"})) == turn(seen, ids, {"w05"}, need=9, cap=19)


def test_worker_that_is_told_to_drain_leaves_with_images_in_hand_and_a_full_queue() -> None:
    retirement = Retirement()
    busy = Health(held=3)

    retirement.follow(Order(order="retire"))
    assert not retirement.is_over(busy, idle_since=None)
    retirement.follow(Order(order="drain"))
    assert retirement.is_over(busy, idle_since=None)
