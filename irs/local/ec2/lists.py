"""How EC2 narrows and pages its lists."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from irs.local.ec2.faults import Refused
from irs.local.ec2.instances import Fields, Instance

_PAGE = range(5, 1001)


class Tagged(Protocol):
    """What can be filtered by its tags."""

    tags: dict[str, str]


T = TypeVar("T", bound=Tagged)


def select(items: Iterable[T], filters: Iterable[Fields], known: Mapping[str, Callable[[T], list[str]]]) -> list[T]:
    """Return the items that pass every filter: one of its values matches one of the item's.

    Raises:
        Refused: a filter that EC2 does not know; ignored, it would let all pass.
    """
    kept = list(items)
    for each in filters:
        values_of = _values(str(each.get("Name", "")), known)
        patterns = [_pattern(value) for value in each.get("Values", ())]
        kept = [item for item in kept if any(pattern.fullmatch(value) for pattern in patterns for value in values_of(item))]
    return kept


def _values(name: str, known: Mapping[str, Callable[[T], list[str]]]) -> Callable[[T], list[str]]:
    if name == "tag-key":
        return lambda item: list(item.tags)
    if name == "tag-value":
        return lambda item: list(item.tags.values())
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda item: [item.tags[key]] if key in item.tags else []
    if name not in known:
        raise Refused("InvalidParameterValue", f"The filter '{name}' is invalid")
    return known[name]


def page(found: list[Instance], asked: Fields) -> tuple[list[Instance], str | None]:
    """Return one page of instances, and the token of the next when there is one.

    Raises:
        Refused: a size that EC2 does not offer, ids together with a size, or a token that is not ours.
    """
    size = asked.get("MaxResults")
    if asked.get("InstanceIds") and (size is not None or asked.get("NextToken")):
        raise Refused("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
    if size is not None and size not in _PAGE:
        raise Refused("InvalidParameterValue", f"Value ( {size} ) for parameter maxResults is invalid. Expecting 5 to 1000")
    token = asked.get("NextToken", "")
    if token and not token.isdecimal():
        raise Refused("InvalidParameterValue", f"The token '{token}' is invalid")
    # By ordinal, not by offset: an instance that leaves between two pages must not hide another one.
    rest = [one for one in found if one.ordinal > int(token or 0)]
    taken = rest[: size or _PAGE[-1]]
    return taken, str(taken[-1].ordinal) if len(rest) > len(taken) else None


def _pattern(text: str) -> re.Pattern[str]:
    """``*`` and ``?`` as in a shell, each literal behind a backslash; everything else is literal."""

    def part(match: re.Match[str]) -> str:
        found = match[0]
        if found[0] == "\\" and len(found) == 2:
            return re.escape(found[1])
        return {"*": ".*", "?": "."}.get(found, re.escape(found))

    return re.compile(re.sub(r"\\.|.", part, text, flags=re.DOTALL), re.DOTALL)
