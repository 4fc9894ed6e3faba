"""What verifying found: a line each that says what is wrong, in which object, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

AGAIN = "run the same command again"
BRING_BACK = "bring it back from a backup or an older object version"


@dataclass(frozen=True, order=True)
class Finding:
    """Something that must not be so."""

    object: str
    """Name of the object below the output's root, or id of a shard of the input."""
    what: str
    remedy: str

    def __str__(self) -> str:
        return " ".join(f"{self.object}: {self.what}; {self.remedy}".split())


@dataclass
class Findings:
    """Findings as they come up, and notes: what is harmless, or could not be checked."""

    found: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, object: str, what: str, remedy: str) -> None:
        """Another finding, unless it was made before."""
        finding = Finding(object, what, remedy)
        if finding not in self.found:
            self.found.append(finding)

    def note(self, text: str) -> None:
        """Something that a person may want to know, and that is not wrong."""
        self.notes.append(text)


def some(things: Sequence[str], most: int = 3) -> str:
    """The first few of `things`, and how many there are besides."""
    shown = ", ".join(things[:most])
    return f"{shown} and {len(things) - most:,} more" if len(things) > most else shown
