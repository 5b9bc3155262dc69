"""Makes the dashboards of ``deploy/grafana/`` anew: ``python tools/make_dashboards.py``.

A dashboard's JSON repeats itself in every panel; here each panel is a line: title, unit, and its queries with legends.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "grafana"
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT, COLUMNS = 8, 7, 3

#: Title, unit, (query, legend) each.
Panel = tuple[str, str, tuple[tuple[str, str], ...]]


def _quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple(
        (f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[$__rate_interval])))", f"{legend}{name}")
        for share, name in ((0.5, "half of them"), (0.95, "95 of 100"))
    )


SERVICE: tuple[Panel, ...] = (
    ("Images by outcome", "ops", (("sum by (outcome) (rate(irs_images_total[$__rate_interval]))", "{{outcome}}"),)),
    (
        "Messages",
        "short",
        (
            ("max by (queue_name) (celery_queue_length)", "wait in {{queue_name}}"),
            ("max by (queue) (irs_queue_in_flight)", "in work"),
            ("max by (queue) (irs_queue_delayed)", "delayed"),
            ("max by (queue) (irs_dead_letters)", "given up"),
        ),
    ),
    (
        "Wait in the queue",
        "s",
        (*_quantiles("irs_queue_wait_seconds"), ("max by (queue) (irs_queue_oldest_seconds)", "received last")),
    ),
    (
        "Failed and returned images by code",
        "ops",
        (
            (
                'sum by (outcome, code) (rate(irs_images_total{outcome=~"failed|returned"}[$__rate_interval]))',
                "{{outcome}} {{code}}",
            ),
        ),
    ),
    ("Time in each stage", "s", _quantiles("irs_stage_seconds", "stage")),
    ("Time of a task", "s", _quantiles("celery_task_runtime", "name")),
    (
        "Images of a model call",
        "short",
        (
            (
                "sum by (model) (rate(irs_batch_size_sum[$__rate_interval]))"
                " / sum by (model) (rate(irs_batch_size_count[$__rate_interval]))",
                "{{model}}",
            ),
        ),
    ),
    ("Slots taken", "percentunit", (("sum by (model) (irs_slots_busy) / sum by (model) (irs_slots)", "{{model}}"),)),
    (
        "Images received before",
        "percentunit",
        (
            (
                '1 - sum(rate(irs_receives_per_image_bucket{le="1.0"}[$__rate_interval]))'
                " / sum(rate(irs_receives_per_image_count[$__rate_interval]))",
                "came again",
            ),
        ),
    ),
    (
        "Tasks",
        "ops",
        tuple(
            (f"sum by (name) (rate(celery_task_{what}_total[$__rate_interval]))", f"{{{{name}}}} {what}")
            for what in ("received", "started", "succeeded", "failed", "rejected", "revoked", "retried")
        ),
    ),
    (
        "Calls to AWS an image",
        "short",
        (
            (
                "sum by (service, operation) (rate(irs_aws_requests_total[$__rate_interval]))"
                ' / on () group_left () sum(rate(irs_images_total{outcome=~"ok|failed"}[$__rate_interval]))',
                "{{service}} {{operation}}",
            ),
        ),
    ),
    (
        "Failed calls to AWS",
        "ops",
        (
            (
                "sum by (service, operation, code) (rate(irs_aws_errors_total[$__rate_interval]))",
                "{{service}} {{operation}} {{code}}",
            ),
        ),
    ),
    (
        "Time of a call to AWS",
        "s",
        (
            (
                "histogram_quantile(0.95, sum by (le, service, operation)"
                ' (rate(irs_aws_request_seconds_bucket{operation!="ReceiveMessage"}[$__rate_interval])))',
                "{{service}} {{operation}}, 95 of 100",
            ),
        ),
    ),
    (
        "Events and commands",
        "ops",
        (
            ("sum(rate(irs_events_sent_total[$__rate_interval]))", "events sent"),
            ("sum(rate(irs_events_dropped_total[$__rate_interval]))", "events dropped"),
            ("sum by (command) (rate(irs_control_commands_total[$__rate_interval]))", "{{command}}"),
            ("max(irs_event_lease_seconds)", "lease of watchers (s)"),
        ),
    ),
    (
        "The page",
        "ops",
        (
            ("sum by (route, status) (rate(irs_web_requests_total[$__rate_interval]))", "{{route}} {{status}}"),
            ("sum(irs_web_streams)", "live streams open"),
        ),
    ),
    (
        "The drop box",
        "ops",
        (
            ("sum(rate(irs_drops_sent_total[$__rate_interval]))", "tasks sent"),
            ("sum(rate(irs_drops_results_total[$__rate_interval]))", "results stored"),
            ("max(irs_drops_waiting)", "events that wait"),
        ),
    ),
)

FLEET: tuple[Panel, ...] = (
    (
        "Workers",
        "short",
        (
            ("max(irs_scaler_desired)", "wanted"),
            ("max(irs_scaler_running)", "ready"),
            ("max(irs_scaler_starting)", "starting"),
            ("sum(celery_worker_up)", "seen here"),
        ),
    ),
    ("Instances by phase", "short", (("max by (phase) (irs_scaler_instances)", "{{phase}}"),)),
    (
        "Decisions by what asked for them",
        "ops",
        (("sum by (policy, reason) (rate(irs_scaler_decisions_total[$__rate_interval]))", "{{policy}} {{reason}}"),),
    ),
    (
        "Ready to work",
        "short",
        (("sum by (model, digest) (irs_ready)", "{{model}} {{digest}}"), ("sum(irs_scaler_leads)", "scalers that lead")),
    ),
    ("Tasks at each worker", "short", (("sum by (hostname) (celery_worker_tasks_active)", "{{hostname}}"),)),
    (
        "Rate of a worker, and its boot",
        "short",
        (("max(irs_scaler_rate_per_second)", "images a second"), ("max(irs_scaler_boot_seconds)", "boot (s)")),
    ),
    (
        "Launches",
        "short",
        (
            ("sum(increase(irs_scaler_launches_total[1h]))", "in an hour"),
            ("sum(increase(irs_scaler_failed_boots_total[1h]))", "failed boots"),
        ),
    ),
    ("Dollars today (UTC)", "currencyUSD", (("max(irs_scaler_dollars_today)", "spent"),)),
    ("Dollars an hour", "currencyUSD", (("sum(rate(irs_cost_dollars_total[1h])) * 3600", "instances"),)),
    (
        "Dollars a thousand images",
        "currencyUSD",
        (
            (
                'sum(increase(irs_cost_dollars_total[1h])) / sum(increase(irs_images_total{outcome=~"ok|failed"}[1h])) * 1000',
                "instances",
            ),
        ),
    ),
    ("Instance-hours a day", "short", (("sum(increase(irs_instance_seconds_total[1d])) / 3600", "instances"),)),
    (
        "Queues of processes' own",
        "short",
        (
            ("max by (kind) (irs_mon_queues)", "{{kind}}"),
            ("sum by (kind) (increase(irs_mon_reaped_total[1h]))", "removed {{kind}}"),
        ),
    ),
)


def dashboard(uid: str, title: str, panels: tuple[Panel, ...]) -> dict[str, Any]:
    """Return one dashboard as Grafana imports it."""
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": uid,
        "title": title,
        "tags": ["irs"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, title: str, unit: str, queries: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": WIDTH * (number % COLUMNS), "y": HEIGHT * (number // COLUMNS), "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for place, (query, legend) in enumerate(queries)
        ],
    }


def texts() -> dict[str, str]:
    """Return what each file of ``deploy/grafana`` holds, by its name."""
    made = {
        "service.json": dashboard("irs-service", "irs: the service", SERVICE),
        "fleet.json": dashboard("irs-fleet", "irs: fleet and money", FLEET),
    }
    return {name: json.dumps(one, indent=1, ensure_ascii=False) + "\n" for name, one in made.items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
