"""What the documents tell a reader to type: the fenced blocks of README.md and ``docs/*.md``, as commands and programs.

The pages of ``docs/reference`` are made from the code and tell no one to type anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: What a block in one of these languages holds is typed line by line; of a console, what stands behind ``$``.
SHELL, CONSOLE, PYTHON = "sh", "console", "python"
#: Blocks that nobody types, and why.
SHOWN = {
    "json": "an answer, shortened",
    "text": "a tree, a usage, or what a command says",
    "js": "tests/js/detect_labels.mjs is the whole of it, run by tests/service/test_rekognition.py",
    "caddyfile": "run by tests/journey/test_docs_proxies.py",
    "nginx": "run by tests/journey/test_docs_proxies.py",
}

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"(?:\w+=\S+ +)*(?:\.venv/bin/)?(?:irs|celery|python|make|aws|docker|systemctl|pip|git|curl)\b ")
_SAVED = re.compile(r"\bas `([\w.]+\.py)`")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, where it begins, its language, what it holds, and the paragraph before it."""

    page: str
    line: int
    language: str
    text: str
    before: str

    @property
    def where(self) -> str:
        """The place to look at when something is wrong with it."""
        return f"{self.page}:{self.line}"

    @property
    def is_typed(self) -> bool:
        """Whether it is commands; of a block without a language, whether it begins like one."""
        return self.language in (SHELL, CONSOLE) or (not self.language and _TYPED.match(self.text) is not None)

    @property
    def saved_as(self) -> str:
        """The file that the reader is told to save a program in; "" for one that is run as it is."""
        found = _SAVED.search(self.before)
        return found[1] if found and self.language == PYTHON else ""


def pages() -> list[str]:
    """Return README.md and the pages of docs/, as paths from the root."""
    return ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    text = (ROOT / page).read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start()) + 1,
            found[2],
            re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE),
            text[: found.start()].rstrip().rpartition("\n\n")[2],
        )
        for found in _FENCE.finditer(text)
    ]


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of a typed block, continued lines joined and comments taken off."""
    text = block.text
    if block.language == CONSOLE:
        text = "\n".join(re.findall(r"^\$ (.+)", text, re.MULTILINE))
    for line in re.sub(r" *\\\n *", " ", text).splitlines():
        if command := re.sub(r"(?:^|\s)#.*", "", line).strip():
            yield command
