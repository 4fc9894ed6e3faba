"""What a person sees while a run goes on, and the keys that stop it."""

from __future__ import annotations

import logging
import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

log = logging.getLogger(__name__)


class Counts(Protocol):
    """What a run has committed so far."""

    frames: int
    adapted: int
    rejects: Any
    labelling_since: float | None


class RunProgress:
    """Frames labelled, frames a second, rejects and adapted share, kept up to date.

    A live line on a terminal; elsewhere a plain line every `every_s` seconds; in both cases the
    last counts stay in a line of their own. Nothing if `quiet`.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int | None = None,
        quiet: bool = False,
        every_s: float = 10,
    ) -> None:
        self._console, self._total, self._quiet, self._every_s = console, total, quiet, every_s
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._live.add_task("labelling", total=total, facts="0 frames")
        self._next_line = 0.0
        self._facts = self._printed = ""

    def __enter__(self) -> RunProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._print()

    def start(self, done: int, shards_left: int) -> None:
        """Say what is there already."""
        if self._total is not None:
            self._live.update(self._task, total=max(0, self._total - done))
        if self._quiet:
            return
        if done:
            self._console.print(f"{done:,} frames are done already.", highlight=False)
        left = "1 shard is" if shards_left == 1 else f"{shards_left:,} shards are"
        text = f"{left} left; loading the model." if shards_left else "Nothing is left to label."
        self._console.print(text, highlight=False)

    def bank(self, name: str) -> None:
        """Say under which name a service on this cluster finds the bank."""
        if not self._quiet:
            self._console.print(f"The live bank is {name} (docs/serving.md).", highlight=False)

    def update(self, counts: Counts) -> None:
        """Show the counts after another unit."""
        now = time.monotonic()
        seconds = now - (counts.labelling_since or now)
        rejected = sum(counts.rejects.values())
        facts = f"{counts.frames:,} frames"
        if seconds > 0:
            facts += f", {counts.frames / seconds:,.1f} a second"
        facts += f", {rejected:,} rejected"
        if counts.frames:
            facts += f", {counts.adapted / counts.frames:.0%} adapted"
        self._live.update(self._task, completed=counts.frames + rejected, facts=facts)
        self._facts = facts
        if not self._console.is_terminal and now >= self._next_line:
            self._next_line = now + self._every_s
            self._print()

    def _print(self) -> None:
        if not self._quiet and self._facts != self._printed:
            self._printed = self._facts
            self._console.print(self._facts, highlight=False)


class LoggedProgress:
    """The same as log lines with the numbers as fields, every `every_s` seconds."""

    def __init__(self, *, quiet: bool = False, every_s: float = 10) -> None:
        self._quiet, self._every_s, self._next_line = quiet, every_s, 0.0

    def __enter__(self) -> LoggedProgress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self, done: int, shards_left: int) -> None:
        """Say what is there already."""
        if not self._quiet:
            log.info("run started", extra={"frames_done": done, "shards_left": shards_left})

    def bank(self, name: str) -> None:
        """Say under which name a service on this cluster finds the bank."""
        if not self._quiet:
            log.info("bank server started", extra={"bank_actor": name})

    def update(self, counts: Counts) -> None:
        """Say the counts after another unit."""
        now = time.monotonic()
        if not self._quiet and now >= self._next_line:
            self._next_line = now + self._every_s
            facts = {"frames": counts.frames, "adapted": counts.adapted}
            log.info("labelling", extra={**facts, "rejected": dict(counts.rejects)})
