"""A model by the one word a person gives."""

from __future__ import annotations

import re
from pathlib import Path

from irs.errors import ModelError
from irs.models.directory import DESCRIPTION, open_directory
from irs.models.model import Model
from irs.models.zoo import open_zoo

_NAME = re.compile(r"\w+(@\w+)?")


def open_model(name_or_directory: str) -> Model:
    """Return the model in a directory, or torchvision's of that name (:mod:`irs.models.zoo`).

    A word that is both means the directory. May download torchvision's weights, once.

    Raises:
        ModelError: there is none, or it is broken; in one sentence.
    """
    directory = Path(name_or_directory).expanduser()
    if not name_or_directory:
        raise ModelError("No model is named: give a model directory or a torchvision architecture.")
    if (directory / DESCRIPTION).exists() or not _NAME.fullmatch(name_or_directory):
        return open_directory(directory)
    return open_zoo(name_or_directory)
