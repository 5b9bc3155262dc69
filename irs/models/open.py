"""A model by the one word a person gives."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from irs.errors import ModelError
from irs.models.choice import AUTO, BUNDLED, find_bundled
from irs.models.directory import open_directory
from irs.models.files import DESCRIPTION
from irs.models.model import Model
from irs.models.reference import SCHEME
from irs.models.zoo import open_zoo

log = logging.getLogger(__name__)

_NAME = re.compile(r"\w+(@\w+)?")


def open_model(word: str) -> Model:
    """Return the model of a directory, an ``s3://`` address, a bundled one, or torchvision's of that name.

    A word that is both a directory with a model and a name means the directory. May fetch a model or torchvision's
    weights, once.

    Raises:
        ModelError: there is none, or it is broken; in one sentence.
        MissingResource, Unreachable: the bucket of an ``s3://`` address is missing or does not answer.
    """
    if not word:
        raise ModelError("No model is named: give a model directory or a torchvision architecture.")
    if word.startswith(SCHEME):
        return _open_shared(word)
    directory = Path(word).expanduser()
    if (directory / DESCRIPTION).exists():
        return open_directory(directory)
    if word == AUTO:
        # Each worker would choose for itself, and one service would answer by two models.
        raise ModelError(f"The model {AUTO} is chosen by `irs up` alone: name one, for example resnet18 or {BUNDLED}.")
    if bundled := find_bundled(word):
        return open_directory(bundled)
    if word == BUNDLED:
        raise ModelError(f"The model {BUNDLED} does not come with this install: name a directory, or torchvision's resnet18.")
    return open_zoo(word) if _NAME.fullmatch(word) else open_directory(directory)


def _open_shared(address: str) -> Model:
    from irs.cloud import get_cloud
    from irs.models.shared import get_shared

    reference, directory = get_shared(get_cloud(), address)
    log.info("model", extra={"address": str(reference), "kept_in": str(directory)})
    return open_directory(directory)
