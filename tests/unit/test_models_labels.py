"""Labels that know their doubt: hedged answers, parents as options, and figures of both."""

from __future__ import annotations

import json
import re

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from irs.cli.answers import table_row
from irs.cli.models import app
from irs.errors import BadOptions
from irs.models import Answers, Model, Preprocess
from irs.models.hedging import hedging_report, hedging_table
from irs.models.tree import find_tree, imagenet_labels
from irs.records import ImageFacts, News, NewsItem, Options, Record

# Dogs, cats, a wolf, and what is no animal. Parents that may answer: hunting dog (beagle,
# retriever), dog, cat, canine, carnivore, furniture.
WNIDS = ("n02110958", "n02088364", "n02099601", "n02123045", "n02123394", "n02114367", "n03179701", "n02870880")
LABELS = ("pug", "beagle", "golden retriever", "tabby", "Persian cat", "timber wolf", "desk", "bookcase")
HUNTING_DOG, DOG, CANINE, CARNIVORE, FURNITURE = "n02087122", "n02084071", "n02083346", "n02075296", "n03405725"


def model(**changes: object) -> Model:
    facts: dict[str, object] = {
        "name": "eight",
        "architecture": "alexnet",
        "digest": "sha256:0",
        "preprocess": Preprocess(),
        "labels": LABELS,
        "wnids": WNIDS,
        "build": nn.Identity,
    }
    return Model(**{**facts, **changes})  # type: ignore[arg-type]


ANSWERS = Answers(model())
#                  pug  beagle retriever tabby Persian wolf desk bookcase
DOGS = np.array([0.30, 0.25, 0.30, 0.05, 0.02, 0.05, 0.02, 0.01], np.float32)
SPLIT = np.array([0.20, 0.10, 0.10, 0.10, 0.00, 0.05, 0.25, 0.20], np.float32)


def hedged(probabilities: npt.NDArray[np.float32], **options: object) -> tuple[str, str | None, float] | None:
    label = ANSWERS.answer(probabilities, Options(**options)).hedged  # type: ignore[arg-type]
    return (label.label, label.wnid, label.confidence) if label else None


@pytest.mark.parametrize(
    ("hedge", "expected"),
    [
        (0.3, ("pug", WNIDS[0], 0.3)),
        (0.5, ("hunting dog", HUNTING_DOG, 0.55)),
        (0.6, ("dog", DOG, 0.85)),
        (0.9, ("canine", CANINE, 0.9)),
        (0.96, ("carnivore", CARNIVORE, 0.97)),
        (0.99, None),
        (0.0, None),
    ],
)
def test_hedged_is_the_most_specific_label_or_parent_that_reaches_the_option(
    hedge: float, expected: tuple[str, str, float] | None
) -> None:
    assert expected == hedged(DOGS, hedge=hedge)


@pytest.mark.parametrize(
    ("hedge", "expected"),
    [
        (0.26, ("furniture", FURNITURE, 0.45)),
        (0.43, ("furniture", FURNITURE, 0.45)),
        (0.5, ("carnivore", CARNIVORE, 0.55)),
    ],
)
def test_of_parents_that_reach_it_the_one_with_fewest_labels_is_hedged(hedge: float, expected: tuple[str, str, float]) -> None:
    assert expected == hedged(SPLIT, hedge=hedge)


def test_of_equally_specific_parents_the_likelier_is_hedged() -> None:
    cats_and_desks = np.array([0.0, 0.0, 0.0, 0.2, 0.2, 0.0, 0.3, 0.3], np.float32)

    assert ("furniture", FURNITURE, 0.6) == hedged(cats_and_desks, hedge=0.35)


@pytest.mark.parametrize(("wnids", "why"), [(None, "no wnids"), (tuple(f"n{n}" for n in range(8)), "unknown wnids")])
def test_a_model_without_a_tree_hedges_nothing(wnids: tuple[str, ...] | None, why: str) -> None:
    assert Answers(model(wnids=wnids)).answer(DOGS, Options(hedge=0.1)).hedged is None, why


