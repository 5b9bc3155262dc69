"""Shared models on the embedded cloud: pushed in a shell, served by workers, rolled under a running `irs up`."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shapes import COLOURS, make_shapes
from waiting import eventually
from workers import IRS, Workers, picture

from irs.client import Client
from irs.cloud import Cloud
from irs.errors import ModelError
from irs.local import start_embedded_cloud, up
from irs.models import choice, open_model
from irs.models.architectures import build
from irs.models.registry import Registry
from irs.models.rolls import find_current, roll
from irs.provision import provision
from irs.records import Record
from irs.settings import read_settings

LABELS = ("ash", "beech", "cedar", "elm", "fir")
OTHERS = ("hazel", "juniper", "larch", "maple", "oak")


def write(directory: Path, *, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Path:
    """Write a model of five labels with random weights; another seed, another digest."""
    torch.manual_seed(seed)
    directory.mkdir(parents=True)
    save_file(build("mobilenet_v3_small", len(LABELS)).state_dict(), directory / "weights.safetensors")
    (directory / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    described = {
        "name": "trees",
        "architecture": "mobilenet_v3_small",
        "preprocess": {"resize": 72, "crop": 64, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3},
        "sha256": hashlib.sha256((directory / "weights.safetensors").read_bytes()).hexdigest(),
    }
    (directory / "model.json").write_text(json.dumps(described))
    return directory


@pytest.fixture
def workers(cloud: Cloud, stack_environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with Workers(cloud, stack_environment, tmp_path, model="named by each test") as made:
        yield made


Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def irs(stack_environment: dict[str, str]) -> Shell:
    """Run the command to its end; text of both streams."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [IRS, *map(str, arguments)],
            env=stack_environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


def test_a_pushed_model_is_served_by_its_address_and_the_record_carries_its_digest(
    workers: Workers, irs: Shell, tmp_path: Path
) -> None:
    model = write(tmp_path / "trees")
    digest = open_model(str(model)).digest

    pushed = irs("models", "push", model)
    address = pushed.stdout.strip()
    running = workers.start(IRS_MODEL=address)
    (record,) = workers.answer(picture(1))

    assert 0 == pushed.returncode, pushed.stderr
    assert f"s3://{workers.cloud.settings.models_bucket}/trees/{digest.removeprefix('sha256:')}" == address
    assert record.model is not None
    assert ("trees", digest) == (record.model.name, record.model.digest)
    assert set(LABELS) == {label.label for label in record.labels}
    assert f"digest={digest}" in running.said


def test_a_last_layer_trained_on_ten_photos_a_kind_is_pushed_and_served(workers: Workers, irs: Shell, tmp_path: Path) -> None:
    kinds = make_shapes(tmp_path / "squares", each=10, side_px=64)
    unseen = make_shapes(tmp_path / "unseen", each=1, side_px=64, seed=5)

    trained = irs("train", kinds, "--out", tmp_path / "colours", "--from", "mobilenet_v3_small@random")
    pushed = irs("models", "push", tmp_path / "colours")
    workers.start(IRS_MODEL=pushed.stdout.strip())
    found = workers.answer(*((unseen / colour / "000.png").read_bytes() for colour in COLOURS))

    assert 0 == trained.returncode, trained.stderr
    assert 0 == pushed.returncode, pushed.stderr
    assert {"colours"} == {record.model.name for record in found if record.model}
    assert list(COLOURS) == [record.labels[0].label for record in found]


def test_a_changed_object_is_refused_by_a_fresh_worker_with_2_and_one_sentence_and_served_from_the_cache(
    workers: Workers, irs: Shell, tmp_path: Path
) -> None:
    registry = Registry(workers.cloud)
    reference, _ = registry.push(write(tmp_path / "trees"))
    workers.start(IRS_MODEL=str(reference))
    key = f"{reference.key}/weights.safetensors"
    bucket = workers.cloud.bucket(reference.bucket)
    body = bucket.get(key)
    bucket.put(key, body[:-1] + bytes([body[-1] ^ 1]), content_type="application/octet-stream")

    fresh = irs("worker", IRS_MODEL=str(reference), IRS_HOME=str(tmp_path / "fresh"))

    assert 2 == fresh.returncode, fresh.stderr
    (said,) = [line for line in fresh.stderr.splitlines() if " CRITICAL " in line]
    assert f"{reference}/weights.safetensors is not what was pushed (sha256 differs): push the model again" in said
    assert "Traceback" not in fresh.stderr
    # One that has it whole needs the bucket no more.
    workers.start(IRS_MODEL=str(reference), IRS_INSTANCE_ID="again")


