"""The simulator: rows that can be done by hand, the published table, and what the policies must not do over a day."""

from __future__ import annotations

from pathlib import Path

import pytest

from irs.errors import SetupError
from scaler import ScalerSettings
from scaler.simulate import Assumptions, Score, average, read_trace, simulate
from scaler.simulate.score import score
from scaler.trace import make_trace, write_trace

TRACES = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "traces"
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="The three traces are not beside this checkout.")

EXACT = Assumptions(slots=1, service_s=2, service_cv=0, boot_s=10, boot_sigma=0, lag_s=0, noise=0, tail_s=1200)
PRIORS = ScalerSettings(slots=1, rate_per_s=0.5, boot_s=60)


def by_hand(policy: str, counts: dict[int, int]) -> Score:
    trace = make_trace("by hand", counts, horizon_s=max(counts) + 1)
    return score(simulate(trace, policy, assumed=EXACT, settings=PRIORS))


@pytest.mark.parametrize(
    ("counts", "p50", "p95", "p99", "mean", "longest", "billed_s", "launches"),
    [
        ({1: 12}, 21.0, 26.0, 26.0, 21.0, 26, 120, 2),
        ({1: 12, 40: 3}, 20.0, 26.0, 26.0, 19.6, 26, 180, 3),
        ({1: 25, 22: 4}, 22.0, 30.0, 31.44, 21.7931, 32, 180, 3),
        ({1: 400}, 36.0, 54.1, 56.0, 36.055, 58, 1140, 19),
    ],
)
def test_simulator_gives_the_rows_of_classic_that_can_be_done_by_hand(
    counts: dict[int, int], p50: float, p95: float, p99: float, mean: float, longest: float, billed_s: float, launches: int
) -> None:
    got = by_hand("classic", counts)

    assert (p50, p95, p99) == pytest.approx((got.p50_s, got.p95_s, got.p99_s))
    assert (mean, longest) == pytest.approx((got.mean_s, got.max_s), abs=5e-5)
    assert (billed_s, launches) == pytest.approx((got.instance_hours * 3600, got.launches))


@pytest.mark.parametrize(
    ("policy", "images", "p50", "p95", "mean", "longest", "hours", "launches"),
    [
        ("keda:10", 12, 31.0, 36.0, 31.0, 36, 0.1792, 2),
        ("keda:5", 12, 29.0, 32.0, 29.0, 32, 0.2708, 3),
        ("target:20", 12, 142.0, 151.9, 142.0, 153, 0.2667, 1),
        ("latency", 12, 21.0, 26.0, 21.0, 26, 0.0333, 2),
        ("balanced", 12, 27.0, 36.9, 27.0, 38, 0.0167, 1),
        ("eco", 12, 27.0, 36.9, 27.0, 38, 0.0167, 1),
        ("keda:10", 400, 64.0, 83.0, 62.3625, 85, 1.85, 19),
        ("latency", 400, 36.0, 54.1, 36.055, 58, 0.3167, 19),
        ("balanced", 400, 36.0, 54.1, 36.055, 58, 0.3167, 19),
        # The published row has 0.2831 h: 9 of 16 instances end a second later there. Times and launches are the same.
        ("eco", 400, 44.0, 66.0, 44.135, 70, 0.2806, 16),
    ],
)
def test_simulator_gives_the_published_rows_of_the_other_policies_on_one_burst(
    policy: str, images: int, p50: float, p95: float, mean: float, longest: float, hours: float, launches: int
) -> None:
    got = by_hand(policy, {1: images})

    assert (p50, p95, mean, longest) == pytest.approx((got.p50_s, got.p95_s, got.mean_s, got.max_s))
    assert hours == pytest.approx(got.instance_hours, abs=5e-5)
    assert launches == got.launches


