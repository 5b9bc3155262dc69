"""Image recognition as a service.

::

    import irs

    print(irs.recognize("dog.jpg").labels[0])
    for record in irs.Client().recognize("photos/"):
        print(record.image.name, record.labels or record.error)

The doors below open when they are first used: ``import irs`` loads neither torch nor boto3 nor Celery.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irs.client import Client, Job, Progress, recognize
    from irs.errors import IrsError, PassingError, RecognitionFailed, RequestError, SetupError
    from irs.records import Fault, Label, Options, Record
    from irs.settings import Settings

    __version__: str

_ROOMS = {
    "irs.client": ("Client", "Job", "Progress", "recognize"),
    "irs.records": ("Fault", "Label", "Options", "Record"),
    "irs.errors": ("IrsError", "PassingError", "RecognitionFailed", "RequestError", "SetupError"),
    "irs.settings": ("Settings",),
}

__all__ = [  # noqa: RUF022 (in groups)
    # hand in and follow
    "Client",
    "Job",
    "Progress",
    "recognize",
    # what comes back
    "Fault",
    "Label",
    "Options",
    "Record",
    # what may be raised
    "IrsError",
    "PassingError",
    "RecognitionFailed",
    "RequestError",
    "SetupError",
    # where it is
    "Settings",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("irs")
    for room, names in _ROOMS.items():
        if name in names:
            # Kept, so that this is asked once for each name.
            globals()[name] = value = getattr(import_module(room), name)
            return value
    raise AttributeError(f"module 'irs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