@pytest.mark.slow
def test_old_and_new_serve_side_by_side_after_a_roll_and_no_record_mixes_them(
    workers: Workers, irs: Shell, tmp_path: Path
) -> None:
    models = [write(tmp_path / "old", labels=LABELS, seed=1), write(tmp_path / "new", labels=OTHERS, seed=2)]
    addresses = [str(Registry(workers.cloud).push(model)[0]) for model in models]
    name = addresses[0].rpartition("/")[0]
    irs("models", "roll", addresses[0])
    old = workers.start(IRS_MODEL=name, IRS_SLOTS="2")
    rolled = irs("models", "roll", "trees")
    new = workers.start(IRS_MODEL=name, IRS_SLOTS="2")
    records: list[Record] = []

    def have_both_answered() -> bool:
        records.extend(workers.answer(*[picture(len(records) + number) for number in range(12)]))
        return {f"irs@{old.instance}", f"irs@{new.instance}"} == {record.worker for record in records}

    eventually(have_both_answered, within_s=60)

    assert addresses[1] == rolled.stdout.strip()
    digests = [f"sha256:{address.rpartition('/')[2]}" for address in addresses]
    expected = {(f"irs@{old.instance}", digests[0], LABELS), (f"irs@{new.instance}", digests[1], OTHERS)}
    assert expected == {
        (one.worker, one.model.digest, tuple(sorted(label.label for label in one.labels))) for one in records if one.model
    }


@pytest.mark.slow
def test_a_roll_back_leads_the_next_worker_to_the_model_before(workers: Workers, irs: Shell, tmp_path: Path) -> None:
    addresses = [str(Registry(workers.cloud).push(write(tmp_path / f"{seed}", seed=seed))[0]) for seed in (1, 2)]
    for address in addresses:
        irs("models", "roll", address)

    back = irs("models", "roll", "trees", "--back")
    once_more = irs("models", "roll", "trees", "--back")
    workers.start(IRS_MODEL=addresses[0].rpartition("/")[0])
    (record,) = workers.answer(picture(1))

    assert (0, addresses[0]) == (back.returncode, back.stdout.strip())
    assert (2, "") == (once_more.returncode, once_more.stdout)
    assert "knows no model before this one" in once_more.stderr
    assert record.model is not None
    assert addresses[0].endswith(record.model.digest.removeprefix("sha256:"))


def test_a_pulled_model_is_the_one_that_was_pushed_and_repeats_are_told(irs: Shell, cloud: Cloud, tmp_path: Path) -> None:
    model = write(tmp_path / "trees")
    reference, _ = Registry(cloud).push(model)

    pushed = irs("models", "push", model)
    pulled = irs("models", "pull", pushed.stdout.strip(), tmp_path / "pulled")
    again = irs("models", "pull", pushed.stdout.strip(), tmp_path / "pulled")

    assert (0, f"{reference}\n") == (pushed.returncode, pushed.stdout)
    assert "it was there already, nothing was written" in pushed.stderr
    assert (0, f"{tmp_path / 'pulled'}\n") == (pulled.returncode, pulled.stdout)
    assert open_model(str(model)).digest == open_model(str(tmp_path / "pulled")).digest
    assert 2 == again.returncode
    assert "is not empty: name a folder that is not there yet" in again.stderr


@pytest.mark.slow
def test_the_list_shows_the_bucket_where_a_service_is_set_and_only_notes_one_that_does_not_answer(
    irs: Shell, cloud: Cloud, tmp_path: Path
) -> None:
    reference, _ = Registry(cloud).push(write(tmp_path / "trees"))
    address = str(reference)
    irs("models", "roll", address)

    listed = irs("models", "list", "--json")
    only = irs("models", "list", "--bucket")
    missing = irs("models", "list", "--json", IRS_MODELS_BUCKET="nowhere")

    entries = [json.loads(line) for line in listed.stdout.splitlines()]
    assert [("trees", "bucket", address, 5, True)] == [
        (one["name"], one["place"], one["path"], one["classes"], one["is_current"]) for one in entries if one["place"] == "bucket"
    ]
    assert 2 == len(only.stdout.splitlines())
    assert "bucket, current" in only.stdout
    assert (0, len(entries) - 1) == (missing.returncode, len(missing.stdout.splitlines()))
    assert "irs: the models bucket is not listed: Bucket nowhere is not there" in missing.stderr


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("s3://{bucket}/trees", 2, "was not rolled to a model yet: say `irs models roll trees`"),
        ("s3://{bucket}/trees/" + 64 * "0", 2, "There is no model s3://"),
        ("s3://{bucket}", 2, "names no shared model: write s3://BUCKET/NAME"),
        ("s3://no-such-bucket/trees", 3, "Bucket no-such-bucket is not there"),
        ("auto", 2, "auto is chosen by `irs up` alone"),
    ],
)
def test_a_worker_given_an_address_of_nothing_ends_with_one_sentence(
    word: str, code: int, said: str, irs: Shell, cloud: Cloud
) -> None:
    ended = irs("worker", IRS_MODEL=word.format(bucket=cloud.settings.models_bucket))

    assert code == ended.returncode, ended.stderr
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_two_operators_who_roll_at_once_leave_one_model_and_every_roll_is_told_or_kept(cloud: Cloud, tmp_path: Path) -> None:
    registry = Registry(cloud)
    references = [registry.push(write(tmp_path / f"{seed}", seed=seed))[0] for seed in range(4)]
    start = threading.Barrier(len(references))
    refused: list[tuple[str, str]] = []

    def operate(number: int) -> None:
        start.wait(10)
        try:
            roll(registry, references[number])
        except ModelError as error:
            refused.append((references[number].digest, str(error)))

    threads = [threading.Thread(target=operate, args=(number,)) for number in range(len(references))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    current = find_current(registry, "trees")
    assert current is not None
    kept = [one.digest for one in current.history]
    assert sorted(reference.digest for reference in references) == sorted(kept + [digest for digest, _ in refused])
    assert all("was rolled by somebody else" in sentence for _, sentence in refused)
    assert current.digest == kept[-1]


@pytest.fixture
def running_up(tmp_path: Path) -> Iterator[tuple[Cloud, Path]]:
    """`irs up` with two workers on the name `trees`, which was rolled to seed 1; and the file of what it says."""
    home = tmp_path / "home"
    with pytest.MonkeyPatch.context() as patch, start_embedded_cloud(home, die_with_thread=False) as embedded:
        for name, value in {**embedded.environment, "IRS_HOME": str(home)}.items():
            patch.setenv(name, value)
        cloud = Cloud(read_settings())
        provision(cloud)
        registry = Registry(cloud)
        roll(registry, registry.push(write(tmp_path / "1", seed=1))[0])
        log = tmp_path / "up.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "irs.cli", "up", "--workers", "2", "--model", f"s3://{registry.bucket}/trees"],
                env={**os.environ, "IRS_ENDPOINT_URL": embedded.endpoint},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: "is up" in log.read_text() or process.poll() is not None, within_s=90, every_s=0.1)
            assert process.poll() is None, log.read_text()
            yield cloud, log
            process.send_signal(signal.SIGINT)
            assert 130 == process.wait(40), log.read_text()
        finally:
            process.kill()
            process.wait()
            sys.stdout.write(log.read_text())


