"""One ``irs`` command as a child process of ``irs up``: started, started again when it ends, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from irs.errors import SetupError
from irs.local import child
from irs.local.signals import Signals
from irs.monitoring.logs import last_words

Say = Callable[[str], None]
#: A command that ends with it says that it cannot work as it is set up: once more would say the same.
WRONG_USE = 2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
#: Having run for so long it is trusted again: the next pause is the first.
TRUSTED_S = 60.0
#: Workers apart, none has work of its own to finish: what it does goes on at its next process.
STOP_S = 3.0
LOG_DAYS = 7
BACKLOG = 512


class Daemon:
    """A command that is to run: the process of now, or the pause before the next.

    Args:
        label: how its lines begin.
        command: of ``irs``.
        log: what it says is added to it.
        at_parents_end: what the kernel sends it when this process has gone.
        environment: what it is told besides the environment of this process.
    """

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        say: Say,
        *,
        log: Path,
        at_parents_end: signal.Signals,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log, self.has_given_up = log, False
        self._label, self._command, self._say, self._at_parents_end = label, command, say, at_parents_end
        self._environment, self._pass_fds = dict(environment or {}), pass_fds
        self._process: subprocess.Popen[bytes] | None = None
        self._began_s = self._start_at_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._log_from = 0

    @property
    def is_running(self) -> bool:
        """Whether its process runs now."""
        return self._process is not None and self._process.poll() is None

    def tend(self) -> None:
        """Start what is to be started, notice an end."""
        if self.has_given_up:
            return
        if self._process is None:
            if time.monotonic() >= self._start_at_s:
                self._start()
        elif (code := self._process.poll()) is not None:
            self._process = None
            self._ended(128 - code if code < 0 else code)

    def drain(self) -> None:
        """Ask it to end; who waits is :meth:`end`."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def end(self, signals: Signals) -> None:
        """End it: after 3 s, or at once at one more signal, by force."""
        self.drain()
        if self._process is not None:
            signals.wait_until(lambda: not self.is_running, within_s=STOP_S)
            self.kill()
            self._process.wait()

    def _start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as output:
            self._process = child.start(
                [sys.executable, "-m", "irs.cli", *self._command],
                # As it is now: the page's address and others are known by the time of a second start.
                environment={**os.environ, **self._environment},
                at_parents_end=self._at_parents_end,
                pass_fds=self._pass_fds,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C at the terminal is for `irs up`, which ends its children.
                start_new_session=True,
            )
        self._began_s = time.monotonic()

    def _ended(self, code: int) -> None:
        if code == WRONG_USE:
            self.has_given_up = True
            self._say(f"{self._label} cannot start: {self._last_words()} (log {self.log})")
            return
        self._pause_s = FIRST_PAUSE_S if time.monotonic() - self._began_s > TRUSTED_S else min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._start_at_s = time.monotonic() + self._pause_s
        self._say(f"{self._label} ended with {code}, starts again in {self._pause_s:g} s, log {self.log}")

    def _last_words(self) -> str:
        """Return why its last process has ended, as a sentence."""
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_from)
                return last_sentence(log.read().decode(errors="replace"))
        except FileNotFoundError:
            # Somebody tidied up.
            return last_sentence("")

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            # The whole group: it was started as the leader of its own.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class ListeningDaemon(Daemon):
    """One that takes over a socket (``--fd``) which listens from the start: its address outlives each of its processes,
    and who comes early waits instead of being refused.

    Args:
        port: another program, or another ``irs up``, may have it: then any free one.
        options: of :class:`Daemon`.

    Raises:
        SetupError: ``host`` cannot be bound.
    """

    def __init__(self, label: str, command: Sequence[str], say: Say, *, host: str, port: int, **options: Any) -> None:
        self._listener = _listen(host, port)
        fd = self._listener.fileno()
        super().__init__(label, [*command, "--fd", str(fd)], say, pass_fds=(fd,), **options)

    @property
    def address(self) -> str:
        """What a person opens."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def end(self, signals: Signals) -> None:
        """As :meth:`Daemon.end`; frees the address."""
        super().end(signals)
        self._listener.close()


class Daemons:
    """The daemons of one ``irs up``, tended and ended together."""

    def __init__(self, daemons: Iterable[Daemon]) -> None:
        self._daemons = list(daemons)

    def tend(self) -> None:
        """As :meth:`Daemon.tend`, each."""
        for daemon in self._daemons:
            daemon.tend()

    def drain(self) -> None:
        """As :meth:`Daemon.drain`, each."""
        for daemon in self._daemons:
            daemon.drain()

    def end(self, signals: Signals) -> None:
        """As :meth:`Daemon.end`; they end at the same time."""
        self.drain()
        for daemon in self._daemons:
            daemon.end(signals)


def forget_old_logs(folder: Path) -> None:
    """Remove logs that nobody wrote to for a week."""
    for log in folder.glob("*.log"):
        with suppress(FileNotFoundError):
            if log.stat().st_mtime < time.time() - LOG_DAYS * 86_400:
                log.unlink()


def last_sentence(said: str) -> str:
    """Return the last words of a log, without the name of the command before them."""
    return last_words(said).removeprefix("irs: ") or "it said nothing"


def _listen(host: str, port: int) -> socket.socket:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (port, 0):
        with suppress(OSError):
            return socket.create_server((host, wanted), family=family, backlog=BACKLOG)
    raise SetupError(f"{host} is no address of this machine to listen on: set IRS_WEB_HOST or IRS_FLOWER_HOST to 127.0.0.1.")
