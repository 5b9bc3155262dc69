"""``irs scaler``: what its commands say and refuse."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from irs.cli import app
from irs.errors import SetupError
from irs.records import ImageFacts, Record, Timing
from scaler.past import arrivals_of


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IRS_SCALER_POLICY", "IRS_SCALER_VALUE", "IRS_SCALER_CAP", "IRS_PRICE_PER_HOUR"):
        monkeypatch.delenv(name, raising=False)


def test_plan_says_what_it_would_do_and_why_on_given_numbers() -> None:
    said = CliRunner().invoke(app, ["scaler", "plan", "--visible", "25", "--workers", "1", "--policy", "classic", "--json"])

    plan = json.loads(said.stdout)
    assert (2, "count") == (plan["launch"], plan["kind"])
    assert "25 images wait" in plan["reason"]
    assert 3 == plan["numbers"]["need"]


def test_plan_obeys_the_settings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRS_SCALER_CAP", "2")

    said = CliRunner().invoke(app, ["scaler", "plan", "--visible", "5000", "--json"])

    assert 2 == json.loads(said.stdout)["launch"]


def test_simulate_prints_a_row_for_each_trace_and_policy_and_the_dollars(tmp_path: Path) -> None:
    trace = tmp_path / "burst.csv"
    trace.write_text("second,arrivals\n5,200\n")
    wanted = ["--policy", "eco", "--policy", "keda:10", "--price", "2"]

    said = CliRunner().invoke(app, ["scaler", "simulate", str(trace), *wanted, "--json"])

    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert [("burst", "eco"), ("burst", "keda:10")] == [(row["trace"], row["policy"]) for row in rows]
    assert [2 * row["instance_hours"] for row in rows] == pytest.approx([row["dollars"] for row in rows])
    assert all(row["unfinished"] == 0 for row in rows)


def test_simulate_says_why_each_launch_happened_when_asked(tmp_path: Path) -> None:
    trace = tmp_path / "burst.csv"
    trace.write_text("second,arrivals\n5,200\n")

    said = CliRunner().invoke(app, ["scaler", "simulate", str(trace), "--policy", "balanced", "--why"])

    assert " s: Launch " in said.stderr
    assert said.stderr.startswith("burst balanced ")


@pytest.mark.parametrize(("name", "head"), [("c.png", b"\x89PNG"), ("c.svg", b"<?xml")])
def test_simulate_draws_backlog_and_fleet(tmp_path: Path, name: str, head: bytes) -> None:
    trace = tmp_path / "burst.csv"
    trace.write_text("second,arrivals\n5,200\n")

    CliRunner().invoke(app, ["scaler", "simulate", str(trace), "--chart", str(tmp_path / name)], catch_exceptions=False)

    assert (tmp_path / name).read_bytes().startswith(head)


@pytest.mark.parametrize(("name", "sentence"), [("c.gif", ".png or .svg"), ("none/c.png", "there is no folder")])
def test_simulate_refuses_a_chart_that_cannot_be_written_before_it_simulates(tmp_path: Path, name: str, sentence: str) -> None:
    said = CliRunner().invoke(app, ["scaler", "simulate", str(tmp_path / "unread.csv"), "--chart", str(tmp_path / name)])

    assert isinstance(said.exception, SetupError)
    assert sentence in str(said.exception)


def test_plan_refuses_numbers_of_a_queue_that_it_was_not_given() -> None:
    said = CliRunner().invoke(app, ["scaler", "plan", "--workers", "3"])

    assert isinstance(said.exception, SetupError)
    assert "go with --visible" in str(said.exception)


def test_trace_refuses_what_is_no_day() -> None:
    said = CliRunner().invoke(app, ["scaler", "trace", "monday"])

    assert "'monday' is no day" in str(said.exception)


def test_past_counts_the_records_of_the_day_by_the_second_they_were_handed_in() -> None:
    begin = datetime(2026, 1, 31, tzinfo=UTC)

    def record(submitted_s: float | None) -> bytes:
        submitted = None if submitted_s is None else begin.timestamp() + submitted_s
        image = ImageFacts(name="a.jpg", key="jobs/x/000000/a.jpg")
        return Record(
            task_id="t", status="ok", image=image, timing=Timing(submitted=submitted), worker="w", receives=1
        ).to_bytes()

    stored = {
        "jobs/x/000000.json": record(10.2),
        "jobs/x/000001.json": record(10.9),
        "jobs/x/000002.json": record(-0.5),
        "jobs/x/000003.json": record(86_400.0),
        "jobs/x/000004.json": record(None),
        "jobs/x/000005.json": b"{}",
        "jobs/x/open.json": b"{}",
        "tasks/t.json": record(86_399.9),
    }

    class Output:
        name = "out"

        def list(self, prefix: str) -> list[SimpleNamespace]:
            return [SimpleNamespace(key=key, modified=begin) for key in stored if key.startswith(prefix)]

        def get(self, key: str) -> bytes:
            return stored[key]

    counts = arrivals_of(SimpleNamespace(output=Output()), date(2026, 1, 31))  # type: ignore[arg-type]

    assert {10: 2, 86_399: 1} == counts
