"""What each step of a training does, by its number alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irs.models.train.plan import Plan, make_plan, stage_sides

SIDES = stage_sides(64)


def plan_of(**changes: Any) -> Plan:
    return make_plan(**{"asked": {}, "seed": 0, "pictures": 1000, "sides_px": SIDES, "batch": 50, "epochs": 10.0, **changes})


plans = st.builds(
    plan_of,
    pictures=st.integers(2, 100_000),
    batch=st.integers(1, 512),
    epochs=st.floats(0.1, 60, allow_nan=False),
)


def test_the_sides_rise_from_half_over_three_quarters_to_the_whole():
    assert (32, 48, 64) == stage_sides(64)


@given(plans)
def test_a_plan_comes_back_equal_from_its_json(plan):
    assert plan == Plan.from_json(plan.to_json())


@given(plans, st.data())
def test_the_pictures_of_a_step_follow_those_of_the_step_before(plan, data):
    step = data.draw(st.integers(1, plan.steps - 1))

    before, now = plan.at(step - 1), plan.at(step)

    assert before.first + before.batch == now.first
    assert before.side_px <= now.side_px


@given(plans, st.data())
def test_the_learning_rate_stays_within_its_peak_and_above_nothing(plan, data):
    assert 0 < plan.at(data.draw(st.integers(0, plan.steps - 1))).rate <= 1


def test_the_learning_rate_ends_at_nearly_nothing():
    plan = plan_of(epochs=20.0)

    assert plan.at(plan.steps - 1).rate < 2 / plan.steps


def test_a_plan_has_no_step_after_its_last():
    plan = plan_of()

    with pytest.raises(IndexError):
        plan.at(plan.steps)


@given(st.floats(2, 60))
def test_a_plan_of_epochs_passes_over_the_pictures_so_often(epochs):
    plan = plan_of(epochs=epochs)

    assert epochs == pytest.approx(plan.epochs, abs=0.2)


def test_a_budget_of_seconds_is_spent_at_the_measured_speeds():
    cost_s = {32: 0.001, 48: 0.002, 64: 0.004}
    plan = plan_of(epochs=None, budget_s=600.0, cost_s=cost_s)

    spent_s = sum(stage.steps * stage.batch * cost_s[stage.side_px] for stage in plan.stages)

    assert 600 == pytest.approx(spent_s, rel=0.02)


@pytest.mark.parametrize(("epochs", "is_strong"), [(12.0, False), (29.0, False), (30.0, True), (60.0, True)])
def test_long_plans_augment_more_and_peak_lower(epochs, is_strong):
    plan = plan_of(epochs=epochs)

    assert (is_strong, 0.04 if is_strong else 0.05) == (plan.is_strong, plan.peak)


def test_pictures_are_mixed_in_half_of_the_first_batches_and_in_none_of_the_last():
    plan = plan_of(epochs=40.0)

    mixed = [plan.at(step).is_mixed for step in range(plan.steps)]

    border = math.ceil(0.6 * plan.steps)
    assert 0.5 == pytest.approx(sum(mixed[:border]) / border, abs=0.01)
    assert not any(mixed[border:])
