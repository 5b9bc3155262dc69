"""``/metrics`` of a command that runs on and on and is neither worker, scaler nor page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from irs.settings import Settings


def serve_metrics(settings: Settings, port: int, collector: Callable[[], Collector], *, setting: str) -> None:
    """Show what ``collector`` collects, and this process's calls to AWS, on ``port``; -1: nowhere, 0: on a free one.

    Args:
        collector: makes it; called only when there is a port, as its module may need prometheus-client.
        setting: the name of the port's setting.

    Raises:
        MissingExtra: prometheus-client is not installed.
        SetupError: the address cannot be used.
    """
    if port < 0:
        return
    from irs.errors import MissingExtra
    from irs.monitoring.endpoint import serve

    try:
        from irs.monitoring.metrics import exposition, registry_of

        registry = registry_of(collector())
    except ModuleNotFoundError:
        raise MissingExtra(f"{setting} needs prometheus-client: pip install prometheus-client.") from None
    serve(settings.metrics_host, port, metrics=lambda: exposition(registry), setting=setting)
