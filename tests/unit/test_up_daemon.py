"""What becomes of a child of ``irs up`` that ends, without processes."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from irs.local import child
from irs.local.daemon import WRONG_USE, Daemon
from irs.local.processes import WorkerEnded
from irs.local.sidecars import Check
from irs.settings import Settings


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What every start comes to; ``code`` is what it ends with."""
    made = SimpleNamespace(pid=1, code=None, starts=0)
    made.poll = lambda: made.code

    def start(*_: object, **__: object) -> SimpleNamespace:
        made.starts += 1
        return made

    monkeypatch.setattr(child, "start", start)
    return made


@pytest.mark.parametrize(
    ("code", "told"),
    [(1, "page   ended with 1, starts again in"), (WRONG_USE, "page   cannot start: it said nothing")],
    ids=["fault", "wrong use"],
)
def test_a_daemon_ends_as_any_other_though_somebody_has_removed_its_log(
    process: SimpleNamespace, tmp_path: Path, code: int, told: str
) -> None:
    said: list[str] = []
    page = Daemon("page  ", ["web"], said.append, log=tmp_path / "page.log", at_parents_end=signal.SIGTERM)
    page.tend()
    page.log.unlink()

    process.code = code
    page.tend()

    assert [told] == [line[: len(told)] for line in said]
    assert (code == WRONG_USE) == page.has_given_up


@pytest.mark.parametrize("code", [0, 1], ids=["well", "ill"])
def test_the_check_is_made_once_and_says_what_keeps_workers_from_starting(
    process: SimpleNamespace, tmp_path: Path, code: int
) -> None:
    check = Check(Settings(home=tmp_path), print, at_parents_end=signal.SIGTERM)
    check.tend()
    check.log.write_text("irs: no such model\n")

    process.code = code
    if code:
        with pytest.raises(WorkerEnded, match=r"^A worker could not start: no such model \(log .*check-"):
            check.tend()
    check.tend()
    check.tend()

    assert 1 == process.starts
