"""How a command speaks and ends: answers, notes, errors in one sentence, exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum
from typing import NoReturn

import typer

from irs.errors import IrsError, MissingResource, PassingError, RequestError, SetupError, Unreachable

_tracebacks = False


class Code(IntEnum):
    """Exit codes."""

    OK = 0
    SOME_FAILED = 1
    WRONG_USE = 2
    NOT_REACHABLE = 3
    INTERRUPTED = 130
    #: As a shell tells of a tool that SIGPIPE ended.
    READER_LEFT = 141


def code_of(error: BaseException) -> Code:
    """Return the exit code an error stands for."""
    if isinstance(error, MissingResource | Unreachable | PassingError):
        return Code.NOT_REACHABLE
    if isinstance(error, SetupError | RequestError):
        return Code.WRONG_USE
    return Code.INTERRUPTED if isinstance(error, KeyboardInterrupt) else Code.SOME_FAILED


def show_tracebacks(wanted: bool) -> None:
    """Let :func:`end` show the traceback of an error, or not."""
    global _tracebacks
    _tracebacks = wanted


def answer(line: str = "") -> None:
    """Write one line of the answer to standard output.

    Raises:
        SystemExit: the reader has left, as ``head`` does: there is no one to tell.
    """
    try:
        print(line, flush=True)  # noqa: T201
    except BrokenPipeError:
        _forget_stdout()
        sys.exit(Code.READER_LEFT)


def note(line: str) -> None:
    """Write one line for the person at the terminal to standard error."""
    typer.echo(line, err=True)


def end(run: Callable[[], object]) -> NoReturn:
    """Run the command line and end the process with its exit code; an error becomes one sentence."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold what the terminal's encoding cannot write.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        run()
        code = int(Code.OK)
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(Code.OK if ending.code is None else Code.SOME_FAILED)
    except KeyboardInterrupt:
        code = int(Code.INTERRUPTED)
    except BrokenPipeError:
        _forget_stdout()
        code = int(Code.READER_LEFT)
    except Exception as error:
        code = int(code_of(error))
        _say(error)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """End the process without taking the interpreter apart: with a model loaded that takes up to 2 s, for nothing."""
    import logging

    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(error: Exception) -> None:
    if _tracebacks:
        traceback.print_exception(error)
    elif isinstance(error, IrsError):
        note(f"irs: {error}")
    else:
        first_line = (str(error).strip().splitlines() or ["no more is known"])[0]
        note(f"irs: unexpected {type(error).__name__}: {first_line}. Run `irs --debug ...` to see where.")


def _forget_stdout() -> None:
    # Else the interpreter flushes into the closed pipe when it ends, and complains.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
