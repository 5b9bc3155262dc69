"""Every command in the documents is one that can be typed; ``tests/journey/test_docs_commands.py`` runs them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import typer.main
from botocore import xform_name
from documents import PYTHON, ROOT, SHOWN, Block, blocks, commands, pages

from irs.cli import app

TYPED = [(block.where, command) for page in pages() for block in blocks(page) if block.is_typed for command in commands(block)]
OTHERS = [block for page in pages() for block in blocks(page) if not block.is_typed]
STANDS_FOR = "1"
#: Programs whose arguments are looked at nowhere but where they run, and words of the shell.
PLAIN = {"cd", "celery", "docker", "echo", "export", "git", "openssl", "packer", "python", "rm"}
#: Parts of the AWS command line that are no operations of a service.
AWS_OWN = {("s3", "cp"), ("s3", "rb"), ("cloudformation", "deploy")}
AWS_GLOBAL = {"--query", "--region", "--output"}


@pytest.mark.parametrize("block", OTHERS, ids=[block.where for block in OTHERS])
def test_a_block_that_is_no_command_says_what_it_is(block: Block) -> None:
    if block.language == PYTHON:
        compile(block.text, block.where, "exec")
    else:
        assert block.language in SHOWN, f"{block.where}: say its language, and what it is in tests/documents.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where there is what a word in capitals stands for: a number, or a folder."""
    made = tmp_path_factory.mktemp("typed")
    (made / STANDS_FOR).mkdir()
    return made


@pytest.mark.parametrize(("where", "command"), TYPED, ids=[f"{where}-{command[:40]}" for where, command in TYPED])
def test_a_command_is_one_that_can_be_typed(where: str, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert 0 == subprocess.run(["bash", "-n", "-c", command], check=False).returncode
    for words in simple_commands(command):
        program, *arguments = words
        match program.removeprefix(".venv/bin/"):
            case "irs":
                read_by_typer(arguments)
            case "make":
                targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
                assert {word for word in arguments if "=" not in word} <= targets
            case "python" if arguments[0].startswith("tools/"):
                assert (ROOT / arguments[0]).is_file()
            case "aws":
                check_aws(arguments)
            case other:
                assert other in PLAIN, f"{where}: is {other} a program? Name it here, or what its arguments must be"


def simple_commands(line: str) -> list[list[str]]:
    """Return the simple commands of a line of shell: without redirections, assignments and what joins them."""
    found: list[list[str]] = [[]]
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = iter(lexer)
    for word in words:
        if set(word) <= set("|&;"):
            found.append([])
        elif set(word) <= set("<>"):
            next(words)
        elif found[-1] or not re.match(r"\w+=", word):
            found[-1].append(word)
    return [words for words in found if words]


def read_by_typer(arguments: Sequence[str]) -> None:
    """Let the command read its arguments, without being run."""
    command: Any = typer.main.get_command(app)
    rest, context = list(arguments), None
    while hasattr(command, "commands"):
        context = command.make_context("irs", rest, parent=context)
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None, name
    command.make_context("irs", [re.sub(r"^[A-Z]+$", STANDS_FOR, word) for word in rest], parent=context)


def check_aws(arguments: Sequence[str]) -> None:
    """Look that the operation is one of the service, and that it takes these options."""
    service, operation, *rest = arguments
    if (service, operation) in AWS_OWN:
        return
    model = botocore.session.get_session().get_service_model(service)
    shape = {xform_name(name, "-"): model.operation_model(name).input_shape for name in model.operation_names}[operation]
    takes = {f"--{xform_name(name, '-')}" for name in (shape.members if shape else ())} | AWS_GLOBAL
    assert {word for word in rest if word.startswith("--")} <= takes
