"""Models in a bucket, on moto in this process: pushed once, checked when fetched, rolled without losing a roll."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from workers import write_model

from irs.cloud import Cloud
from irs.errors import MissingResource, ModelError
from irs.models import open_model
from irs.models.catalog import list_models, list_shared
from irs.models.manifest import MANIFEST, Manifest
from irs.models.reference import Reference, is_name
from irs.models.registry import Registry
from irs.models.rolls import POINTER, Pointer, Roll, find_current, resolve, roll, roll_back
from irs.models.shared import cache_folder, get_shared, pull
from irs.models.speeds import Speed, read_speeds, write_speed
from irs.settings import read_settings

BUCKET = "s-models"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def made(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of the model whose description is changed: another digest each time."""

    def make(folder: str = "tiny", **description: Any) -> Path:
        directory = shutil.copytree(tiny, tmp_path / "made" / folder)
        described = json.loads((directory / "model.json").read_text())
        (directory / "model.json").write_text(json.dumps(described | description))
        return directory

    return make


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        made = Cloud(read_settings(stack="s", home=tmp_path / "home"))
        made.client("s3").create_bucket(Bucket=BUCKET)
        yield made


@pytest.fixture
def registry(cloud: Cloud) -> Registry:
    return Registry(cloud)


@pytest.fixture
def s3(cloud: Cloud) -> Any:
    return cloud.client("s3")


def keys(s3: Any) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


def change(s3: Any, key: str, *, to: bytes | None = None) -> None:
    """Turn one byte of an object, so that its length stays; or store ``to``."""
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.put_object(Bucket=BUCKET, Key=key, Body=to if to is not None else body[:-1] + bytes([body[-1] ^ 1]))


def test_a_pushed_model_lies_under_its_name_and_digest_and_comes_back_the_same(
    registry: Registry, s3: Any, tiny: Path, tmp_path: Path
) -> None:
    digest = open_model(str(tiny)).digest.removeprefix("sha256:")

    reference, written = registry.push(tiny)
    pull(registry, reference, tmp_path / "back")

    assert f"s3://{BUCKET}/tiny/{digest}" == str(reference)
    assert sorted(written) == [key.removeprefix(f"tiny/{digest}/") for key in keys(s3)]
    assert {path.name: path.read_bytes() for path in tiny.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "back").iterdir()
    }
    assert f"sha256:{digest}" == open_model(str(tmp_path / "back")).digest


def test_a_push_takes_the_card_and_its_charts_and_leaves_out_what_is_no_part_of_a_model(
    registry: Registry, s3: Any, made: Callable[..., Path]
) -> None:
    directory = made()
    for name in ("README.md", "charts/confusion.png", "checkpoint.pt", ".hidden.json", "charts/.secret/key.txt"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"x")

    reference, _ = registry.push(directory)

    names = {key.removeprefix(f"{reference.key}/") for key in keys(s3)}
    assert {"README.md", "charts/confusion.png"} | {path.name for path in directory.glob("[!.c]*.[jtsw]*")} | {MANIFEST} == names


def test_a_push_repeated_writes_nothing(registry: Registry, tiny: Path) -> None:
    first, _ = registry.push(tiny)

    assert (first, []) == registry.push(tiny)


def test_a_push_repeated_mends_what_was_broken_and_only_that(registry: Registry, s3: Any, tiny: Path, tmp_path: Path) -> None:
    reference, _ = registry.push(tiny)
    change(s3, f"{reference.key}/weights.safetensors")
    s3.delete_object(Bucket=BUCKET, Key=f"{reference.key}/labels.txt")

    assert (reference, ["labels.txt", "weights.safetensors"]) == registry.push(tiny)
    pull(registry, reference, tmp_path / "back")


def test_a_push_that_broke_off_has_left_no_model_and_is_completed_by_the_next(registry: Registry, s3: Any, tiny: Path) -> None:
    reference, _ = registry.push(tiny)
    # It is written last: without it the push has not ended.
    s3.delete_object(Bucket=BUCKET, Key=f"{reference.key}/{MANIFEST}")

    assert [] == registry.models()
    with pytest.raises(ModelError, match=f"There is no model {reference}"):
        registry.manifest(reference)
    registry.push(tiny)
    assert [reference] == [one.reference for one in registry.models()]


