"""Where ``celery -A irs`` looks for the app, by Celery's custom: it is :data:`irs.app.app`."""

from irs.app import app

__all__ = ["app"]
