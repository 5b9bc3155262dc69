"""The drop box: files put under ``drop/`` by any tool become tasks, their records become ``results/{name}.json``."""

from irs.drops.bridge import Bridge, Done
from irs.drops.sync import Synced, sync

__all__ = ["Bridge", "Done", "Synced", "sync"]
