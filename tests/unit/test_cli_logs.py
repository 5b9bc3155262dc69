"""Log lines: readable, JSON, and the last words of a process that ended."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from irs.monitoring.logs import last_words, set_up_logging

log = logging.getLogger("irs.test")


@pytest.fixture(autouse=True)
def logging_of_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def readable() -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(stream=stream)
    return stream


@pytest.fixture
def as_json() -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(as_json=True, stream=stream)
    return stream


def test_a_readable_line_holds_time_level_logger_event_and_fields(readable: io.StringIO) -> None:
    log.info("stored", extra={"task_id": "a.000001", "label": "golden retriever", "store_s": 0.25, "error": None})

    at, rest = readable.getvalue().split(" ", 1)
    assert 'INFO irs.test stored task_id=a.000001 label="golden retriever" store_s=0.25 error=None\n' == rest
    assert at.endswith("Z")


def test_a_readable_event_stays_on_one_line(readable: io.StringIO) -> None:
    log.info("one\ntwo", extra={"name_of_file": "three\nfour"})

    assert 1 == readable.getvalue().count("\n")


def test_a_json_line_holds_the_same_as_fields(as_json: io.StringIO) -> None:
    log.warning("away", extra={"reason": "S3", "after_s": 1.5, "path": io})

    line = json.loads(as_json.getvalue())
    assert ("WARNING", "irs.test", "away", "S3", 1.5) == tuple(
        line[key] for key in ("level", "logger", "event", "reason", "after_s")
    )
    assert str(io) == line["path"]


def test_a_field_cannot_hide_the_level(as_json: io.StringIO) -> None:
    log.error("e", extra={"level": "INFO", "event": "another"})

    line = json.loads(as_json.getvalue())
    assert ("ERROR", "e") == (line["level"], line["event"])


def test_a_traceback_is_told_once_in_either_form(readable: io.StringIO) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("broke")

    assert 1 == readable.getvalue().count("ValueError: why")


def test_libraries_are_heard_from_warnings_on(readable: io.StringIO) -> None:
    logging.getLogger("botocore.auth").info("signing")
    logging.getLogger("kombu").warning("odd")

    assert "signing" not in readable.getvalue()
    assert "odd" in readable.getvalue()


@pytest.mark.parametrize("form", ["readable", "as_json"])
def test_the_last_words_are_the_last_critical_sentence(form: str, request: pytest.FixtureRequest) -> None:
    stream = request.getfixturevalue(form)
    log.critical("The first.")
    log.critical("No model is named: set IRS_MODEL.")
    log.info("ended", extra={"code": 2})

    assert "No model is named: set IRS_MODEL." == last_words(stream.getvalue())


@pytest.mark.parametrize(
    ("text", "words"), [("", ""), ("one\ntwo\n\n", "two"), ("[1]\n", "[1]"), ("irs: a sentence.\n", "irs: a sentence.")]
)
def test_the_last_words_without_a_critical_line_are_the_last_line(text: str, words: str) -> None:
    assert words == last_words(text)


def test_a_log_that_ends_in_half_a_json_line_still_has_last_words() -> None:
    assert '{"level": "CRIT' == last_words('{"level": "INFO", "event": "e"}\n{"level": "CRIT')
