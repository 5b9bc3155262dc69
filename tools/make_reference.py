"""Makes ``docs/reference``: settings, commands, records, API, metrics and errors, each told from the code that holds it.

    python tools/make_reference.py

A test compares what is stored with what this makes.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args
from unittest.mock import patch

import typer.main
from annotated_types import Ge, Gt, Le
from prometheus_client import CollectorRegistry
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from irs import errors, records
from irs.cli import app
from irs.errors import IrsError
from irs.monitoring.status import QueueCounts
from irs.results.schema import record_schema
from irs.settings import Settings, read_settings
from webui.problems import CODES
from webui.reference import kind, operations, schemas

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
#: Where `irs up` serves the page, for the examples of the API.
PAGE = "http://127.0.0.1:8000"


def texts() -> dict[str, str]:
    """Return what each page of the reference holds, by its file's name."""
    pages = {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "records.md": records_page(),
        "api.md": api_page(),
        "metrics.md": metrics_page(),
        "errors.md": errors_page(),
    }
    made = "<!-- Made by tools/make_reference.py: change the code, not this page. -->\n\n"
    return {name: f"{made}{text.rstrip()}\n" for name, text in pages.items()}


def settings_page() -> str:
    """Every setting with its default, what it may be, and its meaning; in the sections of the class."""
    text = """# Settings

Environment variables, read once when a process starts. A value that cannot be is refused in one sentence that names its variable.
"""
    for title, names in _sections():
        rows = [_setting(name, Settings.model_fields[name]) for name in names]
        text += f"\n## {title}\n\n{_table(('setting', 'meaning', 'default', 'may be'), rows)}"
    return text


def _sections() -> Iterator[tuple[str, list[str]]]:
    """Yield the titles of the class's sections, told by its comments, with the settings below each."""
    title, names = "", list[str]()
    for line in inspect.getsource(Settings).splitlines():
        if (comment := re.fullmatch(r"    # (.+)", line)) and not line.endswith("."):
            if names:
                yield title, names
            title, names = comment[1], []
        elif (field := re.match(r"    (\w+): ", line)) and field[1] in Settings.model_fields:
            names.append(field[1])
    yield title, names


def _setting(name: str, field: FieldInfo) -> tuple[str, ...]:
    own = f"IRS_{name.upper()}"
    others = [c for c in getattr(cast(AliasChoices, field.validation_alias), "choices", ()) if c != own]
    also = f"; else {_code(others)}" if others else ""
    default = "" if field.default_factory else field.default
    shown = ",".join(default) if isinstance(default, tuple) else default
    return f"`{own}`", f"{field.description}{also}", "" if shown in ("", None) else f"`{shown}`", _may_be(field)


def _may_be(field: FieldInfo) -> str:
    if choices := [one for one in get_args(field.annotation) if isinstance(one, str)]:
        return _code(choices)
    if field.annotation is bool:
        return "`True`, `False`"
    low = next((f"from {m.ge}" for m in field.metadata if isinstance(m, Ge)), None)
    low = low or next((f"above {m.gt}" for m in field.metadata if isinstance(m, Gt)), None)
    high = next((f"to {m.le}" for m in field.metadata if isinstance(m, Le)), None)
    pattern = next((f"`{m.pattern}`" for m in field.metadata if getattr(m, "pattern", None)), None)
    return pattern or " ".join(part for part in (low, high) if part)


def commands_page() -> str:
    """Every command with its arguments and options, as ``--help`` tells them."""
    root: Any = typer.main.get_command(app)
    text = f"""# Commands

{root.help} Answers go to standard output, everything else to standard error. `irs COMMAND --help` says what stands here.

{root.epilog}
"""
    for name, command in root.commands.items():
        text += _command(f"irs {name}", command, depth=2)
    return text


def _command(path: str, command: Any, *, depth: int) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and "--help" not in param.opts]
    pieces = [_argument(param) if param.required else f"[{_argument(param)}]" for param in arguments]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *pieces])
    text = f"\n{'#' * depth} {path}\n\n{_plain(inspect.cleandoc(command.help or ''))}\n"
    if not hasattr(command, "commands"):
        text += f"\n```text\n{usage}\n```\n"
    rows = [(f"`{_argument(param)}`", _plain(param.help or "")) for param in arguments]
    rows += [(_code(_spellings(param)), _option(param)) for param in options]
    if rows:
        text += f"\n{_table(('argument or option', 'meaning'), rows)}"
    for name, one in getattr(command, "commands", {}).items():
        text += _command(f"{path} {name}", one, depth=depth + 1)
    return text


def _argument(param: Any) -> str:
    name = (param.metavar or param.name.upper()).strip("[]")
    return f"{name}..." if param.nargs == -1 and "..." not in name else name


def _spellings(param: Any) -> list[str]:
    value = "" if param.is_flag else f" {param.metavar or param.name.removeprefix('as_').upper()}"
    return [f"{one}{value}" for one in (*param.opts, *param.secondary_opts)]