#: p50, p95, p99, mean in seconds; instance-hours; launches: means of the seeds 1, 2 and 3.
PUBLISHED = {
    ("flash-crowd", "classic"): (110.49, 171.0, 183.4, 111.57, 5.67, 140),
    ("flash-crowd", "keda:5"): (136.32, 196.3, 209.6, 136.77, 16.99, 133),
    ("flash-crowd", "keda:10"): (136.32, 196.3, 209.6, 136.77, 16.95, 133),
    ("flash-crowd", "keda:20"): (136.32, 196.3, 209.6, 136.77, 16.86, 133),
    ("flash-crowd", "keda:60"): (136.32, 196.3, 209.6, 136.77, 16.49, 133),
    ("flash-crowd", "target:10"): (323.62, 396.3, 410.1, 296.70, 38.73, 114),
    ("flash-crowd", "target:60"): (323.62, 396.3, 410.1, 296.70, 38.43, 114),
    ("flash-crowd", "target:20:1"): (313.54, 387.2, 400.7, 271.92, 42.73, 109),
    ("flash-crowd", "target:20"): (323.62, 396.3, 410.1, 296.70, 38.67, 114),
    # Published with 9.32 h and a mean of 110.65 s: since then no worker is kept through a rest of an hour and more.
    ("flash-crowd", "latency"): (110.10, 171.0, 183.4, 111.20, 8.64, 134),
    ("flash-crowd", "balanced"): (110.42, 171.2, 183.6, 111.59, 5.63, 134),
    ("flash-crowd", "eco"): (110.43, 171.0, 183.4, 111.58, 5.61, 133),
    ("steady-ramp", "classic"): (11.09, 32.2, 43.5, 13.16, 48.97, 1196),
    ("steady-ramp", "keda:5"): (1.17, 16.3, 31.3, 3.39, 57.54, 306),
    ("steady-ramp", "keda:10"): (1.28, 39.2, 49.5, 8.31, 62.51, 423),
    ("steady-ramp", "keda:20"): (1.39, 48.2, 60.6, 10.93, 57.64, 405),
    ("steady-ramp", "keda:60"): (3.28, 62.8, 72.5, 17.77, 44.15, 274),
    ("steady-ramp", "target:10"): (1.31, 222.8, 268.2, 37.23, 66.07, 183),
    ("steady-ramp", "target:20"): (1.51, 228.5, 267.8, 43.95, 63.38, 179),
    ("steady-ramp", "target:60"): (1.65, 227.7, 272.9, 57.38, 60.48, 176),
    ("steady-ramp", "target:20:1"): (1.54, 211.2, 253.4, 47.68, 63.84, 176),
    ("steady-ramp", "latency"): (0.95, 2.5, 5.3, 1.24, 57.17, 96),
    ("steady-ramp", "balanced"): (0.99, 3.1, 6.5, 1.36, 49.80, 84),
    ("steady-ramp", "eco"): (1.53, 18.4, 31.9, 4.50, 37.69, 70),
    ("bursty-day", "classic"): (16.94, 51.2, 61.6, 20.87, 132.24, 5944),
    ("bursty-day", "keda:5"): (1.27, 5.8, 21.4, 2.35, 156.48, 864),
    ("bursty-day", "keda:20"): (2.58, 18.2, 35.8, 5.11, 74.59, 368),
    ("bursty-day", "keda:60"): (6.97, 50.3, 66.6, 14.24, 50.34, 245),
    ("bursty-day", "keda:10"): (1.65, 10.6, 28.1, 3.29, 107.63, 568),
    ("bursty-day", "target:10"): (1.20, 192.4, 234.0, 31.61, 243.03, 851),
    ("bursty-day", "target:20"): (1.30, 191.0, 233.0, 30.79, 194.48, 662),
    ("bursty-day", "target:60"): (1.67, 178.8, 227.8, 30.22, 121.06, 388),
    ("bursty-day", "target:20:1"): (1.46, 122.8, 173.9, 19.72, 157.21, 471),
    ("bursty-day", "latency"): (1.33, 4.7, 10.6, 1.98, 110.43, 337),
    ("bursty-day", "balanced"): (1.65, 6.8, 17.0, 2.67, 84.35, 252),
    ("bursty-day", "eco"): (5.38, 33.5, 61.5, 9.68, 42.39, 152),
}
#: These rows are run each time; each of the others takes some seconds and more.
QUICK = {("flash-crowd", "classic"), ("flash-crowd", "keda:10"), ("flash-crowd", "target:20"), ("flash-crowd", "balanced")}
QUICK |= {("flash-crowd", "latency"), ("flash-crowd", "eco"), ("steady-ramp", "balanced"), ("steady-ramp", "target:20")}
CASES = [
    pytest.param(*case, expected, marks=() if case in QUICK else [pytest.mark.slow, pytest.mark.timeout(900)])
    for case, expected in PUBLISHED.items()
]


