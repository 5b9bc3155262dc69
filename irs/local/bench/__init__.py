"""The benchmark: this service against the bare loop around the model and against plain Celery, in one run."""