def test_include_takes_a_parents_name_or_wnid_for_all_its_labels() -> None:
    by_name = ANSWERS.answer(DOGS, Options(include=("dog",), top_k=8)).labels
    by_wnid = ANSWERS.answer(DOGS, Options(include=(DOG,), top_k=8)).labels

    assert {"pug", "beagle", "golden retriever"} == {label.label for label in by_name}
    assert by_name == by_wnid


def test_exclude_takes_a_parent_and_include_a_parent_of_one_label() -> None:
    left = ANSWERS.answer(DOGS, Options(exclude=("canine", FURNITURE), top_k=8)).labels
    only = ANSWERS.answer(DOGS, Options(include=("retriever",), top_k=8)).labels

    assert ["tabby", "Persian cat"] == [label.label for label in left]
    assert ["golden retriever"] == [label.label for label in only]


def test_an_included_parent_is_hedged_to_and_no_higher() -> None:
    assert ("dog", DOG, 0.85) == hedged(DOGS, hedge=0.6, include=("dog",))
    assert hedged(DOGS, hedge=0.88, include=("dog",)) is None


def test_a_parent_is_not_hedged_when_only_some_of_its_labels_are_included() -> None:
    assert hedged(DOGS, hedge=0.5, include=("pug", "beagle")) is None


def test_excluded_labels_add_nothing_to_their_parents() -> None:
    assert ("dog", DOG, 0.6) == hedged(DOGS, hedge=0.5, exclude=("beagle",))
    assert hedged(DOGS, hedge=0.5, exclude=("dog",)) is None


def test_after_exclude_the_lowest_parent_of_what_is_left_is_hedged() -> None:
    """Without the wolf canine and dog have the same labels left: dog says more."""
    assert ("dog", DOG, 0.85) == hedged(DOGS, hedge=0.8, exclude=("timber wolf",))


def test_a_name_of_a_label_and_of_a_parent_means_both() -> None:
    answers = Answers(
        model(labels=("pug", "beagle", "golden retriever", "dog", "Persian cat", "timber wolf", "desk", "bookcase"))
    )

    labels = answers.answer(DOGS, Options(include=("dog",), top_k=8)).labels

    assert {"pug", "beagle", "golden retriever", "dog"} == {label.label for label in labels}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(include=("dogs",)), "include: the model eight has no label 'dogs', did you mean 'dog'?"),
        (Options(exclude=("bird",)), "exclude: the model eight has no label 'bird'"),
        (Options(include=("pug",), exclude=("animal",)), "include and exclude leave no label"),
        (Options(exclude=("animal", "furniture")), "include and exclude leave no label"),
    ],
)
def test_parents_that_the_model_does_not_have_are_refused(options: Options, said: str) -> None:
    with pytest.raises(BadOptions, match=re.escape(said)):
        ANSWERS.check(options)


asked = st.lists(st.sampled_from((*LABELS, *WNIDS, "dog", "cat", "canine", "animal", "furniture")), max_size=2).map(tuple)


@given(
    logits=st.lists(st.floats(-20, 20), min_size=8, max_size=8),
    options=st.builds(Options, hedge=st.floats(0.01, 1), include=asked, exclude=asked),
)
def test_hedged_reaches_the_option_and_nothing_that_says_more_does(logits: list[float], options: Options) -> None:
    probabilities = np.exp(np.float32(logits)) / np.exp(np.float32(logits)).sum()
    try:
        ANSWERS.check(options)
    except BadOptions:
        return
    answer = ANSWERS.answer(probabilities, options)
    tree = find_tree(WNIDS)
    assert tree is not None

    found = ANSWERS.hedge(probabilities, options)

    assert (found[0] if found else None) == answer.hedged
    if found is None:
        assert answer.labels[0].confidence <= options.hedge + 1e-5
        return
    label, outputs = found
    assert options.hedge - 1e-5 <= label.confidence <= 1
    assert label.confidence <= probabilities[list(outputs)].sum() + 1e-5
    narrower = [parent.outputs for parent in tree.answers if set(parent.outputs) < set(outputs)]
    if not (options.include or options.exclude):
        assert all(probabilities[list(below)].sum() < options.hedge + 1e-6 for below in narrower)


