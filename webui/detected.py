"""DetectLabels in Rekognition's words: what is asked, and what a record and the label tree answer. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from irs.errors import BadOptions
from irs.records import Label, ModelCard

#: Rekognition's own, where none is asked for.
MIN_CONFIDENCE = 55.0
MOST_LABELS = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _S3Object(_Strict):
    Bucket: Annotated[str, Field(min_length=1, max_length=255)]
    Name: Annotated[str, Field(min_length=1, max_length=1024)]
    Version: str | None = None


class _Image(_Strict):
    Bytes: str | None = None
    S3Object: _S3Object | None = None


class _GeneralLabels(_Strict):
    LabelInclusionFilters: tuple[str, ...] = ()
    LabelExclusionFilters: tuple[str, ...] = ()


class _Settings(_Strict):
    GeneralLabels: _GeneralLabels = _GeneralLabels()


class _Request(_Strict):
    Image: _Image
    MaxLabels: Annotated[int, Field(ge=0)] = MOST_LABELS
    MinConfidence: Annotated[float, Field(ge=0, le=100)] = MIN_CONFIDENCE
    Features: tuple[str, ...] = ()
    Settings: _Settings = _Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call. The picture is ``base64``, or stands at ``address``; ``min_confidence`` is 0 to 1."""

    base64: str | None
    address: str | None
    max_labels: int
    min_confidence: float
    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def without_bytes(self) -> Asked:
        """Return the call without its picture, which takes memory."""
        return dataclasses.replace(self, base64=None)


def read_asked(body: bytes) -> Asked:
    """Return what the JSON of a call asks.

    Raises:
        BadOptions: it cannot be read, or asks for what is not answered here.
    """
    try:
        read = _Request.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise BadOptions(f"{'.'.join(map(str, first['loc'])) or 'the request'}: {first['msg']}") from None
    except ValueError:
        raise BadOptions("the request is no JSON") from None
    if others := set(read.Features) - {"GENERAL_LABELS"}:
        raise BadOptions(f"Features: {', '.join(sorted(others))} is not answered here, only GENERAL_LABELS")
    image = read.Image
    if (image.Bytes is None) == (image.S3Object is None):
        raise BadOptions("Image: give either Bytes or S3Object")
    if image.S3Object and image.S3Object.Version:
        raise BadOptions("Image.S3Object.Version: only the newest version of an object is read")
    filters = read.Settings.GeneralLabels
    return Asked(
        base64=image.Bytes,
        address=f"s3://{image.S3Object.Bucket}/{image.S3Object.Name}" if image.S3Object else None,
        max_labels=read.MaxLabels,
        min_confidence=read.MinConfidence / 100,
        include=filters.LabelInclusionFilters,
        exclude=filters.LabelExclusionFilters,
    )


def filtered(names: Sequence[str], card: ModelCard | None) -> tuple[str, ...]:
    """Return names of labels as the model writes them: Rekognition's begin with capitals."""
    known = (*card.labels, *(parent.name for parent in card.parents)) if card else ()
    spelled = {name.casefold(): name for name in known}
    return tuple(name if name in known else spelled.get(name.casefold(), name) for name in names)


def labels_of(labels: Sequence[Label], card: ModelCard | None, asked: Asked) -> list[dict[str, Any]]:
    """Return labels and the parents above them as Rekognition answers: each once, with all its ancestors, nearest first.

    A parent's confidence is the sum of those below it. In order each stands behind the likeliest label below it, so
    that a few labels tell what the picture shows before they tell that it is an animal.
    """
    tree = _Tree(card)
    own: dict[str, float] = {}
    rank: dict[str, float] = {}
    for label in labels:
        for name in dict.fromkeys((label.label, *tree.lineage(label.label))):
            own[name] = own.get(name, 0.0) + label.confidence
            rank[name] = max(rank.get(name, 0.0), label.confidence)
    ordered = sorted(own, key=lambda name: (-rank[name], -len(tree.lineage(name))))
    chosen = [name for name in ordered if own[name] >= asked.min_confidence][: asked.max_labels]
    return [
        {
            "Name": name,
            "Confidence": round(100 * min(own[name], 1.0), 4),
            "Instances": [],
            "Parents": [{"Name": parent} for parent in tree.lineage(name)],
            "Aliases": [],
            "Categories": [],
        }
        for name in chosen
    ]


class _Tree:
    """The label tree of a card, by names."""

    def __init__(self, card: ModelCard | None) -> None:
        self._parents = {parent.wnid: parent for parent in card.parents} if card else {}
        self._above = {label: parent.wnid for parent in self._parents.values() for label in parent.labels}
        for parent in self._parents.values():
            # A name that is a label's and a parent's means the label.
            if parent.above is not None:
                self._above.setdefault(parent.name, parent.above)

    def lineage(self, name: str) -> list[str]:
        """Return the names of all ancestors, nearest first."""
        return list(dict.fromkeys(found for found in self._ancestors(name) if found != name))

    def _ancestors(self, name: str) -> Iterator[str]:
        wnid = self._above.get(name)
        while wnid is not None and (parent := self._parents.get(wnid)):
            yield parent.name
            wnid = parent.above
