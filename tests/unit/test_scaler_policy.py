"""The policy: what it launches, whom it sends home, and what must never happen."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from irs.errors import SetupError
from scaler import Boot, Decision, Observation, Pair, ScalerSettings, State, Worker, decide, policy_settings
from scaler import rest as resting
from scaler.measure import boot_time_s, rate_per_s

PHASES = ("requested", "booting", "ready", "leaving", "stuck", "lost")
PLACE = Pair("c7g.large", "a", "spot")


def ready(count: int, *, busy: int = 0, launched_at: float = -1000.0) -> tuple[Worker, ...]:
    return tuple(Worker(id=f"w{n}", phase="ready", launched_at=launched_at, busy=busy) for n in range(count))


def queue(visible: int | None = 0, inflight: int | None = 0, workers: tuple[Worker, ...] = (), **more: object) -> Observation:
    return Observation(visible=visible, inflight=inflight, workers=workers, **more)  # type: ignore[arg-type]


def play(seen: list[Observation], settings: ScalerSettings, state: State | None = None) -> list[Decision]:
    """Decide on each observation, one period apart."""
    decisions: list[Decision] = []
    for number, one in enumerate(seen):
        decisions.append(
            decide(one, decisions[-1].state if decisions else state or State(), settings, number * settings.period_s)
        )
    return decisions


#: The properties run on a machine that others use too: fewer examples, more fields each.
few = effort(max_examples=40, deadline=None)

policies = st.one_of(st.sampled_from([None, 1.0, 0.5, 0.03]), st.floats(0.001, 100))


@st.composite
def workers(draw: st.DrawFn) -> tuple[Worker, ...]:
    one = st.tuples(st.sampled_from(PHASES), st.floats(-5000, 100), st.integers(0, 64))
    return tuple(
        Worker(id=f"w{number}", phase=phase, launched_at=at, busy=busy)  # type: ignore[arg-type]
        for number, (phase, at, busy) in enumerate(draw(st.lists(one, max_size=24)))
    )


@st.composite
def observations(draw: st.DrawFn) -> Observation:
    any_number = st.floats(allow_nan=True, allow_infinity=True)
    return Observation(
        visible=draw(st.one_of(st.none(), st.integers(0, 50_000))),
        inflight=draw(st.one_of(st.none(), st.integers(0, 2_000))),
        reading_age_s=draw(st.floats(0, 40)),
        workers=draw(workers()),
        completed_total=draw(st.one_of(st.integers(0, 10**6), any_number)),
        busy_total_s=draw(st.one_of(st.none(), any_number)),
        boots=tuple(Boot(kind="", took_s=took_s) for took_s in draw(st.lists(any_number, max_size=3))),
        oldest_wait_s=draw(st.one_of(st.none(), st.floats(0, 10_000))),
    )


histories = st.lists(observations(), min_size=1, max_size=5)


# What must hold for any input


@few
@given(histories, policies, st.integers(1, 25))
def test_policy_never_asks_for_more_than_the_cap_whatever_it_sees(seen: list[Observation], value: float | None, cap: int) -> None:
    decisions = play(seen, ScalerSettings(value=value, cap=cap))

    assert [] == [d for d, one in zip(decisions, seen, strict=True) if d.launch and len(one.workers) + d.launch > cap]


@few
@given(histories, policies)
def test_policy_gives_no_order_on_a_failed_or_stale_reading(seen: list[Observation], value: float | None) -> None:
    decisions = play(seen, ScalerSettings(value=value))

    for one, decision in zip(seen, decisions, strict=True):
        if one.visible is None or one.inflight is None or one.reading_age_s > 15:
            assert (0, frozenset(), frozenset()) == (decision.launch, decision.retire, decision.cancel)
            assert decision.kind in ("stale-reading", "blind")


@few
@given(histories, policies)
def test_policy_cancels_only_old_boots_and_retires_only_ready_or_stuck_workers(
    seen: list[Observation], value: float | None
) -> None:
    for number, (one, decision) in enumerate(zip(seen, play(seen, ScalerSettings(value=value)), strict=True)):
        by_id = {worker.id: worker for worker in one.workers}

        assert {by_id[id].phase for id in decision.retire} <= {"ready", "stuck"}
        assert {by_id[id].phase for id in decision.cancel} <= {"booting"}
        assert all(5.0 * number - by_id[id].launched_at >= 58 for id in decision.cancel)


@few
@given(histories, st.floats(0.001, 100))
def test_policy_retires_no_busy_worker_while_an_idle_grown_one_stays(seen: list[Observation], value: float) -> None:
    for number, (one, decision) in enumerate(zip(seen, play(seen, ScalerSettings(value=value)), strict=True)):
        grown = [worker for worker in one.workers if worker.phase == "ready" and 5.0 * number - worker.launched_at >= 55]
        stays = [worker.busy for worker in grown if worker.id not in decision.retire]

        assert all(worker.busy <= min(stays, default=math.inf) for worker in grown if worker.id in decision.retire)


@few
@given(histories, policies)
def test_policy_never_launches_and_shrinks_in_one_decision(seen: list[Observation], value: float | None) -> None:
    for one, decision in zip(seen, play(seen, ScalerSettings(value=value)), strict=True):
        working = {worker.id for worker in one.workers if worker.phase == "ready"}

        assert not (decision.launch and (decision.retire & working or decision.cancel))


@few
@given(histories, policies)
def test_policy_decides_the_same_on_the_same_input(seen: list[Observation], value: float | None) -> None:
    assert play(seen, ScalerSettings(value=value)) == play(seen, ScalerSettings(value=value))


@few
@given(histories, policies)
def test_policy_keeps_finite_estimates_near_their_priors_whatever_is_measured(
    seen: list[Observation], value: float | None
) -> None:
    settings = ScalerSettings(value=value)
    state = play(seen, settings)[-1].state

    assert 0.01 <= rate_per_s(state, settings, by_busy_time=True) <= 100
    assert 0.01 <= rate_per_s(state, settings, by_busy_time=False) <= 100
    assert 0.6 <= boot_time_s(state, settings) <= 6000


@few
@given(histories, policies)
def test_memory_survives_the_way_through_json_and_another_clock(seen: list[Observation], value: float | None) -> None:
    settings = ScalerSettings(value=value)
    state = play(seen, settings)[-1].state
    text = json.dumps(state.to_json(100.0))

    read = State.from_json(json.loads(text), 5000.0)

    assert text == json.dumps(read.to_json(5000.0))


@few
@given(histories, policies, workers())
def test_policy_lets_the_fleet_go_to_zero_within_an_hour_without_images(
    seen: list[Observation], value: float | None, fleet: tuple[Worker, ...]
) -> None:
    settings = ScalerSettings(value=value)
    state = play(seen, settings)[-1].state
    standing = {one.id: one for one in fleet if one.phase in ("ready", "booting")}
    for number in range(720):
        now = 100 + 5.0 * number
        # A boot ends within two minutes; a retiring worker finds nothing and leaves.
        grown = [replace(one, busy=0, phase="ready" if now - one.launched_at > 120 else one.phase) for one in standing.values()]
        decision = decide(queue(workers=tuple(grown)), state, settings, now)
        gone = decision.retire | decision.cancel
        # The base may still grow in the first minutes: it stands until the rest is believed.
        new = [Worker(id=f"new-{number}-{n}", phase="booting", launched_at=now) for n in range(decision.launch)]
        standing = {one.id: one for one in (*grown, *new) if one.id not in gone}
        state = decision.state

    assert {} == standing


# Single rules


@pytest.mark.parametrize(("visible", "launched"), [(0, 0), (1, 1), (10, 1), (11, 2), (50, 5), (500, 19)])
def test_classic_asks_for_a_tenth_of_the_backlog_rounded_up_to_at_most_19(visible: int, launched: int) -> None:
    assert launched == decide(queue(visible), State(), policy_settings("classic"), 0.0).launch


def test_classic_lets_all_workers_leave_when_idle_and_launches_only_the_difference() -> None:
    decision = decide(queue(25, workers=ready(3)), State(), policy_settings("classic"), 0.0)

    assert (0, {"w0", "w1", "w2"}) == (decision.launch, decision.retire)


def test_reason_says_what_waits_what_is_saved_and_what_it_costs() -> None:
    settings = policy_settings("balanced", slots=2, rate_per_s=1.9, boot_s=61)
    # Held seconds as the rate of 1.9/s makes them: the estimate stays at the prior.
    state = State(at=-5.0, completed=0.0, arrived=420.0, busy_s=0.0)

    decision = decide(queue(418, 2, ready(2), busy_total_s=0.0), state, settings, 0.0)

    assert (
        "Launch 7: 420 images wait; 2 workers at 1.9/s would still have 188 in 61 s;"
        " 7 more save 1.0 image-hours of waiting for 0.12 instance-hours of booting."
    ) == decision.reason
    assert (7, "backlog") == (decision.launch, decision.kind)


def test_policy_launches_the_first_worker_for_a_single_image_under_every_policy() -> None:
    launched = [
        decide(queue(1), State(), policy_settings(name), 0.0).launch for name in ("classic", "latency", "balanced", "eco")
    ]

    assert [1, 1, 1, 1] == launched


def test_policy_launches_more_the_dearer_waiting_is() -> None:
    needs = [
        decide(queue(300), State(), policy_settings(price), 0.0).launch for price in ("0.01", "0.03", "0.1", "0.5", "1", "5")
    ]

    assert sorted(needs) == needs
    assert needs[0] < needs[-1]


def test_policy_is_blind_after_a_minute_without_a_good_reading_and_still_keeps_all_workers() -> None:
    first = decide(queue(5, workers=ready(2)), State(), policy_settings("balanced"), 0.0)

    early = decide(queue(None, 0, ready(2)), first.state, policy_settings("balanced"), 30.0)
    late = decide(queue(0, 0, ready(2), reading_age_s=60.0), early.state, policy_settings("balanced"), 60.0)

    assert ("stale-reading", "blind") == (early.kind, late.kind)
    assert "Keep 2 workers: the counts of the queue are 60 s old; the last good look is 60 s old." == late.reason


def test_policy_that_never_had_a_good_reading_is_blind_and_says_so() -> None:
    decision = decide(queue(None, 0, ready(2)), State(), policy_settings("balanced"), 0.0)

    assert "blind" == decision.kind
    assert "Keep 2 workers: the counts of the queue could not be read; there has been no good look yet." == decision.reason


def test_policy_does_not_believe_a_single_empty_reading() -> None:
    busy, empty = queue(0, 2, ready(1, busy=2)), queue(0, 0, ready(1))

    decisions = play([busy, empty, empty], policy_settings("eco"))

    assert [0, 0, 1] == [len(one.retire) for one in decisions]


def test_policy_keeps_the_last_worker_while_in_flight_images_have_no_live_worker() -> None:
    lost = (Worker(id="gone", phase="lost", launched_at=-500.0, busy=8),)

    decision = decide(queue(0, 8, lost), State(), policy_settings("eco"), 0.0)

    assert 1 <= decision.launch


def test_policy_does_not_take_delayed_images_for_work() -> None:
    assert 0 == decide(queue(0, 0, delayed=500), State(), policy_settings("latency"), 0.0).launch


def test_policy_holds_a_level_for_30_seconds_and_calls_retiring_workers_back_when_the_need_returns() -> None:
    settings = policy_settings("balanced", rate_per_s=2.0)
    load, calm = queue(400, 8, ready(4, busy=2)), queue(1, 3, ready(4, busy=1))

    decisions = play([load, *[calm] * 40, load], settings)

    first = next(number for number, one in enumerate(decisions) if one.retire)
    needs = [one.numbers["need"] for one in decisions]
    assert needs[first - 6] >= 4 > max(needs[first - 5 : first + 1])
    assert decisions[-2].retire
    assert frozenset() == decisions[-1].retire


def test_policy_sends_no_worker_home_in_its_first_minute() -> None:
    settings = policy_settings("eco", hold_s=0.0)
    young, old = Worker(id="young", phase="ready", launched_at=-50.0), Worker(id="old", phase="ready", launched_at=-56.0)

    decisions = [decide(queue(0, 1, (young, old)), State(), settings, 0.0)]

    assert {"old"} == decisions[0].retire


def test_policy_retires_the_surplus_of_a_lowered_cap_and_keeps_the_rest() -> None:
    before = play([queue(2000, 38, ready(19, busy=2))] * 3, policy_settings("balanced"))[-1]

    after = decide(queue(2000, 38, ready(19, busy=2)), before.state, policy_settings("balanced", cap=2), 15.0)

    assert (0, 17) == (after.launch, len(after.retire))


@pytest.mark.parametrize("phase", ["requested", "booting", "leaving", "stuck", "lost"])
def test_policy_counts_instances_of_every_phase_against_the_cap(phase: str) -> None:
    fleet = tuple(Worker(id=f"w{n}", phase=phase, launched_at=-10.0) for n in range(19))  # type: ignore[arg-type]

    decision = decide(queue(5000, 0, fleet), State(), policy_settings("latency"), 0.0)

    assert 0 == decision.launch


def test_policy_sends_a_stuck_worker_home_and_does_not_count_on_it() -> None:
    stuck = (Worker(id="w0", phase="stuck", launched_at=-900.0, busy=2),)

    decision = decide(queue(3, 2, stuck), State(), policy_settings("eco"), 0.0)

    assert ({"w0"}, 1) == (decision.retire, decision.launch)


def test_policy_launches_nothing_while_every_place_is_blocked_and_says_when_it_asks_again() -> None:
    settings = replace(policy_settings("balanced"), candidates=(PLACE,))

    blocked = decide(queue(50, capacity_blocks={PLACE: 42.0}), State(), settings, 0.0)
    opened = decide(queue(50, capacity_blocks={PLACE: 42.0}), blocked.state, settings, 42.0)

    assert (0, "capacity-blocked") == (blocked.launch, blocked.kind)
    assert "the next one is asked in 42 s" in blocked.reason
    assert opened.launch > 0


def test_policy_stops_launches_but_no_running_worker_when_the_budget_of_the_day_is_spent() -> None:
    settings = policy_settings("latency", budget_per_day_usd=5.0)

    decision = decide(queue(900, 4, ready(2, busy=2), spent_today_usd=5.0), State(), settings, 0.0)

    assert (0, frozenset(), "budget") == (decision.launch, decision.retire, decision.kind)
    assert "$5.00 of $5.00 a day are spent" in decision.reason


def test_policy_launches_one_worker_a_boot_time_for_images_that_grow_too_old() -> None:
    old = queue(1, 2, ready(1, busy=2), oldest_wait_s=5000.0)

    decisions = play([old] * 14, policy_settings("eco"))

    assert [0, 12] == [number for number, one in enumerate(decisions) if one.kind == "age" and one.launch]


def test_new_leader_with_running_workers_launches_no_more_than_the_pay_off_asks() -> None:
    settings = policy_settings("balanced", rate_per_s=2.0)

    decision = decide(queue(500, 20, ready(10, busy=2)), State(), settings, 0.0)

    assert 0 == decision.launch
    assert frozenset() == decision.retire


def test_policy_takes_a_counter_that_fell_for_a_restart_and_not_for_arrivals() -> None:
    settings = policy_settings("balanced")
    before = decide(queue(10, completed_total=1000), State(), settings, 0.0)

    after = decide(queue(10, completed_total=0), before.state, settings, 5.0)

    assert 0.0 == after.state.arrivals_per_s[-1]


def test_policy_takes_a_clock_that_jumps_for_a_long_or_short_period_alone() -> None:
    settings = policy_settings("balanced")
    first = decide(queue(10, workers=ready(2)), State(), settings, 0.0)

    for now in (-86_400.0, 86_400.0):
        decision = decide(queue(10, workers=ready(2)), first.state, settings, now)
        assert all(math.isfinite(number) for number in decision.numbers.values())
        assert 0 == decision.launch


def test_policy_keeps_the_last_worker_longer_where_rests_are_short() -> None:
    short, long = State(gaps_s=(20.0,) * 30), State(gaps_s=(3000.0,) * 30)

    kept = [resting.keep_s(state, value=0.5, boot_s=60.0, period_s=5.0) for state in (short, long)]

    assert [30.01, 0.0] == pytest.approx(kept)


@few
@given(st.lists(st.floats(10.1, 5000), max_size=64), st.floats(0.01, 10))
def test_time_to_keep_the_last_worker_is_the_cheapest_of_all_rests_seen(gaps: list[float], value: float) -> None:
    state = State(gaps_s=tuple(gaps))
    restart = 60 + value * 6 * 60
    known = [*gaps, 0.5 * restart, 0.9 * restart, 3 * restart]

    kept_s = resting.keep_s(state, value=value, boot_s=60.0, period_s=5.0)

    def cost(tried_s: float) -> float:
        return sum(min(gap, tried_s) + restart * (gap > tried_s) for gap in known)

    assert cost(max(0.0, kept_s - 10)) == pytest.approx(
        min(map(cost, [0.0, *(gap + 0.01 for gap in known if gap < resting.LONGEST_KEPT_S)]))
    )


def test_full_memory_takes_less_than_4_kb() -> None:
    numbers = tuple(1234.5678 + n for n in range(64))
    boots = {f"c7g.xlarge fresh {n}": numbers[:20] for n in range(6)}
    state = State(
        at=1.0, arrived=1e9, completed=1e9, busy_s=1e6, done=1e5, held_s=1e5, boots=boots, arrivals_per_s=numbers[:24],
        shadow=numbers[:19], charge=numbers[:19], needed_at=numbers[:19], gaps_s=numbers,
    )  # fmt: skip

    assert 4096 > len(json.dumps(state.to_json(2000.0)))


@pytest.mark.parametrize("document", [{"at": "x"}, {"gaps_s": [None, float("nan")]}, {"boots": 3}, {"shadow": {"a": True}}])
def test_memory_that_is_none_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no "):
        State.from_json(document, 0.0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"value": 0.0}, "above 0"), ({"value": math.nan}, "above 0"), ({"cap": 0}, "at least 1"), ({"min_workers": 20}, "of 19"),
     ({"period_s": 0.0}, "above 0")],
)  # fmt: skip
def test_settings_that_no_policy_can_work_with_are_refused_in_a_sentence(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        ScalerSettings(**changes)  # type: ignore[arg-type]


def test_unknown_policy_is_refused_with_those_there_are() -> None:
    with pytest.raises(SetupError, match="classic, latency, balanced, eco, or a price"):
        policy_settings("turbo")
