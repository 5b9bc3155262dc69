"""The folder that holds an embedded cloud's state: lock, address and keys, log, objects, queues.

::

    embedded.lock    held by the running child; the kernel frees it however the child ends
    endpoint.json    port and keys, kept from run to run; pid of the child while it is ready (mode 0600)
    embedded.log     what the child says
    queues-lost      queues of an earlier run are gone, and nobody has made up for it yet
    machines.json    processes of its EC2's instances: id, process id, start time
    instances/       their scripts and logs
    ec2.json         instances, launch templates and client tokens, written at each change
    s3/              objects, written at once
    state/           queues, topics, bucket settings: written at a clean stop, removed once loaded
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from irs.errors import SetupError
from irs.local.ec2.ledger import Ledger

#: Exit code of a child that finds another one on its home.
RC_IN_USE = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the embedded cloud of a home listens, and the keys it knows.

    ``pid`` is None while no child is ready.
    """

    port: int
    region: str
    access_key_id: str
    secret_access_key: str
    pid: int | None = None

    @classmethod
    def with_new_keys(cls, *, port: int, region: str) -> Self:
        """Make an address with keys of its own; never 12 digits, which the emulator reads as an account."""
        return cls(
            port=port,
            region=region,
            access_key_id=f"IRSLOCAL{secrets.token_hex(8).upper()}",
            secret_access_key=secrets.token_urlsafe(30),
        )

    @property
    def url(self) -> str:
        """The address as clients write it."""
        return f"http://127.0.0.1:{self.port}"


class Home:
    """One folder. Made, readable by its owner alone, when it is not there.

    Raises:
        SetupError: the folder cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file.touch()
        except OSError as error:
            raise SetupError(f"The folder {self.path} cannot be used ({error.strerror}): name another in IRS_HOME.") from None

    @property
    def log(self) -> Path:
        """What the child writes to stderr, of all runs."""
        return self.path / "embedded.log"

    @property
    def objects(self) -> Path:
        """Where the emulator keeps objects."""
        return self.path / "s3"

    @property
    def state(self) -> Path:
        """Where the emulator keeps all but objects, between two runs."""
        return self.path / "state"

    @property
    def lost_queues(self) -> Path:
        """Marker file; it outlives the run that noticed the loss, which may end before it is made up for."""
        return self.path / "queues-lost"

    @property
    def machines(self) -> Ledger:
        """The processes of instances."""
        return Ledger(self.path)

    def lock(self) -> int | None:
        """Take the lock until this process ends; None if another holds it."""
        handle = os.open(self._lock_file, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return handle

    def is_locked(self) -> bool:
        """Whether an embedded cloud runs on this home, ready or not."""
        handle = self.lock()
        if handle is None:
            return True
        os.close(handle)
        return False

    def read_endpoint(self) -> Endpoint | None:
        """Return the address of the running or the last child; None if there is none that can be read."""
        try:
            return Endpoint(**json.loads(self._endpoint_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_endpoint(self, endpoint: Endpoint, *, pid: int | None) -> None:
        """Store the address for the next run and for others who want to use this one."""
        made = self._endpoint_file.with_suffix(".new")
        made.unlink(missing_ok=True)
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(replace(endpoint, pid=pid)), file)
        made.replace(self._endpoint_file)

    def forget_state(self) -> None:
        """Drop what a clean stop kept: it is loaded, or of no use. Objects stay."""
        shutil.rmtree(self.state, ignore_errors=True)

    @property
    def _lock_file(self) -> Path:
        return self.path / "embedded.lock"

    @property
    def _endpoint_file(self) -> Path:
        return self.path / "endpoint.json"
