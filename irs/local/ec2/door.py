"""Where the EC2 stands in the embedded cloud: behind the emulator's check of rights, and on routes of its own.

The emulator hands over what it takes for its own EC2; what is not offered here goes on to that one, so that VPCs,
security groups and key pairs are there too. Routes::

    /_irs/imds/<instance id>/…          metadata, for the instance itself; no signature
    /_irs/ec2/faults                    GET, PUT: what goes wrong on demand, as JSON
    /_irs/ec2/interrupt/<instance id>   POST {"after": 120}: a spot notice
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from irs.errors import SetupError
from irs.local.ec2.api import Api
from irs.local.ec2.cloud import NOTICE_SECONDS, Ec2
from irs.local.ec2.faults import Faults, Lost, Refused
from irs.local.ec2.imds import Metadata
from irs.local.ec2.instances import OWNER, Fields, tag_list
from irs.local.ec2.machines import Machines
from irs.local.guard import EC2_PATH, IMDS_PATH, Reply, hang_up
from irs.local.home import Home

log = logging.getLogger(__name__)

_LONGEST_NOTICE_S = 86_400

Emulated = Callable[..., Awaitable[tuple[int, dict[str, str], bytes]]]


class Door:
    """The EC2 of one embedded cloud with its host, its state file and its clock.

    Args:
        environment: makes the environment of an instance.
        quota: instances this machine is good for.
        boot_seconds: how long they stay ``pending`` while no fault says otherwise.
        drain_seconds: what an instance has between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        home: Home,
        region: str,
        environment: Callable[[str], Mapping[str, str]],
        *,
        quota: int,
        boot_seconds: float,
        drain_seconds: float,
    ) -> None:
        self._file = home.path / "ec2.json"
        self._boot_seconds = boot_seconds
        self._machines = Machines(home.path, environment=environment, exited=self._exited, drain_s=drain_seconds)
        self.ec2 = Ec2(region, self._machines, quota=quota, faults=Faults(boot_seconds=boot_seconds))
        self._api, self._metadata = Api(self.ec2), Metadata(self.ec2)
        self._wake = asyncio.Event()

    def open(self) -> None:
        """Take up an earlier run's state, end what it left behind, and stand in the emulator's way."""
        self._api.load()
        self._machines.sweep()
        try:
            self.ec2.load(json.loads(self._file.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("instances of the last run cannot be read file=%s error=%s", self._file, error)
        self._hook()

    async def run(self) -> None:
        """Take each step at its time, and keep what has changed; never returns."""
        while True:
            try:
                self.ec2.advance()
                self._save()
                at = self.ec2.next_step_at()
            except Exception:
                # One wrong step must not stop all instances for good.
                log.exception("ec2 step failed")
                at = time.time() + 1
            self._wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), None if at is None else max(0.001, at - time.time()))

    async def close(self) -> None:
        """End all that runs, while the rest of the cloud still answers: workers drain to it."""
        self.ec2.close()
        await self._machines.close()
        self.ec2.has_changed = True
        self._save()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Answer a request for one of the routes above; the caller has been checked."""
        if path.startswith(IMDS_PATH):
            id, _, rest = path.removeprefix(IMDS_PATH).partition("/")
            return self._metadata.answer(id, method, rest.lstrip("/"), headers)
        try:
            told = self._control(method, path.removeprefix(EC2_PATH), json.loads(body) if body else {})
        except (SetupError, Refused) as error:
            return Reply(400, error.message if isinstance(error, Refused) else str(error))
        except (ValueError, TypeError, AttributeError) as error:
            return Reply(400, f"This is not the JSON that {path} takes ({error}).")
        self._wake.set()
        return Reply(404, f"There is no {method} {path}.") if told is None else Reply(200, json.dumps(told))

    def _control(self, method: str, what: str, asked: Any) -> Fields | None:
        if what == "faults" and method in ("GET", "PUT"):
            if method == "PUT":
                self.ec2.faults = Faults.from_json({"boot_seconds": self._boot_seconds, **asked})
            return self.ec2.faults.to_json()
        kind, _, id = what.partition("/")
        if kind == "interrupt" and method == "POST":
            after_s = float(asked.get("after", NOTICE_SECONDS))
            if not 0 <= after_s <= _LONGEST_NOTICE_S:
                raise SetupError(f"A notice of {after_s:g} s cannot be given: say 0 to {_LONGEST_NOTICE_S} seconds.")
            self.ec2.interrupt(id, after_s=after_s)
            return {"instance": id}
        return None

    def _hook(self) -> None:
        from ministack.core.responses import get_account_id
        from ministack.services import ec2, tagging

        emulated: Emulated = ec2.handle_request
        emulated_tags = tagging._RESOURCE_TAG_COLLECTORS.get("ec2", lambda: ())

        async def handle_request(
            method: str, path: str, headers: Any, body: bytes, query: Mapping[str, Any]
        ) -> tuple[int, dict[str, str], bytes]:
            form = body.decode(errors="replace") if body else urlencode(query, doseq=True)
            if not self._api.offers(form):
                return await emulated(method, path, headers, body, query)
            try:
                status, xml = self._api.handle(form)
            except Lost:
                hang_up.get()()
                return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return] # ended by the guard
            finally:
                self._wake.set()
            return status, {"Content-Type": "text/xml;charset=UTF-8"}, xml

        def tags() -> Iterator[tuple[str, list[Fields]]]:
            """What conditions on ``aws:ResourceTag`` compare with."""
            for one in self.ec2.instances.values():
                yield f"arn:aws:ec2:{self.ec2.region}:{get_account_id() or OWNER}:instance/{one.id}", tag_list(one.tags)
            yield from emulated_tags()

        ec2.handle_request = handle_request
        tagging._RESOURCE_TAG_COLLECTORS["ec2"] = tags

    def _exited(self, id: str) -> None:
        self.ec2.exited(id)
        self._wake.set()

    def _save(self) -> None:
        if not self.ec2.has_changed:
            return
        made = self._file.with_suffix(".new")
        try:
            made.write_text(json.dumps(self.ec2.dump(), default=str))
            made.replace(self._file)
            self.ec2.has_changed = False
        except OSError as error:
            log.error("instances cannot be stored file=%s error=%s", self._file, error)