def test_a_record_carries_hedged_both_ways_and_the_news_and_the_table_tell_it() -> None:
    answer = ANSWERS.answer(DOGS, Options(hedge=0.6))
    image = ImageFacts(name="a.jpg", key="jobs/a")
    record = Record(task_id="t", status="ok", image=image, labels=answer.labels, hedged=answer.hedged, sure=answer.sure)

    again = Record.from_json(record.to_bytes())
    news = News.from_json(News(results=(NewsItem.of(again),)).to_bytes())

    assert {"label": "dog", "wnid": DOG, "confidence": 0.85} == json.loads(record.to_bytes())["hedged"]
    assert record == again
    assert "dog" == news.results[0].hedged
    assert ("a.jpg", "pug", "30 %", "not sure, surely dog 85 %") == table_row(again)


def test_the_report_counts_answers_that_hold_the_truth() -> None:
    sure = np.eye(8, dtype=np.float32)[0]
    nothing = np.full(8, 0.125, np.float32)
    probabilities = np.stack([sure, DOGS, DOGS, nothing])

    (report,) = hedging_report(probabilities, np.array([0, 1, 6, 2]), model(), thresholds=(0.8,))

    log = np.log(8 / 3) / np.log(8)
    # A label, dog twice (once the truth is a desk), and nothing.
    assert (0.75, pytest.approx(2 / 3)) == (report.answered, report.accuracy)
    assert (pytest.approx((1 + 2 * log) / 4), pytest.approx((1 + log) / 4)) == (report.specificity, report.gain)
    assert (0.25, 1.0) == (report.flat_answered, report.flat_accuracy)


def test_the_report_of_a_model_without_a_tree_is_empty() -> None:
    assert () == hedging_report(DOGS[None], np.array([0]), model(wnids=None))


def test_the_table_has_a_line_for_each_threshold() -> None:
    lines = hedging_table(hedging_report(DOGS[None], np.array([0]), model()))

    assert 6 == len(lines)
    assert "| 0.3 | 100.0% | 100.0% | 1.00 | 1.00 | 100.0% | 100.0% |" == lines[2]
    assert {line.count("|") for line in lines} == {8}


def test_the_higher_the_threshold_the_truer_and_the_less_specific_the_answers_of_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(8, 0.2), 2000).astype(np.float32)
    truth = np.array([rng.choice(8, p=row / row.sum()) for row in probabilities.astype(np.float64)])

    report = hedging_report(probabilities, truth, model())

    assert sorted(one.accuracy for one in report) == [one.accuracy for one in report]
    assert sorted((one.specificity for one in report), reverse=True) == [one.specificity for one in report]
    assert all(one.accuracy >= one.threshold and one.answered >= one.flat_answered for one in report)


def test_models_show_names_the_parents_of_a_zoo_model() -> None:
    shown = CliRunner().invoke(app, ["show", "resnet18@random"])

    assert 0 == shown.exit_code
    (line,) = (line for line in shown.stdout.splitlines() if line.startswith("parents"))
    assert line.split("  ")[-1].strip().startswith("animal 398, vehicle ")


def test_models_show_draws_every_label_when_asked() -> None:
    shown = CliRunner().invoke(app, ["show", "resnet18@random", "--labels"])

    drawn = [line.strip().removeprefix("- ") for line in shown.stdout.splitlines() if line.strip().startswith("- ")]
    assert sorted(imagenet_labels().values()) == sorted(drawn)


def test_models_show_gives_programs_each_parent_and_its_labels() -> None:
    shown = CliRunner().invoke(app, ["show", "resnet18@random", "--json"])

    parents = {one["wnid"]: one for one in json.loads(shown.stdout)["parents"]}
    assert ("dog", 118, CANINE) == (parents[DOG]["name"], parents[DOG]["count"], parents[DOG]["above"])
    assert "pug" in parents[DOG]["labels"]
