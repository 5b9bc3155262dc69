"""What dashboards and alerts ask Prometheus, and what processes show it: names of metrics with their labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
_METRIC = re.compile(r"\b(?:irs|celery|flower)_[a-z_]+\b")
_SELECTED = re.compile(r"\b((?:irs|celery|flower)_[a-z_]+)\{([^}]*)\}")
_GROUPED = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def queries(name: str) -> list[str]:
    """All that a dashboard asks."""
    found: Any = json.loads((DEPLOY / "grafana" / name).read_text())
    return [target["expr"] for panel in found["panels"] for target in panel["targets"]]


def alert_queries() -> list[str]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


@dataclass
class Exported:
    """Labels by name of the samples that were seen; of a metric without a sample the name alone."""

    labels: dict[str, set[str]]

    @classmethod
    def of(cls, *texts: str) -> Exported:
        """Read what processes show at ``/metrics``."""
        labels: dict[str, set[str]] = {}
        for family in (family for text in texts for family in text_string_to_metric_families(text)):
            for suffix in _SUFFIXES.get(family.type, ()):
                labels.setdefault(family.name + suffix, set())
            for sample in family.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
        return cls(labels)

    def missing(self, query: str) -> Iterator[str]:
        """Yield what a query asks for and nobody shows: metrics, and labels as ``metric{label}``."""
        names = set(_METRIC.findall(query))
        yield from (name for name in names if name not in self.labels)
        for name, selection in _SELECTED.findall(query):
            asked = {part.split("=")[0].rstrip("!").strip() for part in selection.split(",")}
            yield from (f"{name}{{{label}}}" for label in asked - self.labels.get(name, set()))
        shown = set().union(*(self.labels.get(name, set()) for name in names))
        for group in _GROUPED.findall(query):
            asked = {label.strip() for label in group.split(",")} - {""}
            yield from (f"{'+'.join(sorted(names))}{{{label}}}" for label in asked - shown)
