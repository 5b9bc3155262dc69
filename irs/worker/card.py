"""The card of the worker's model in the output bucket: what the page may say of it, and promises no more than."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irs.cloud import Cloud
from irs.errors import IrsError
from irs.records import CardParent, ModelCard, card_key

if TYPE_CHECKING:
    from irs.models import Model

log = logging.getLogger(__name__)

#: Records outlive a card that is never renewed: the output bucket forgets by age.
RENEWED_S = 86_400.0


def store_card(cloud: Cloud, model: Model) -> None:
    """Store what the model knows; it is a hint, and a bucket that does not answer is logged."""
    from irs.models.parents import branches

    parents, _ = branches(model)
    card = ModelCard(
        name=model.name,
        digest=model.digest,
        labels=model.labels,
        sure_above=model.sure_above,
        dated=_dated(cloud.settings.model),
        license=model.license,
        source=model.source,
        why=cloud.settings.model_why,
        parents=tuple(CardParent(wnid=one.wnid, name=one.name, above=one.above, labels=one.labels) for one in parents),
    )
    try:
        cloud.output.put(card_key(card.digest), card.to_bytes(), content_type="application/json")
    except IrsError as error:
        log.warning("card_lost", extra={"reason": str(error)})


def _dated(word: str) -> float | None:
    """Return when the weights of the model named by ``word`` were last changed here; None for shared ones and torchvision's."""
    from irs.models.choice import find_bundled

    directory = find_bundled(word) or Path(word).expanduser()
    with suppress(OSError):
        return (directory / "weights.safetensors").stat().st_mtime
    return None