@needs_traces
@pytest.mark.parametrize(("trace", "policy", "expected"), CASES)
def test_simulator_reproduces_the_published_table_within_3_percent(trace: str, policy: str, expected: tuple[float, ...]) -> None:
    arrivals = read_trace(TRACES / f"{trace}.csv")

    got = average([score(simulate(arrivals, policy, seed=seed)) for seed in (1, 2, 3)])

    # Half a digit of what is published comes on top.
    assert expected[:5] == pytest.approx((got.p50_s, got.p95_s, got.p99_s, got.mean_s, got.instance_hours), rel=0.03, abs=0.05)
    assert expected[5] == pytest.approx(got.launches, rel=0.03)
    assert (0, 0) == (got.cap_violations, got.unfinished)


def test_simulator_gives_the_same_numbers_for_the_same_seed_and_others_for_another() -> None:
    trace = make_trace("two bursts", {10: 90, 400: 200})

    first, again, other = (score(simulate(trace, "balanced", seed=seed)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_policy_does_not_flap_on_the_noise_of_counts_under_a_constant_load() -> None:
    trace = make_trace("constant", dict.fromkeys(range(3 * 3600), 6))

    launched = [at for at, _ in simulate(trace, "balanced", assumed=Assumptions(noise=0.1)).launch_reasons if at > 1800]

    assert 2 >= len(launched)


def test_every_launch_of_our_policies_has_a_reason_that_says_its_number() -> None:
    outcome = simulate(make_trace("burst", {5: 500}), "balanced")

    assert outcome.launch_reasons
    assert all(reason.startswith("Launch ") for _, reason in outcome.launch_reasons)


def test_fleet_of_the_simulator_is_at_zero_after_the_load() -> None:
    outcome = simulate(make_trace("burst", {5: 500}), "eco")

    assert (0, 0, 0) == outcome.timeline[-1][1:]
    assert 0 == outcome.unfinished


def test_trace_survives_the_way_through_its_file(tmp_path: Path) -> None:
    counts = {3: 7, 90: 1, 4000: 12}
    path = tmp_path / "mine.csv"
    path.write_text(write_trace(counts))

    trace = read_trace(path)

    assert (("mine", 20, 7200)) == (trace.name, trace.images, trace.horizon_s)
    assert counts == dict(zip(trace.seconds, trace.arrivals, strict=True))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a,b\n1,2\n", "first line must be"), ("second,arrivals\n1\n", "line 2"), ("second,arrivals\n1,2\n3,x\n", "line 3"),
     ("second,arrivals\n-1,2\n", "below 0"), ("", "first line must be")],
)  # fmt: skip
def test_file_that_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)

    with pytest.raises(SetupError, match=sentence):
        read_trace(path)


@pytest.mark.parametrize("name", ["keda:0", "keda:x", "target:1:2:3", "keda", "turbo"])
def test_unknown_contender_is_refused(name: str) -> None:
    with pytest.raises(SetupError):
        simulate(make_trace("one", {1: 1}), name)
