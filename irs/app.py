"""The Celery app: broker, result backend and settings from ``celeryconfig.py``; no task, no torch.

Importing it puts our transport behind the scheme ``sqs://`` (see :mod:`irs.broker`).
"""

from __future__ import annotations

import sys

from celery import Celery

import irs.broker
from irs.settings import get_settings

_watched = get_settings().monitoring
irs.broker.register(broadcasts=_watched)

app = Celery(
    "irs",
    set_as_current=False,
    control="irs.monitoring.control:Control",
    # Celery's own events without monitoring: they reach nobody, and cost nothing.
    events="irs.monitoring.events:Events" if _watched else None,
)
app.config_from_object("celeryconfig")
# Loaded when a worker starts and never by callers: the model, its threads, readiness.
app.steps["worker"].add("irs.worker.life:EngineStep")
if "flower" in sys.argv and "flower.command" in sys.modules:
    # Celery has loaded it for its command line by now, and Flower knows nothing of SQS.
    from irs.monitoring.flower import install

    install()
