"""``irs scaler run|plan|simulate|trace``."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irs.cli.options import AsJson
from irs.cli.outcome import answer, note
from irs.cli.tables import show_table

if TYPE_CHECKING:
    from scaler import Decision, Observation, ScalerSettings

app = typer.Typer(help="Workers follow the queue: what would be done, and what it would cost.", no_args_is_help=True)

TITLES = ("trace", "policy", "p50 s", "p95 s", "p99 s", "mean s", "hours", "launches", "dollars")
SHOWN_LAUNCHES = 1000

Policy = Annotated[
    str | None,
    typer.Option(help="classic, latency, balanced, eco, or a price of waiting; else the settings.", show_default=False),
]


@app.command("run")
def run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done: no lease, no instance.")] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON; else IRS_LOG_JSON.")] = False,
) -> None:
    """Launch and retire workers as the queue asks, until SIGTERM or Ctrl-C; no instance ends with it.

    Any number may run: one leads, the others take over within half a minute.
    """
    from irs.cli.service import find_cloud
    from irs.errors import MissingExtra
    from irs.monitoring.logs import set_up_logging

    try:
        from scaler.service import serve_until_signal
    except ModuleNotFoundError as error:
        raise MissingExtra(f"`irs scaler run` needs {error.name}: pip install 'irs[scaler]'.") from None
    cloud = find_cloud()
    set_up_logging(as_json=json_logs or cloud.settings.log_json)
    serve_until_signal(cloud, dry=dry_run)


@app.command("plan")
def plan(
    visible: Annotated[int | None, typer.Option(min=0, help="Decide on so many waiting images, not on the live queue.")] = None,
    inflight: Annotated[int, typer.Option("--in-flight", min=0, help="With --visible: images in work.")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="With --visible: workers that are ready.")] = 0,
    booting: Annotated[int, typer.Option(min=0, help="With --visible: workers that boot.")] = 0,
    policy: Policy = None,
    as_json: AsJson = False,
) -> None:
    """Say what the scaler would do now, and why; nothing is changed.

    It is the decision of a scaler that has just started: it has learned no rates, rests or arrivals yet.
    """
    from irs.errors import SetupError

    if visible is None and (inflight or workers or booting):
        raise SetupError("--in-flight, --workers and --booting go with --visible: say how many images wait.")
    settings = _settings(policy)
    seen = _look() if visible is None else _imagine(visible, inflight, workers, booting)
    from scaler import State, decide

    decision = decide(seen, State(), settings, 0.0)
    if as_json:
        answer(json.dumps(_plan_json(seen, decision), ensure_ascii=False))
        return
    answer(decision.reason)
    show_table(("signal", "value"), [(name, f"{value:.4g}") for name, value in decision.numbers.items()])


@app.command("simulate")
def simulate(
    traces: Annotated[list[Path], typer.Argument(help="CSV files with the columns second,arrivals.", show_default=False)],
    policy: Annotated[
        list[str] | None,
        typer.Option(help="A policy, a price of waiting, keda:TARGET or target:TARGET[:MINIMUM]; again for more."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs to average.")] = 1,
    rate: Annotated[float, typer.Option(min=0.01, help="Images a second of one worker.")] = 2.0,
    boot_s: Annotated[float, typer.Option(min=0.1, help="Median seconds from launch to ready.")] = 60.0,
    cap: Annotated[int, typer.Option(min=1, help="Instances at most.")] = 19,
    price: Annotated[
        float | None, typer.Option(min=0, help="Dollars an instance-hour; else IRS_PRICE_PER_HOUR.", show_default=False)
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="PNG or SVG of backlog and fleet; needs one trace.", show_default=False)
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Also say why each launch happened, on standard error.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for each row.")] = False,
) -> None:
    """Play traces of arrivals against policies, and compare waiting and cost.

    A worker has two images in hand at once; times of images and boots are drawn anew for each seed.
    """
    from irs.errors import MissingExtra, SetupError
    from irs.settings import read_settings
    from scaler import POLICIES, ScalerSettings
    from scaler.prices import from_settings as prices_of

    try:
        from scaler.simulate import Assumptions, average, read_trace
        from scaler.simulate import simulate as play
        from scaler.simulate.chart import check, draw
        from scaler.simulate.score import score
    except ModuleNotFoundError as error:
        raise MissingExtra(f"`irs scaler simulate` needs {error.name}: pip install 'irs[scaler]'.") from None
    if chart is not None and len(traces) > 1:
        raise SetupError("--chart draws one trace: name one, or leave --chart out.")
    if chart is not None:
        check(chart)
    told = prices_of(read_settings())
    dollars = told.of(told.first) if price is None else price
    assumed = Assumptions(service_s=2 / rate, boot_s=boot_s, cap=cap)
    settings = ScalerSettings(slots=assumed.slots, rate_per_s=rate, boot_s=boot_s, cap=cap)
    rows = []
    for trace in [read_trace(path) for path in traces]:
        outcomes = {}
        for name in policy or list(POLICIES):
            runs = [play(trace, name, seed=seed, assumed=assumed, settings=settings) for seed in range(1, seeds + 1)]
            outcomes[name] = runs[0]
            mean = average([score(run) for run in runs])
            cost = mean.instance_hours * dollars if dollars else None
            if as_json:
                answer(json.dumps({"trace": trace.name, "policy": name, **mean.to_json(), "dollars": cost}, ensure_ascii=False))
            times = (f"{mean.p50_s:.2f}", f"{mean.p95_s:.1f}", f"{mean.p99_s:.1f}", f"{mean.mean_s:.2f}")
            fleet = (f"{mean.instance_hours:.2f}", f"{mean.launches:.0f}", None if cost is None else f"{cost:.2f}")
            rows.append((trace.name, name, *times, *fleet))
            if mean.unfinished:
                note(
                    f"irs: {trace.name}, {name}: {mean.unfinished:.0f} images were not finished at the end; they are in no time."
                )
            for second, reason in runs[0].launch_reasons[:SHOWN_LAUNCHES] if why else ():
                note(f"{trace.name} {name} {second:.0f} s: {reason or 'launch'}")
        if chart is not None:
            draw(outcomes, chart, title=f"{trace.name}: {trace.images:,} images")
    if not as_json:
        show_table(TITLES, rows)


@app.command("trace")
def trace(
    day: Annotated[str | None, typer.Argument(help="Day in UTC, YYYY-MM-DD; else yesterday.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else standard output.")] = None,
) -> None:
    """Write the arrivals of a past day, told from its records, as a trace for `irs scaler simulate`."""
    from irs.errors import SetupError

    try:
        wanted = date.fromisoformat(day) if day else (datetime.now(UTC) - timedelta(days=1)).date()
    except ValueError:
        raise SetupError(f"{day!r} is no day: say it as YYYY-MM-DD, such as 2026-01-31.") from None
    from irs.cli.service import find_cloud
    from scaler.past import arrivals_of
    from scaler.trace import write_trace

    counts = arrivals_of(find_cloud(), wanted)
    text = write_trace(counts)
    note(f"irs: {sum(counts.values()):,} images came on {wanted}")
    if output is None:
        answer(text.rstrip("\n"))
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise SetupError(f"{output} cannot be written: {error.strerror or error}.") from None


def _settings(policy: str | None) -> ScalerSettings:
    from irs.settings import read_settings
    from scaler.settings import from_settings, value_of

    settings = from_settings(read_settings())
    return settings if policy is None else dataclasses.replace(settings, value=value_of(policy))


def _look() -> Observation:
    """Read the live signals."""
    import time

    from irs.cli.service import find_cloud
    from irs.monitoring.beats import read_beats
    from scaler import Worker
    from scaler.life import phase_of
    from scaler.signals import Beats, read_counts

    cloud = find_cloud()
    # Asked first, so that a missing queue or a silent endpoint has its own sentence and exit code.
    cloud.queue_url(cloud.settings.requests_queue)
    wall = time.time()
    read = Beats().observe(read_beats(cloud), read_counts(cloud), now=0.0, wall=wall)
    workers = [
        Worker(id=id, phase=phase_of(said), launched_at=min(0.0, said.started_at - wall), busy=said.busy)
        for id, said in read.heard.items()
        if said.phase not in ("drained", "stopped")
    ]
    return dataclasses.replace(read.observation, workers=tuple(workers))


def _imagine(visible: int, inflight: int, workers: int, booting: int) -> Observation:
    from scaler import Observation, Worker

    # Ready ones are old enough to be told to retire; booting ones were launched just now.
    ready = [Worker(id=f"ready-{n}", phase="ready", launched_at=-3600.0) for n in range(workers)]
    fresh = [Worker(id=f"booting-{n}", phase="booting", launched_at=0.0) for n in range(booting)]
    return Observation(visible=visible, inflight=inflight, workers=(*ready, *fresh))


def _plan_json(seen: Observation, decision: Decision) -> dict[str, object]:
    return {
        "launch": decision.launch,
        "retire": sorted(decision.retire),
        "cancel": sorted(decision.cancel),
        "kind": decision.kind,
        "reason": decision.reason,
        "numbers": dict(decision.numbers),
        "workers": [dataclasses.asdict(worker) for worker in seen.workers],
    }