def _option(param: Any) -> str:
    """Its help, its default, and its range where it has one."""
    facts = [f"from {param.min}"] if param.min is not None else []
    facts += [f"to {param.max}"] if param.max is not None else []
    if not param.is_flag and isinstance(param.default, str | int | float):
        facts += [f"default {param.default}"]
    return _plain(param.help or "") + (f" ({', '.join(facts)})" if facts else "")


def records_page() -> str:
    """What travels and what is stored, class by class of ``irs.records``."""
    schema = record_schema()
    parts = [("Record", schema), *schema["$defs"].items()]
    text = """# Records

What is known of an image, as it lies in the output bucket and as `irs recognize --json` prints it, one a line.
The [schema](../record.schema.json) is for programs; readers must allow fields that a later version adds.
"""
    for name, part in parts:
        depth = 2 if part is schema else 3
        text += f"\n{'#' * depth} {name}\n"
        text += _record(getattr(records, name), {field: kind(of) for field, of in part["properties"].items()})
    text += """
## Options

The keyword arguments of the task `irs.recognize`, of `Client.recognize`, and the fields of a job.
"""
    text += _record(records.Options)
    text += """
## What lies in the buckets

"""
    keys = [
        ("input", records.image_key("JOB", 0, "cat.jpg"), "an image of a job: `{number}/{name}`"),
        ("input", f"{records.DROPS}cat.jpg", "a file in the drop box"),
        ("output", records.open_key("JOB"), _first(records.JobOpen)),
        ("output", records.record_key("0" * 26 + ".000000").replace("0" * 26, "JOB"), "the record of an image of a job"),
        ("output", records.record_key("ID"), "the record of a plain call, or of a dropped file"),
        ("output", records.manifest_key("JOB"), _first(records.Manifest)),
        ("output", records.job_cancelled_key("JOB"), "the job is cancelled, for readers"),
        ("output", records.tombstone_key("ULID", "JOB"), "the job, or the task, is cancelled, for workers"),
        ("output", records.result_key("cat.jpg"), "the record of a dropped file, by its name"),
        ("output", records.beat_key("INSTANCE"), _first(records.Beat)),
        ("output", records.order_key("INSTANCE"), _first(records.Order)),
        ("output", records.card_key("DIGEST"), _first(records.ModelCard)),
        ("output", records.SCALER_STATE_KEY, "lease and memory of the scaler"),
    ]
    return text + _table(("bucket", "key", "holds"), [(bucket, f"`{key}`", holds) for bucket, key, holds in keys])


def _first(of: type) -> str:
    """The first sentence of a class's docstring, without the key it begins with."""
    said = _plain(inspect.getdoc(of) or "").partition("\n\n")[0]
    return re.sub(r"^`.*?`[^:]*: ", "", said).rstrip(".")


def _record(of: type, kinds: dict[str, str] | None = None) -> str:
    said, _, attributes = (inspect.getdoc(of) or "").partition("\n\nAttributes:\n")
    meanings = dict(re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE))
    rows = []
    for field in dataclasses.fields(of):
        shown = kinds[field.name] if kinds is not None else f"`{json.dumps(field.default)}`"
        meaning = re.sub(r"\bNone\b", "null", re.sub(r"\s+", " ", meanings.get(field.name, "")))
        rows.append((f"`{field.name}`", shown, _plain(meaning).rstrip(".")))
    head = ("field", "kind" if kinds is not None else "default", "meaning")
    if not any(meaning for _, _, meaning in rows):
        head, rows = head[:2], [row[:2] for row in rows]
    said = re.sub(r"\bNone\b", "null", said.replace(" under :func:`record_key`", ""))
    return f"\n{_plain(said)}\n\n{_table(head, rows)}"


def api_page() -> str:
    """The API of the page, from ``webui/openapi.json``."""
    api = json.loads((ROOT / "webui" / "openapi.json").read_text())
    text = f"""# The API of the page

{_plain(api["info"]["description"])} A running page shows this with its own address at `/api`, and for tools at `/openapi.json`.
What goes wrong is told as `application/problem+json` with one of the [codes](errors.md#codes-of-the-api).
"""
    for one in operations(api, PAGE):
        said = f"{one['summary']}. {_plain(one['description'])}".strip()
        text += f"\n## {one['method']} {one['path']}\n\n{said}\n"
        if one["parameters"]:
            rows = [(f"`{p['name']}`", _plain(p["description"]), p["in"], p["kind"]) for p in one["parameters"]]
            text += f"\n{_table(('parameter', 'meaning', 'in', 'kind'), rows)}"
        if one["body"]:
            bodies = [f"`{body['type']}` ({body['kind']})" for body in one["body"]]
            text += f"\nBody: {', '.join(bodies)}.\n"
        rows = [(str(a["status"]), _plain(a["description"]), _code(a["types"])) for a in one["answers"]]
        text += f"\n{_table(('status', 'answer', 'type'), rows)}"
        text += f"\n```sh\n{dict(one['examples'])['curl']}\n```\n"
    text += "\n## Values\n"
    for value in schemas(api):
        rows = [(f"`{f['name']}`", f["kind"], "yes" if f["required"] else "", _plain(f["description"])) for f in value["fields"]]
        text += f"\n### {value['name']}\n\n{_plain(value['description'])}\n\n"
        text += _table(("field", "kind", "always", "meaning"), rows)
    return text


