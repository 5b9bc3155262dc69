"""``irs up``: the whole service on one machine, for as long as it is wanted.

The embedded cloud (or the endpoint that is set), buckets and queues, page, Flower, janitor and drop box; workers, a
fixed number or as many as the scaler finds worthwhile; then a command in their environment, or serving until a signal.
One loop in the main thread hears signals and the end of children.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irs.cloud import Cloud
from irs.errors import ModelError, SetupError
from irs.local import child, sidecars
from irs.local.daemon import Daemon, Daemons, Say, forget_old_logs
from irs.local.follow import RollFollower
from irs.local.join import enter
from irs.local.processes import Crew, Worker, WorkerEnded
from irs.local.resend import resend_unanswered
from irs.local.signals import Signals
from irs.models.choice import AUTO, PRETRAINED, WITHIN_S, choose, has_pretrained
from irs.provision import provision
from irs.settings import Settings, read_settings

if TYPE_CHECKING:
    from irs.local.embedded import EmbeddedCloud

LOOK_S = 0.1
#: As often in a row the scaler tries at once; then seldom, and a command would wait for answers that do not come.
MOST_FAILURES = 3
IDLE_LOOK_S = 1.0


def up(*, workers: int | None, command: Sequence[str], say: Say) -> int:
    """Bring the service up as the environment says; return the exit code of ``command``, or of the end by a signal.

    Blocks; for the main thread. ``IRS_*`` and ``AWS_*`` of this process's environment are set on the way.

    Args:
        workers: how many run all the time; None: as many as the scaler finds worthwhile on the embedded cloud, from
            none to what this machine is good for, or one on a cloud that others run.

    Raises:
        SetupError: something is missing; all that was started has ended.
    """
    _check(workers, command)
    _choose_model(say)
    os.environ.setdefault("IRS_MONITORING", "true")
    with _ground(say) as ground, Signals() as signals:
        service = _Service(ground, workers, say, serves=not command)
        try:
            while not service.crew.is_ready:
                if signals.asked:
                    return 128 + signals.asked[0]
                service.tend()
                signals.wait(LOOK_S)
            return _run(command, service, signals) if command else _serve(service, signals, say)
        finally:
            service.end(signals)


class _Service:
    """All that runs on the ground, tended together.

    Raises:
        SetupError: an address cannot be bound.
    """

    def __init__(self, ground: Ground, workers: int | None, say: Say, *, serves: bool) -> None:
        self._ground, cloud = ground, ground.cloud
        settings, at_parents_end = cloud.settings, ground.at_parents_end
        forget_old_logs(settings.home / "logs")
        found: list[Daemon | None] = [
            sidecars.find_page(settings, say, at_parents_end=at_parents_end),
            sidecars.find_flower(settings, say, at_parents_end=at_parents_end) if settings.monitoring else None,
            sidecars.janitor(settings, say, at_parents_end=at_parents_end),
            sidecars.drops(settings, say, at_parents_end=at_parents_end),
        ]
        self.scaler = None
        if workers is None and ground.embedded is not None:
            self.scaler = sidecars.find_scaler(cloud, say, at_parents_end=at_parents_end)
        fixed = (0 if self.scaler else 1) if workers is None else workers
        # A command's first image starts a worker at once, which would fight the check for the cores.
        check = sidecars.Check(settings, say, at_parents_end=at_parents_end) if self.scaler and serves else None
        self._daemons = Daemons(one for one in (*found, self.scaler, check) if one is not None)
        self._daemons.tend()
        started = _workers(ground, fixed, say)
        self.crew = Crew(started, drain_s=settings.drain_seconds)
        self._follower = RollFollower(cloud, started, say)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is expected to change soon."""
        return all(worker.is_ready for worker in self.crew.workers)

    def tend(self) -> None:
        """Start what is to be started, notice what has ended. Raises SetupError."""
        self._ground.tend()
        self.crew.tend()
        self._follower.tend()
        self._daemons.tend()
        if self.scaler is not None and self.scaler.failures >= MOST_FAILURES:
            raise WorkerEnded(f"No worker could start: {self.scaler.failed} (log {self.scaler.log})", 1)

    def end(self, signals: Signals) -> None:
        """End all but the ground, whose end drains the workers that the scaler started."""
        self._daemons.drain()
        self.crew.end(signals)
        self._daemons.end(signals)


