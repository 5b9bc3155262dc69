"""Which models there are, as plain facts: for ``irs models list`` and ``irs models show``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from irs.cloud import get_cloud
from irs.errors import ModelError
from irs.models import architectures, zoo
from irs.models.choice import bundled_models, find_bundled
from irs.models.directory import open_directory, read_description, read_labels
from irs.models.files import DESCRIPTION, WEIGHTS
from irs.models.manifest import find_accuracy
from irs.models.model import Model
from irs.models.open import open_model
from irs.models.parents import Branch, branches
from irs.models.reference import SCHEME
from irs.models.registry import Registry, Shared
from irs.models.rolls import Pointer, find_current
from irs.models.shared import get_shared
from irs.models.speeds import Speed

Place = Literal["bundled", "local", "cached", "bucket", "torchvision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model.

    Attributes:
        place: bundled with irs, a directory of this machine, a bucket's model kept here, in the bucket, or torchvision's.
        path: its directory, the file of torchvision's weights once it was downloaded, or its address in the bucket.
        size_bytes: of the weights, in the file; of all files in the bucket.
        digest: None where it is not known without reading the weights.
        accuracy: share of validation pictures whose first label is right, as published: for torchvision's models, and
            most others, of ImageNet's.
        images_per_s: as it was measured on this machine; None where it was not.
        is_current: whether its name in the bucket stands for it now.
        problem: why it cannot be used, in one sentence.
        parents: above its labels; ``labels`` are those without one. Both only where one model is shown.
    """

    name: str
    place: Place = "local"
    path: str | None = None
    architecture: str = ""
    classes: int = 0
    size_bytes: int = 0
    license: str = ""
    digest: str | None = None
    accuracy: float | None = None
    images_per_s: float | None = None
    is_current: bool = False
    problem: str | None = None
    parents: tuple[Branch, ...] = ()
    labels: tuple[str, ...] = ()


def list_models(
    folders: Iterable[Path] = (), *, cache: Path | None = None, speeds: Mapping[str, Speed] | None = None
) -> list[Entry]:
    """Return the bundled models, those in ``folders``, those fetched into ``cache``, then torchvision's.

    Builds and downloads nothing.
    """
    listed = [_listed(path, "bundled") for path in bundled_models()]
    listed += [_listed(path.parent, "local") for folder in folders for path in sorted(folder.glob(f"*/{DESCRIPTION}"))]
    if cache is not None:
        # Not what a killed fetch left behind.
        fetched = [path for path in sorted(cache.glob(f"*/*/*/{DESCRIPTION}")) if path.parent.suffix != ".part"]
        listed += [_listed(path.parent, "cached", digest=f"sha256:{path.parent.name}") for path in fetched]
    listed += [_published(name, zoo.find_weights(name)) for name in architectures.architectures()]
    return [measured(entry, speeds or {}) for entry in listed]


def list_shared(registry: Registry, *, speeds: Mapping[str, Speed] | None = None) -> list[Entry]:
    """Return the models of a bucket; raises as :class:`~irs.models.registry.Registry`.

    A name whose pointer is broken has an entry of its own that says so, before those of its models.
    """
    models = registry.models()
    listed: list[Entry] = []
    for name, same in groupby(models, key=lambda one: one.reference.name):
        try:
            current = find_current(registry, name)
        except ModelError as error:
            # Its models can be had by their digests all the same.
            current = None
            listed.append(Entry(name=name, place="bucket", path=f"{SCHEME}{registry.bucket}/{name}", problem=str(error)))
        listed += [measured(_in_bucket(one, current), speeds or {}) for one in same]
    return listed


def measured(entry: Entry, speeds: Mapping[str, Speed]) -> Entry:
    """Return ``entry`` with its speed on this machine, where that was measured."""
    return replace(entry, images_per_s=speeds[entry.name].images_per_s) if entry.name in speeds else entry


def show_model(name_or_directory: str) -> Entry:
    """Return one model's facts, its digest with them; may download torchvision's weights.

    Raises:
        ModelError: as :func:`~irs.models.open_model`.
    """
    directory = Path(name_or_directory).expanduser()
    if (directory / DESCRIPTION).exists():
        return _shown(directory, "local")
    if bundled := find_bundled(name_or_directory):
        return _shown(bundled, "bundled")
    if name_or_directory.startswith(SCHEME):
        reference, directory = get_shared(get_cloud(), name_or_directory)
        return replace(_shown(directory, "cached"), path=str(reference), digest=f"sha256:{reference.digest}")
    model = open_model(name_or_directory)
    architecture, _, weights = model.name.partition("@")
    if weights == zoo.RANDOM:
        entry = Entry(name=model.name, place="torchvision", architecture=architecture, classes=len(model.labels))
    else:
        entry = _published(model.name, zoo.find_weights(architecture, weights))
    return _with_labels(entry, model)


def _shown(directory: Path, place: Place) -> Entry:
    return _with_labels(_listed(directory, place), open_directory(directory))


def _with_labels(entry: Entry, model: Model) -> Entry:
    parents, labels = branches(model)
    return replace(entry, digest=model.digest, parents=parents, labels=labels)


def _in_bucket(one: Shared, current: Pointer | None) -> Entry:
    entry = Entry(
        name=one.reference.name,
        place="bucket",
        path=str(one.reference),
        digest=f"sha256:{one.reference.digest}",
        is_current=current is not None and current.digest == one.reference.digest,
        problem=one.problem,
    )
    if one.manifest is None:
        return entry
    return replace(
        entry,
        architecture=one.manifest.architecture,
        classes=one.manifest.classes,
        size_bytes=one.manifest.size_bytes,
        license=one.manifest.license,
        accuracy=one.manifest.accuracy,
    )


def _listed(directory: Path, place: Place, *, digest: str | None = None) -> Entry:
    try:
        description = read_description(directory)
        return Entry(
            name=description.name,
            place=place,
            path=str(directory),
            architecture=description.architecture,
            classes=len(read_labels(directory)),
            size_bytes=(directory / WEIGHTS).stat().st_size,
            license=description.license,
            digest=digest,
            accuracy=find_accuracy(directory),
        )
    except (ModelError, OSError) as error:
        return Entry(name=directory.name, place=place, path=str(directory), problem=str(error))


def _published(name: str, weights: Any) -> Entry:
    path = zoo.cached_path(weights)
    return Entry(
        name=name,
        place="torchvision",
        path=str(path) if path.exists() else None,
        architecture=name.partition("@")[0],
        classes=len(weights.meta["categories"]),
        size_bytes=round(weights.meta["_file_size"] * 2**20),
        license=zoo.license_of(weights),
        accuracy=round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
    )
