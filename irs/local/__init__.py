"""The whole service on one machine: an embedded cloud in a child process, and ``irs up``.

Needs the extra ``local``. Nothing of it is loaded before it is asked for: the emulator reads its
settings while it is imported, and the command line must start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irs.local.embedded import EmbeddedCloud, start_embedded_cloud

__all__ = ["EmbeddedCloud", "start_embedded_cloud"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import irs.local.embedded

        return getattr(irs.local.embedded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