def test_other_labels_under_the_same_digest_are_refused(registry: Registry, made: Callable[..., Path]) -> None:
    directory = made()
    registry.push(directory)
    (directory / "labels.txt").write_text("".join(f"other {number}\n" for number in range(10)))

    with pytest.raises(ModelError, match="holds other files beside the same weights: change `name` or `source`"):
        registry.push(directory)


def test_of_two_pushes_of_other_labels_at_the_same_moment_the_second_is_refused(
    cloud: Cloud, registry: Registry, made: Callable[..., Path]
) -> None:
    ours, theirs = made("ours"), made("theirs")
    (theirs / "labels.txt").write_text("".join(f"other {number}\n" for number in range(10)))
    late = PushedMeanwhile(cloud)
    late.meanwhile = lambda: registry.push(theirs)

    with pytest.raises(ModelError, match="holds other files beside the same weights"):
        late.push(ours)


@pytest.mark.parametrize("name", ["a/b", "", "..", "mit Leerzeichen", "sha256:" + 64 * "a", "deadbeefdeadbeef"])
def test_a_name_that_cannot_be_part_of_an_address_is_refused(name: str, registry: Registry, made: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="cannot be part of an address"):
        registry.push(made(name=name))


def test_a_directory_that_no_worker_could_load_is_not_pushed(registry: Registry, s3: Any, made: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="does not fit the architecture"):
        registry.push(made(architecture="resnet18"))

    assert [] == keys(s3)


def test_a_model_that_does_not_answer_pictures_of_its_side_is_not_pushed(
    registry: Registry, s3: Any, made: Callable[..., Path]
) -> None:
    with pytest.raises(ModelError, match=r"tiny does not answer pictures of 8 px \(.*\): mend `preprocess` in its model.json"):
        registry.push(made(preprocess={"resize": 8, "crop": 8}))

    assert [] == keys(s3)


def test_a_bucket_that_is_not_there_is_told_with_what_makes_it(cloud: Cloud, tiny: Path) -> None:
    with pytest.raises(MissingResource, match="Bucket nowhere is not there: run `irs provision`"):
        Registry(cloud, "nowhere").push(tiny)


def longer(s3: Any, key: str) -> None:
    change(s3, key, to=s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() + b"\n")


def absent(s3: Any, key: str) -> None:
    s3.delete_object(Bucket=BUCKET, Key=key)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "labels.txt"])
@pytest.mark.parametrize(
    ("spoil", "said"), [(change, "sha256 differs"), (longer, r"[\d,]+ bytes instead of [\d,]+"), (absent, "it is missing")]
)
def test_a_changed_object_is_refused_and_nothing_of_it_stays(
    spoil: Callable[[Any, str], None], said: str, name: str, cloud: Cloud, registry: Registry, s3: Any, tiny: Path
) -> None:
    reference, _ = registry.push(tiny)
    spoil(s3, f"{reference.key}/{name}")

    with pytest.raises(ModelError, match=rf"/{name} is not what was pushed \({said}\): push the model again") as told:
        get_shared(cloud, str(reference))

    assert "\n" not in str(told.value)
    assert [] == [path for path in cache_folder(cloud.settings.home).rglob("*") if path.suffix not in ("", ".lock")]


