"""`irs up` at rest: no worker, a hundred photos, workers, answers, no worker; watched by `irs status --watch`.

Run with ``-s`` it also prints the cold start by stage, the table of docs/scaler.md.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from leftovers import processes_of
from PIL import Image
from waiting import eventually

from irs.cloud import Cloud
from irs.records import Beat, beat_key
from irs.settings import read_settings

IRS = [sys.executable, "-m", "irs.cli"]
MODEL = "shufflenet_v2_x0_5@random"
PHOTOS = 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}


@contextmanager
def running(arguments: list[str], output: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose words go to a file; it is told to end, and waited for."""
    with output.open("wb") as words:
        process = subprocess.Popen(
            [*IRS, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def looks(output: Path) -> list[dict[str, Any]]:
    """What `irs status --watch --json` has shown so far."""
    lines = output.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def logged(log: Path, event: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [one for one in told if one.get("event") == event]


def seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def test_a_hundred_photos_bring_workers_up_out_of_none_and_the_fleet_is_back_at_none(
    clean: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, home, said, watched = (tmp_path / name for name in ("photos", "home", "up.txt", "watched.txt"))
    photos.mkdir()
    for number in range(PHOTOS):
        Image.new("RGB", (320, 240), (number * 2, 100, 255 - number * 2)).save(photos / f"{number:03}.jpg")
    environment = {**clean, "IRS_HOME": str(home)}
    with (
        running(["up", "--model", MODEL], said, environment),
        running_after(said, "is up", ["status", "--watch", "--json"], watched, environment),
    ):
        eventually(lambda: looks(watched), within_s=30)
        at_rest = looks(watched)[0]
        recognised = subprocess.run(
            [*IRS, "recognize", "--json", str(photos)], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        records = [json.loads(line) for line in recognised.stdout.splitlines()]
        during = looks(watched)
        beats = [told["beat"] for look in during for told in look["workers"]]
        eventually(lambda: not looks(watched)[-1]["workers"] and "has ended" in said.read_text(), within_s=180)
        at_the_end = looks(watched)[-1]

        ids = {one["worker"].removeprefix("irs@") for one in records}
        for name, member in (("AWS_ACCESS_KEY_ID", "access_key_id"), ("AWS_SECRET_ACCESS_KEY", "secret_access_key")):
            monkeypatch.setenv(name, json.loads((home / "endpoint.json").read_text())[member])
        print_cold_start(home, sorted(ids), records)
        assert [] == [pid for id in ids for pid in processes_of(id)]

    assert (0, PHOTOS) == (recognised.returncode, len(records)), recognised.stderr + said.read_text()
    assert {"ok"} == {one["status"] for one in records}
    assert ([], 0) == (at_rest["workers"], at_rest["queues"][0]["visible"])
    assert ids >= {beat["instance"] for beat in beats} != set()
    assert all(id.startswith("i-") for id in ids)
    assert "scaler Launch 1" in said.read_text()
    assert any(look["scaler"]["numbers"]["need"] >= 1 for look in during if look["scaler"])
    assert ([], 0, 0) == (at_the_end["workers"], at_the_end["queues"][0]["visible"], at_the_end["queues"][0]["in_flight"])
    assert "no worker runs" in at_the_end["scaler"]["reason"]


@contextmanager
def running_after(
    said: Path, word: str, arguments: list[str], output: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """As :func:`running`, once another command has said a word."""
    eventually(lambda: said.exists() and re.search(word, said.read_text()), within_s=60)
    with running(arguments, output, environment) as process:
        yield process


def print_cold_start(home: Path, ids: list[str], records: list[dict[str, Any]]) -> None:
    """Print how long each step from the first image to its answer took."""
    (scaler,) = (home / "logs").glob("scaler-*.log")
    address = f"http://127.0.0.1:{json.loads((home / 'endpoint.json').read_text())['port']}"
    cloud = Cloud(read_settings(endpoint_url=address, home=home))
    (beat,) = [Beat.from_json(cloud.output.get(beat_key(id))) for id in ids[:1]]
    first = min(records, key=done_at)
    log = (home / "instances" / f"{ids[0]}.log").read_text()
    loaded = re.search(r"^(\S+) INFO irs\.worker\.load loaded .*open_s=(\S+) warm_s=(\S+)", log, re.MULTILINE)
    assert loaded, log
    loaded_at, open_s, warm_s = seconds(loaded[1]), float(loaded[2]), float(loaded[3])
    ready_at = beat.started + (beat.ready_after_s or 0.0)
    sent_at = min(one["timing"]["submitted"] for one in records)
    launched_at = seconds(logged(scaler, "launched")[0]["at"])
    stages = {
        "image sent to launch decided": launched_at - sent_at,
        "instance, Python, Celery, torch": loaded_at - warm_s - open_s - launched_at,
        "opening the model": open_s,
        "warming it": warm_s,
        "first poll of the queue": ready_at - loaded_at,
        "ready to first record": done_at(first) - ready_at,
        "all": done_at(first) - sent_at,
    }
    print("".join(f"\n| {stage} | {took_s:.2f} |" for stage, took_s in stages.items()))  # noqa: T201


def done_at(record: dict[str, Any]) -> float:
    timing = record["timing"]
    parts = ("submitted", "queued", "fetch", "decode", "batch", "model", "store")
    return sum(timing[part] or 0.0 for part in parts)
