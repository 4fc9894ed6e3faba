"""Cells of a CSV that spreadsheets open: text that they would take for a formula is marked."""

from __future__ import annotations

import re
from typing import TypeVar

Value = TypeVar("Value")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def escape_cell(value: Value) -> Value | str:
    """`value`, with an apostrophe in front of text that begins as a formula does."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def unescape_cell(text: str) -> str:
    """What `escape_cell` was given."""
    return text[1:] if text[:1] == "'" and _FORMULA.match(text) else text
