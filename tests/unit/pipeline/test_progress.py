"""What a person sees of a run from its first second to its end."""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass, field

import pytest
from rich.console import Console

from mint_stream.pipeline.progress import RunProgress


@dataclass
class Counts:
    frames: int = 0
    adapted: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    labelling_since: float | None = None


def show(terminal: bool, *frames: int, quiet: bool = False, fails: bool = False) -> str:
    """What is written while the counts go through `frames`."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, color_system=None)
    try:
        with RunProgress(console, quiet=quiet) as progress:
            for count in frames:
                progress.update(Counts(frames=count))
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    return out.getvalue()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_the_last_counts_stay(terminal: bool, fails: bool) -> None:
    """Between two lines ten seconds pass, and a live line vanishes: the end was not to be seen."""
    said = show(terminal, 16, 32, 48, fails=fails)
    # Without the control sequences by which the live line is wiped away.
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.splitlines()[-1])
    assert last.startswith("48 frames")


def test_a_line_is_not_said_twice() -> None:
    assert show(False, 16).count("16 frames") == 1


def test_the_bar_counts_frames_from_the_start() -> None:
    assert "0 frames" in show(True)


def test_quiet_says_nothing() -> None:
    assert show(False, 16, 32, quiet=True) == ""
    assert "frames" not in show(True, 16, 32, quiet=True)
