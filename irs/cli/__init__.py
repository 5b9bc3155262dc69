"""The ``irs`` command. Light on purpose: a command imports what it needs when it runs.

Answers go to standard output, all else to standard error. Exit codes: 0 all answered, 1 some failed,
2 wrong use, 3 service not reachable, 130 interrupted.
"""

from __future__ import annotations

from typing import Annotated

import typer

from irs.cli import (
    bench,
    cancel,
    chaos,
    cost,
    dead_letters,
    drops,
    flower,
    janitor,
    models,
    operate,
    outcome,
    recognize,
    scaler,
    sync,
    trace,
    train,
    up,
    web,
)

app = typer.Typer(
    name="irs",
    help="Image recognition as a service: photos in, labels out.",
    epilog="Exit codes: 0 all answered, 1 some failed, 2 wrong use, 3 service not reachable, 130 interrupted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Plain help needs no rich: it answers in a fifth of the time.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("up", no_args_is_help=False, context_settings={"allow_interspersed_args": False})(up.up)
app.command("recognize")(recognize.recognize)
app.command("worker")(operate.worker)
app.command("sync")(sync.sync)
app.command("cancel")(cancel.cancel)
app.command("web")(web.web)
app.command("cost")(cost.cost)
app.command("trace")(trace.trace)
app.command("flower", no_args_is_help=False)(flower.flower)
app.command("status")(operate.status)
app.command("janitor")(janitor.janitor)
app.command("drops")(drops.drops)
app.command("provision")(operate.provision)
app.command("train")(train.train)
app.add_typer(models.app, name="models")
app.add_typer(bench.app, name="bench")
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(chaos.app, name="chaos")
app.add_typer(scaler.app, name="scaler")


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        outcome.answer(f"irs {version('irs')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    outcome.show_tracebacks(debug)


def main() -> None:
    """Run the command of ``sys.argv``; ends the process with its exit code."""
    outcome.end(lambda: app(prog_name="irs"))
