"""The whole pipeline on Ray beside a bare loop over the same frames in one process.

The loop reads, decodes and labels one unit after the other. It has a bank of its own in the same
process; the seconds that the bank, the writing of Parquet and commits take are not counted against
it.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from rich.console import Console
from rich.table import Table

from mint_stream.config import BUNDLED, ConfigError, Dtype, ModelConfig, RunConfig, preset
from mint_stream.input.discovery import discover
from mint_stream.input.shards import count_frames
from mint_stream.output.units import CommittedUnit
from mint_stream.pipeline.cluster import start_ray
from mint_stream.pipeline.in_process import run_in_process
from mint_stream.pipeline.run import prepare_run
from mint_stream.pipeline.summary import BESIDE, bottleneck
from mint_stream.pipeline.tally import Tally

MOST_SLOWER = 0.05
"""Share of the bare loop's throughput that the pipeline may cost at steady state."""


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What is measured."""

    input: str
    """A local folder of shards with its class list in `labels.txt`."""
    preset: str = "paper"
    frames: int = 96
    """To label in each turn; the input is repeated until there are so many."""
    warmup: int = 2
    """Units at the beginning that are left out of both measurements."""
    rounds: int = 3
    """Both take turns this often; medians are compared."""
    model: str = BUNDLED
    weights: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    unit_size: int = 16


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one turn did after its warm-up."""

    frames: int
    seconds: float
    stage_seconds: Mapping[str, float]
    said: str | None = None
    """What the run's summary calls its bottleneck."""

    @property
    def frames_s(self) -> float:
        """Frames labelled a second."""
        return self.frames / self.seconds


def compare(options: PipelineOptions, console: Console) -> bool:
    """Measure both in turn, print them side by side; whether the bound holds."""
    if options.frames < (options.warmup + 2) * options.unit_size:
        raise ConfigError(
            f"frames is {options.frames}; it must be at least two units beyond the warm-up, "
            f"{(options.warmup + 2) * options.unit_size}"
        )
    start_ray()
    bare, piped = [], []
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            input=str(_repeated(options, Path(folder) / "input")),
            output=str(Path(folder) / "output"),
            labels=str(Path(options.input) / "labels.txt"),
            model=ModelConfig(
                model=options.model,
                weights=options.weights,
                device=options.device,
                dtype=options.dtype,
            ),
            method=preset(options.preset),
            unit_size=options.unit_size,
            limit=options.frames,
        )
        try:
            for turn in range(options.rounds):
                bare.append(_bare(replace(config, output=f"{folder}/bare-{turn}"), options))
                piped.append(_piped(replace(config, output=f"{folder}/piped-{turn}"), options))
        finally:
            ray.shutdown()
    return _report(options, bare, piped, console)


def _repeated(options: PipelineOptions, folder: Path) -> Path:
    """The input's shards, as often as there have to be."""
    shards = [
        shard
        for shard in discover(options.input, unit_size=options.unit_size)
        if shard.kind == "tar"
    ]
    counted = [
        (Path(options.input) / shard.members[0].name, count_frames(shard)) for shard in shards
    ]
    if not any(frames for _, frames in counted):
        raise ConfigError(f"input is {options.input!r}; there are no tars with images in it")
    folder.mkdir()
    there = 0
    for number, (path, frames) in enumerate(itertools.cycle(counted)):
        shutil.copyfile(path, folder / f"{number:06d}.tar")
        there += frames
        if there >= options.frames:
            break
    return folder


def _bare(config: RunConfig, options: PipelineOptions) -> Pace:
    """One unit after the other, in this process."""
    ends, units = [0.0], list[CommittedUnit]()

    def note(unit: CommittedUnit, seconds: float) -> None:
        ends.append(time.perf_counter())
        units.append(unit)

    run_in_process(config, on_unit=note)
    stages = Counter[str]()
    for unit in units[options.warmup :]:
        stages.update(unit.facts.stage_seconds)
    beside = sum(stages.pop(stage, 0.0) for stage in ("bank", "write", "commit"))
    return Pace(
        frames=sum(unit.facts.labelled for unit in units[options.warmup :]),
        seconds=ends[-1] - ends[options.warmup] - beside,
        stage_seconds=stages,
    )


def _piped(config: RunConfig, options: PipelineOptions) -> Pace:
    """A run of the pipeline, from the commit of the last warm-up unit to that of the last."""
    commits: list[tuple[float, int, Counter[str]]] = []

    def note(tally: Tally) -> None:
        commits.append((time.perf_counter(), tally.frames, Counter(tally.stage_seconds)))

    summary = prepare_run(config, on_commit=note).execute()
    began, before, spent = commits[options.warmup - 1]
    ended, after, spent_at_end = commits[-1]
    return Pace(
        frames=after - before,
        seconds=ended - began,
        stage_seconds=spent_at_end - spent,
        said=bottleneck(summary),
    )


def _report(
    options: PipelineOptions, bare: Sequence[Pace], piped: Sequence[Pace], console: Console
) -> bool:
    table = Table(
        title=f"preset {options.preset}, {piped[0].frames} frames after the warm-up, "
        f"{options.rounds} rounds"
    )
    stages = sorted({stage for pace in (*bare, *piped) for stage in pace.stage_seconds})

    def stage_ms(paces: Sequence[Pace], stage: str) -> float:
        return statistics.median(1e3 * p.stage_seconds.get(stage, 0) / p.frames for p in paces)

    for column in ("", "frames/s", *stages):
        table.add_column(column, justify="left" if not column else "right")
    for name, paces in (("bare loop", bare), ("pipeline", piped)):
        table.add_row(
            name,
            f"{statistics.median(pace.frames_s for pace in paces):.2f}",
            *(f"{stage_ms(paces, stage):.1f}" for stage in stages),
        )
    console.print(table)
    console.print(
        f"Stages in ms for a frame; {' and '.join(sorted(BESIDE))} run beside the labeler in the "
        "pipeline. The loop has its bank in the same process; bank and write are not counted "
        "against it."
    )
    slower = statistics.median(
        1 - p.frames_s / b.frames_s for b, p in zip(bare, piped, strict=True)
    )
    console.print(
        f"the pipeline is {abs(slower):.1%} {'slower' if slower > 0 else 'faster'} "
        f"(at most {MOST_SLOWER:.0%} slower is the aim); its summary says: "
        f"{piped[-1].said}"
    )
    return slower <= MOST_SLOWER
