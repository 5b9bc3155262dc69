"""``irs flower``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from irs.cli.outcome import note


def flower(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- OPTIONS]", help="Options of Flower itself, after --.", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind; else IRS_FLOWER_HOST.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port, 0 for a free one; else IRS_FLOWER_PORT.", show_default=False)
    ] = None,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket to take over.")] = None,
) -> None:
    """Run Flower until SIGTERM or Ctrl-C: workers, tasks and queues, seen and steered.

    Workers must run with IRS_MONITORING=1, as those of `irs up` do. On another address than this machine's own it
    needs IRS_FLOWER_PASSWORD; the user is irs.
    """
    os.environ["IRS_MONITORING"] = "1"
    if host is not None:
        os.environ["IRS_FLOWER_HOST"] = host
    if port is not None:
        os.environ["IRS_FLOWER_PORT"] = str(port)
    from irs.cli.service import find_cloud
    from irs.errors import MissingExtra

    cloud = find_cloud()
    try:
        from irs.monitoring.flower import check_access, run
    except ModuleNotFoundError as error:
        raise MissingExtra(f"`irs flower` needs {error.name}: pip install 'irs[flower]'.") from None
    settings = cloud.settings
    check_access(settings.flower_host, has_password=bool(settings.flower_password))
    # Said before it serves: without its queue there is nothing to see.
    cloud.queue_url(settings.requests_queue)
    if fd is None and settings.flower_port:
        note(f"irs: Flower is at http://{settings.flower_host}:{settings.flower_port}/")
    from irs.app import app

    run(app, settings, arguments=arguments or [], fd=fd)
