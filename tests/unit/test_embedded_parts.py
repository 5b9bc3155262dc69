"""Parts of the embedded cloud that need no process."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import irs.local.emulator
from irs.errors import MissingExtra, SetupError
from irs.local.emulator import TESTED_VERSION, require_emulator
from irs.local.home import Endpoint, Home


def test_the_tested_emulator_is_the_one_the_extra_installs() -> None:
    pins = (Path(__file__).parents[2] / "pyproject.toml").read_text()

    require_emulator()

    assert f'"ministack=={TESTED_VERSION}"' in pins


def test_another_version_of_the_emulator_is_refused_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irs.local.emulator, "version", lambda _: "1.6.0")

    with pytest.raises(SetupError, match=r"1\.6\.0 is installed: pip install ministack==1\.5\.33"):
        require_emulator()


def test_a_missing_emulator_is_told_with_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(irs.local.emulator, "version", missing)

    with pytest.raises(MissingExtra, match=r"needs ministack: pip install 'irs\[local\]'"):
        require_emulator()


def test_the_local_room_loads_no_emulator_and_no_boto3() -> None:
    program = (
        "import sys, irs.local, irs.local.embedded\n"
        "print(sorted({'ministack', 'boto3', 'uvicorn', 'torch', 'celery'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert "[]\n" == said.stdout


def test_a_home_remembers_its_endpoint(tmp_path: Path) -> None:
    home, endpoint = Home(tmp_path / "a" / "b"), Endpoint.with_new_keys(port=4000, region="eu-west-1")

    home.write_endpoint(endpoint, pid=12)
    found = Home(tmp_path / "a" / "b").read_endpoint()

    assert found is not None
    assert ("http://127.0.0.1:4000", "eu-west-1", 12) == (found.url, found.region, found.pid)
    assert endpoint.secret_access_key == found.secret_access_key


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"port": 1, "unknown": 2}', "null"])
def test_a_home_has_no_endpoint_when_its_file_makes_no_sense(tmp_path: Path, text: str) -> None:
    home = Home(tmp_path)
    (tmp_path / "endpoint.json").write_text(text)

    assert home.read_endpoint() is None


def test_only_one_holds_the_lock_of_a_home(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert not home.is_locked()

    handle = home.lock()

    assert handle is not None
    assert home.lock() is None
    assert home.is_locked()
    os.close(handle)
    assert not home.is_locked()


def test_keys_differ_from_home_to_home_and_name_no_account() -> None:
    keys = {Endpoint.with_new_keys(port=1, region="r").access_key_id for _ in range(20)}

    assert 20 == len(keys)
    assert not any(key.isdigit() for key in keys)
