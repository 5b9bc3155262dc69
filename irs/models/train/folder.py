"""A folder of class folders: which pictures there are, and what their classes are called."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irs.errors import SetupError
from irs.models.files import LABEL_LETTERS, is_label

#: Fewer teach nothing and leave none to hold back.
LEAST_PICTURES = 3
CLASSES_FILE = "classes.csv"
_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".jp2", ".avif", ".heic", ".heif", ".ppm", ".pgm")
)
_WNID = re.compile(r"n\d{8}")
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFolder:
    """Pictures by class, in torchvision's order: classes sorted by folder, pictures by path.

    Attributes:
        names: paths below ``root``.
        targets: the class of each picture, (N,) int64.
        folders, labels: of each class, equal where nothing gives it another name.
        wnids: the folders, where all are WordNet ids.
    """

    root: Path
    names: tuple[str, ...]
    targets: npt.NDArray[np.int64]
    folders: tuple[str, ...]
    labels: tuple[str, ...]
    wnids: tuple[str, ...] | None

    def sha256(self) -> str:
        """Return the digest of the list of files: their names and sizes in bytes."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(f"{name}\0{(self.root / name).stat().st_size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def read_folder(root: Path, *, labels_file: Path | None = None, folders: tuple[str, ...] | None = None) -> PictureFolder:
    """Return the pictures under ``root``; opens none of them.

    Args:
        labels_file: CSV with the columns ``wnid`` (or ``folder``) and ``label``; else ``classes.csv`` in or beside ``root``.
        folders: the classes of another folder, to be counted as there; classes may be missing here.

    Raises:
        SetupError: there is no such folder, it has fewer than two class folders, one of them has too few pictures,
            a class is none of ``folders``, there are no pictures, or a label is no line of text.
    """
    if not root.is_dir():
        raise SetupError(f"There is no folder {root}: give a folder that holds one folder of pictures for each class.")
    found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise SetupError(f"{root} has no class folders: make one for each label, with its pictures in it.")
    if folders is None and len(found) == 1:
        raise SetupError(f"{root} has one class folder only ({found[0]}): at least two classes can be told apart.")
    if folders is not None and (strange := sorted(set(found) - set(folders))):
        raise SetupError(f"{root} has the class folder {strange[0]!r}, which is none of the classes that are trained.")
    classes = folders or tuple(found)
    names, targets = [], []
    for name in found:
        inside = _pictures(root, name)
        names += inside
        targets += [classes.index(name)] * len(inside)
    labels = _labels(root, classes, labels_file)
    if odd := [label for label in labels if not is_label(label)]:
        raise SetupError(
            f"{odd[0]!r} cannot be a label: it must be one line of up to {LABEL_LETTERS} letters; "
            f"rename the class folder, or name it in {CLASSES_FILE}."
        )
    folder = PictureFolder(
        root=root,
        names=tuple(names),
        targets=np.array(targets, np.int64),
        folders=classes,
        labels=labels,
        wnids=classes if all(_WNID.fullmatch(name) for name in classes) else None,
    )
    if folders is None:
        check_counts(folder, folder.targets)
    elif not names:
        raise SetupError(f"{root} has no pictures in its class folders: put some there, or leave the folder out.")
    return folder


def check_counts(folder: PictureFolder, targets: npt.NDArray[np.int64]) -> None:
    """Raise SetupError unless each class has enough pictures among ``targets``."""
    counts = np.bincount(targets, minlength=len(folder.folders))
    few = [f"{folder.folders[index]} ({counts[index]})" for index in np.flatnonzero(counts < LEAST_PICTURES)]
    if few:
        raise SetupError(
            f"{len(few)} of the {len(folder.folders)} classes of {folder.root} have fewer than {LEAST_PICTURES} readable "
            f"pictures, {first_few(few)}: add pictures or remove the folder."
        )


def hold_back(targets: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which pictures are kept out of training: every k-th of each class, at least one.

    k is 5 for small sets and grows to 50, so that about 2,000 pictures are held back of a large one.
    """
    every = int(np.clip(len(targets) // 2000, 5, 50))
    counts, seen = Counter(targets.tolist()), Counter[int]()
    held = np.zeros(len(targets), np.bool_)
    for index, target in enumerate(targets.tolist()):
        held[index] = seen[target] % every == min(every, counts[target]) - 1
        seen[target] += 1
    return held


def first_few(names: list[str]) -> str:
    """Return the first names for a sentence."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _pictures(root: Path, folder: str) -> list[str]:
    inside: list[Path] = []
    seen: set[str] = set()
    for base, below, files in os.walk(root / folder, followlinks=True):
        if (real := os.path.realpath(base)) in seen:
            # A link back up: forty rounds of the same pictures, in training and beside it.
            below.clear()
            continue
        seen.add(real)
        inside += [Path(base, name) for name in files]
    # Broken links and pipes have names of pictures too.
    return sorted(str(path.relative_to(root)) for path in inside if path.suffix.lower() in _SUFFIXES and path.is_file())


def _labels(root: Path, folders: tuple[str, ...], given: Path | None) -> tuple[str, ...]:
    beside = (root / CLASSES_FILE, root.absolute().parent / CLASSES_FILE)
    file = given or next((path for path in beside if path.is_file()), None)
    if file is None:
        return folders
    try:
        # Spreadsheets begin a file with a mark of its encoding.
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"The labels {file} cannot be read ({error}): give a CSV file with the columns wnid,label.") from None
    labels = {row.get("wnid") or row.get("folder"): (row.get("label") or "").strip() for row in rows}
    nameless = [folder for folder in folders if not labels.get(folder)]
    if given is not None and nameless:
        raise SetupError(f"{file} has no label for the class folder {nameless[0]!r}: give each a line under wnid,label.")
    return tuple(labels.get(folder) or folder for folder in folders)
