"""Labels of probabilities, as options ask for them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from irs.errors import BadOptions
from irs.models import Answers, Model, Preprocess
from irs.records import Options

LABELS = ("crane", "tabby", "collie", "crane", "desk")
WNIDS = ("n1", "n2", "n3", "n4", "n5")


def model(**changes: object) -> Model:
    facts: dict[str, object] = {
        "name": "five",
        "architecture": "alexnet",
        "digest": "sha256:0",
        "preprocess": Preprocess(),
        "labels": LABELS,
        "wnids": WNIDS,
        "build": nn.Identity,
    }
    return Model(**{**facts, **changes})  # type: ignore[arg-type]


PROBABILITIES = np.array([0.125, 0.5, 0.25, 0.0625, 0.0625], np.float32)


def named(options: Options) -> list[str | None]:
    return [label.wnid for label in Answers(model()).answer(PROBABILITIES, options).labels]


def test_labels_come_by_falling_confidence_and_equal_ones_in_order() -> None:
    assert ["n2", "n3", "n1", "n4", "n5"] == named(Options())
    assert ["n2", "n3"] == named(Options(top_k=2))


def test_labels_under_the_least_confidence_are_left_out() -> None:
    assert ["n2", "n3"] == named(Options(min_confidence=0.25))
    assert [] == named(Options(min_confidence=0.6))


def test_include_takes_labels_and_wnids_and_makes_none_surer() -> None:
    answer = Answers(model()).answer(PROBABILITIES, Options(include=("crane", "n5")))

    assert [("n1", 0.125), ("n4", 0.0625), ("n5", 0.0625)] == [(one.wnid, one.confidence) for one in answer.labels]
    assert not answer.sure


def test_exclude_wins_over_include() -> None:
    assert ["n4"] == named(Options(include=("crane",), exclude=("n1",)))
    assert ["n3", "n1", "n4", "n5"] == named(Options(exclude=("tabby",)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(include=("cranes",)), "include: the model five has no label 'cranes', did you mean 'crane'?"),
        (Options(exclude=("x" * 5000,)), "exclude: the model five has no label 'xxx"),
        (Options(include=("desk",), exclude=("n5",)), "include and exclude leave no label"),
    ],
)
def test_options_that_the_model_cannot_answer_are_refused(options: Options, said: str) -> None:
    with pytest.raises(BadOptions, match=re.escape(said)) as caught:
        Answers(model()).check(options)

    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("sure_above", "sure"), [(0.5, True), (0.51, False)])
def test_an_answer_is_sure_from_the_models_own_confidence_on(sure_above: float, sure: bool) -> None:
    assert sure is Answers(model(sure_above=sure_above)).answer(PROBABILITIES, Options()).sure


def test_a_model_without_wnids_answers_labels_alone() -> None:
    answer = Answers(model(wnids=None)).answer(PROBABILITIES, Options(top_k=1))

    assert [("tabby", None)] == [(label.label, label.wnid) for label in answer.labels]
    assert answer.hedged is None


names = st.lists(st.sampled_from((*LABELS, *WNIDS)), max_size=3).map(tuple)


@given(
    logits=st.lists(st.floats(-20, 20), min_size=5, max_size=5),
    options=st.builds(Options, top_k=st.integers(1, 100), min_confidence=st.floats(0, 1), include=names, exclude=names),
)
def test_an_answer_keeps_to_its_options(logits: list[float], options: Options) -> None:
    probabilities = np.exp(np.float32(logits)) / np.exp(np.float32(logits)).sum()
    answers = Answers(model())
    try:
        answers.check(options)
    except BadOptions:
        return

    labels = answers.answer(probabilities, options).labels

    assert len(labels) <= options.top_k
    assert sorted((label.confidence for label in labels), reverse=True) == [label.confidence for label in labels]
    for label in labels:
        assert label.confidence >= options.min_confidence - 1e-5
        assert not options.include or {label.label, label.wnid} & set(options.include)
        assert not {label.label, label.wnid} & set(options.exclude)