def test_other_weights_with_a_manifest_to_match_are_refused_by_their_digest(
    cloud: Cloud, registry: Registry, s3: Any, made: Callable[..., Path]
) -> None:
    reference, _ = registry.push(made())
    other, _ = registry.push(made("other", source="elsewhere"))
    manifest = Manifest.read(s3.get_object(Bucket=BUCKET, Key=f"{other.key}/{MANIFEST}")["Body"].read(), other)
    forged = replace(manifest, digest=reference.digest)
    s3.put_object(Bucket=BUCKET, Key=f"{reference.key}/{MANIFEST}", Body=forged.to_bytes())
    for file in manifest.files:
        source = {"Bucket": BUCKET, "Key": f"{other.key}/{file.path}"}
        s3.copy_object(Bucket=BUCKET, Key=f"{reference.key}/{file.path}", CopySource=source)

    with pytest.raises(ModelError, match="its files have another digest"):
        get_shared(cloud, str(reference))


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"{", "is broken"), (b'{"path": "../up"}', "is broken"), (None, "is of another model")],
)
def test_a_manifest_of_something_else_is_refused(
    body: bytes | None, said: str, registry: Registry, s3: Any, made: Callable[..., Path]
) -> None:
    reference, _ = registry.push(made())
    other, _ = registry.push(made("other", name="other"))
    change(
        s3, f"{reference.key}/{MANIFEST}", to=body or s3.get_object(Bucket=BUCKET, Key=f"{other.key}/{MANIFEST}")["Body"].read()
    )

    with pytest.raises(ModelError, match=f"{MANIFEST} {said}"):
        registry.manifest(reference)


@pytest.mark.parametrize("path", [MANIFEST, "../evil", "/etc/passwd", "a/../../b", "a/b/c", ".hidden", ""])
def test_a_manifest_cannot_name_a_path_outside_the_model(path: str, registry: Registry, s3: Any, tiny: Path) -> None:
    reference, _ = registry.push(tiny)
    manifest = json.loads(s3.get_object(Bucket=BUCKET, Key=f"{reference.key}/{MANIFEST}")["Body"].read())
    manifest["files"].append({"path": path, "size_bytes": 1, "sha256": 64 * "0"})

    with pytest.raises(ModelError, match=r"is broken|is of another model"):
        Manifest.read(json.dumps(manifest).encode(), reference)


