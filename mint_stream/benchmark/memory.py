"""Whether memory stays flat: resident sizes of the driver and the labelers along a long run."""

from __future__ import annotations

import io
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import ray
from PIL import Image
from rich.console import Console
from rich.table import Table

from mint_stream.config import BUNDLED, BUNDLED_LABELS, ConfigError, ModelConfig, RunConfig, preset
from mint_stream.pipeline.cluster import start_ray
from mint_stream.pipeline.run import prepare_run
from mint_stream.pipeline.tally import Tally

MOST_GROWTH = 0.10
"""Of the resident size at the end over that at one tenth of the run."""

_SHARD = 1024
_DRIVER = "driver"


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """A long run over small frames."""

    frames: int = 200_000
    side: int = 32
    """Of the frames, pixels."""
    preset: str = "frozen"
    model: str = BUNDLED
    labels: str = str(BUNDLED_LABELS)
    num_labelers: int = 1
    unit_size: int = 64


@dataclass(frozen=True)
class Sample:
    """Resident sizes when `frames` were committed, MB by process."""

    frames: int
    seconds: float
    rss_mb: dict[str, float]
    own_mb: dict[str, float]
    """Without pages that processes share: Ray's object store, and libraries."""


def measure(options: MemoryOptions, console: Console) -> bool:
    """Run, print sizes along the way; whether none grew beyond the bound."""
    if options.frames < 40 * options.unit_size:
        raise ConfigError(
            f"frames is {options.frames}; it must be at least 40 units, {40 * options.unit_size}"
        )
    samples: list[Sample] = []
    started = time.perf_counter()

    def look(tally: Tally) -> None:
        if tally.frames * 20 >= (len(samples) + 1) * options.frames:
            sizes = dict(_sizes())
            samples.append(
                Sample(
                    tally.frames,
                    time.perf_counter() - started,
                    {name: rss for name, (rss, _) in sizes.items()},
                    {name: own for name, (_, own) in sizes.items()},
                )
            )

    with tempfile.TemporaryDirectory() as folder:
        _write_shards(Path(folder) / "input", options)
        config = RunConfig(
            input=f"{folder}/input",
            output=f"{folder}/output",
            labels=options.labels,
            model=ModelConfig(model=options.model),
            method=preset(options.preset),
            num_labelers=options.num_labelers,
            unit_size=options.unit_size,
        )
        start_ray()
        try:
            summary = prepare_run(config, on_commit=look).execute()
        finally:
            ray.shutdown()
    console.print(
        f"{summary.frames:,} frames of {options.side} x {options.side} pixels, preset "
        f"{options.preset}, {summary.frames_per_s:.0f} frames/s"
    )
    return _report(samples, console)


def _write_shards(folder: Path, options: MemoryOptions) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    images = []
    for _ in range(64):
        file = io.BytesIO()
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((options.side, options.side)).save(file, "JPEG")
        images.append(file.getvalue())
    for first in range(0, options.frames, _SHARD):
        with tarfile.open(folder / f"{first // _SHARD:06d}.tar", "w") as archive:
            for number in range(first, min(first + _SHARD, options.frames)):
                member = tarfile.TarInfo(f"{number:08d}.jpg")
                member.size = len(images[number % len(images)])
                archive.addfile(member, io.BytesIO(images[number % len(images)]))


def _sizes() -> Iterator[tuple[str, tuple[float, float]]]:
    """(resident, of its own) in MB, of the driver and of each labeler."""
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            command, memory = " ".join(process.cmdline()), process.memory_info()
        except psutil.Error:
            continue
        name = _DRIVER if process == me else f"labeler {process.pid}"
        if process == me or "LabelUnits" in command:
            yield name, (memory.rss / 2**20, (memory.rss - memory.shared) / 2**20)


def _report(samples: list[Sample], console: Console) -> bool:
    tenth, end = samples[1], samples[-1]
    table = Table(title="resident MB, in brackets without shared pages")
    for column in ("frames", "s", *end.rss_mb):
        table.add_column(column, justify="right")
    for sample in samples:
        table.add_row(
            f"{sample.frames:,}",
            f"{sample.seconds:.0f}",
            *(
                f"{sample.rss_mb.get(name, 0):.0f} ({sample.own_mb.get(name, 0):.0f})"
                for name in end.rss_mb
            ),
        )
    console.print(table)
    flat = True
    for name in end.rss_mb:
        if name not in tenth.rss_mb:
            console.print(f"{name} was started again on the way")
            flat = False
            continue
        growth = end.rss_mb[name] / tenth.rss_mb[name] - 1
        own = end.own_mb[name] / tenth.own_mb[name] - 1
        console.print(
            f"{name}: {growth:+.1%} from one tenth to the end (at most {MOST_GROWTH:+.0%}); "
            f"without shared pages {own:+.1%}"
        )
        flat = flat and growth <= MOST_GROWTH
    return flat
