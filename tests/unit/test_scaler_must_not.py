"""What must never happen, row by row of the design's table: the production loop in a town where things go wrong.

Rows 12 and 17 are in ``test_scaler_must_not_measured.py``. Rows 2, 3, 17 are also properties of the pure policy
(``test_scaler_policy.py``) and of the readings (``test_scaler_signals.py``); row 15 of the simulator; 5, 7, 22 are seen
on real calls and processes elsewhere too.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from scalers import Killed, Scalers
from town import ON_DEMAND, SPOT, WALL, Faults, Town

from irs.errors import StorageUnavailable
from scaler.book import Intent
from scaler.fleet import Instance, Throttled, Unanswered
from scaler.launching import POOL
from scaler.life import Life
from scaler.observation import Pair


def working(town: Town, number: int) -> list[str]:
    """Put so many ready machines there, as an earlier scaler would have left them."""
    ids = []
    for n in range(number):
        machine = town.add_machine(launch=f"town-0-{n}")
        machine.phase, machine.ready_at, machine.boot_s = "ready", 1, 1
        ids.append(machine.id)
    town.pass_s(2)
    return ids


def harmless(town: Town) -> bool:
    assert [] == town.harm
    return True


def test_row_1_cap_holds_while_answers_are_lost_and_new_instances_stay_unseen() -> None:
    town = Town(cap=4, faults=Faults(lost_answer=0.5, unseen=1.0, unseen_s=60))
    scalers = Scalers(town)
    town.hand_in(900)

    scalers.run_until_rest()

    assert harmless(town)
    assert 4 == max(len(step.fleet.workers) for step in scalers.steps if step.fleet)


def test_row_1_cap_holds_while_workers_that_hang_still_stand_and_others_are_wanted_in_their_place() -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    for id in working(town, 3):
        town.machines[id].is_frozen = True
    town.hand_in(300)

    scalers.run(200)
    wanted = scalers.kinds.count("cap")
    scalers.run_until_rest()

    assert harmless(town)
    assert wanted > 0


@pytest.mark.parametrize("fault", ["lost_reading", "uncounted"])
def test_row_2_nothing_is_done_on_lost_readings_and_after_a_minute_the_scaler_says_that_it_is_blind(fault: str) -> None:
    town = Town(cap=4)
    scalers = Scalers(town)
    ids = working(town, 3)
    scalers.run(20)
    setattr(town.faults, fault, 1.0)
    calls = len(town.calls)

    scalers.run(90)

    assert {"describe"} == {action for _, action in town.calls[calls:]}
    assert {"stale-reading", "blind"} == set(scalers.kinds[-15:])
    assert {} == town.orders
    assert ids == [one.id for one in town.live]


def test_row_2_scaler_that_can_read_nothing_from_its_start_on_says_that_it_is_blind() -> None:
    town = Town()
    town.faults.lost_reading = 1.0
    scalers = Scalers(town)

    scalers.run(20)

    assert {"blind"} == set(scalers.kinds)
    assert scalers.steps[-1].decision.reason.endswith("; there has been no good look yet.")


def test_row_3_queue_that_cannot_be_counted_is_not_taken_for_an_empty_one() -> None:
    town = Town(cap=4)
    scalers = Scalers(town)
    working(town, 2)
    town.hand_in(50_000)
    scalers.run(60)
    before, orders = len(town.live), dict(town.orders)

    town.faults.uncounted = 1.0
    for _ in range(60):
        scalers.run(60)
        assert orders == town.orders

    assert 4 == before == len(town.live)
    assert harmless(town)


def test_row_4_no_worker_is_ended_with_images_in_hand_though_the_cap_falls_and_rises_all_the_time() -> None:
    town = Town(cap=8, service_s=7)
    scalers = Scalers(town)
    town.hand_in(1500)
    for turn in range(120):
        for loop in scalers.loops:
            loop.plan = replace(scalers.plan, policy=replace(scalers.plan.policy, cap=8 if turn % 2 else 1))
        scalers.run(20)

    scalers.run_until_rest()

    assert harmless(town)
    assert {1} == set(town.records.values())
    assert 0 == town.redelivered


@pytest.mark.parametrize("tags", [{}, {"irs:fleet": "other", "irs:role": "worker"}, {"irs:fleet": "town"}])
def test_row_5_instances_that_are_not_ours_are_never_touched(tags: dict[str, str]) -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    foreign = town.add_machine(tags=tags)
    foreign.phase = "drained"
    town.hand_in(200)

    scalers.run_until_rest()
    scalers.run(1200)

    assert "running" == foreign.state


def test_row_5_instance_whose_tag_is_taken_off_after_it_was_listed_survives() -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    (id,) = working(town, 1)

    def untag(action: str) -> None:
        if action == "end":
            town.machines[id].tags.clear()

    town.before_call = untag
    scalers.run(400)

    assert "end" in {action for _, action in town.calls}
    assert "running" == town.machines[id].state


def run_with_one_death(at: int) -> tuple[Town, bool]:
    """Play one load; the scaler's process is killed at its ``at``-th step to the outside and another begins."""
    town = Town(cap=4, service_s=2)
    scalers = Scalers(town)
    steps = 0

    def strike(action: str) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Killed(action)

    town.before_call = strike
    town.hand_in(150)
    was_killed = False
    end = 3600
    while town.t < end and not (town.is_done and not town.live and town.t > 100):
        try:
            scalers.run(5)
        except Killed:
            was_killed = True
            scalers.restart()
            # Where it died within a second, that second goes by.
            town.pass_s(5 - town.t % 5)
    assert town.is_done, f"killed at step {at}: {town.visible} wait"
    assert [] == town.live, f"killed at step {at}"
    return town, was_killed


