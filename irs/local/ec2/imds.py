"""The metadata service of each instance, version 2 alone: without a token nothing is told.

An instance finds its own below ``/_irs/imds/<instance id>/``; the id is 68 random bits, and a token is good for one
instance. There are no credentials here: instances get theirs by environment.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime

from irs.local.ec2.cloud import Ec2
from irs.local.ec2.instances import OWNER, Instance
from irs.local.guard import Reply

_TTL = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "x-aws-ec2-metadata-token"  # noqa: S105 (a header's name)
_LONGEST_S = 21_600


class Metadata:
    """What the instances of one :class:`Ec2` may learn of themselves."""

    def __init__(self, ec2: Ec2) -> None:
        self._ec2 = ec2
        self._tokens: dict[str, tuple[str, float]] = {}

    def answer(self, id: str, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        """Answer one request of the instance ``id``; ``path`` begins with ``latest/``, header names are lower case."""
        self._ec2.advance()
        one = self._ec2.instances.get(id)
        if one is None or not one.is_alive:
            return Reply(404)
        if path == "latest/api/token":
            return self._grant(id, headers) if method == "PUT" else Reply(405)
        if method not in ("GET", "HEAD"):
            return Reply(405)
        granted, until = self._tokens.get(headers.get(_TOKEN, ""), ("", 0.0))
        if granted != id or self._ec2.clock() >= until:
            return Reply(401)
        found = self._tree(one).get(path.removeprefix("latest/").strip("/"))
        return Reply(404) if found is None else Reply(200, found)

    def _grant(self, id: str, headers: Mapping[str, str]) -> Reply:
        # A proxy on the way would hand the token to whom it must not reach.
        if "x-forwarded-for" in headers:
            return Reply(403)
        told = headers.get(_TTL, "")
        if not (told.isdecimal() and 1 <= int(told) <= _LONGEST_S):
            return Reply(400)
        now = self._ec2.clock()
        self._tokens = {token: kept for token, kept in self._tokens.items() if kept[1] > now}
        made = secrets.token_urlsafe(30)
        self._tokens[made] = (id, now + int(told))
        return Reply(200, made, ((_TTL, told),))

    def _tree(self, one: Instance) -> dict[str, str]:
        told = {
            "meta-data/instance-id": one.id,
            "meta-data/ami-id": one.image,
            "meta-data/instance-type": one.type,
            "meta-data/instance-life-cycle": one.market,
            "meta-data/placement/availability-zone": one.zone,
            "meta-data/placement/region": self._ec2.region,
            "meta-data/tags/instance": "\n".join(one.tags),
            **{f"meta-data/tags/instance/{key}": value for key, value in one.tags.items()},
            "dynamic/instance-identity/document": json.dumps(self._document(one)),
        }
        if one.notice is not None:
            when = _time(one.notice)
            told["meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": when})
            told["meta-data/spot/termination-time"] = when
            told["meta-data/events/recommendations/rebalance"] = json.dumps({"noticeTime": when})
        return told

    def _document(self, one: Instance) -> dict[str, str]:
        return {
            "accountId": OWNER,
            "availabilityZone": one.zone,
            "imageId": one.image,
            "instanceId": one.id,
            "instanceType": one.type,
            "pendingTime": _time(one.launched),
            "region": self._ec2.region,
            "version": "2017-09-30",
        }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