def test_a_fetched_model_is_opened_again_without_the_bucket(cloud: Cloud, registry: Registry, s3: Any, tiny: Path) -> None:
    reference, _ = registry.push(tiny)
    _, first = get_shared(cloud, str(reference))
    for key in keys(s3):
        s3.delete_object(Bucket=BUCKET, Key=key)

    _, second = get_shared(cloud, f"{reference}/")

    assert first == second
    assert f"sha256:{reference.digest}" == open_model(str(second)).digest


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "labels.txt", MANIFEST])
def test_a_broken_file_of_the_cache_is_fetched_again(
    name: str, cloud: Cloud, registry: Registry, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference, _ = registry.push(tiny)
    _, directory = get_shared(cloud, str(reference))
    (directory / name).write_bytes(b"broken")
    caplog.set_level(logging.INFO, "irs")

    get_shared(cloud, str(reference))

    assert f"sha256:{reference.digest}" == open_model(str(directory)).digest
    assert ["model_fetch"] == [one.message for one in caplog.records if one.name == "irs.models.shared"]


def test_many_that_start_at_once_fetch_a_model_once(
    cloud: Cloud, registry: Registry, tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference, _ = registry.push(tiny)
    caplog.set_level(logging.INFO, "irs")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(get_shared(cloud, str(reference))[1])) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert 4 == len(found)
    assert 1 == len(set(found))
    assert 1 == sum(one.message == "model_fetch" for one in caplog.records)


def test_what_a_killed_fetch_left_behind_is_in_nobodys_way(cloud: Cloud, registry: Registry, tiny: Path) -> None:
    reference, _ = registry.push(tiny)
    directory = cache_folder(cloud.settings.home) / BUCKET / reference.key
    part = directory.with_name(f"{reference.digest}.part")
    part.mkdir(parents=True)
    (part / "weights.safetensors").write_bytes(b"half")

    get_shared(cloud, str(reference))

    assert not part.exists()
    assert [] == [entry for entry in list_models(cache=cache_folder(cloud.settings.home)) if entry.problem]


def test_a_disk_that_is_full_is_told_and_not_kept_full(
    cloud: Cloud, registry: Registry, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, _ = registry.push(tiny)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # The last file of all: what came before it fills the disk.
    monkeypatch.setattr(Manifest, "to_bytes", full)

    with pytest.raises(ModelError, match=r"cannot be kept in .* \(No space left on device\): set IRS_HOME"):
        get_shared(cloud, str(reference))

    assert [] == [path for path in cache_folder(cloud.settings.home).rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_pull_removes_what_a_killed_one_left_and_spares_one_that_runs(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    reference, _ = registry.push(tiny)
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead, alive, other = (tmp_path / f".{name}.part" for name in (f"to.{ended.pid}", f"to.{os.getppid()}", f"from.{ended.pid}"))
    for part in (dead, alive, other):
        part.mkdir()

    pull(registry, reference, tmp_path / "to")

    assert {alive.name, other.name, "to"} == {path.name for path in tmp_path.iterdir() if path.name != "home"}


def test_a_cache_that_cannot_be_written_is_told_in_one_sentence(cloud: Cloud, registry: Registry, tiny: Path) -> None:
    reference, _ = registry.push(tiny)
    cloud.settings.home.write_text("a file")

    with pytest.raises(ModelError, match=r"cannot be kept in .*: set IRS_HOME to another folder"):
        get_shared(cloud, str(reference))


def test_a_pull_into_a_folder_with_something_in_it_is_refused(registry: Registry, tiny: Path, tmp_path: Path) -> None:
    reference, _ = registry.push(tiny)

    with pytest.raises(ModelError, match="is not empty"):
        pull(registry, reference, tiny)
    (tmp_path / "empty").mkdir()
    pull(registry, reference, tmp_path / "empty")


def test_a_pull_into_the_folder_one_stands_in_is_told(
    registry: Registry, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, _ = registry.push(tiny)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    with pytest.raises(ModelError, match="name a folder that is not there yet"):
        pull(registry, reference, Path())
    pull(registry, reference, Path("../there/"))

    assert (tmp_path / "there" / "model.json").exists()


def test_a_name_means_what_it_was_rolled_to_and_back(cloud: Cloud, registry: Registry, made: Callable[..., Path]) -> None:
    references = [registry.push(made(f"{number}", source=f"{number}"))[0] for number in range(3)]
    name = f"s3://{BUCKET}/tiny"
    with pytest.raises(ModelError, match=f"{name} was not rolled to a model yet: say `irs models roll tiny`"):
        get_shared(cloud, name)

    seen = []
    for reference in references:
        roll(registry, reference)
        seen.append(get_shared(cloud, name)[0])
    assert references == seen
    assert [references[1], references[0]] == [roll_back(registry, "tiny")[0] for _ in range(2)]
    assert references[0] == get_shared(cloud, name)[0]
    with pytest.raises(ModelError, match="knows no model before this one"):
        roll_back(registry, "tiny")


def test_a_roll_of_a_name_alone_takes_the_model_pushed_last(registry: Registry, made: Callable[..., Path]) -> None:
    for number in range(3):
        last, _ = registry.push(made(f"{number}", source=f"{number}"))

    target, before = roll(registry, Reference.of("tiny", BUCKET))

    assert (last, None) == (target, before)


def test_a_roll_to_what_stands_already_changes_nothing(registry: Registry, tiny: Path) -> None:
    reference, _ = registry.push(tiny)
    roll(registry, reference)

    assert (reference, reference.digest) == roll(registry, reference)
    current = find_current(registry, "tiny")
    assert current is not None
    assert 1 == len(current.history)


@pytest.mark.parametrize("word", ["tiny", "tiny/" + 64 * "0", "sha256:" + 64 * "0"])
def test_a_roll_to_no_model_is_refused(word: str, registry: Registry, s3: Any) -> None:
    with pytest.raises(ModelError, match=r"has no model|There is no model"):
        roll(registry, Reference.of(word, BUCKET))

    assert [] == keys(s3)


class Interrupted(Registry):
    """A registry in which somebody else rolls between our reading and our writing."""

    meanwhile: Callable[[], object] | None = None

    def replace(self, key: str, body: bytes, etag: str | None) -> bool:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return super().replace(key, body, etag)


class PushedMeanwhile(Registry):
    """A registry in which somebody else pushes while our files move."""

    meanwhile: Callable[[], object] | None = None

    def _upload(self, *args: Any) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        super()._upload(*args)


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_rolls_at_the_same_moment_the_second_is_refused_and_the_first_stands(
    is_first: bool, cloud: Cloud, registry: Registry, made: Callable[..., Path]
) -> None:
    one, two, three = (registry.push(made(f"{number}", source=f"{number}"))[0] for number in range(3))
    if not is_first:
        roll(registry, one)
    ours = Interrupted(cloud)
    ours.meanwhile = lambda: roll(registry, two)

    with pytest.raises(ModelError, match="was rolled by somebody else at this moment"):
        roll(ours, three)

    current = find_current(registry, "tiny")
    assert current is not None
    assert two.digest == current.digest


def test_a_broken_pointer_is_told_in_one_sentence(registry: Registry, s3: Any, tiny: Path) -> None:
    registry.push(tiny)
    s3.put_object(Bucket=BUCKET, Key=f"tiny/{POINTER}", Body=b"{}")

    with pytest.raises(ModelError, match=rf"{POINTER} is broken: delete it, and roll again"):
        resolve(registry, Reference.of("tiny", BUCKET))


def test_a_broken_pointer_is_listed_as_broken_beside_its_models_and_all_others(
    registry: Registry, s3: Any, made: Callable[..., Path]
) -> None:
    one, _ = registry.push(made("one", name="one"))
    two, _ = registry.push(made("two", name="two"))
    roll(registry, two)
    s3.put_object(Bucket=BUCKET, Key=f"one/{POINTER}", Body=b"{")

    entries = {entry.path: entry for entry in list_shared(registry)}

    assert {f"s3://{BUCKET}/one", str(one), str(two)} == set(entries)
    assert f"{POINTER} is broken: delete it, and roll again" in str(entries[f"s3://{BUCKET}/one"].problem)
    assert (False, None) == (entries[str(one)].is_current, entries[str(one)].problem)
    assert entries[str(two)].is_current


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=30))
def test_going_back_undoes_rolls_one_by_one(steps: list[int | None]) -> None:
    """None is a step back; digests follow each other without repeats, as rolls to what stands are none."""
    pointer: Pointer | None = None
    standing: list[str] = []
    for number in steps:
        if number is None:
            before = pointer.find_before() if pointer else None
            assert (standing[-2] if len(standing) > 1 else None) == before
            if pointer is None or before is None:
                continue
            standing.pop()
        else:
            before = 64 * str(number)
            if standing[-1:] == [before]:
                continue
            standing.append(before)
        done = Roll(digest=before, at=0, by="me", back=number is None)
        pointer = Pointer(digest=before, history=(*(pointer.history if pointer else ()), done))
    assert (pointer.digest if pointer else None) == (standing[-1] if standing else None)


def test_a_digest_cut_short_finds_its_model_and_nothing_else_does(registry: Registry, made: Callable[..., Path]) -> None:
    one, _ = registry.push(made("one", name="one"))
    registry.push(made("two", name="two"))

    assert one == resolve(registry, Reference.of(f"sha256:{one.digest[:8]}", BUCKET))
    assert one == resolve(registry, Reference.of(f"one/{one.digest[:8]}", BUCKET))
    with pytest.raises(ModelError, match="has no model whose digest begins with"):
        resolve(registry, Reference.of(f"two/{one.digest[:8]}", BUCKET))


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(is_name)


@given(NAMES, st.sampled_from(["", 64 * "a", "0123abcd"]))
def test_a_reference_is_read_as_it_is_written(name: str, digest: str) -> None:
    reference = Reference("bucket", name, digest)

    assert reference == Reference.of(str(reference), "elsewhere") == Reference.of(reference.key, "bucket")
    assert reference == Reference.of(f"{reference}/", "elsewhere")


@pytest.mark.parametrize(
    "word",
    [
        "",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3:///name",
        "a/b",
        "a/b/c",
        "s3://b/a/xyz",
        "a b",
        "../x",
        "s3://../a",
        "s3://b c/a",
    ],
)
def test_what_is_no_address_is_refused_in_one_sentence(word: str) -> None:
    with pytest.raises(ModelError, match="names no shared model: write s3://BUCKET/NAME"):
        Reference.of(word, "bucket")


def test_a_broken_model_of_the_bucket_hides_no_other(registry: Registry, s3: Any, made: Callable[..., Path]) -> None:
    whole, _ = registry.push(made("whole"))
    broken, _ = registry.push(made("broken", name="broken"))
    change(s3, f"{broken.key}/{MANIFEST}", to=b"{")
    # No name that a push would take.
    s3.put_object(Bucket=BUCKET, Key=f"../{64 * 'a'}/{MANIFEST}", Body=b"{")

    entries = {entry.path: entry.problem for entry in list_shared(registry)}

    assert {str(whole), str(broken)} == set(entries)
    assert entries[str(whole)] is None
    assert "is broken: push the model again" in str(entries[str(broken)])
    assert whole == resolve(registry, Reference.of(f"sha256:{whole.digest[:8]}", BUCKET))
    with pytest.raises(ModelError, match="is broken: push the model again"):
        roll(registry, Reference.of("broken", BUCKET))


def test_the_list_shows_what_is_cached_and_in_the_bucket_with_what_was_measured(
    cloud: Cloud, registry: Registry, made: Callable[..., Path]
) -> None:
    old, _ = registry.push(made("old", source="old", accuracy=0.5))
    new, _ = registry.push(made("new", source="new"))
    roll(registry, old)
    _, directory = get_shared(cloud, str(new))
    write_speed(cloud.settings.home, "tiny", Speed(images_per_s=123.4, at=1.0))
    speeds = read_speeds(cloud.settings.home)

    shared = {entry.path: entry for entry in list_shared(registry, speeds=speeds)}
    cached = [entry for entry in list_models(cache=cache_folder(cloud.settings.home), speeds=speeds) if entry.place == "cached"]

    assert {str(old): True, str(new): False} == {path: entry.is_current for path, entry in shared.items()}
    assert (0.5, None) == (shared[str(old)].accuracy, shared[str(new)].accuracy)
    assert {("bucket", 10, 123.4)} == {(entry.place, entry.classes, entry.images_per_s) for entry in shared.values()}
    assert [(str(directory), f"sha256:{new.digest}", 123.4)] == [(one.path, one.digest, one.images_per_s) for one in cached]


def test_speeds_are_kept_beside_each_other_and_a_broken_file_is_none(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert {} == read_speeds(home)
    first, second = Speed(images_per_s=10, at=1.0), Speed(images_per_s=20, at=2.0, device="cuda", precision="fp16")
    write_speed(home, "one", first)
    write_speed(home, "two", second)

    assert {"one": first, "two": second} == read_speeds(home)
    (home / "speeds.json").write_text('{"one": {"images_per_s": -1, "at": 0}}')
    assert {} == read_speeds(home)


def test_what_moves_and_names_models_loads_no_torch() -> None:
    program = (
        "import sys\nimport irs.models.rolls, irs.models.shared, irs.models.choice, irs.models.speeds, irs.cli.share\n"
        "print(*[name for name in ('torch', 'PIL', 'boto3') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert "" == done.stdout.strip()


def test_the_manifest_says_what_a_list_needs(registry: Registry, made: Callable[..., Path]) -> None:
    reference, _ = registry.push(made(license="CC0"))

    manifest = registry.manifest(reference)

    assert ("tiny", "squeezenet1_1", 10, "CC0") == (manifest.name, manifest.architecture, manifest.classes, manifest.license)
    assert re.fullmatch("[0-9a-f]{64}", manifest.digest)
