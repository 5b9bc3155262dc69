"""Derive ``irs/models/data/wordnet.tsv``: the label tree above ImageNet's thousand labels.

Run it from the repository's root when ``tools/label_tree.txt`` changes; the same inputs give the same bytes::

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python tools/make_label_tree.py wordnet/usr/share/wordnet/data.noun

``label_tree.txt`` says which synsets are kept, under which names, and why. A kept synset or a label hangs under its
nearest kept hypernym. Where several paths lead up, the one with the fewest labels below it wins, which says most;
then the one that WordNet names first. The file's format is described by wndb(5WN).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = ROOT / "tools" / "label_tree.txt"
DATA = ROOT / "irs" / "models" / "data"
_LINE = re.compile(r"(?P<wnid>n\d{8})(?: (?P<name>[^>]+?))?(?: > (?P<parent>n\d{8}|-))?")


@dataclass
class Words:
    """What ``label_tree.txt`` says: names of kept synsets, and parents that are given (None: none)."""

    names: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str | None] = field(default_factory=dict)


def read_words(path: Path) -> Words:
    """Return the curated words; ends the program with a sentence where a line is wrong."""
    words = Words()
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if not match or not (match["name"] or match["parent"]):
            sys.exit(f"{path}:{number}: write WNID NAME, WNID NAME > WNID, or WNID > WNID, not {text!r}.")
        if match["name"]:
            words.names[match["wnid"]] = match["name"]
        if match["parent"]:
            words.moved[match["wnid"]] = None if match["parent"] == "-" else match["parent"]
    return words


def read_hypernyms(data_noun: Path) -> dict[str, list[str]]:
    """Return the hypernyms of each noun's synset by wnid, in WordNet's order."""
    hypernyms = {}
    for line in data_noun.read_text().splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.partition(" | ")[0].split()
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        hypernyms[f"n{fields[0]}"] = [
            f"n{offset}" for symbol, offset, _ in zip(pointers[::4], pointers[1::4], pointers[2::4], strict=True) if "@" in symbol
        ]
    return hypernyms


@dataclass
class Maker:
    """The tree from hypernyms, labels by wnid, and words."""

    hypernyms: dict[str, list[str]]
    labels: dict[str, str]
    words: Words

    def __post_init__(self) -> None:
        self.hypernyms |= {wnid: [parent] if parent else [] for wnid, parent in self.words.moved.items()}
        self.below: dict[str, set[str]] = defaultdict(set)
        for label in self.labels:
            for wnid in self._all_above(label):
                self.below[wnid].add(label)

    def check(self) -> None:
        """End the program with a sentence if the words do not fit."""
        names = self.words.names
        for name, times in Counter(names.values()).items():
            if times > 1:
                sys.exit(f"{name!r} names {times} synsets: give each a name of its own.")
        for wnid, name in names.items():
            if wnid not in self.below:
                sys.exit(f"{wnid} {name!r} stands above no label: leave it out.")
            if name in self.labels.values():
                sys.exit(f"{wnid} {name!r} is a label's name as well: choose another.")
        for wnid, parent in self.words.moved.items():
            if wnid not in self.below and wnid not in self.labels:
                sys.exit(f"{wnid} is moved, but stands above no label: leave it out.")
            if parent and parent not in names:
                sys.exit(f"{wnid} is moved under {parent}, which is not kept: name that.")

    def parent(self, wnid: str) -> str | None:
        """Return the kept synset that ``wnid`` hangs under."""
        # min takes the first of equals: WordNet's order.
        return min(self._nearest_kept(wnid), key=lambda found: len(self.below[found]), default=None)

    def _nearest_kept(self, wnid: str) -> Iterator[str]:
        for above in self.hypernyms[wnid]:
            if above in self.words.names:
                yield above
            else:
                yield from self._nearest_kept(above)

    def _all_above(self, wnid: str) -> Iterator[str]:
        for above in self.hypernyms[wnid]:
            yield above
            yield from self._all_above(above)


def table(maker: Maker, licence: str) -> str:
    """Return the table: a line of wnid, parent and name for each kept synset, of wnid and parent for each label."""
    lines = [f"# {line}".rstrip() for line in licence.splitlines()]
    for wnid, name in maker.words.names.items():
        lines.append(f"{wnid}\t{maker.parent(wnid) or ''}\t{name}")
    lines += [f"{wnid}\t{maker.parent(wnid) or ''}" for wnid in maker.labels]
    return "\n".join(lines) + "\n"


def licence_of(data_noun: Path) -> str:
    """Return what stands above the nouns, without the numbers of its lines: it has to be on every copy."""
    lines = [line for line in data_noun.read_text().splitlines() if line.startswith("  ")]
    return "Derived from WordNet 3.0 by tools/make_label_tree.py: wnid, parent, name.\n\n" + "\n".join(
        re.sub(r"^ *\d+ ?", "", line).rstrip() for line in lines
    )


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data_noun", type=Path, help="data.noun of WordNet 3.0")
    parser.add_argument("--out", type=Path, default=DATA / "wordnet.tsv")
    asked = parser.parse_args()
    rows = (DATA / "imagenet1k.tsv").read_text().splitlines()
    labels = dict(row.split("\t") for row in rows if not row.startswith("#"))
    maker = Maker(read_hypernyms(asked.data_noun), labels, read_words(WORDS))
    maker.check()
    asked.out.write_text(table(maker, licence_of(asked.data_noun)))
    sys.stdout.write(f"{asked.out}: {len(maker.words.names)} parents of {len(labels)} labels\n")


if __name__ == "__main__":
    main()