def test_row_6_scaler_killed_between_any_two_steps_leaves_no_orphan_and_no_double() -> None:
    at, was_killed = 0, True
    while was_killed:
        at += 1
        town, was_killed = run_with_one_death(at)
        assert [] == town.harm, f"killed at step {at}"
    assert at > 60


def test_row_6_instance_that_nobody_asked_for_is_counted_and_ended_unless_it_becomes_ready() -> None:
    town = Town(cap=3)
    # One is wanted: it is not ended because it is one too many.
    scalers = Scalers(town, min_workers=1)
    orphan = town.add_machine(launch="somebody-else-1")
    orphan.boot_s = 10**6

    scalers.run(60)
    early = (orphan.state, [worker.phase for worker in scalers.steps[-1].fleet.workers])  # type: ignore[union-attr]
    scalers.run(120)

    assert ("running", ["booting"]) == early
    assert "terminated" == orphan.state
    assert 1 == len(town.tokens)


def test_row_7_launch_whose_answer_was_lost_is_repeated_with_the_same_token_and_is_one_instance() -> None:
    town = Town(cap=5)
    scalers = Scalers(town)
    answers = iter([True])

    def lose(action: str) -> None:
        if action == "run answered" and next(answers, False):
            raise Unanswered("the answer was lost")

    town.before_call = lose
    town.hand_in(1)
    scalers.run(60)

    assert 2 == [action for _, action in town.calls].count("run")
    assert 1 == len(town.machines)


def test_row_7_nothing_is_launched_that_could_not_be_written_down_first() -> None:
    town = Town(cap=5)
    scalers = Scalers(town)
    scalers.run(12)
    town.hand_in(100)

    def fail(action: str) -> None:
        if action in ("write", "written"):
            raise StorageUnavailable("no answer")

    town.before_call = fail
    scalers.run(60)

    assert {} == town.machines
    town.before_call = lambda _: None
    scalers.run_until_rest()
    assert harmless(town)


def test_row_8_one_leads_and_the_other_takes_over_when_it_is_paused_longer_than_its_lease() -> None:
    town = Town(cap=4, service_s=3)
    scalers = Scalers(town, number=2)
    town.hand_in(3000)
    scalers.run(100)
    first = [step.leads for step in scalers.steps[-2:]]
    epochs = {loop.epoch for loop in scalers.loops}

    scalers.paused_until[0] = town.t + 120
    scalers.run(115)
    second = [step.leads for step in scalers.steps[-3:]]
    scalers.run_until_rest()

    assert [True, False] == sorted(first, reverse=True)
    assert {0, 1} == epochs, "the lease changed hands while its holder was well"
    assert [True] * 3 == second
    assert harmless(town)


