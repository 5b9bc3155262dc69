"""``irs chaos``: what goes wrong in a cloud, on this machine and on demand."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from irs.cli.outcome import answer
from irs.errors import SetupError

app = typer.Typer(help="Faults in the embedded cloud of `irs up`, to see that nothing is lost.", no_args_is_help=True)

Instances = Annotated[list[str], typer.Argument(metavar="ID...", help="Instances, as `irs status` names them.")]
Home = Annotated[Path | None, typer.Option(help="Folder of the embedded cloud's state; else IRS_HOME.", show_default=False)]


@app.command()
def spot(
    ids: Instances,
    after: Annotated[float, typer.Option(min=0, help="Seconds between the notice and the end.")] = 120.0,
    home: Home = None,
) -> None:
    """Give spot instances their notice, and take them away when it is over."""
    from irs.local.ec2.control import Control

    control = Control.of(_home(home))
    for id in ids:
        control.interrupt(id, after_s=after)
        answer(f"{id} is taken away in {after:g} s")


@app.command()
def kill(ids: Instances, home: Home = None) -> None:
    """End instances at once, as a lost machine would: SIGKILL to all their processes."""
    _send(ids, home, signal.SIGKILL, "is killed")


@app.command()
def freeze(ids: Instances, home: Home = None) -> None:
    """Let instances stand still, as a lost network would: SIGSTOP to all their processes."""
    _send(ids, home, signal.SIGSTOP, "stands still")


@app.command()
def thaw(ids: Instances, home: Home = None) -> None:
    """Let instances that were frozen go on."""
    _send(ids, home, signal.SIGCONT, "goes on")


@app.command("slow-boot")
def slow_boot(
    seconds: Annotated[float, typer.Argument(min=0, help="How long new instances stay pending.")], home: Home = None
) -> None:
    """Let instances boot slowly, as a cloud's do."""
    from irs.local.ec2.control import Control

    Control.of(_home(home)).add(boot_seconds=seconds)
    answer(f"instances boot in {seconds:g} s")


@app.command()
def capacity(
    rooms: Annotated[
        list[str],
        typer.Argument(metavar="PLACE=ROOM...", help="Such as c7i.large/us-east-1a/spot=0, or */*/*=2 for all."),
    ],
    home: Home = None,
) -> None:
    """Make capacity scarce: in a place that is full launches are refused."""
    from irs.local.ec2.control import Control

    wanted = dict(_room(each) for each in rooms)
    Control.of(_home(home)).add(capacity=wanted)
    for place, room in wanted.items():
        answer(f"{place} has room for {room}")


@app.command()
def off(home: Home = None) -> None:
    """End all faults but those that were already suffered."""
    from irs.local.ec2.control import Control

    Control.of(_home(home)).put()
    answer("nothing goes wrong any more")


def _room(text: str) -> tuple[str, int]:
    place, _, room = text.rpartition("=")
    if not room.isdecimal() or len(place.split("/")) != 3:
        raise SetupError(f"{text} is no capacity: say TYPE/ZONE/MARKET=ROOM, such as c7i.large/us-east-1a/spot=0 or */*/*=2.")
    return place, int(room)


def _send(ids: list[str], home: Path | None, number: signal.Signals, said: str) -> None:
    from irs.local.ec2.ledger import Ledger

    place = _home(home)
    running = {id: process for id, process in Ledger(place).read().items() if process.is_there()}
    if missing := [id for id in ids if id not in running]:
        there = f"{', '.join(sorted(running))} do" if running else "none does"
        raise SetupError(f"{missing[0]} does not run as an instance of {place}: {there}.")
    for id in ids:
        running[id].send(number)
        answer(f"{id} {said}")


def _home(given: Path | None) -> Path:
    from irs.settings import read_settings

    return (given or read_settings().home).absolute()
