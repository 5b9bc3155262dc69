"""Fixtures of all rings: a clean environment, one embedded cloud, a stack of one's own for each test that asks.

A test asks for ``cloud`` (its own buckets, queues and topics, made) or for ``stack_environment`` (the same, for
processes it starts). ``irs.settings.get_settings()`` and ``celeryconfig`` are read once a process: who needs them
for a stack starts a process.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from irs.cloud import Cloud
from irs.local import EmbeddedCloud
from irs.settings import read_settings

if TYPE_CHECKING:
    from irs.local.ec2.control import Control

_FOREIGN = ("AWS_", "IRS_")
_ROOMS = ("journey", "browser", "service", "unit")
SHARED = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long ones: of several processes none is left alone with them at the end."""
    items.sort(key=lambda item: _ROOMS.index(item.path.parent.name))


@pytest.fixture(scope="session", autouse=True)
def _clean_session() -> Iterator[None]:
    """Hide the developer's own cloud from all tests, fixtures of the session included."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
            patch.delenv(name)
        # A laptop with no cloud must not wait for one's metadata.
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell starts what runs in the background so; the programs that tests start would not hear Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield


@pytest.fixture(autouse=True)
def _clean_environment() -> Iterator[None]:
    """Undo what a test sets in the environment, by whatever means."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of photos and weights; skips where it is not there."""
    if not SHARED.is_dir():
        pytest.skip(f"The photos and weights of {SHARED} are not on this machine.")
    return SHARED


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, _clean_session: None) -> Iterator[EmbeddedCloud]:
    """One embedded cloud for the whole session; tests keep apart by their stacks."""
    from irs.local import start_embedded_cloud

    with start_embedded_cloud(tmp_path_factory.mktemp("embedded"), die_with_thread=False) as running:
        yield running


@pytest.fixture
def ec2(embedded: EmbeddedCloud) -> Iterator[Control]:
    """What goes wrong in the embedded EC2, on demand: nothing at first, and nothing is left of it at the end."""
    from irs.local.ec2.control import Control

    control = Control(embedded.endpoint, embedded.environment["AWS_ACCESS_KEY_ID"])
    # Of a small machine's own limit a test of many instances wants to know nothing.
    control.put(quota=1000)
    yield control
    control.put()


@pytest.fixture
def stack(embedded: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A prefix of one's own, set in the environment with all that leads to the embedded cloud."""
    name = f"t-{secrets.token_hex(4)}"
    for variable, value in embedded.environment.items():
        monkeypatch.setenv(variable, value)
    # A process that a test starts gets what it sets itself, not what `irs up` would.
    monkeypatch.delenv("IRS_CUT_POLLS", raising=False)
    monkeypatch.setenv("IRS_ENDPOINT_URL", embedded.endpoint)
    monkeypatch.setenv("IRS_STACK", name)
    monkeypatch.setenv("IRS_HOME", str(tmp_path / "home"))
    return name


@pytest.fixture
def cloud(stack: str) -> Cloud:
    """The clients of a stack of one's own, whose buckets, queues and topics are there."""
    from irs.provision import provision

    made = Cloud(read_settings())
    assert stack == made.settings.stack
    provision(made)
    return made


@pytest.fixture
def stack_environment(cloud: Cloud) -> dict[str, str]:
    """The environment for processes that are to work on ``cloud``."""
    assert cloud.settings.stack == os.environ["IRS_STACK"]
    return dict(os.environ)
