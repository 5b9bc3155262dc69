"""``irs web``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from irs.cli.outcome import end_at_once, note


def web(
    host: Annotated[str | None, typer.Option(help="Address to bind; else IRS_WEB_HOST.", show_default=False)] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port, 0 for a free one; else IRS_WEB_PORT.", show_default=False)
    ] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log lines as JSON; else IRS_LOG_JSON.")] = False,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A listening socket to take over.")] = None,
) -> None:
    """Run the page and its API until SIGTERM or Ctrl-C. Any number may run side by side.

    Without IRS_ENDPOINT_URL it speaks to the `irs up` of this machine, or to AWS.
    """
    if host is not None:
        os.environ["IRS_WEB_HOST"] = host
    if port is not None:
        os.environ["IRS_WEB_PORT"] = str(port)
    from irs.cli.service import find_cloud
    from irs.errors import MissingExtra
    from irs.monitoring.logs import set_up_logging

    try:
        from webui.server import serve
    except ModuleNotFoundError as error:
        raise MissingExtra(f"`irs web` needs {error.name}: pip install 'irs[web]'.") from None
    cloud = find_cloud()
    # Said before it serves: without its queue nobody would ever be answered.
    cloud.queue_url(cloud.settings.requests_queue)
    set_up_logging(as_json=json_logs or cloud.settings.log_json)
    serve(cloud, lambda address: note(f"irs: the page is at {address}"), fd=fd)
    # A long poll may still run in a thread of its own, for nobody.
    end_at_once(0)
