"""From the command to the first label: when each part of a run was there, seen from outside."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from mint_stream.config import BUNDLED
from mint_stream.demo.feed import write_feed

MOST_S = 20.0
"""From the command to the first label, on two cores with the bundled CLIP."""

_COMMAND = Path(__file__).parents[2] / "pipelines" / "label_stream.py"
_PROCESSES = {
    "Ray's processes start": "raylet/raylet",
    "bank server is started": "BankActor",
    "labeler's process has its name": "LabelUnits",
}
_PATIENCE_S = 180.0


@dataclass(frozen=True, kw_only=True)
class StartupOptions:
    """What is started: the command on a few frames of the demonstration's feed."""

    preset: str = "paper"
    model: str = BUNDLED
    labels: str | None = None
    """Default: the class list of the feed."""
    rounds: int = 3


def measure(options: StartupOptions, console: Console) -> bool:
    """Start it, watch it, print when what was there; whether the first label came in time."""
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "feed"
        write_feed(feed, frames=32, seed=0)
        rounds = [
            _start(options, feed, Path(folder) / f"output-{turn}") for turn in range(options.rounds)
        ]
    table = Table(title=f"seconds after the command, median of {options.rounds}")
    table.add_column("")
    table.add_column("s", justify="right")
    for name in rounds[0]:
        times = [found[name] for found in rounds if name in found]
        table.add_row(name, f"{statistics.median(times):.1f}")
    console.print(table)
    first = statistics.median(found["first label"] for found in rounds)
    console.print(f"the first label came after {first:.1f} s (at most {MOST_S:g} s)")
    return first <= MOST_S


def _start(options: StartupOptions, feed: Path, output: Path) -> dict[str, float]:
    """Seconds after the command at which each thing was seen first."""
    command = [
        *(sys.executable, str(_COMMAND), "--input", str(feed), "--output", str(output)),
        *("--labels", options.labels or str(feed / "labels.txt"), "--model", options.model),
        *("--preset", options.preset),
    ]
    found: dict[str, float] = {}
    started = time.time()
    with _running(command) as process:
        while "first label" not in found:
            now = time.time() - started
            if process.poll() is not None or now > _PATIENCE_S:
                raise RuntimeError(f"no label after {now:.0f} s: {' '.join(command)}")
            if (output / "run.json").exists():
                found.setdefault("input, class list and weights are checked", now)
            if any((output / "labels").glob("*.parquet")):
                found["first label"] = now
            for name in _processes(process.pid):
                found.setdefault(name, now)
            time.sleep(0.1)
    return found


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _processes(pid: int) -> Iterator[str]:
    """Which of `_PROCESSES` are there."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        for name, word in _PROCESSES.items():
            if word in command:
                yield name
