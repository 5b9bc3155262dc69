"""JSON both ways for the dataclasses of this room."""

from __future__ import annotations

from typing import Any, Self

from pydantic import TypeAdapter

_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    # Built once: pydantic compiles a validator for each.
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


class _Json:
    """JSON both ways for a dataclass; unknown fields of a newer version are ignored."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, every field present."""
        # pydantic's serialiser is compiled: a fifth of what dataclasses.asdict takes.
        return _adapter(type(self)).dump_python(self, mode="json")  # type: ignore[no-any-return]

    def to_bytes(self) -> bytes:
        """Return the UTF-8 JSON text that is stored."""
        return _adapter(type(self)).dump_json(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return the value behind JSON text (bytes, str) or plain JSON values.

        Raises:
            ValueError: the text is no JSON or does not fit the fields.
        """
        adapter = _adapter(cls)
        if isinstance(value, bytes | str):
            return adapter.validate_json(value)  # type: ignore[no-any-return]
        return adapter.validate_python(value)  # type: ignore[no-any-return]