@pytest.mark.parametrize("action", ["describe", "write", "written", "run", "retire", "end"])
def test_row_8_leader_stopped_in_the_middle_of_any_act_does_not_launch_twice_or_above_the_cap(action: str) -> None:
    town = Town(cap=4, service_s=3)
    scalers = Scalers(town, number=2)
    stops: list[int] = []

    def stop(said: str) -> None:
        n = scalers.acting
        if said == action and n is not None and len(stops) < 3 and town.t not in stops:
            # The process is stopped right here; the world and the other scaler go on.
            stops.append(town.t)
            scalers.paused_until[n] = town.t + 90
            scalers.run(90)

    town.before_call = stop
    scalers.wall_jump_s = [3600.0, -3600.0]
    town.hand_in(600)
    scalers.run_until_rest()

    assert harmless(town)
    assert stops


def test_row_9_place_without_capacity_is_asked_once_a_block_and_found_again_within_one() -> None:
    town = Town(cap=5, faults=Faults(no_capacity=1.0))
    scalers = Scalers(town)
    town.hand_in(500)
    scalers.run(1800)
    asked = [t for t, action in town.calls if action == "run"]

    town.faults.no_capacity = 0.0
    back_at = town.t
    scalers.run_until_rest()
    found = min(t for t, action in town.calls if action == "run" and t > back_at)

    # Two places; blocks of 1, 2, 4, 8 and then 15 minutes.
    assert 2 * 4 <= len(asked) <= 2 * 6
    assert "capacity-blocked" in scalers.kinds
    assert found - back_at <= 1.2 * 900 + 5


def test_row_9_never_more_launch_calls_in_a_minute_than_the_cap_though_there_are_many_places_to_ask() -> None:
    town = Town(cap=7, faults=Faults(no_capacity=1.0))
    scalers = Scalers(town, candidates=tuple(Pair(f"c{n}.large", "a", "spot") for n in range(40)))
    town.hand_in(2000)

    scalers.run(900)

    asked = [t for t, action in town.calls if action == "run"]
    assert 7 == max(sum(1 for other in asked if 0 <= other - t < 60) for t in asked)


def test_row_10_throttled_scaler_asks_ever_more_seldom_and_goes_on_when_it_may() -> None:
    town = Town(cap=4)
    scalers = Scalers(town)
    town.hand_in(400)
    scalers.run(12)
    town.faults.throttled = 1.0
    begin = len(town.calls)
    scalers.run(600)
    asked = [t for t, _ in town.calls[begin:]]

    town.faults.throttled = 0.0
    scalers.run_until_rest()

    # Pauses of 5, 10, 20, 40 and then 60 s.
    assert len(asked) <= 4 + 600 / 60 + 1
    assert asked[-1] - asked[-2] >= 60
    assert harmless(town)


def test_row_10_launch_that_is_throttled_is_asked_for_ever_more_seldom_with_its_token() -> None:
    town = Town(cap=1)
    scalers = Scalers(town)
    refused: list[int] = []

    def throttle(action: str) -> None:
        if action == "run" and town.t < 600:
            refused.append(town.t)
            raise Throttled("RequestLimitExceeded")

    town.before_call = throttle
    town.hand_in(10)
    scalers.run(600)
    scalers.run_until_rest()

    assert len(refused) <= 4 + 600 / 60 + 1
    assert 1 == len(town.tokens)


def test_row_11_boots_that_fail_open_the_breaker_one_is_tried_every_five_minutes_and_success_closes_it() -> None:
    town = Town(cap=5, faults=Faults(failed_boot=1.0, boot_s=(21, 21)))
    scalers = Scalers(town, min_workers=1)
    scalers.run(3600)
    launches = len(town.tokens)
    kinds = set(scalers.kinds)

    town.faults.failed_boot = 0.0
    town.hand_in(400)
    scalers.run(1800)

    assert 3 + 3600 / 300 - 2 <= launches <= 3 + 3600 / 300
    assert "breaker" in kinds
    assert town.is_done
    assert 0 == scalers.steps[-1].book.limits.failed_boots  # type: ignore[union-attr]


def test_row_11_boot_that_never_ends_is_ended_after_five_minutes_and_its_console_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    town = Town(cap=1, faults=Faults(failed_boot=1.0, boot_s=(20, 20)))
    scalers = Scalers(town)
    town.hand_in(1)

    scalers.run(330)

    assert ["terminated"] == [one.state for one in town.machines.values()][:1]
    told = next(record for record in caplog.records if record.message == "boot failed")
    assert "kernel panic" in told.console  # type: ignore[attr-defined]


