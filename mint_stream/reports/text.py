"""Numbers in words."""

from __future__ import annotations

FROZEN = "frozen"
"""Name of the preset that does not adapt; the answer that every other one is held against."""


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"
