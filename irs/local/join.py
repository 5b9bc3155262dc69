"""Processes turned towards an embedded cloud: those that ``irs up`` starts, and commands in another terminal."""

from __future__ import annotations

import os
from pathlib import Path

from irs.local.embedded import EmbeddedCloud, start_embedded_cloud
from irs.local.home import Home

#: Of another cloud than the embedded one: they would lead its clients astray.
_FOREIGN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


def enter(embedded: EmbeddedCloud) -> None:
    """Turn this process, and so all it starts, towards ``embedded``: its environment is changed."""
    for name in [name for name in os.environ if name in _FOREIGN or name.startswith("AWS_ENDPOINT_URL_")]:
        del os.environ[name]
    os.environ.update(embedded.environment)
    # Read before AWS_ENDPOINT_URL, so that an empty one left over must not stand in its way.
    os.environ["IRS_ENDPOINT_URL"] = embedded.endpoint


def enter_running(home: Path) -> str | None:
    """Enter the embedded cloud that runs on ``home``; return its endpoint, None if none runs there."""
    # Looked at first, since to ask for a home makes it.
    if not (home / "endpoint.json").exists():
        return None
    place = Home(home)
    endpoint = place.read_endpoint()
    if endpoint is None or endpoint.pid is None or not place.is_locked():
        return None
    with start_embedded_cloud(home) as found:
        if found.is_ours:
            # The other has ended this very moment: so does this one.
            return None
        enter(found)
        return found.endpoint