def test_row_13_images_of_a_killed_worker_come_back_and_are_done_by_another_that_is_kept_or_launched() -> None:
    town = Town(cap=3, slots=8, service_s=60)
    scalers = Scalers(town)
    (id,) = working(town, 1)
    town.hand_in(8)
    scalers.run(30)
    assert 8 == len(town.machines[id].held)

    town.kill(town.machines[id], "Server.InternalError")
    killed_at = town.t
    scalers.run(20)
    # Nobody can see them yet, and a worker boots for them.
    assert (0, 8) == (town.visible, town.inflight)
    assert town.live
    scalers.run_until_rest()

    assert town.t - killed_at <= 30 + 60 + 60 + 600
    assert harmless(town)


def test_row_14_worker_that_is_told_to_retire_at_any_moment_lets_no_message_wait_for_its_lease() -> None:
    town = Town(cap=6, service_s=4, seed=2)
    scalers = Scalers(town)
    for _ in range(30):
        town.hand_in(town.chance.randint(1, 60))
        scalers.run(town.chance.randint(5, 120))

    scalers.run_until_rest()

    assert 0 == town.redelivered
    assert harmless(town)


def test_row_15_load_that_stays_the_same_changes_the_fleet_at_most_twice_after_it_has_settled() -> None:
    town = Town(cap=10)
    scalers = Scalers(town)
    for _ in range(3600):
        town.hand_in(3)
        scalers.run(1)
    settled = len(town.tokens)
    for _ in range(3600):
        town.hand_in(3)
        scalers.run(1)

    assert len(town.tokens) - settled <= 2


