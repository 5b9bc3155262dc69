"""The bundled table of parents, and the tree of one model."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from irs.models import Model, Preprocess
from irs.models.parents import branches, drawn, summed_up
from irs.models.tree import LabelTree, Table, find_imagenet_wnids, find_tree, imagenet_labels
from irs.models.zoo import find_weights

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / ".." / "shared" / "data"
DATA_NOUN = Path("/usr/share/wordnet/data.noun")
MOST_BYTES = 200_000
TABLE = Table.bundled()
IMAGENET = tuple(imagenet_labels())
# Two breeds, a cat, a wolf, and what is no animal.
PUG, BEAGLE, TABBY, WOLF, DESK = "n02110958", "n02088364", "n02123045", "n02114367", "n03179701"


def names(tree: LabelTree | None) -> set[str]:
    assert tree is not None
    return {parent.name for parent in tree.answers}


def model(wnids: tuple[str, ...] | None, labels: tuple[str, ...] | None = None) -> Model:
    return Model(
        name="few",
        architecture="alexnet",
        digest="sha256:0",
        preprocess=Preprocess(),
        labels=labels or tuple(imagenet_labels()[wnid] for wnid in wnids or ()),
        wnids=wnids,
        build=nn.Identity,
    )


def test_no_name_of_a_parent_is_anothers_or_a_labels() -> None:
    counts = Counter([*TABLE.names.values(), *imagenet_labels().values()])

    assert {"crane", "maillot"} & set(counts) == {"crane", "maillot"}
    assert [] == [name for name, times in counts.items() if times > 1]


def test_each_lineage_in_the_table_ends_at_a_parent_without_one() -> None:
    for wnid in (*TABLE.names, *IMAGENET):
        lineage = TABLE.lineage(wnid)

        assert len(lineage) == len(set(lineage)), wnid
        assert set(lineage) <= set(TABLE.names), wnid


def test_the_table_holds_words_and_no_labels_that_are_parents() -> None:
    assert 1000 == len(IMAGENET)
    assert set() == set(IMAGENET) & set(TABLE.names)
    assert [] == [name for name in TABLE.names.values() if not re.fullmatch(r"[A-Za-z][a-z-]*( [A-Za-z][a-z-]*)*", name)]


def test_the_tables_are_small_and_bear_the_licence_of_wordnet() -> None:
    data = ROOT / "irs" / "models" / "data"

    assert sum(path.stat().st_size for path in data.iterdir()) < MOST_BYTES
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in (data / "wordnet.tsv").read_text()


@pytest.mark.parametrize(
    ("label", "lineage"),
    [
        ("golden retriever", ["retriever", "gun dog", "hunting dog", "dog", "canine", "carnivore", "mammal", "animal"]),
        ("tabby", ["cat", "feline", "carnivore", "mammal", "animal"]),
        ("crane bird", ["wading bird", "water bird", "bird", "animal"]),
        ("crane", []),
        ("espresso", ["coffee", "drink", "food"]),
        ("school bus", ["bus", "motor vehicle", "vehicle"]),
        ("upright", ["piano", "keyboard instrument", "musical instrument"]),
        ("lemon", ["citrus fruit", "fruit", "food"]),
    ],
)
def test_labels_hang_under_the_words_of_people(label: str, lineage: list[str]) -> None:
    (wnid,) = (wnid for wnid, name in imagenet_labels().items() if name == label)

    assert lineage == [TABLE.names[parent] for parent in TABLE.lineage(wnid)]


def test_the_tool_makes_the_same_table_again_from_wordnet(tmp_path: Path) -> None:
    if not DATA_NOUN.exists():
        pytest.skip(f"{DATA_NOUN} is not there: install wordnet-base to derive the table again.")
    tool = [sys.executable, ROOT / "tools" / "make_label_tree.py", DATA_NOUN, "--out", tmp_path / "again.tsv"]

    subprocess.run(tool, check=True, capture_output=True, timeout=60)

    assert (ROOT / "irs" / "models" / "data" / "wordnet.tsv").read_bytes() == (tmp_path / "again.tsv").read_bytes()


def test_torchvisions_labels_get_the_wnids_of_imagenet() -> None:
    labels = tuple(find_weights("resnet18").meta["categories"])

    assert IMAGENET == find_imagenet_wnids(labels)
    assert IMAGENET == find_imagenet_wnids(
        [{"crane bird": "crane", "maillot tank suit": "maillot"}.get(one, one) for one in labels]
    )


def test_other_labels_get_no_wnids_of_imagenet() -> None:
    labels = list(imagenet_labels().values())

    assert find_imagenet_wnids(labels[:999]) is None
    assert find_imagenet_wnids(labels[::-1]) is None


def test_wnids_of_the_shared_weights_are_those_of_the_table() -> None:
    wnids = SHARED / "weights" / "mobilenet_v2-imagenet" / "wnids.txt"
    if not wnids.exists():
        pytest.skip(f"{wnids} is not there: shared data is needed.")

    assert tuple(wnids.read_text().splitlines()) == IMAGENET


def test_a_tree_of_few_labels_keeps_only_parents_that_say_something() -> None:
    tree = find_tree((PUG, BEAGLE, TABBY, WOLF, DESK))

    assert {"dog", "canine", "carnivore"} == names(tree)
    assert tree is not None
    assert {parent.name for parent in tree.parents.values()} >= {"hound", "cat", "animal", "furniture", "table"}


def test_a_parent_of_all_labels_is_no_answer() -> None:
    assert set() == names(find_tree((PUG, BEAGLE)))


@pytest.mark.parametrize("wnids", [None, (), ("n1", "n2"), ("n03126707", "n1")])
def test_a_model_without_known_wnids_has_no_tree(wnids: tuple[str, ...] | None) -> None:
    assert find_tree(wnids) is None


def test_labels_without_a_known_wnid_hang_under_no_parent() -> None:
    tree = find_tree((PUG, None, BEAGLE, "unknown"))

    assert tree is not None
    assert [(0, 2)] == [parent.outputs for parent in tree.answers]


def test_a_label_that_is_a_parent_hangs_under_itself() -> None:
    tree = find_tree(("n02084071", PUG, DESK))

    assert tree is not None
    assert (0, 1) == tree.parents["n02084071"].outputs


@given(wnids=st.lists(st.sampled_from((*IMAGENET, *TABLE.names, "n1")), max_size=40), seed=st.integers(0, 2**32 - 1))
def test_sums_are_those_of_the_outputs_below(wnids: list[str], seed: int) -> None:
    tree = LabelTree(wnids, TABLE)
    values = np.random.default_rng(seed).random((3, len(wnids))).astype(np.float32)

    sums = tree.sums(values)

    expected = [values[:, list(parent.outputs)].sum(axis=1) for parent in tree.answers]
    np.testing.assert_allclose(np.array(expected).reshape(len(tree.answers), 3).T, sums, rtol=1e-6)


@given(st.lists(st.sampled_from(IMAGENET), min_size=2, max_size=30, unique=True))
def test_answers_differ_in_their_labels(wnids: list[str]) -> None:
    tree = LabelTree(wnids, TABLE)
    outputs = [parent.outputs for parent in tree.answers]

    assert len(outputs) == len(set(outputs))
    assert all(1 < len(below) < len(wnids) for below in outputs)


@given(st.lists(st.sampled_from((*IMAGENET, "n1")), min_size=1, max_size=30, unique=True))
def test_branches_name_each_label_once_and_each_parent_after_its_own(wnids: list[str]) -> None:
    shown = model(tuple(wnids), tuple(f"label {number}" for number in range(len(wnids))))

    parents, others = branches(shown)

    assert sorted(shown.labels) == sorted([*others, *(label for branch in parents for label in branch.labels)])
    places = {branch.wnid: place for place, branch in enumerate(parents)}
    assert all(branch.above is None or places[branch.above] < places[branch.wnid] for branch in parents)


def test_the_drawn_tree_sets_labels_in_under_their_parents() -> None:
    parents, others = branches(model((TABBY, DESK, "n03126707")))

    assert [
        "animal (1)",
        "  mammal (1)",
        "    carnivore (1)",
        "      feline (1)",
        "        cat (1)",
        "          - tabby",
        "furniture (1)",
        "  table (1)",
        "    - desk",
        "- crane",
    ] == list(drawn(parents, others))


def test_the_summary_names_large_parents_first_and_none_of_a_single_label() -> None:
    parents, _ = branches(model((PUG, BEAGLE, TABBY, DESK, "n02699494", "n02870880")))

    assert "animal 3, furniture 2" == summed_up(parents)


def test_labels_of_imagenet200_have_a_tree_of_their_own() -> None:
    classes = SHARED / "imagenet200" / "classes.csv"
    if not classes.exists():
        pytest.skip(f"{classes} is not there: shared data is needed.")
    rows = list(csv.DictReader(classes.read_text().splitlines()))

    tree = find_tree([row["wnid"] for row in rows])

    assert {"dog", "cat", "insect", "fruit", "vehicle", "clothing", "bridge"} <= names(tree)
    # All its birds are water birds, all its monkeys one baboon: nothing is said twice.
    assert set() == {"bird", "monkey"} & names(tree)
