"""Celery's own settings, the only place for them; numbers come from irs.settings."""

from irs.settings import get_settings

_settings = get_settings()

# No host and no keys: the transport takes endpoint and credentials from irs.cloud.
broker_url = "sqs://"
broker_transport_options = {
    "region": _settings.region,
    "is_secure": not _settings.endpoint_url.startswith("http://"),
    "wait_time_seconds": _settings.wait_seconds,
    "visibility_timeout": _settings.visibility_seconds,
    # Plain JSON bodies: base64 twice costs 78 % on the payload.
    "sqs_base64_encoding": False,
    "body_encoding": "utf-8",
    "pollers": _settings.pollers,
    "ack_batch_seconds": _settings.ack_batch_seconds,
    "max_lease": _settings.max_lease_seconds,
    "drain_seconds": _settings.drain_seconds,
    "cut_polls": _settings.cut_polls,
}
broker_connection_retry_on_startup = True
broker_connection_max_retries = None

result_backend = "irs.results.backend:Backend"
# One for all task threads: each its own would cost each its first image 30 ms.
result_backend_thread_safe = True

imports = ("irs.tasks", *(("irs.monitoring.commands",) if _settings.monitoring else ()))
task_default_queue = _settings.requests_queue
task_create_missing_queues = True
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
task_acks_late = True
task_acks_on_failure = False
task_acks_on_timeout = False
task_reject_on_worker_lost = True
# Off, else AsyncResult.get() answers None at once.
task_ignore_result = False
task_send_sent_event = False
enable_utc = True

worker_pool = "irs.worker.pool:Pool"
worker_consumer = "irs.worker.consumer:Consumer"
worker_concurrency = _settings.slots
worker_prefetch_multiplier = 2
worker_eta_task_limit = 100
worker_soft_shutdown_timeout = 0
worker_hijack_root_logger = False
# Events and remote control go over SNS. Of tasks a worker tells while somebody watches; see irs.monitoring.events.
worker_send_task_events = False
worker_enable_remote_control = _settings.monitoring