@pytest.mark.parametrize("value", [1.0, 0.5, 0.03])
def test_row_15_load_that_comes_in_waves_shorter_than_a_level_is_held_changes_the_fleet_at_most_twice(value: float) -> None:
    town = Town(cap=10)
    scalers = Scalers(town, value=value)
    launched = []
    for second in range(3600):
        town.hand_in(6 if second // 20 % 2 else 1)
        scalers.run(1)
        launched.append(len(town.tokens))

    assert launched[-1] - launched[1800] <= 2


def test_row_16_worker_that_holds_images_and_finishes_none_is_replaced_and_ended_and_its_images_are_done() -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    (id,) = working(town, 1)
    scalers.run(10)
    town.machines[id].is_frozen = True
    town.hand_in(4)

    scalers.run(150)
    told = id in town.orders
    scalers.run_until_rest()

    assert told
    assert "Client.UserInitiatedShutdown" == town.machines[id].reason
    assert harmless(town)


def test_row_16_worker_that_says_nothing_for_a_quarter_of_an_hour_is_ended() -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    (id,) = working(town, 1)
    town.hand_in(4)
    scalers.run(10)
    town.machines[id].is_silent = True

    scalers.run(600)
    early = town.machines[id].state
    scalers.run_until_rest()

    assert "running" == early
    assert "terminated" == town.machines[id].state


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_row_18_clock_on_the_wall_that_jumps_by_a_day_ends_nobody_and_launches_nobody(jump_s: float) -> None:
    town = Town(cap=6, service_s=5, faults=Faults(boot_s=(50, 50)))
    scalers = Scalers(town)
    town.hand_in(2000)
    scalers.run(40)
    machines = dict(town.machines)

    scalers.wall_jump_s[0] = jump_s
    scalers.run(300)

    assert machines.keys() == town.machines.keys()
    assert {"running"} == {one.state for one in machines.values()}
    scalers.run_until_rest()
    assert harmless(town)


@pytest.mark.parametrize(("running", "more"), [(10, 1), (2, 10)], ids=["enough", "too few"])
def test_row_19_new_scaler_without_a_book_adopts_what_runs_and_launches_nothing_before_it_has_looked_twice(
    running: int, more: int
) -> None:
    town = Town(cap=12, slots=2)
    working(town, running)
    town.hand_in(500)
    scalers = Scalers(town)

    scalers.run(9)
    early = list(town.tokens)
    scalers.run_until_rest()

    assert [] == early
    assert len(town.machines) - running <= more
    assert harmless(town)


def test_row_20_cap_that_is_lowered_under_load_sends_the_surplus_home_and_ends_nobody_at_work() -> None:
    town = Town(cap=19, service_s=3)
    scalers = Scalers(town)
    town.hand_in(20_000)
    scalers.run(200)
    assert 19 == len(town.live)

    scalers.loops[0].plan = replace(scalers.plan, policy=replace(scalers.plan.policy, cap=2))
    scalers.run(10)
    ordered = len(town.orders)
    town.waiting.clear()
    town.handed_in = len(town.records) + town.inflight
    scalers.run_until_rest()

    assert 17 <= ordered
    assert harmless(town)


def test_row_21_budget_of_the_day_stops_launches_and_lets_what_runs_go_on() -> None:
    town = Town(cap=5, service_s=10)
    scalers = Scalers(town, budget_per_day_usd=0.5)
    town.hand_in(2000)
    scalers.run(600)
    spent = scalers.steps[-1].book.money.usd  # type: ignore[union-attr]
    launched, done, running = len(town.tokens), len(town.records), {one.id for one in town.live}

    # One is lost, and wanted again.
    lost = min(running)
    town.kill(town.machines[lost], "Server.InternalError")
    scalers.run(600)

    assert 0.5 <= spent
    assert "budget" == scalers.kinds[-1]
    assert launched == len(town.tokens)
    assert running - {lost} == {one.id for one in town.live}
    assert len(town.records) - done > 400
    assert harmless(town)


def test_row_22_workers_outlive_their_scaler_by_a_quarter_of_an_hour_once_the_queue_is_empty_and_not_less() -> None:
    town = Town(cap=3)
    scalers = Scalers(town)
    working(town, 3)
    town.hand_in(100)
    scalers.run(10)

    town.pass_s(900)
    early = len(town.live)
    town.pass_s(120)

    assert 3 == early
    assert [] == town.live


def test_pool_keeps_instances_stopped_and_starts_them_first() -> None:
    town = Town(cap=4)
    scalers = Scalers(town, pool=2, candidates=(ON_DEMAND,))
    town.hand_in(300)
    scalers.run_until_rest()
    stopped = [one.id for one in town.machines.values() if one.state == "stopped"]
    launched = len(town.tokens)

    town.hand_in(60)
    scalers.run(60)

    assert 2 == len(stopped)
    assert {"running"} == {town.machines[id].state for id in stopped}
    assert launched <= len(town.tokens) <= launched + 1
    scalers.run_until_rest()
    assert harmless(town)


def test_pool_gives_an_instance_that_it_starts_the_time_of_every_boot() -> None:
    town = Town(cap=1)
    scalers = Scalers(town, pool=1, candidates=(ON_DEMAND,))
    town.hand_in(10)
    scalers.run_until_rest()
    (machine,) = town.machines.values()
    machine.boot_s = 250

    town.hand_in(10)
    scalers.run_until_rest()

    assert 250 <= machine.ready_at - machine.launched_at  # type: ignore[operator]
    assert [machine] == list(town.machines.values())
    assert harmless(town)


def test_pool_counts_an_instance_that_it_has_started_while_ec2_still_lists_it_as_stopped() -> None:
    stopped = Instance(id="i-1", state="stopped", pair=ON_DEMAND, launched_at=WALL, launch="town-1-1")
    asked = Intent(launch="town-1-2", pair=POOL, count=1, at=100.0, ids=("i-1",), answered_at=101.0, pooled=True)

    fleet = Life().look([stopped], {}, [asked], remembered=(), now=105.0, wall=WALL + 105.0, boot_s=40.0)

    assert [("i-1", "requested")] == [(one.id, one.phase) for one in fleet.workers]
    assert (asked,) == fleet.intents


def test_row_11_boot_that_fails_while_the_book_cannot_be_stored_counts_all_the_same() -> None:
    town = Town(cap=1, faults=Faults(failed_boot=1.0, boot_s=(21, 21)))
    scalers = Scalers(town)
    town.hand_in(1)
    while not any(one.state == "terminated" for one in town.machines.values()):
        scalers.run(1)

    scalers.store.is_down = True
    scalers.run(5)
    scalers.store.is_down = False
    scalers.run(5)

    assert 1 == scalers.steps[-1].book.limits.failed_boots  # type: ignore[union-attr]


def test_spot_notices_leave_the_place_alone_and_more_than_two_leave_the_market() -> None:
    town = Town(cap=6, service_s=4)
    scalers = Scalers(town)
    town.hand_in(3000)
    scalers.run(120)
    for machine in list(town.live)[:3]:
        town.give_back(machine)
        machine.phase, machine.ends_at = "interrupted", town.t + 120

    scalers.run(240)

    assert 6 == len(town.live)
    assert 3 == sum(one.pair == ON_DEMAND for one in town.live)
    assert 3 == sum(one.pair == SPOT for one in town.live)
    scalers.run_until_rest()
    assert harmless(town)
