"""Names that stand for many: `{00000..00009}` and `{a,b}`, as in a shell and in WebDataset."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from mint_stream.config import ConfigError

WILDCARDS = re.compile(r"[*?\[]")
SPECIAL = re.compile(r"[*?\[{]")
MOST_NAMES = 100_000

_RANGE = re.compile(r"(-?[0-9]+|[A-Za-z])\.\.(-?[0-9]+|[A-Za-z])(?:\.\.(-?[0-9]+))?")


def expand_braces(text: str) -> list[str]:
    """Every name that `text` stands for, in order; itself where it has no braces.

    `{08..11}` keeps its zeros, `{0..10..5}` goes in steps, ranges of letters and braces in braces
    work; what is neither a range nor has a comma stands for itself. Raises `ConfigError` for more
    than a hundred thousand names.
    """
    names = list(itertools.islice(_expand(text), MOST_NAMES + 1))
    if len(names) > MOST_NAMES:
        raise ConfigError(f"{text!r} stands for more than {MOST_NAMES:,} names; use a * instead")
    return names


def _expand(text: str) -> Iterator[str]:
    found = _first_braces(text)
    if found is None:
        yield text
        return
    start, stop, choices = found
    for choice in choices:
        for rest in _expand(text[stop:]):
            yield f"{text[:start]}{choice}{rest}"


def _first_braces(text: str) -> tuple[int, int, Iterator[str]] | None:
    """Where the first braces that stand for something begin and end, and for what."""
    for match in re.finditer(r"\{", text):
        start = match.start()
        commas, depth = [], 0
        for at in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if text[at] == "," and depth == 1:
                commas.append(at)
            if depth == 0:
                inside = text[start + 1 : at]
                if commas:
                    cuts = [start, *commas, at]
                    parts = (text[a + 1 : b] for a, b in itertools.pairwise(cuts))
                    return start, at + 1, (name for part in parts for name in _expand(part))
                if (of := _RANGE.fullmatch(inside)) and (choices := _range(*of.groups())):
                    return start, at + 1, choices
                break
    return None


def _range(first: str, last: str, step: str | None) -> Iterator[str] | None:
    letters = first.isalpha()
    if letters != last.isalpha():
        return None
    a, b = (ord(first), ord(last)) if letters else (int(first), int(last))
    by = max(1, abs(int(step or 1)))
    numbers = range(a, b + 1, by) if a <= b else range(a, b - 1, -by)
    if letters:
        return map(chr, numbers)
    padded = any(re.match(r"-?0[0-9]", end) for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    return (f"{number:0{width}d}" for number in numbers)
