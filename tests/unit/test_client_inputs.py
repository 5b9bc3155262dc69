"""What callers may hand in."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irs.client.inputs import Refused, sources
from irs.errors import BadOptions

LIMIT = 100


def names(images: Any) -> list[str]:
    return [source.name for source in sources(images, LIMIT)]


@pytest.mark.parametrize(
    "image", [b"x", bytearray(b"x"), memoryview(b"x"), io.BytesIO(b"x"), ("image", b"x"), ("image", io.BytesIO(b"x"))]
)
def test_one_image_needs_no_list(image: Any) -> None:
    (source,) = sources(image, LIMIT)

    assert ("image", b"x") == (source.name, source.load(LIMIT))


def test_two_paths_in_a_tuple_are_two_images(tmp_path: Path) -> None:
    assert ["a.jpg", "b.jpg"] == names((str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")))


def test_open_file_keeps_its_name_and_may_be_closed_after(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"cat")

    def images() -> Any:
        with open(tmp_path / "cat.jpg", "rb") as file:
            yield file

    (source,) = list(sources(images(), LIMIT))

    assert ("cat.jpg", b"cat") == (source.name, source.load(LIMIT))


def test_folder_is_walked_in_an_order_that_does_not_change(tmp_path: Path) -> None:
    for name in ("z/1.jpg", "z/0.jpg", "a/2.jpg", "m.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    assert ["m.jpg", "a/2.jpg", "z/0.jpg", "z/1.jpg"] == names(tmp_path)
    assert names(tmp_path) == names([tmp_path])


def test_folder_leaves_out_files_named_as_something_else_than_pictures(tmp_path: Path) -> None:
    for name in ("labels.csv", "readme.txt", "a.jpg", "b.HEIC", "no-ending", "c.photo"):
        (tmp_path / name).write_bytes(b"x")

    assert ["a.jpg", "b.HEIC", "c.photo", "no-ending"] == names(tmp_path)
    assert ["labels.csv"] == names(tmp_path / "labels.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    (tmp_path / "a.jpg").write_bytes(b"a")

    found = list(sources(tmp_path, LIMIT))

    assert ["a.jpg", "shut"] == [source.name for source in found]
    with pytest.raises(Refused, match="cannot be read"):
        found[1].load(LIMIT)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing.jpg", "not_found"),
        ("file/below", "not_found"),
        ("a\0b", "not_found"),
        ("loop", "forbidden"),
        ("pipe", "not_an_image"),
        ("empty", "empty"),
        ("large", "too_large"),
    ],
)
def test_file_that_cannot_be_handed_in_says_why(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * (LIMIT + 1))
    (source,) = sources(f"{tmp_path}/{name}", LIMIT)

    with pytest.raises(Refused) as caught:
        source.load(LIMIT)

    assert code == caught.value.fault.code
    assert caught.value.fault.message.endswith((".", "copy."))


@pytest.mark.parametrize("image", [7, None, [b"x"], io.StringIO("x"), ("name", "text")])
def test_what_is_no_image_is_said_at_once(image: Any) -> None:
    with pytest.raises(BadOptions, match="is no image: hand in paths"):
        list(sources([image], LIMIT))


@given(st.lists(st.binary(max_size=2 * LIMIT), max_size=20))
def test_bytes_come_in_the_given_order_and_only_whole(bodies: list[bytes]) -> None:
    loaded = []
    for source in sources([io.BytesIO(body) for body in bodies], LIMIT):
        try:
            loaded.append(source.load(LIMIT))
        except Refused as refused:
            loaded.append(refused.fault.code.encode())

    assert [body if 0 < len(body) <= LIMIT else b"too_large" if body else b"empty" for body in bodies] == loaded


def test_a_name_that_is_no_utf8_becomes_one_that_a_record_can_hold() -> None:
    assert ["b?.jpg"] == names([("b\udcff.jpg", b"x")])
