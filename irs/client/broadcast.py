"""What is cancelled, told to workers at once: a hint beside the marks in the output bucket, which they list every 5 s."""

from __future__ import annotations

import logging
import threading

from irs.cloud import Cloud
from irs.settings import get_settings

log = logging.getLogger(__name__)

#: Who cancels waits for SNS no longer.
WAIT_S = 2.0


def tell_workers(cloud: Cloud, id: str) -> None:
    """Tell all workers that a job or a task is cancelled; its marks must stand already.

    Does nothing without ``IRS_MONITORING``, never raises, and takes two seconds at most.
    """
    # The app speaks to SNS by the settings of this process.
    if not (cloud.settings.monitoring and get_settings().monitoring):
        return
    telling = threading.Thread(target=_tell, args=(cloud, id), name="irs-cancel", daemon=True)
    telling.start()
    telling.join(WAIT_S)


def _tell(cloud: Cloud, id: str) -> None:
    try:
        # Celery costs 0.3 s at import: only who cancels while workers listen pays for it.
        from irs.app import app

        with app.connection_for_write() as connection, app.amqp.Producer(connection, auto_declare=False) as producer:
            producer.channel.cloud = cloud
            app.control.tell("revoke", {"task_id": [id]}, producer)
    except Exception as error:  # the edge of a thread: a hint may be lost
        log.warning("workers_untold", extra={"id": id, "reason": str(error)})
