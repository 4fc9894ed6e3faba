"""Class names in text, JSON and CSV, as people, tools and data sets write them.

Text is one name a line, whatever characters are in it; a file that is none (JSON, a table, code, a
list with bullets) is not taken for one. What a file cannot mean is refused with its line.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from mint_stream.config import ConfigError

Named = list[tuple[str, str]]
"""Where a name stands, for a person, and the name."""

_NAME_HEADERS = (
    *("name", "names", "class", "classes", "class_name", "classname", "label", "labels"),
    *("label_name", "display_name", "displayname", "category", "category_name", "title", "text"),
)
_ID_HEADERS = ("id", "index", "idx", "class_id", "label_id", "category_id", "wnid", "synset", "key")
_ID = re.compile(r"\d+|n\d{8}|/[mtg]/\w+")  # a number, WordNet's, Google's
_SYNSET = re.compile(r"(n\d{8})(?:[\s,:]+(?:\d+\s+)?(.*))?")  # ILSVRC numbers them as well
_JSON = re.compile(r"[\[{]\s*([\"\[{]|$)")
_BULLET = re.compile(r"[-*\u2022]\s+\S")
_NO_LIST = re.compile(
    r"<!|<html|<\?xml|\{\\rtf|%PDF|version https://git-lfs|\w+\s*=\s*[\[({]|(names|classes|labels):",
    re.IGNORECASE,
)
_ALONE = "write the names alone, one a line, or a CSV with a header of which one column is `name`"


def squeezed(text: str) -> str:
    """`text` with single spaces between its words."""
    return " ".join(text.split())


def from_text(text: str) -> Any:
    """The names in a text file, or what `from_json` gives of one that is JSON.

    Raises `ConfigError` for what is no list of names.
    """
    lines = [(n, squeezed(line)) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
    for n, line in lines:
        if any(ord(letter) < 32 or letter == "\ufffd" for letter in line):
            raise ConfigError(f"line {n} is not text: save the list as text in UTF-8")
    if not lines:
        return []
    (first, start), every = lines[0], [line for _, line in lines]
    if _NO_LIST.match(start):
        raise ConfigError(f"line {first} is {start[:60]!r}, which is no class name; {_ALONE}")
    if _JSON.match(start):
        return from_json(text)
    if len(every) > 1 and all(_BULLET.match(line) for line in every):
        raise ConfigError(f"line {first} is {start[:60]!r}, with a bullet: call the file .yaml")
    if any(_SYNSET.fullmatch(line) for line in every):
        return [_synset(n, line) for n, line in lines]
    if _is_table(text, every):
        return from_csv(text)
    counted = [re.match(r"(\d+)[ .):]+\S", line) for line in every]
    numbers = [int(found[1]) for found in counted if found]
    if len(every) > 1 and numbers in ([*range(len(every))], [*range(1, len(every) + 1)]):
        raise ConfigError(
            f"line {first} is {start[:60]!r}, like all others a number that counts and more: "
            f"is it an id? {_ALONE}"
        )
    return [(f"line {n}", line) for n, line in lines]


def _synset(n: int, line: str) -> tuple[str, str]:
    found = _SYNSET.fullmatch(line)
    if not found or not found[2]:
        lacks = "without a name" if found else "and others begin with an id of WordNet"
        raise ConfigError(f"line {n} is {line[:60]!r}, {lacks}; {_ALONE}")
    return f"line {n}", found[2]


def _is_table(text: str, every: Sequence[str]) -> bool:
    """Whether text is a table all the same: a header, ids in front, quotes or commas around all."""
    rows = [[cell.strip(" \"'") for cell in re.split(r"[,;]", line)] for line in every]
    if "\t" in text.strip():
        lines = [line.strip() for line in text.splitlines()]
        rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    headers = {cell.casefold() for cell in rows[0]}
    even = len(rows[0]) > 1 and {len(row) for row in rows} == {len(rows[0])}
    if even and headers & {*_NAME_HEADERS}:
        return True
    if all(len(row) > 1 and _ID.fullmatch(row[0]) for row in rows if any(row)):
        return True
    if len(every) > 1 and all(line[-1] == "," for line in every[:-1]):
        return True
    return all(len(line) > 1 and line[0] == line.rstrip(",;")[-1] == '"' for line in every)


def from_csv(text: str) -> Named:
    """The names in a table with a header, or in one with ids beside them. Raises `ConfigError`."""
    declared = re.match(r"\s*sep=(.)\s*\n", text)  # as spreadsheets write it
    text = text[declared.end() :] if declared else text.lstrip()
    delimiter = declared[1] if declared else max("\t;,", key=text.partition("\n")[0].count)
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            cells = [squeezed(cell) for cell in row]
            if any(cells) and not (len(rows) and cells[0].startswith("#")):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ConfigError(f"line {reader.line_num} is no CSV ({error})") from error
    if not rows:
        return []
    header = [cell.lstrip("# ").casefold() for cell in rows[0][1]]
    named = [n for name in _NAME_HEADERS for n, cell in enumerate(header) if cell == name]
    has_header = bool(named or {*header} & {*_ID_HEADERS})
    rows = rows[1:] if has_header else rows
    width = max((len(cells) for _, cells in rows), default=0)
    filled = [n for n in range(width) if any(n < len(cells) and cells[n] for _, cells in rows)]
    at = named[0] if named else _column_of_names(rows, filled)
    found = []
    for n, cells in rows:
        if at >= len(cells) or not cells[at]:
            raise ConfigError(f"line {n} has no name in column {at + 1}")
        if has_header and any(cells[len(header) :]):
            raise ConfigError(
                f"line {n} has more cells than the header: put quotes around a name with a "
                f"{delimiter!r} in it"
            )
        found.append((n, cells[at]))
    if len(filled) == 1 and any(_SYNSET.fullmatch(name) for _, name in found):
        return [_synset(n, name) for n, name in found]
    quoted = all(len(name) > 1 and name[0] == name[-1] == "'" for _, name in found)
    return [(f"line {n}", name[1:-1] if quoted else name) for n, name in found]


def _column_of_names(rows: Sequence[tuple[int, list[str]]], filled: Sequence[int]) -> int:
    names = [
        n
        for n in filled
        if not all(n < len(cells) and _ID.fullmatch(cells[n]) for _, cells in rows)
    ]
    if len(filled) == 1 or len(names) == 1:
        return (names or filled)[0]
    n, cells = rows[0] if rows else (1, [])
    raise ConfigError(
        f"line {n} has {len(filled)} cells ({', '.join(cells)[:60]}), and no header says which "
        "one is the name: give the column the header `name`"
    )


def from_json(text: str) -> Any:
    """Names by their place, or what YAML may hold as well (a list, or a mapping with `classes`).

    An object is id to name (numbers in their order), or name to number. Raises `ConfigError`.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unrepeated)
    except ValueError as error:
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "it"
        raise ConfigError(f"{line} is not valid JSON: {error}") from error
    except RecursionError:
        raise ConfigError("it is no list of names: it is nested too deeply") from None
    if isinstance(content, dict):
        for key in ("id2label", "categories", "classes", "names"):
            if isinstance(content.get(key), dict | list):
                if key == "classes" and isinstance(content[key], list):
                    return content
                content = content[key]
                break
    if isinstance(content, dict):
        return _of_object(content)
    if isinstance(content, list) and content and all(_is_record(item) for item in content):
        return [(f"item {n}", str(item["name"])) for n, item in enumerate(content)]
    if not isinstance(content, list):
        raise ConfigError(f"it holds {json.dumps(content)[:60]}, not a list or an object of names")
    return {"classes": content}


def _is_record(item: Any) -> bool:
    """An entry of COCO's categories and their like: a name with facts about it."""
    is_named = isinstance(item, dict) and isinstance(item.get("name"), str) and item["name"].strip()
    return bool(is_named) and "id" in item and "synonyms" not in item


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"it holds {repeated!r} twice in one object")
    return found


def _of_object(content: dict[str, Any]) -> Named:
    values = list(content.values())
    if values and all(type(value) is int for value in values):  # name to number
        ordered = sorted(content.items(), key=lambda pair: pair[1])
        return [(f"{number}", squeezed(name)) for name, number in ordered]
    items = list(content.items())
    if all(key.isdecimal() for key in content):
        items.sort(key=lambda pair: int(pair[0]))
    found = []
    for key, value in items:
        name = value[1] if isinstance(value, list) and len(value) == 2 else value  # id, name
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"{key!r} is {json.dumps(value)[:60]}; it must be a name")
        found.append((repr(key), squeezed(name)))
    return found
