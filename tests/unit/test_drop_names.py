"""The drop box's names: one id for one version of a file, one result for one name."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from irs.records import DROPS, drop_name, drop_of_record_key, drop_task_id, record_key, result_key

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=300).filter(lambda name: not name.endswith("/"))


def test_the_id_of_a_dropped_file_is_the_digest_of_its_key_and_etag() -> None:
    expected = hashlib.sha256(b"drop/a.jpg\nabc").hexdigest()

    assert expected == drop_task_id("drop/a.jpg", "abc") == drop_task_id("drop/a.jpg", '"abc"')
    assert expected == drop_of_record_key(record_key(expected))


@given(NAMES)
def test_a_name_survives_its_key_and_its_result_fits_into_one(name: str) -> None:
    assert name == drop_name(f"{DROPS}{name}")
    assert len(result_key(name).encode()) <= 1024


@given(st.integers(300, 1019), st.sampled_from(["a", "ä", "€", "🐈"]))
def test_results_of_different_long_names_never_meet(count: int, character: str) -> None:
    stem = character * (count // len(character.encode()))

    keys = {result_key(stem + end) for end in ("1", "2")}

    assert 2 == len(keys)
    assert all(key.startswith("results/") and key.endswith(".json") and len(key.encode()) <= 1024 for key in keys)


def test_a_folder_another_prefix_and_another_record_are_no_dropped_files() -> None:
    assert [None] * 4 == [drop_name(key) for key in ("drop/", "drop/a/", "jobs/a", "")]
    assert [None] * 3 == [drop_of_record_key(f"tasks/{id}.json") for id in ("0a7c-11", "F" * 64, f"{'f' * 64}x")]
