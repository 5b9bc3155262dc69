"""What must never happen, rows 12 and 17 of the design's table: a fleet that does not end, numbers that poison the measure."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from scalers import Scalers
from town import ON_DEMAND, SPOT, Town

from scaler import State
from scaler.book import Book

HOUR_S = 3600
#: Two periods to believe in the rest, the pace of beats, and a drain.
LEAVE_S = 60


# Row 12: never reaching zero


def test_row_12_fleet_reaches_zero_within_a_minute_and_a_half_though_delayed_messages_wait() -> None:
    town = Town(cap=5)
    scalers = Scalers(town)
    town.delayed = 500
    for number in range(5):
        settle(town, "ready", number)

    scalers.run(90)

    assert [] == town.live
    scalers.run(HOUR_S)
    assert {} == town.tokens, "a message that nobody can see yet has launched an instance"


def test_row_12_image_that_kills_every_worker_costs_five_of_them_and_no_more() -> None:
    town = Town(cap=5)
    scalers = Scalers(town)
    town.hand_in(40)
    town.poison = {"7"}

    scalers.run_until_rest(within_s=2 * HOUR_S)

    # A neighbour in the same hands may go down as often, never a third one.
    assert "7" in town.dead
    assert 38 <= len(town.records)
    launched = len(town.machines)
    scalers.run(HOUR_S)
    assert launched == len(town.machines)


@st.composite
def memories(draw: st.DrawFn) -> State:
    """What a policy may have learned, by hook or by crook."""
    some = st.floats(0, 1e5)
    return State(
        at=-draw(st.floats(0, 1e6)),
        arrived=draw(st.floats(0, 1e9)),
        completed=draw(st.floats(0, 1e9)),
        done=draw(some),
        held_s=draw(some),
        boots={"c7g.large fresh": tuple(draw(st.lists(st.floats(1, 600), max_size=20)))},
        arrivals_per_s=tuple(draw(st.lists(some, max_size=24))),
        shadow=tuple(draw(st.lists(some, max_size=8))),
        charge=tuple(draw(st.lists(some, max_size=8))),
        gaps_s=tuple(draw(st.lists(st.sampled_from([30.0, 600.0, 4000.0, 80_000.0]), max_size=64))),
        found=draw(st.floats(0, 5000)),
    )


def settle(town: Town, kind: str, number: int) -> None:
    """Put a machine of one kind there, as trouble may have left it."""
    machine = town.add_machine(SPOT if number % 2 else ON_DEMAND, launch=f"town-0-{number}")
    if kind in ("boots", "never boots"):
        machine.boot_s = 40 if kind == "boots" else 10**6
        return
    machine.phase, machine.ready_at, machine.boot_s = "ready", 1, 1
    machine.is_silent = kind == "silent"
    if kind == "drained":
        machine.phase, machine.drained_at = "drained", 0
    if kind == "ordered":
        town.orders[machine.id] = "by an earlier scaler"


#: Each example is an hour of the real loop: found again, it is not made smaller.
@effort(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@example(
    # Whose rests have always ended after an hour and more, and whose restarts cost much.
    memory=State(at=-5.0, gaps_s=(4000.0,) * 64, found=5000.0, boots={"c7g.large fresh": (600.0,) * 20}),
    kinds=["ready"],
    value=50.0,
    pool=0,
)
@given(
    memory=memories(),
    kinds=st.lists(st.sampled_from(["boots", "never boots", "ready", "silent", "drained", "ordered"]), min_size=1, max_size=6),
    value=st.sampled_from([None, 0.03, 0.5, 1.0, 50.0]),
    pool=st.integers(0, 2),
)
def test_row_12_fleet_is_at_zero_after_an_hour_without_messages_from_any_state(
    memory: State, kinds: list[str], value: float | None, pool: int
) -> None:
    town = Town(cap=6)
    scalers = Scalers(town, pool=pool, value=value)
    scalers.store.text = json.dumps(Book(policy=memory).to_json(0.0))
    for number, kind in enumerate(kinds):
        settle(town, kind, number)

    scalers.run(HOUR_S + LEAVE_S)

    assert [] == [(one.id, one.phase) for one in town.live]


# Row 17: poisoned measurements


def test_row_17_worker_that_begins_anew_under_its_name_goes_on_counting_and_launches_nobody() -> None:
    town = Town(cap=6)
    scalers = Scalers(town)
    for number in range(2):
        settle(town, "ready", number)
    town.hand_in(1500)
    scalers.run(200)
    before, launched = len(town.records), len(town.tokens)
    counted = scalers.steps[-1].book.policy.completed  # type: ignore[union-attr]

    for machine in town.live:
        machine.boot, machine.completed, machine.busy_s = machine.boot + 1, 0, 0
    scalers.run(60)

    book = scalers.steps[-1].book
    assert launched == len(town.tokens)
    # A look may be a beat's time late, of four images a second.
    assert len(town.records) - before == pytest.approx(book.policy.completed - counted, abs=25)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "poison",
    [
        {"completed": 10**15}, {"completed": 10**9}, {"completed": -5}, {"busy_s": math.nan}, {"busy_s": math.inf},
        {"busy_s": 1e300}, {"busy_s": 1e6}, {"busy_s": -1.0}, {"queued_s": math.inf}, {"queued_s": math.nan},
        {"ready_after_s": math.nan}, {"ready_after_s": -1e9}, {"ready_after_s": 1e300},
    ],
    ids=str,
)  # fmt: skip
def test_row_17_one_beat_with_a_number_that_cannot_be_changes_no_estimate_and_launches_nobody(poison: dict[str, float]) -> None:
    town = Town(cap=6)
    scalers = Scalers(town)
    for number in range(2):
        settle(town, "ready", number)
    for _ in range(40):
        town.hand_in(15)
        scalers.run(5)
    launched, before = len(town.tokens), scalers.steps[-1].decision.numbers
    sick = town.live[0]

    assert sick.beat is not None
    sick.beat = replace(sick.beat, at=sick.beat.at + 0.5, **poison)  # type: ignore[arg-type]
    scalers.step()
    for _ in range(40):
        town.hand_in(15)
        scalers.run(5)

    after = scalers.steps[-1].decision.numbers
    assert launched == len(town.tokens)
    assert before["rate_per_s"] == pytest.approx(after["rate_per_s"], rel=0.2)
    assert before["boot_s"] == pytest.approx(after["boot_s"], rel=0.2)
    assert before["sustained_per_s"] == pytest.approx(after["sustained_per_s"], rel=0.3)


def test_row_17_worker_whose_clock_is_set_back_by_an_hour_is_heard_and_not_ended() -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    settle(town, "ready", 0)
    (machine,) = town.live
    for _ in range(60):
        town.hand_in(5)
        scalers.run(5)

    machine.clock_off_s = -3600
    for _ in range(300):
        town.hand_in(5)
        scalers.run(5)

    assert [machine.id] == [one.id for one in town.live]
    assert "lost" not in {worker.phase for step in scalers.steps if step.fleet for worker in step.fleet.workers}
