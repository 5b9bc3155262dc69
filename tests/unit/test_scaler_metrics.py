"""What a scaler counts and shows while it leads, while it is blind, and while another one leads."""

from __future__ import annotations

from scaler import Decision, Kind, Observation, State
from scaler.book import Book, Money
from scaler.life import FleetNow
from scaler.loop import Step
from scaler.metrics import Metrics


def led(now: float, *, spent: float) -> Step:
    """A step of a leader whose fleet has cost so many dollars, and seconds, today."""
    return Step(
        now=now, leads=True, decision=decided("steady"), seen=Observation(visible=0, inflight=0), fleet=FleetNow(),
        book=Book(money=Money(day="2026-01-31", usd=spent, instance_s=spent)), ended={},
    )  # fmt: skip


def idle(now: float, kind: Kind) -> Step:
    """A step in which nothing was done."""
    return Step(now=now, leads=kind != "not-leader", decision=decided(kind), ended={})


def decided(kind: Kind) -> Decision:
    return Decision(state=State(), kind=kind, reason="")


def value(metrics: Metrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(name)


def observed(*steps: Step) -> Metrics:
    metrics = Metrics("requests", "balanced")
    for step in steps:
        metrics.observe(step)
    return metrics


def test_scaler_counts_what_the_fleet_costs_from_its_first_look_on() -> None:
    metrics = observed(led(0, spent=100), led(5, spent=101), led(10, spent=103))

    assert (3, 3) == (value(metrics, "irs_cost_dollars_total"), value(metrics, "irs_instance_seconds_total"))
    assert 103 == value(metrics, "irs_scaler_dollars_today")


def test_scaler_counts_nothing_of_the_time_in_which_another_one_led() -> None:
    metrics = observed(led(0, spent=1), led(5, spent=2), idle(10, "not-leader"), led(900, spent=50), led(905, spent=51))

    assert 2 == value(metrics, "irs_cost_dollars_total")


def test_scaler_counts_on_through_a_step_that_saw_nothing() -> None:
    metrics = observed(led(0, spent=1), idle(5, "stale-reading"), led(10, spent=3))

    assert 2 == value(metrics, "irs_cost_dollars_total")


def test_counters_do_not_fall_when_a_day_ends() -> None:
    metrics = observed(led(0, spent=1), led(5, spent=4), led(10, spent=1), led(15, spent=2))

    assert 4 == value(metrics, "irs_cost_dollars_total")


def test_age_of_the_last_good_look_grows_in_a_scaler_that_never_had_one_and_in_one_that_only_stands_by() -> None:
    blind, standby = observed(idle(0, "blind"), idle(90, "blind")), observed(idle(0, "not-leader"), idle(90, "not-leader"))

    assert (90, 90) == tuple(value(metrics, "irs_scaler_age_seconds") for metrics in (blind, standby))
    assert 0 == value(observed(idle(0, "blind"), led(90, spent=0)), "irs_scaler_age_seconds")
