"""The micro-batcher: one model call serves many images, each answered on its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from irs.errors import Damaged, InternalError
from irs.worker.batcher import Batcher, Decoded, Pixels, Probabilities

MakeBatcher = Callable[..., Batcher]
LIMIT_S = 10


def picture(value: int) -> Callable[[], Decoded]:
    return lambda: Decoded(np.full((2, 2, 3), value, np.uint8))


def broken() -> Decoded:
    raise Damaged("JPEG", "ends early")


class Model:
    """Answers each picture with its own first value, and remembers the sizes it was asked for."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_running = threading.Event()
        self.poison: int | None = None

    def __call__(self, pixels: Pixels) -> Probabilities:
        self.is_running.set()
        assert self.may_go.wait(LIMIT_S)
        self.sizes.append(len(pixels))
        values = pixels[:, 0, 0, 0].astype(np.float32)
        if self.poison is not None and self.poison in values:
            raise RuntimeError("poisoned")
        return np.stack([np.array([np.nan if value == 255 else value], np.float32) for value in values])


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def batcher(model: Model) -> Iterator[Batcher]:
    made = Batcher(model, sizes=(8, 4, 2, 1), threads=1, wait_s=0.0)
    yield made
    model.may_go.set()
    made.close()


def hold(model: Model, batcher: Batcher) -> None:
    """Keep the compute thread in the model, so that what is submitted next piles up."""
    model.may_go.clear()
    model.is_running.clear()
    batcher.submit(picture(0))
    assert model.is_running.wait(LIMIT_S)


def test_images_that_wait_together_share_one_model_call(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    futures = [batcher.submit(picture(n)) for n in range(8)]
    model.may_go.set()

    assert list(range(8)) == [int(future.result(LIMIT_S).probabilities[0]) for future in futures]
    assert [1, 8] == model.sizes


def test_a_batch_is_cut_into_sizes_the_model_was_warmed_for(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    futures = [batcher.submit(picture(n)) for n in range(7)]
    model.may_go.set()

    assert list(range(7)) == [int(future.result(LIMIT_S).probabilities[0]) for future in futures]
    assert [1, 4, 2, 1] == model.sizes


def test_a_picture_that_cannot_be_decoded_leaves_its_batch_before_the_model_runs(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    good = [batcher.submit(picture(n)) for n in range(4)]
    bad = batcher.submit(broken)
    model.may_go.set()

    assert [0, 1, 2, 3] == [int(future.result(LIMIT_S).probabilities[0]) for future in good]
    with pytest.raises(Damaged):
        bad.result(LIMIT_S)
    assert [1, 4] == model.sizes


def test_a_picture_that_breaks_the_model_fails_alone(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    model.poison = 2
    futures = [batcher.submit(picture(n)) for n in range(4)]
    model.may_go.set()

    assert [0, 1, 3] == [int(futures[n].result(LIMIT_S).probabilities[0]) for n in (0, 1, 3)]
    with pytest.raises(InternalError, match="the model raised RuntimeError"):
        futures[2].result(LIMIT_S)


def test_an_answer_that_is_not_finite_is_that_images_own_fault(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    fine, odd = batcher.submit(picture(1)), batcher.submit(picture(255))
    model.may_go.set()

    assert 1 == int(fine.result(LIMIT_S).probabilities[0])
    with pytest.raises(InternalError, match="not finite"):
        odd.result(LIMIT_S)


def test_a_large_picture_is_decoded_apart_and_holds_up_no_batch(model: Model, batcher: Batcher) -> None:
    may_decode = threading.Event()

    def slow() -> Decoded:
        assert may_decode.wait(LIMIT_S)
        return picture(9)()

    large = batcher.submit(slow, is_large=True)
    small = batcher.submit(picture(1))

    assert 1 == int(small.result(LIMIT_S).probabilities[0])
    assert not large.done()
    may_decode.set()
    assert 9 == int(large.result(LIMIT_S).probabilities[0])


def test_a_picture_nobody_waits_for_any_more_is_passed_over_and_the_next_is_answered(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    given_up, wanted = batcher.submit(picture(1)), batcher.submit(picture(2))
    assert given_up.cancel()
    model.may_go.set()

    assert 2 == int(wanted.result(LIMIT_S).probabilities[0])
    assert 3 == int(batcher.submit(picture(3)).result(LIMIT_S).probabilities[0])


def test_the_gap_of_a_picture_that_cannot_be_decoded_is_filled_with_one_that_waits(model: Model, batcher: Batcher) -> None:
    hold(model, batcher)
    bad = batcher.submit(broken)
    good = [batcher.submit(picture(n)) for n in range(8)]
    model.may_go.set()

    assert list(range(8)) == [int(future.result(LIMIT_S).probabilities[0]) for future in good]
    assert isinstance(bad.exception(LIMIT_S), Damaged)
    assert [1, 8] == model.sizes
