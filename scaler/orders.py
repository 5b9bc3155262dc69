"""Orders to leave, as objects that workers read with each beat: ``desired/{instance}``. Revoked by removing them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from irs.cloud import Cloud
from irs.errors import MissingResource, NotFound
from irs.records import Order, beat_key, order_key

_PREFIX = order_key("")
Word = Literal["retire", "drain"]


class Orders(Protocol):
    """What workers are told. Every call may raise StorageUnavailable and may run twice."""

    def standing(self) -> set[str]:
        """Return the ids of all that are under an order."""

    def retire(self, id: str, *, launch: str, why: str) -> None:
        """Tell a worker to go on while there is work, and then to leave."""

    def drain(self, id: str, *, launch: str, why: str) -> None:
        """Tell a worker to finish what it has in hand, and then to leave."""

    def revoke(self, id: str) -> None:
        """Take the order back; none there is no error."""

    def forget(self, id: str) -> None:
        """Remove what an instance has said and was told: it is gone, or starts anew."""


class S3Orders:
    """Orders in the output bucket; ``wall`` gives Unix seconds."""

    def __init__(self, cloud: Cloud, *, wall: Callable[[], float]) -> None:
        self._output, self._wall = cloud.output, wall

    def standing(self) -> set[str]:
        """As :meth:`Orders.standing`; raises MissingResource when there is no output bucket."""
        try:
            return {one.key.removeprefix(_PREFIX) for one in self._output.list(_PREFIX)}
        except NotFound:
            raise MissingResource(f"Bucket {self._output.name} is not there: run `irs provision` first.") from None

    def retire(self, id: str, *, launch: str, why: str) -> None:
        """As :meth:`Orders.retire`."""
        self._tell("retire", id, launch, why)

    def drain(self, id: str, *, launch: str, why: str) -> None:
        """As :meth:`Orders.drain`."""
        self._tell("drain", id, launch, why)

    def revoke(self, id: str) -> None:
        """As :meth:`Orders.revoke`."""
        self._output.delete(order_key(id))

    def forget(self, id: str) -> None:
        """As :meth:`Orders.forget`."""
        self._output.delete(order_key(id))
        self._output.delete(beat_key(id))

    def _tell(self, order: Word, id: str, launch: str, why: str) -> None:
        said = Order(order=order, launch=launch or None, since=self._wall(), why=why)
        self._output.put(order_key(id), said.to_bytes(), content_type="application/json")
