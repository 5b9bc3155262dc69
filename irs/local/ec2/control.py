"""What goes wrong in the embedded EC2, from outside: for tests, and for ``irs chaos``."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from irs.errors import SetupError, Unreachable
from irs.local.home import Home

_TIMEOUT_S = 10.0
_FAULTS = "/_irs/ec2/faults"


class Control:
    """The faults of one embedded cloud that runs.

    Every call raises Unreachable when it does not answer, SetupError when it refuses.
    """

    def __init__(self, endpoint: str, access_key_id: str) -> None:
        self._endpoint, self._key = endpoint, access_key_id
        # It is on this machine: never by a proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @classmethod
    def of(cls, home: Path) -> Self:
        """Return the faults of the embedded cloud that runs on ``home``.

        Raises:
            Unreachable: none runs there.
        """
        endpoint = Home(home).read_endpoint() if home.is_dir() else None
        if endpoint is None or endpoint.pid is None:
            raise Unreachable(f"No embedded cloud runs on {home}: start one with `irs up`, or name its IRS_HOME.")
        return cls(endpoint.url, endpoint.access_key_id)

    def faults(self) -> dict[str, Any]:
        """Return what is wrong now."""
        return self._ask("GET", _FAULTS)

    def put(self, **faults: Any) -> None:
        """Make just this wrong, and nothing else; fields as those of :class:`irs.local.ec2.faults.Faults`."""
        self._ask("PUT", _FAULTS, faults)

    def add(self, **faults: Any) -> None:
        """Make this wrong besides what is already; capacities and rules come together."""
        now = self.faults()
        capacity, rules = now["capacity"] | faults.pop("capacity", {}), now["rules"] + faults.pop("rules", [])
        self.put(**{**now, **faults, "capacity": capacity, "rules": rules})

    def interrupt(self, instance: str, *, after_s: float) -> None:
        """Give a spot instance its notice: it is taken away ``after_s`` seconds from now."""
        self._ask("POST", f"/_irs/ec2/interrupt/{instance}", {"after": after_s})

    def _ask(self, method: str, path: str, told: Any = None) -> dict[str, Any]:
        # The key alone is looked at, as for all calls to the embedded cloud.
        headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={self._key}/", "Content-Type": "application/json"}
        body = None if told is None else json.dumps(told).encode()
        request = urllib.request.Request(self._endpoint + path, body, headers, method=method)  # noqa: S310 (http, ours)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                raise SetupError(error.read().decode(errors="replace")) from None
        except OSError as error:
            raise Unreachable(f"The embedded cloud at {self._endpoint} does not answer ({error}).") from None
