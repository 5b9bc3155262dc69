"""Real photos and hostile files through the whole service, with the models that real people would use."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually
from workers import IRS, Workers, picture, workers_on_a_stack

from irs.local import EmbeddedCloud
from irs.records import Record

MODELS = ("mobilenet_v2-imagenet", "squeezenet1_0-imagenet")


@pytest.fixture(scope="module")
def workers(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Workers]:
    """One worker for all tests that need no ``irs up``."""
    folder = tmp_path_factory.mktemp("photos")
    with workers_on_a_stack(embedded, folder, model=str(shared / "weights" / MODELS[0])) as made:
        made.start()
        yield made


@pytest.fixture
def odd(shared: Path, tmp_path: Path) -> dict[str, tuple[str, bytes]]:
    """Name to what is expected (``ok``, ``warn``, ``reject``) and the bytes."""
    spec: Any = importlib.util.spec_from_file_location("make_odd_images", shared / "make_odd_images.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    folder = tmp_path / "odd"
    maker.main([str(folder)])
    rows = csv.DictReader((folder / "manifest.csv").read_text().splitlines())
    return {row["file"]: (row["expect"], (folder / row["file"]).read_bytes()) for row in rows}


@pytest.mark.parametrize(
    ("model", "first", "within_five"), [(MODELS[0], 79, 94), pytest.param(MODELS[1], 61, 79, marks=pytest.mark.slow)]
)
def test_a_hundred_photos_are_recognised_by_one_command(
    shared: Path, tmp_path: Path, model: str, first: int, within_five: int
) -> None:
    photos = shared / "photos"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}

    ran = subprocess.run(
        [IRS, "up", "--model", str(shared / "weights" / model), "--", IRS, "recognize", "--json", str(photos)],
        env=clean | {"IRS_HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    found = [Record.from_json(line) for line in ran.stdout.splitlines()]
    right = {row["file"]: row["wnid"] for row in csv.DictReader((photos / "labels.csv").read_text().splitlines())}
    assert sorted(right) == sorted(record.image.name or "" for record in found)
    assert {("ok", 1, 5)} == {(record.status, record.receives, len(record.labels)) for record in found}
    answered = {record.image.name or "": [label.wnid for label in record.labels] for record in found}
    assert first <= sum(answered[name][0] == wnid for name, wnid in right.items())
    assert within_five <= sum(wnid in answered[name] for name, wnid in right.items())


def test_odd_and_hostile_files_are_each_answered_within_a_gigabyte(workers: Workers, odd: dict[str, tuple[str, bytes]]) -> None:
    running = workers.started[0]

    found = workers.answered(workers.sent(*[body for _, body in odd.values()], names=tuple(odd)), within_s=60)

    wrong = {
        record.image.name: (expect, record.status, record.error)
        for record, (expect, _) in zip(found, odd.values(), strict=True)
        if not is_as_expected(record, expect)
    }
    assert {} == wrong
    assert 53 == len(found)
    assert {1} == {record.receives for record in found}
    eventually(workers.is_empty)
    assert running.process.poll() is None
    assert running.peak_bytes() < 1e9


def is_as_expected(record: Record, expect: str) -> bool:
    if record.status == "ok":
        return expect in ("ok", "warn") and 5 == len(record.labels)
    code = record.error.code if record.error else None
    return (expect == "warn" and code == "damaged") or (expect == "reject" and code not in (None, "internal"))


def test_a_file_of_the_most_bytes_is_answered_and_of_one_more_refused(workers: Workers) -> None:
    limit = workers.cloud.settings.max_bytes
    whole = picture(1)
    # Readers of JPEG stop at its end.
    bodies = [whole + bytes(size - len(whole)) for size in (limit, limit + 1)]

    found = workers.answer(*bodies)

    assert ["ok", "failed"] == [record.status for record in found]
    assert [limit, limit + 1] == [record.image.bytes for record in found]
    assert found[1].error is not None
    assert "too_large" == found[1].error.code


def test_a_photo_is_answered_alike_by_the_command_line_and_in_a_python_program(workers: Workers, shared: Path) -> None:
    photo = shared / "photos" / "n02056570_king_penguin.JPEG"

    printed = subprocess.run(
        [IRS, "recognize", "--json", str(photo)],
        env=workers.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    by_command = json.loads(printed)
    by_python = workers.ran("import json, sys, irs; print(json.dumps(irs.recognize(sys.argv[1]).to_json()))", str(photo))

    assert "king penguin" == by_command["labels"][0]["label"]
    assert [one["label"] for one in by_command["labels"]] == [one["label"] for one in by_python["labels"]]
    assert by_command["image"]["sha256"] == by_python["image"]["sha256"]
