"""Workers that follow a roll, without processes and without a bucket."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from irs.errors import Unreachable
from irs.local import follow
from irs.local.follow import RollFollower

OLD, NEW = 64 * "0", 64 * "1"


class Fake:
    """A worker that serves until it is drained, and cannot start again."""

    def __init__(self) -> None:
        self.is_ready, self.has_given_up, self.digest = True, False, OLD

    def drain(self) -> None:
        self.is_ready, self.has_given_up = False, True


def looked(follower: RollFollower) -> None:
    """Let it look once, and act."""
    follower.tend()
    assert follower._look is not None
    follower._look.join(10)
    for _ in range(20):
        follower.tend()
        follower._look.join(10)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the name stands for in a bucket that has every model."""
    pointer = SimpleNamespace(digest=OLD)
    monkeypatch.setattr(follow, "Registry", lambda *_: None)
    monkeypatch.setattr(follow, "find_current", lambda *_: pointer)
    monkeypatch.setattr(follow, "get_shared", lambda *_: None)
    return pointer


def follower_of(workers: list[Any], said: list[str]) -> RollFollower:
    cloud: Any = SimpleNamespace(settings=SimpleNamespace(model="s3://models/shoes", models_bucket="models"))
    return RollFollower(cloud, workers, said.append, look_s=0)


def test_a_bucket_that_was_away_when_the_workers_started_costs_them_no_start(
    current: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unreachable("S3 does not answer.")

    workers, said = [Fake(), Fake()], list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(follow, "find_current", away)
        follower = follower_of(workers, said)
        looked(follower)

    looked(follower)

    assert [True, True] == [worker.is_ready for worker in workers]
    assert [] == said


def test_where_the_first_worker_cannot_serve_the_new_model_the_others_stay(current: SimpleNamespace) -> None:
    workers, said = [Fake(), Fake(), Fake()], list[str]()
    follower = follower_of(workers, said)

    current.digest = NEW
    looked(follower)
    looked(follower)

    assert [False, True, True] == [worker.is_ready for worker in workers]
    # Told once, whatever the later looks find.
    assert 2 == len(said)
    assert "the others stay with the model before" in said[-1]
