"""Fixtures of the ring that runs on the embedded cloud, and on moto as the second opinion."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from awsclients import Aws, clients
from monitors import Crew, crew_on_a_stack

from irs.local import EmbeddedCloud, start_embedded_cloud


@pytest.fixture(scope="session")
def made_clients() -> dict[str, Aws]:
    """Clients of each implementation, made once: three cost 0.2 s."""
    return {}


@pytest.fixture
def aws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, made_clients: dict[str, Aws]) -> Iterator[Aws]:
    """One implementation of AWS, by parameter: ``embedded`` or ``moto``; names are the test's own."""
    which = getattr(request, "param", "embedded")
    with ExitStack() as stack:
        endpoint = None
        if which == "embedded":
            running: EmbeddedCloud = request.getfixturevalue("embedded")
            endpoint = running.endpoint
            for variable, value in running.environment.items():
                monkeypatch.setenv(variable, value)
        else:
            from moto import mock_aws

            monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
            stack.enter_context(mock_aws())
        if which not in made_clients:
            made_clients[which] = clients(endpoint)
        yield made_clients[which].with_new_names()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., EmbeddedCloud]]:
    """Start embedded clouds of one's own on ``tmp_path/home``; their keys go into the environment."""
    started: list[EmbeddedCloud] = []

    def begin(home: Path = tmp_path / "home", **options: Any) -> EmbeddedCloud:
        running = start_embedded_cloud(home, die_with_thread=False, **options)
        started.append(running)
        os.environ.update(running.environment)
        return running

    yield begin
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def crew(embedded: EmbeddedCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two watched workers without a model, and who commands them; every test leaves them as they were."""
    with crew_on_a_stack(embedded, tmp_path_factory.mktemp("crew")) as made:
        yield made
