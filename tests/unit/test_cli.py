"""The command line: help, exit codes, what is said where."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from irs import errors
from irs.cli import app, outcome
from irs.cli.outcome import Code
from irs.cloud import NO_CREDENTIALS

HEAVY = ("boto3", "botocore", "celery", "kombu", "torch", "numpy", "PIL", "pydantic", "pydantic_settings", "irs.settings", "rich")


def irs(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("IRS_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-m", "irs.cli", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken and never listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each command's path and its help as the command line shows it."""
    for one in group.registered_commands:
        name = one.name or (one.callback.__name__ if one.callback else "")
        yield (*path, name), (one.callback.__doc__ if one.callback else "") or ""
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        yield from commands(sub.typer_instance, (*path, sub.name or ""))


ALL = sorted(commands(app))


def test_the_command_line_has_the_commands_of_the_design() -> None:
    expected = {
        ("up",),
        ("recognize",),
        ("worker",),
        ("trace",),
        ("status",),
        ("provision",),
        ("models", "list"),
        ("models", "show"),
        ("dlq", "list"),
        ("dlq", "redrive"),
    }

    assert expected <= {path for path, _ in ALL}


@pytest.mark.parametrize(("path", "text"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_has_help_and_each_of_its_options_too(path: tuple[str, ...], text: str) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])

    assert 0 == shown.exit_code
    assert text.strip().splitlines()[0] in " ".join(shown.output.split())
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    assert [] == [one.name for one in command.params if one.name != "help" and not getattr(one, "help", None)]


def test_help_loads_neither_clients_nor_settings_nor_torch() -> None:
    program = (
        "import sys\nfrom irs.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules), end='', file=sys.stderr)"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert "recognize" in ran.stdout
    assert "" == ran.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SetupError("a"), 2),
        (errors.ModelError("a"), 2),
        (errors.MissingExtra("a"), 2),
        (errors.BadOptions("a"), 2),
        (errors.NotFound("a"), 2),
        (errors.MissingResource("a"), 3),
        (errors.Unreachable("a"), 3),
        (errors.StorageUnavailable("a"), 3),
        (errors.QueueUnavailable("a"), 3),
        (errors.RecognitionFailed("a", "b", "c"), 1),
        (errors.InternalError("a"), 1),
        (ValueError("a"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_ends_with_the_code_of_its_kind(error: BaseException, code: int) -> None:
    assert code == outcome.code_of(error)


def ending(error: BaseException) -> int | str | None:
    def run() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        outcome.end(run)
    return ended.value.code


def test_an_error_of_ours_is_one_sentence_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert 3 == ending(errors.MissingResource("Queue q is not there: run `irs provision` first."))

    assert ("", "irs: Queue q is not there: run `irs provision` first.\n") == capfd.readouterr()


def test_an_unexpected_error_tells_how_to_see_more(capfd: pytest.CaptureFixture[str]) -> None:
    assert 1 == ending(ZeroDivisionError("division by zero\nsecond line"))

    _, said = capfd.readouterr()
    assert "irs: unexpected ZeroDivisionError: division by zero. Run `irs --debug ...` to see where.\n" == said


def test_debug_shows_the_traceback(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "_tracebacks", True)

    ending(errors.SetupError("a sentence"))

    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_ctrl_c_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    assert Code.INTERRUPTED == ending(KeyboardInterrupt())

    assert ("", "") == capfd.readouterr()


def test_a_reader_that_leaves_is_no_error() -> None:
    program = "from irs.cli import outcome\noutcome.end(lambda: [outcome.answer('x' * 9999) for _ in range(99)])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()

    assert b"" == said
    assert Code.READER_LEFT == process.returncode


def test_a_wrong_setting_is_wrong_use() -> None:
    ran = irs("status", IRS_SLOTS="many")

    assert 2 == ran.returncode
    assert "" == ran.stdout
    assert ran.stderr.startswith("irs: IRS_SLOTS: ")
    assert 1 == ran.stderr.count("\n")


def test_an_endpoint_without_its_scheme_is_wrong_use() -> None:
    ran = irs("status", IRS_ENDPOINT_URL="localhost:4566")

    assert (2, "") == (ran.returncode, ran.stdout)
    assert "irs: IRS_ENDPOINT_URL must begin with http:// or https://; empty means AWS.\n" == ran.stderr


@pytest.mark.parametrize(
    "command",
    [("recognize", "a.jpg"), ("status",), ("worker", "--model", "resnet18"), ("provision",), ("sync", ".")],
    ids=["recognize", "status", "worker", "provision", "sync"],
)
def test_who_has_neither_a_service_nor_an_account_is_told_how_to_get_either(command: tuple[str, ...], tmp_path: Path) -> None:
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}

    ran = irs(*command, IRS_HOME=str(tmp_path), **nowhere)

    assert (3, "") == (ran.returncode, ran.stdout)
    assert f"irs: {NO_CREDENTIALS}\n" == ran.stderr


def test_a_wrong_option_is_wrong_use() -> None:
    ran = irs("recognize", "--no-such-option")

    assert 2 == ran.returncode
    assert "--no-such-option" in ran.stderr


def test_a_worker_without_a_model_says_what_to_do() -> None:
    ran = irs("worker")

    assert 2 == ran.returncode
    assert ran.stderr.startswith("irs: No model is named: ")
    assert 1 == ran.stderr.count("\n")


@pytest.mark.parametrize("command", [("status",), ("provision",), ("dlq", "list"), ("worker", "--model", "resnet18")])
def test_a_service_that_does_not_answer_is_not_reachable(command: tuple[str, ...], unused_port: int) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}

    ran = irs(*command, IRS_ENDPOINT_URL=f"http://127.0.0.1:{unused_port}", **keys)

    assert 3 == ran.returncode, ran.stderr
    assert "" == ran.stdout
    assert ran.stderr.startswith("irs: ")
    assert 1 == ran.stderr.count("\n")


def test_the_version_is_the_installed_one() -> None:
    from importlib.metadata import version

    assert f"irs {version('irs')}\n" == CliRunner().invoke(app, ["--version"]).output


def test_the_shell_completes_commands() -> None:
    ran = irs(_IRS_COMPLETE="complete_bash", COMP_WORDS="irs rec", COMP_CWORD="1")

    assert "recognize" in ran.stdout.split()