def metrics_page() -> str:
    """What each process counts, read from collectors that have counted nothing yet."""
    text = """# Metrics

What `/metrics` of each process tells Prometheus. [Watching and steering](../monitoring.md#metrics) says which port that is.
No label holds a job, a task or an image. Counters end in `_total`, histograms have `_bucket`, `_sum` and `_count`.
"""
    counted = {title: set(_metrics(registry)) for title, registry in _registries()}
    counted = {"Every process": set.intersection(*counted.values())} | counted
    for title, rows in counted.items():
        own = rows if title == "Every process" else rows - counted["Every process"]
        text += f"\n## {title}\n\n{_table(('metric', 'meaning', 'kind', 'labels'), sorted(own))}"
    return text


def _registries() -> Iterator[tuple[str, CollectorRegistry]]:
    """Yield each process with what it shows, made without a cloud: its queues count as empty."""
    from irs.drops.bridge import Done
    from irs.drops.metrics import DropsMetrics
    from irs.monitoring.janitor_metrics import JanitorMetrics
    from irs.monitoring.metrics import registry_of
    from irs.worker.counts import Counts, TaskCounts
    from irs.worker.metrics import Monitoring, WorkerMetrics
    from scaler.metrics import Metrics as ScalerMetrics
    from webui.metrics import Metrics as PageMetrics

    facts = SimpleNamespace(name="", digest="")
    engine: Any = SimpleNamespace(counts=Counts(), batches_by_size={}, model=facts, busy_slots=0)
    worker = WorkerMetrics(hostname="", queue="", slots=0, tasks=TaskCounts(), engine=lambda: engine, is_ready=lambda: False)
    yield "Worker", registry_of(worker, Monitoring())
    yield "Scaler", ScalerMetrics("", "").registry
    cloud: Any = SimpleNamespace(settings=read_settings())
    janitor: Any = SimpleNamespace(queues={}, reaped={})
    bridge: Any = SimpleNamespace(done=Done())
    # Registries ask their collectors what they show when they are made, and again when they are read.
    with (
        patch("irs.monitoring.janitor_metrics.count_queue", _empty_queue),
        patch("irs.drops.metrics.count_queue", _empty_queue),
    ):
        yield "Janitor", registry_of(JanitorMetrics(cloud, janitor))
        yield "Drop box", registry_of(DropsMetrics(cloud, bridge))
    yield "Page", PageMetrics().registry


def _empty_queue(_: object, name: str) -> QueueCounts:
    return QueueCounts(**({field.name: 0 for field in dataclasses.fields(QueueCounts)} | {"queue": name}))  # type: ignore[arg-type]


def _metrics(registry: CollectorRegistry) -> Iterator[tuple[str, ...]]:
    for collector in registry._collector_to_names:
        for metric in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(metric, "_labelnames", ())
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            yield f"`{name}`", _plain(metric.documentation), metric.type, _code(labels)


def errors_page() -> str:
    """Every code: those of records and of programs from ``irs.errors``, those of the API from ``webui.problems``."""
    tree = re.search(r"::\n\n(.*?)\n\n(?=\S)", errors.__doc__ or "", re.DOTALL)
    assert tree
    classes = [one for one in _below(IrsError) if "code" in vars(one) and one.__module__ == errors.__name__]
    rows = [(f"`{one.code}`", f"`{one.__name__}`", _plain((inspect.getdoc(one) or "").partition("\n")[0])) for one in classes]
    problems = [(f"`{code}`", str(one.status), one.title, _plain(one.advice)) for code, one in CODES.items()]
    return f"""# Errors

Codes are for programs and do not change; the sentence beside them is for people, and says what to do.

## Codes of records and of Python

`error.code` of a failed [record](records.md), and the classes of `irs.errors`. What is below `RequestError` is the image's or the
caller's fault and final. What is below `PassingError` is tried again by itself, and never recorded. One code has no
class: `poisoned` is recorded by the janitor for an image whose workers died at each attempt.

{_table(("code", "class", "when"), rows)}
```text
{inspect.cleandoc(tree[1])}
```

## Codes of the API

`code` of an `application/problem+json`. A running page explains each at `/errors/CODE`.

{_table(("code", "status", "title", "what to do"), problems)}
## Exit codes of commands

| code | when |
| --- | --- |
| 0 | all answered |
| 1 | some failed, or a fault of ours |
| 2 | wrong use: the command, a setting, a model |
| 3 | the service cannot be reached, or its buckets and queues are not there |
| 130 | interrupted by Ctrl-C |
"""


def _below(of: type[IrsError]) -> Iterator[type[IrsError]]:
    for one in of.__subclasses__():
        yield one
        yield from _below(one)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _plain(text: str) -> str:
    """Docstrings and help as Markdown: roles and double backticks become code, angle brackets stay themselves."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    return re.sub(r"<(?=\w)", "&lt;", text)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