class Ground:
    """What workers stand on: the embedded cloud, or a cloud that others run."""

    def __init__(self, embedded: EmbeddedCloud | None, say: Say) -> None:
        self.embedded, self._say = embedded, say
        self.cloud = self._prepared()

    @property
    def at_parents_end(self) -> signal.Signals:
        """What ends a worker whose ``irs up`` was killed: without its cloud it has nothing to drain to."""
        return signal.SIGKILL if self.embedded else signal.SIGTERM

    def tend(self) -> None:
        """Start the embedded cloud again if it has died.

        Raises:
            SetupError: it cannot be started, or not at its address.
        """
        if self.embedded is None or self.embedded.poll() is None:
            return
        self._say("cloud  has ended, starts again")
        endpoint = self.embedded.endpoint
        self.embedded.stop()
        self.embedded = _start_embedded(self.cloud.settings)
        if self.embedded.endpoint != endpoint:
            raise SetupError(f"The embedded cloud lost its address {endpoint}: another program took it. Start `irs up` again.")
        self.cloud = self._prepared()

    def stop(self) -> None:
        """End the embedded cloud if it is ours; its state stays."""
        if self.embedded is not None:
            self.embedded.stop()

    def _prepared(self) -> Cloud:
        if self.embedded is not None:
            enter(self.embedded)
        cloud = Cloud(read_settings())
        settings = cloud.settings
        changes = [change for change in provision(cloud) if change.action != "kept"]
        place = f"state in {settings.home}" if self.embedded else "not ours"
        self._say(f"cloud  {settings.endpoint_url or f'AWS {settings.region}'}, stack {settings.stack}, {place}")
        if changes:
            self._say(f"cloud  {len(changes)} buckets, queues and topics made or mended")
        if self.embedded is not None and self.embedded.lost_queues:
            count = resend_unanswered(cloud)
            self.embedded.queues_restored()
            if count:
                self._say(f"cloud  its queues were lost: {count} images without an answer are sent again")
        return cloud


@contextmanager
def _ground(say: Say) -> Iterator[Ground]:
    settings = read_settings()
    embedded = None if settings.endpoint_url else _start_embedded(settings)
    ground = None
    try:
        ground = Ground(embedded, say)
        yield ground
    finally:
        if ground is not None:
            ground.stop()
        elif embedded is not None:
            embedded.stop()


def _start_embedded(settings: Settings) -> EmbeddedCloud:
    from irs.local.embedded import start_embedded_cloud

    return start_embedded_cloud(
        settings.home,
        region=settings.region,
        boot_seconds=settings.local_boot_seconds,
        drain_seconds=settings.drain_seconds,
    )


def _workers(ground: Ground, count: int, say: Say) -> list[Worker]:
    # Each worker takes all cores by itself: several would fight for them.
    cores_each = str(max(1, (os.cpu_count() or 1) // max(1, count)))
    names = [f"{socket.gethostname().split('.')[0][:40]}-up{os.getpid()}-{number}" for number in range(1, count + 1)]
    return [
        Worker(
            number,
            name,
            say,
            log=ground.cloud.settings.home / "logs" / f"worker-{name}.log",
            cloud=ground.cloud,
            at_parents_end=ground.at_parents_end,
            environment={"IRS_COMPUTE_THREADS": os.environ.get("IRS_COMPUTE_THREADS", cores_each)},
        )
        for number, name in enumerate(names, start=1)
    ]


def _check(workers: int | None, command: Sequence[str]) -> None:
    """Say what is wrong before anything is started."""
    settings = read_settings()
    if workers != 0 and not settings.model:
        raise ModelError(
            "No model is named: say `irs up --model MODEL` or set IRS_MODEL: auto, a model directory, an s3:// address or a"
            " torchvision architecture such as resnet18."
        )
    if command and shutil.which(command[0]) is None:
        raise SetupError(f"There is no command {command[0]}: what follows -- is run once the service is up.")
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"The state folder {settings.home} cannot be made ({error.strerror}): set IRS_HOME.") from None


def _choose_model(say: Say) -> None:
    """Put what ``auto`` means here into the environment, once for all workers and the command.

    Raises:
        ModelError: nothing can be chosen.
    """
    if read_settings().model != AUTO:
        return
    if not has_pretrained():
        say(f"model  looks for torchvision's {PRETRAINED}, {WITHIN_S:g} s at most")
    choice = choose()
    os.environ["IRS_MODEL"], os.environ["IRS_MODEL_WHY"] = choice.model, choice.why
    say(f"model  {choice.model}: {choice.why}")


def _serve(service: _Service, signals: Signals, say: Say) -> int:
    say("irs    is up; Ctrl-C ends it")
    while not signals.asked:
        if service.crew.has_given_up:
            return 1
        service.tend()
        signals.wait(IDLE_LOOK_S if service.is_settled else LOOK_S)
    say("irs    ends: workers finish what they hold; Ctrl-C once more kills them")
    return 130 if signals.asked[0] == signal.SIGINT else 0


def _run(command: Sequence[str], service: _Service, signals: Signals) -> int:
    # In our own group: a shell in it reads the terminal, and Ctrl-C reaches it first.
    process = child.start(command, environment=os.environ, at_parents_end=signal.SIGTERM)
    passed_on = 0
    try:
        while process.poll() is None:
            for asked in signals.asked[passed_on:]:
                if asked != signal.SIGINT or not _has_terminal():
                    process.send_signal(asked)
            passed_on = len(signals.asked)
            if service.crew.has_given_up:
                process.terminate()
            service.tend()
            signals.wait(IDLE_LOOK_S)
    finally:
        _end(process)
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _has_terminal() -> bool:
    """Return whether the terminal itself sends Ctrl-C to our group, the command included."""
    with suppress(OSError), Path("/dev/tty").open("rb") as terminal:
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False
