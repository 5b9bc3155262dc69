"""Fleets of several types and markets: each instance costs its own price, and a dear one must save more."""

from __future__ import annotations

import pytest
from scalers import Scalers
from town import Faults, Town

from irs.errors import SetupError
from irs.settings import read_settings
from scaler import Observation, Pair, State, Worker, decide, policy_settings
from scaler.prices import Prices, from_settings

SMALL, LARGE = Pair("c7i.large", "a", "spot"), Pair("c7i.2xlarge", "a", "on-demand")


def test_price_of_an_instance_is_the_closest_one_named_else_the_first_ones_in_the_ratio_of_the_list() -> None:
    said = {"scaler_types": "c7i.large,c7i.2xlarge,g5.xlarge", "scaler_prices": "c7i.large/spot=0.03, g5.xlarge = 1.2,spot=0.5"}

    prices = from_settings(read_settings(price_per_hour=0.1, **said))

    asked = [SMALL, SMALL._replace(market="on-demand"), LARGE, LARGE._replace(market="spot"), Pair("g5.xlarge", "b", "spot")]
    assert [0.03, 0.1, 0.4, 0.5, 1.2] == pytest.approx([prices.of(pair) for pair in asked])


def test_price_that_nobody_named_is_the_list_price_of_the_first_type_and_unknown_for_an_unknown_one() -> None:
    listed, unknown = (from_settings(read_settings(scaler_types=kind)) for kind in ("c7i.large", "x9z.large"))

    assert 0.08925 == listed.of(listed.first)
    assert (0.0, 1.0) == (unknown.of(unknown.first), unknown.weight(LARGE))


@pytest.mark.parametrize("text", ["c7i.large", "c7i.large=", "=0.1", "c7i.large=-1", "c7i.large=nan", "c7i.large/spott=0.1"])
def test_price_that_is_none_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(SetupError, match=r"write c7i\.large=0\.09"):
        from_settings(read_settings(scaler_prices=text))


def test_launch_in_a_place_of_four_times_the_price_must_save_four_times_the_waiting() -> None:
    seen = {price: Observation(visible=200, inflight=0, next_price=price) for price in (1.0, 4.0)}

    settings = policy_settings("balanced", rate_per_s=2.0)
    quarter = policy_settings("0.125", rate_per_s=2.0)

    dear = decide(seen[4.0], State(), settings, 0.0).launch
    assert decide(seen[1.0], State(), quarter, 0.0).launch == dear < decide(seen[1.0], State(), settings, 0.0).launch


def test_dearest_of_the_idle_workers_is_told_to_retire_first() -> None:
    workers = tuple(
        Worker(id=id, phase="ready", launched_at=-at, price=price)
        for id, at, price in (("cheap", 900.0, 0.3), ("dear", 300.0, 1.0))
    )
    state = decide(Observation(visible=1, inflight=0, workers=workers), State(), policy_settings("eco"), 0.0).state

    retired = decide(Observation(visible=1, inflight=0, workers=workers), state, policy_settings("eco"), 40.0).retire

    assert {"dear"} == retired


def test_fleet_of_two_prices_costs_what_each_of_its_instances_costs() -> None:
    prices = Prices(named={"c7i.large/spot": 1.0, "c7i.2xlarge": 10.0}, first=SMALL)
    town = Town(cap=4)
    scalers = Scalers(town, prices=prices, candidates=(SMALL, LARGE))
    for number, pair in enumerate((SMALL, LARGE)):
        town.add_machine(pair, launch=f"town-0-{number}").boot_s = 10**6

    scalers.run(61)

    money = scalers.steps[-1].book.money  # type: ignore[union-attr]
    assert 120 == pytest.approx(money.instance_s, abs=15)
    assert money.usd == pytest.approx(money.instance_s / 2 * 11 / 3600)


def test_budget_is_met_sooner_by_the_dearer_market_that_is_left_when_spot_has_no_capacity() -> None:
    def launched(market_price: float) -> int:
        prices = Prices(named={"c7i.large/spot": 1.0, "c7i.2xlarge": market_price}, first=SMALL)
        town = Town(cap=6, service_s=10, faults=Faults(boot_s=(30, 30)))
        scalers = Scalers(town, prices=prices, candidates=(SMALL, LARGE), budget_per_day_usd=0.5, value=50.0)
        town.refused = {SMALL}
        for _ in range(6):
            town.hand_in(100)
            scalers.run(300)
        assert [] == town.harm
        assert {LARGE} == {one.pair for one in town.machines.values()}
        return len([kind for kind in scalers.kinds if kind == "budget"])

    assert 0 == launched(0.1) < launched(10.0)
