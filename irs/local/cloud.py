"""The embedded cloud's own process: ``python -m irs.local.cloud --home DIR [--port N] [--region NAME]``.

Serves S3, SQS, SNS, IAM, STS, CloudWatch and EC2 on 127.0.0.1, runs the instances of that as its children, and says
so in one JSON line on stdout. It ends at SIGTERM, at SIGINT, when its standard input is a pipe that ends, and, if
``IRS_PARENT_PID`` names its parent, when that thread dies. All of these let the instances drain and keep its state;
SIGKILL ends the instances and keeps the objects and what EC2 has on record.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import errno
import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from irs.errors import SetupError
from irs.local.ec2.door import Door
from irs.local.ec2.environment import MachineEnvironment, machine_quota
from irs.local.embedded import GRACE_SECONDS
from irs.local.emulator import TESTED_VERSION, enter_emulator_environment, load_services, require_emulator
from irs.local.home import RC_IN_USE, Endpoint, Home

_PR_SET_PDEATHSIG = 1
_GRACEFUL_SECONDS = 5


def main() -> int:
    """Serve until told to stop; 0 after a stop with all state kept."""
    parser = argparse.ArgumentParser(prog="python -m irs.local.cloud")
    parser.add_argument("--home", type=Path, required=True, help="folder of the state")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0: the one of the last run, or a free one")
    parser.add_argument("--region", default="us-east-1", help="AWS region it stands for")
    parser.add_argument("--boot-seconds", type=float, default=0.0, help="how long an instance stays pending")
    parser.add_argument("--drain-seconds", type=float, default=25.0, help="what a worker has to finish what it holds")
    parser.add_argument("--checks-rights", action="store_true", help="calls need an IAM policy that allows them")
    chosen = parser.parse_args()
    if not _die_with_parent():
        return 0
    ready_pipe = _take_stdout()
    try:
        require_emulator()
        home = Home(chosen.home)
        if home.lock() is None:
            return RC_IN_USE
        listener = _listen(home, chosen.port)
    except SetupError as error:
        sys.stderr.write(f"{error}\n")
        _tell(ready_pipe, {"ready": False, "error": str(error)})
        return 1
    endpoint = _settle(home, listener.getsockname()[1], chosen.region)
    quota = machine_quota()
    environment = MachineEnvironment(os.environ, endpoint, quota=quota)
    enter_emulator_environment(home, endpoint, checks_rights=chosen.checks_rights)
    door = Door(
        home,
        endpoint.region,
        environment,
        quota=quota,
        boot_seconds=chosen.boot_seconds,
        drain_seconds=chosen.drain_seconds + GRACE_SECONDS,
    )
    asyncio.run(_serve(home, endpoint, listener, ready_pipe, door, checks_rights=chosen.checks_rights))
    home.write_endpoint(endpoint, pid=None)
    return 0


def _die_with_parent() -> bool:
    """Ask for SIGTERM at the end of the thread that started us; False if it has ended already."""
    parent = os.environ.pop("IRS_PARENT_PID", "")
    if not parent or sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == int(parent)


def _take_stdout() -> int:
    """Return stdout for the ready line; whatever else is printed goes to stderr."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return pipe


def _tell(pipe: int, what: dict[str, Any]) -> None:
    # Nobody may listen any more: the end of standard input will say so too.
    with suppress(BrokenPipeError), open(pipe, "w") as out:
        out.write(json.dumps(what) + "\n")


def _listen(home: Home, port: int) -> socket.socket:
    """Bind the port asked for, or the last run's, which stored queue URLs name, or a free one."""
    last = home.read_endpoint()
    # Without its protocol named, asyncio leaves Nagle's algorithm on: 7 calls a second instead of 300 (measured).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port or (last.port if last else 0)))
        listener.listen(1024)
    except OSError as error:
        if port:
            listener.close()
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise SetupError(f"Port {port} {reason}: choose another one, or none to get a free one.") from None
        listener.close()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
    return listener


def _settle(home: Home, port: int, region: str) -> Endpoint:
    """Take over the last run's keys and state, and mark its queues as lost where they cannot be."""
    last = home.read_endpoint()
    endpoint = Endpoint.with_new_keys(port=port, region=region)
    if last is not None:
        is_same = (last.port, last.region) == (port, region)
        endpoint = Endpoint(port=port, region=region, access_key_id=last.access_key_id, secret_access_key=last.secret_access_key)
        if not is_same:
            # Queue URLs hold the old port, and clients take them as addresses.
            home.forget_state()
        if not (home.state / "sqs.json").exists():
            home.lost_queues.touch()
    home.write_endpoint(endpoint, pid=None)
    return endpoint


async def _serve(
    home: Home, endpoint: Endpoint, listener: socket.socket, ready_pipe: int, door: Door, *, checks_rights: bool
) -> None:
    import ministack.app
    import uvicorn

    import irs.local.s3
    import irs.local.sqs
    from irs.local.guard import Guard

    load_services()
    irs.local.s3.patch()
    polls = irs.local.sqs.patch()
    door.open()
    config = uvicorn.Config(
        Guard(ministack.app.app, endpoint, door.answer, checks_rights=checks_rights),
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_GRACEFUL_SECONDS,
    )

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            # Signals are ours: uvicorn would raise them again at the end, and exit with their code.
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            # Loaded, so stale from here on: after SIGKILL done messages must not rise again.
            home.forget_state()
            home.write_endpoint(endpoint, pid=os.getpid())
            told = {"ready": True, "endpoint": endpoint.url, "pid": os.getpid(), "version": TESTED_VERSION}
            _tell(ready_pipe, told)

    server = Server(config)

    async def end() -> None:
        # First, while the queues still answer: what runs drains to them.
        try:
            await door.close()
        finally:
            server.should_exit = True
            polls.stop()

    _stop_on(end)
    steps = asyncio.create_task(door.run())
    await server.serve([listener])
    steps.cancel()


def _stop_on(end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``end`` once, at the first thing that asks for it."""
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not ending:
            ending.append(loop.create_task(end()))

    def watch_stdin() -> None:
        while os.read(0, 4096):
            pass
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=watch_stdin, name="stdin", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
