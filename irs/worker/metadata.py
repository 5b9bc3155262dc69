"""The EC2 metadata service: what an instance is told about itself, over version 2 (a token for each session).

It is asked only where it is: away from EC2 nobody answers at its address, and waiting for that would delay each start.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

#: Where the firmware of an EC2 instance names its maker; older ones have the second.
_VENDOR = Path("/sys/devices/virtual/dmi/id/sys_vendor")
_HYPERVISOR = Path("/sys/hypervisor/uuid")
_ADDRESSES = {"ipv4": "http://169.254.169.254/", "ipv6": "http://[fd00:ec2::254]/"}
#: It answers within the machine: later is never.
ANSWER_S = 2.0
TOKEN_S = 21_600
#: A token is renewed this long before its end.
_MARGIN_S = 60.0

TAG_PATH = "meta-data/tags/instance/"


def find_metadata(environment: Mapping[str, str], *, vendor: Path = _VENDOR, hypervisor: Path = _HYPERVISOR) -> Metadata | None:
    """Return the metadata service of this machine, None where it has none; asks files alone, so it takes no time.

    Args:
        environment: AWS's own variables: ``AWS_EC2_METADATA_DISABLED``, ``AWS_EC2_METADATA_SERVICE_ENDPOINT`` and
            ``AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE``.
    """
    if environment.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    if endpoint := environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        return Metadata(endpoint)
    if _text(vendor) != "Amazon EC2" and not _text(hypervisor).startswith("ec2"):
        return None
    mode = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv4").lower()
    return Metadata(_ADDRESSES.get(mode, _ADDRESSES["ipv4"]))


class Metadata:
    """One instance's metadata; for one thread. ``endpoint`` is what stands before ``latest/``."""

    def __init__(self, endpoint: str) -> None:
        self._base = f"{endpoint.rstrip('/')}/latest/"
        # Never through a proxy: it would answer for its own machine.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._token = ""
        self._token_until = 0.0

    def find(self, path: str) -> str | None:
        """Return what stands at ``path`` (below ``latest/``); None when nothing does. Blocks for 4 s at most.

        Raises:
            OSError: the service did not answer, or refused.
            HTTPException, ValueError: its answer was cut off, or is no text.
        """
        for is_last in (False, True):
            if time.monotonic() >= self._token_until:
                self._renew_token()
            request = urllib.request.Request(  # noqa: S310 (http alone, as AWS has it)
                self._base + path, headers={"X-aws-ec2-metadata-token": self._token}
            )
            try:
                with self._open(request, timeout=ANSWER_S) as answer:
                    return str(answer.read().decode())
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 404:
                    return None
                # Another token is asked for: an instance that was stopped and started has forgotten its own.
                self._token_until = 0.0
                if error.code != 401 or is_last:
                    raise
        return None

    def _renew_token(self) -> None:
        asked_at = time.monotonic()
        request = urllib.request.Request(  # noqa: S310
            f"{self._base}api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_S)}
        )
        with self._open(request, timeout=ANSWER_S) as answer:
            self._token = answer.read().decode()
        self._token_until = asked_at + TOKEN_S - _MARGIN_S


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
