"""The Celery app: broker, result backend and settings from ``celeryconfig.py``; no task, no torch.

Importing it puts our transport behind the scheme ``sqs://`` (see :mod:`irs.broker`).
"""

from __future__ import annotations

from celery import Celery

import irs.broker

irs.broker.register()

app = Celery("irs", set_as_current=False)
app.config_from_object("celeryconfig")
# Loaded when a worker starts and never by callers: the model, its threads, readiness.
app.steps["worker"].add("irs.worker.life:EngineStep")
