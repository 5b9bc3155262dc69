"""The doors of the package."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import irs


def test_all_names_what_is_there_and_nothing_twice() -> None:
    found = {name: getattr(irs, name) for name in irs.__all__}

    assert len(irs.__all__) == len(found)
    assert None not in found.values()
    assert set(irs.__all__) <= set(dir(irs))
    assert version("irs") == found["__version__"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'recognise'"):
        irs.recognise  # noqa: B018


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("import irs", ["torch", "boto3", "celery", "obstore", "pydantic", "PIL"]),
        ("from irs import Client, Job, Record, recognize", ["torch", "boto3", "celery", "obstore", "PIL"]),
        ("import irs.app, irs.tasks, irs.results.backend, irs.results.news", ["torch", "boto3", "PIL", "numpy"]),
    ],
)
def test_import_loads_nothing_heavy(program: str, absent: list[str]) -> None:
    check = f"{program}\nimport sys\nprint(*[name for name in {absent!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)

    assert "" == done.stdout.strip()
