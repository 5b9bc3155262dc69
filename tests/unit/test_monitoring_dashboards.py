"""Dashboards and alerts, as Prometheus itself reads them; that their metrics exist a service test shows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from exported import DEPLOY, queries

TOOLS = Path(__file__).resolve().parents[2] / "tools"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
CASES = DEPLOY / "prometheus" / "alerts.test.yaml"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on this machine: apt-get install prometheus brings it.")
    return found


def ran(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rules_and_configuration_are_what_prometheus_takes(promtool: str) -> None:
    assert "7 rules found" in ran(promtool, "check", "rules", str(RULES))
    ran(promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yaml"))


def test_each_alert_fires_when_it_is_to_and_is_silent_else(promtool: str) -> None:
    assert "SUCCESS" in ran(promtool, "test", "rules", str(CASES))


def test_no_alert_is_without_a_case_that_fires_and_one_that_is_silent() -> None:
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]

    assert alerts == {case["alertname"] for case in cases if case["exp_alerts"]}
    assert alerts == {case["alertname"] for case in cases if not case["exp_alerts"]}


def test_a_case_fails_when_its_rule_is_wrong(promtool: str, tmp_path: Path) -> None:
    """The cases are worth something: with another threshold they do not hold."""
    (tmp_path / CASES.name).write_text(CASES.read_text())
    (tmp_path / RULES.name).write_text(RULES.read_text().replace("> 0.05", "> 0.5"))

    done = subprocess.run([promtool, "test", "rules", CASES.name], cwd=tmp_path, capture_output=True, timeout=60, check=False)

    assert 0 != done.returncode


def test_each_query_of_a_dashboard_is_one_that_prometheus_understands(promtool: str, tmp_path: Path) -> None:
    asked = [one.replace("$__rate_interval", "5m") for name in ("service.json", "fleet.json") for one in queries(name)]
    records = [{"record": f"query:{number}", "expr": one} for number, one in enumerate(asked)]
    rules = tmp_path / "queries.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))

    assert f"{len(asked)} rules found" in ran(promtool, "check", "rules", str(rules))


def test_the_dashboards_are_those_that_the_tool_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make them anew with ``python tools/make_dashboards.py``."""
    monkeypatch.syspath_prepend(str(TOOLS))
    from make_dashboards import texts

    assert texts() == {name: (DEPLOY / "grafana" / name).read_text() for name in texts()}
    sys.modules.pop("make_dashboards")


@pytest.mark.parametrize("name", ["service.json", "fleet.json"])
def test_panels_of_a_dashboard_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in json.loads((DEPLOY / "grafana" / name).read_text())["panels"]]

    cells = [(x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
