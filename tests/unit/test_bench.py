"""The benchmark of the service: its rows, its verdicts, and what it says where something cannot be measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from irs.errors import BadOptions, MissingExtra, SetupError
from irs.local.bench import asides, bars, litserve_run, usage
from irs.local.bench.bars import Bar
from irs.local.bench.full import by_cpu_row, full_rows
from irs.local.bench.report import to_json, to_lines
from irs.local.bench.stage import Stage, jpegs

BARS = [bar for bar in vars(bars).values() if isinstance(bar, Bar)]
ASIDE_NUMBERS = [2, 3, 3, 6, 14, 14, 16, 17]


def pair(worker_cpu_ms: float = 20.0, bare_cpu_ms: float = 19.0, precision: str = "bf16") -> dict[str, Any]:
    bare = {"cpu_ms": bare_cpu_ms, "images_per_s": 100.0, "precision": precision}
    return {
        "bare_before": bare,
        "bare_after": {**bare, "cpu_ms": bare_cpu_ms + 2},
        "service": {"worker_cpu_ms": worker_cpu_ms, "images_per_s": 90.0},
        "requests": {
            "GET object": 100,
            "PUT object": 101,
            "ReceiveMessage": 15,
            "DeleteMessageBatch": 10,
            "SendMessageBatch": 99,
        },
        "peak_rss_mb": 500.0,
        "cold_start_s": 3.0,
        "worked": {"mean_batch": 7.75},
    }


def raw(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": 100,
        "pairs": pairs,
        "idle_s": [0.04] * 95 + [0.08] * 5,
        "poisoned": {"alone_s": 9.0, "together_s": 10.0},
        "plain": {"images_per_s": 30.0},
    }


def stage(tmp_path: Path, said: list[str] | None = None) -> Stage:
    """A stage whose cloud is never asked."""
    photo = tmp_path / "a.jpg"
    Image.new("RGB", (80, 60), "teal").save(photo)
    say = (said if said is not None else []).append
    return Stage(cloud=None, embedded=None, photos=[photo], keys=["a"], images=100, logs=tmp_path, say=say)  # type: ignore[arg-type]


def test_the_bars_are_those_of_the_design_row_by_row() -> None:
    # The 17th is the bundled model's, beside that table.
    assert set(range(1, 18)) == {bar.number for bar in BARS}
    assert [] == [bar.name for bar in BARS if (bar.reach < bar.floor) != (bar.better == "lower")]


@given(st.sampled_from(BARS), st.floats(0, 1000))
def test_a_verdict_follows_from_value_reach_and_floor(bar: Bar, value: float) -> None:
    is_better = (lambda one, other: one >= other) if bar.better == "higher" else (lambda one, other: one <= other)

    expected = (
        "reached" if is_better(value, bar.reach) else "above the floor" if is_better(value, bar.floor) else "below the floor"
    )

    assert expected == bar.row(value).verdict


def test_the_main_models_rows_are_computed_from_its_pairs() -> None:
    rows = {row.name: row for row in full_rows("resnet18@random", raw([pair(20, 19), pair(25, 20), pair(40, 20)]))}

    assert {1, 4, 5, 7, 8, 9, 10, 11, 12, 13, 15} == {row.number for row in rows.values()}
    assert 21 / 25 == rows["service / bare loop, worker CPU"].value
    assert 4.0 == rows["overhead above decode and model"].value
    assert 0.9 == rows["service / bare loop, wall"].value
    assert 3.0 == rows["service / plain Celery, wall"].value
    assert 2.01 == rows["S3 requests an image"].value
    assert 0.25 == rows["SQS requests an image"].value
    assert (40.0, 80.0) == (rows["idle latency p50"].value, rows["idle latency p95"].value)


@pytest.mark.parametrize(
    ("model", "precision", "number", "floor"),
    [
        ("resnet18@random", "bf16", 1, 0.90),
        ("resnet18@random", "fp32", 2, 0.92),
        ("mobilenet_v2@random", "bf16", 3, 0.75),
        ("mobilenet_v3_small@random", "bf16", 3, 0.70),
    ],
)
def test_a_quicker_model_is_held_to_a_lower_ratio(model: str, precision: str, number: int, floor: float) -> None:
    row = by_cpu_row(model, [pair(precision=precision)], of=model)

    assert (number, floor) == (row.number, row.floor)
    assert model in row.name


def test_what_cannot_be_measured_says_why_and_stops_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise SetupError("no worker today")

    monkeypatch.setattr(asides, "measure_pairs", refuse)
    monkeypatch.setattr(asides, "run_program", refuse)
    monkeypatch.setattr(asides, "run_litserve", refuse)
    monkeypatch.setattr(asides, "images_per_s", refuse)

    rows = [
        row for aside in asides.measure_asides(stage(tmp_path), "resnet18@random", [pair()], labelled="x") for row in aside.rows
    ]

    assert ASIDE_NUMBERS == [row.number for row in rows]
    assert {"not measured"} == {row.verdict for row in rows}
    assert {"not measured: no worker today"} == {line[2] for line in to_lines(rows)[1:]}


def test_every_row_of_the_design_is_made_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took = litserve_run.LitServe(images=100, images_per_s=40.0, cpu_ms=25.0, peak_rss_mb=900.0)
    monkeypatch.setattr(asides, "measure_plain", lambda *_: {"images_per_s": 15.0})
    monkeypatch.setattr(asides, "run_program", lambda *_: {"model": "m", "precision": "bf16", "equal": 0.99, "far": 0.1})
    monkeypatch.setattr(asides, "run_litserve", lambda *_: took)

    main = full_rows("resnet18@random", raw([pair()]))
    monkeypatch.setattr(asides, "measure_pairs", lambda *_, precision="auto", **__: [pair(precision=precision)])
    monkeypatch.setattr(asides, "images_per_s", lambda _, model, __: {"resnet18@random": 80.0, "imagenet200": 244.0}[model])
    beside = list(asides.measure_asides(stage(tmp_path), "resnet18@random", [pair()], labelled="m"))
    rows = [*main, *(row for aside in beside for row in aside.rows)]

    assert list(range(1, 18)) == sorted({row.number for row in rows})
    assert ASIDE_NUMBERS == [row.number for aside in beside for row in aside.rows]
    assert 0.8 == next(row.value for row in rows if row.number == 16)
    assert 6.0 == next(row.value for row in rows if row.number == 6)
    assert 3.05 == next(row.value for row in rows if row.number == 17)
    assert json.loads(json.dumps(to_json(rows, {})))["rows"][0]["verdict"]


def test_the_bundled_model_is_measured_against_resnet18_alone(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="the main model is m, not resnet18"):
        asides._bundled(stage(tmp_path), "m")


def test_labels_are_not_measured_without_a_model_that_has_real_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asides, "find_bundled", lambda _: None)

    with pytest.raises(SetupError, match="imagenet200 does not come with this install; name a model"):
        asides._labels(stage(tmp_path), None)


def test_litserve_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litserve_run, "find_spec", lambda _: None)

    with pytest.raises(MissingExtra, match=r"install irs\[bench\]"):
        litserve_run.run_litserve({}, "m", "fp32", [], 1, tmp_path / "log")


def test_a_folder_without_photos_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")

    with pytest.raises(BadOptions, match=r"holds no \.jpg file"):
        jpegs(tmp_path)


def test_the_cpu_of_children_counts_as_their_parents() -> None:
    program = """if True:
        import os, time
        if not os.fork():
            while time.process_time() < 0.3: pass
            print(flush=True)
            time.sleep(60)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as ran:
        assert ran.stdout is not None
        ran.stdout.readline()

        used_ms, peak_mb = usage.cpu_ms(ran.pid), usage.peak_rss_mb(ran.pid)
        os.killpg(ran.pid, 9)

    assert used_ms >= 290
    assert peak_mb > 5


@pytest.mark.slow
def test_a_start_is_measured_by_stages_that_add_up_to_the_whole(tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "a.jpg")
    figures = tmp_path / "start.json"

    options = ["--model", "shufflenet_v2_x0_5@random", "--repeats", "2", "--json", str(figures)]

    ran = subprocess.run(
        [sys.executable, "-m", "irs.cli", "bench", "start", str(tmp_path), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    starts = json.loads(figures.read_text())["starts"]
    assert 2 == len(starts)
    for one in starts:
        total = one.pop("total")
        assert abs(total - sum(one.values())) < 0.2
        assert all(seconds >= -0.05 for seconds in one.values()), one
