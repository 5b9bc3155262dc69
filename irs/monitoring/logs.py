"""Log lines: a fixed event name and its fields, readable or as JSON, one line an event.

``log.info("stored", extra={"task_id": …})`` becomes ``… INFO irs.worker.engine stored task_id=…``.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import IO, Any

from irs.records import split_task_id

#: What every LogRecord has: anything else in it came as ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
#: Libraries that tell each request or task; their warnings are heard.
_TALKATIVE = ("boto3", "botocore", "urllib3", "s3transfer", "kombu", "amqp", "celery.worker.strategy", "celery.app.trace")
_PLAIN = frozenset("-_.:/@%+")

#: The task that this thread works on. A thread that works for another's task runs in a copy of its context.
TASK_ID: ContextVar[str | None] = ContextVar("irs_task_id", default=None)


class _ImageFields(logging.Filter):
    """Gives each line of an image its ``task_id``, ``job`` and ``number``, whichever library wrote it.

    The task of a plain call has an id alone.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; lets every line pass."""
        task_id = record.__dict__.get("task_id") or TASK_ID.get()
        if task_id:
            record.__dict__["task_id"] = task_id
            if split := split_task_id(str(task_id)):
                record.__dict__.update(job=split[0], number=split[1])
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``at`` (UTC), ``level``, ``logger``, ``event``, the fields, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what JSON cannot hold becomes text."""
        line = {"at": _at(record), "level": record.levelname, "logger": record.name, "event": record.getMessage()}
        line |= {name: value for name, value in _fields(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class ReadableFormatter(logging.Formatter):
    """``time level logger event name=value …``; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or more when there is a traceback."""
        event = record.getMessage().replace("\n", "\\n")
        line = f"{_at(record)} {record.levelname} {record.name} {event}"
        line += "".join(f" {name}={_value(value)}" for name, value in _fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logging(*, as_json: bool = False, level: int = logging.INFO, stream: IO[str] | None = None) -> None:
    """Send the log of this process to ``stream`` (standard error), in place of what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else ReadableFormatter())
    handler.addFilter(_ImageFields())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def last_words(log_text: str) -> str:
    """Return the sentence of the last CRITICAL line, else the last line, of a log of either form; "" if it is empty."""
    lines = [line for line in log_text.splitlines() if line.strip()]
    return next((said for line in reversed(lines) if (said := _critical(line))), lines[-1].strip() if lines else "")


def _critical(line: str) -> str | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        parts = line.split(" ", 3)
        return parts[3] if len(parts) == 4 and parts[1] == "CRITICAL" else None
    is_critical = isinstance(parsed, dict) and parsed.get("level") == "CRITICAL"
    return str(parsed["event"]) if is_critical else None


def _at(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _value(value: object) -> str:
    text = str(value)
    if text and all(character.isalnum() or character in _PLAIN for character in text):
        return text
    return json.dumps(text, ensure_ascii=False)
