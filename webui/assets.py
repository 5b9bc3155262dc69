"""The page's scripts and its style as they are sent: a file each, without comments.

Ten modules would be ten requests one after another, and a third of their bytes is for readers. They are kept, typed and
read as they stand in ``static``; each keeps a scope of its own here, and runs when it is first imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

#: Where the page starts; what it imports is found from here.
FIRST = "app"
_LOADER = "const $modules = {}, $made = {};\nconst $take = (name) => ($made[name] ??= $modules[name]());\n"

_IMPORT = re.compile(r'^import (?:\* as (\w+)|(\{[^}]*\})) from "\./([\w.]+)\.js";$', re.MULTILINE)
_LATE = re.compile(r'\bimport\("\./([\w.]+)\.js"\)')
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)
_COMMENT = re.compile(r"/\*\*[^*]*(?:\*(?!/)[^*]*)*\*/ ?|^[ \t]*//.*$", re.MULTILINE)
_BLANK = re.compile(r"^[ \t]+|\n+(?=\n)", re.MULTILINE)
_STYLE_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_STYLE_BLANK = re.compile(r"\s*([{};,])\s*")


@cache
def script() -> str:
    """Return the script of the page; reads its modules once a process."""
    wrapped = [f"$modules.{name} = () => {{\n{_body(text)}}};\n" for name, text in _modules()]
    return f'{_LOADER}{"".join(wrapped)}$take("{FIRST}");\n'


@cache
def style() -> str:
    """Return the style of the page; reads it once a process. No string of ours holds what looks like a comment or a space."""
    return _STYLE_BLANK.sub(r"\1", _STYLE_COMMENT.sub("", _text("page.css"))).strip()


def _text(file: str) -> str:
    return files("webui").joinpath("static", file).read_text("utf-8")


def _modules() -> Iterator[tuple[str, str]]:
    """Yield names and texts: the first module, then what each imports, each once."""
    waiting, known = [FIRST], {FIRST}
    while waiting:
        name = waiting.pop(0)
        text = _uncommented(_text(f"{name}.js"))
        yield name, text
        for needed in [match[3] for match in _IMPORT.finditer(text)] + _LATE.findall(text):
            if needed not in known:
                known.add(needed)
                waiting.append(needed)


def _uncommented(text: str) -> str:
    # Ours have no comment at the end of a line, and no string or expression that looks like one: a test holds it.
    return _BLANK.sub("", _COMMENT.sub("", text)).lstrip()


def _body(text: str) -> str:
    exported = [match[2] for match in _EXPORT.finditer(text)]
    text = _IMPORT.sub(lambda match: f'const {match[1] or match[2].replace(" as ", ": ")} = $take("{match[3]}");', text)
    text = _LATE.sub(r'Promise.resolve("\1").then($take)', text)
    return _EXPORT.sub(r"\1 \2", text) + f"return {{ {', '.join(exported)} }};\n"
