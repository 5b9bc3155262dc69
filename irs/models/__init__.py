"""Model directories, torchvision's models by name, their labels, the forward pass, and models shared in a bucket.

Names are loaded when they are first asked for: what only moves or names models starts without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irs.imaging import Preprocess
    from irs.models.catalog import Entry, list_models, show_model
    from irs.models.forward import Forward
    from irs.models.labels import Answer, Answers
    from irs.models.model import Model
    from irs.models.open import open_model

_HOMES = {
    "Answer": "irs.models.labels",
    "Answers": "irs.models.labels",
    "Entry": "irs.models.catalog",
    "Forward": "irs.models.forward",
    "Model": "irs.models.model",
    "Preprocess": "irs.imaging",
    "list_models": "irs.models.catalog",
    "open_model": "irs.models.open",
    "show_model": "irs.models.catalog",
}

__all__ = ["Answer", "Answers", "Entry", "Forward", "Model", "Preprocess", "list_models", "open_model", "show_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irs.models' has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_HOMES[name]), name)
    return value