def test_workers_of_a_running_up_follow_a_roll_one_by_one_and_lose_no_image(
    running_up: tuple[Cloud, Path], tmp_path: Path
) -> None:
    cloud, log = running_up
    registry = Registry(cloud)
    reference, _ = registry.push(write(tmp_path / "2", seed=2))
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(20):
        (photos / f"{seed}.jpg").write_bytes(picture(seed))
    client = Client(cloud.settings)
    before = list(client.recognize([str(photos)]).in_order())

    roll(registry, reference)
    # Handed in while workers are replaced.
    meanwhile = [client.recognize([str(photos)]) for _ in range(3)]
    eventually(lambda: 4 == log.read_text().count("ready after"), within_s=90, every_s=0.1)
    after = list(client.recognize([str(photos)]).in_order())

    answered = [record for job in meanwhile for record in job.in_order()]
    assert (20, 60, 20) == (len(before), len(answered), len(after))
    assert {"ok"} == {record.status for record in before + answered + after}
    assert {f"sha256:{reference.digest}"} == {record.model.digest for record in after if record.model}
    assert {f"sha256:{reference.digest}"}.isdisjoint({record.model.digest for record in before if record.model})
    lines = [line for line in log.read_text().splitlines() if line.startswith("worker")]
    # The second drains only once the first is back.
    assert ["ready", "ready", "ended", "ready", "ended", "ready"] == [line.split()[2] for line in lines]


@pytest.mark.slow
def test_workers_of_a_running_up_stay_with_their_model_where_the_new_one_is_broken(
    running_up: tuple[Cloud, Path], tmp_path: Path
) -> None:
    cloud, log = running_up
    registry = Registry(cloud)
    reference, _ = registry.push(write(tmp_path / "2", seed=2))
    cloud.bucket(reference.bucket).delete(f"{reference.key}/labels.txt")

    roll(registry, reference)
    eventually(lambda: "stays as it is" in log.read_text(), within_s=60, every_s=0.1)

    assert "labels.txt is not what was pushed (it is missing)" in log.read_text()
    assert 2 == sum(line.startswith("worker") for line in log.read_text().splitlines())


def test_up_says_which_model_auto_is_and_why_and_its_command_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choice, "BUNDLED_FOLDER", tmp_path / "bundled")
    write(tmp_path / "bundled" / "imagenet200")
    environment = {"IRS_MODEL": "auto", "IRS_HOME": str(tmp_path / "home"), "TORCH_HOME": str(tmp_path / "torch")}
    # No network: its proxy is a closed port.
    for name, value in {**environment, "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []

    code = up.up(workers=0, command=["sh", "-c", "echo $IRS_MODEL"], say=said.append)

    assert (0, "imagenet200\n") == (code, capfd.readouterr().out)
    assert ["model  looks for torchvision's resnet18, 20 s at most"] == said[:1]
    assert said[1].startswith("model  imagenet200: it comes with irs, and torchvision's resnet18 cannot be had (")


def test_up_starts_nothing_where_auto_finds_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "BUNDLED_FOLDER", tmp_path / "none")
    environment = {"IRS_MODEL": "auto", "IRS_HOME": str(tmp_path / "home"), "TORCH_HOME": str(tmp_path / "torch")}
    for name, value in {**environment, "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(ModelError, match=r"No model can be chosen: .* name a model directory by --model"):
        up.up(workers=1, command=(), say=lambda _: None)

    assert not (tmp_path / "home" / "endpoint.json").exists()
