"""The command line of `pipelines/evaluate.py`: label with each preset, score, report."""

from __future__ import annotations

import csv
import dataclasses
import functools
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mint_stream.clip.class_list import load_class_list
from mint_stream.clip.name_length import check_name_length
from mint_stream.config import ConfigError, Dtype, MethodConfig, ModelConfig, RunConfig, require
from mint_stream.evaluation.costs import read_costs
from mint_stream.evaluation.report import render_study
from mint_stream.evaluation.scores import Score, Study, study
from mint_stream.evaluation.table import print_study
from mint_stream.evaluation.variants import variant
from mint_stream.input.discovery import discover
from mint_stream.input.shards import count_frames
from mint_stream.input.truth import read_any_truth
from mint_stream.labeler.device import DeviceFailed
from mint_stream.output.cells import escape_cell
from mint_stream.output.lease import LeaseHeld
from mint_stream.output.read import read_labels
from mint_stream.reports.report import view_run
from mint_stream.reports.text import FROZEN
from mint_stream.store.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Label a stream whose truth is known with several presets, and compare them.

    Writes to --output a folder for each preset, frames.parquet (every answer), scores.csv and
    report.html. The same command again does only what is missing.

    Example: mint-stream evaluate --input feed --labels labels.txt --output study --model ViT-B-16
    --weights laion2b_s34b_b88k --presets frozen,realtime
    """

    input: str
    """The stream, as for label_stream.py; truth in sidecars, Parquet columns or folder names."""
    labels: str
    """Class list. Frames whose truth is not in it count as of unknown class."""
    output: Path
    """A folder of this machine."""
    model: str
    """A model name of open_clip, a folder with its configuration and weights, or bundled."""
    weights: str | None = None
    """A pretrained tag of open_clip, or a file."""
    presets: str = "frozen,realtime,ensemble,tpt,zero,paper"
    """Separated by commas; frozen comes first, the others are held against it. Settings can be
    changed: frozen,paper,paper+steps=1+learning_rate=0.001."""
    truth: str | None = None
    """Parquet file with the columns frame, label and, if known, domain; instead of the input's."""
    limit: int | None = None
    """Only the first frames of the stream."""
    every: int = 1
    """Label the first of every N units (of 16 frames) in each shard, for presets that take long.
    Scores are of the frames that all presets have labelled."""
    bank_scope: Literal["shared", "camera"] = "shared"
    """One bank for all cameras, or one for each."""
    seed: int = 0
    """Of the random views and of the bank's start."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    dtype: Dtype = "auto"
    """Precision of the encoder."""
    quiet: bool = False
    """No progress and no table."""

    def methods(self) -> list[MethodConfig]:
        """The presets. Raises `ConfigError`."""
        names = [name.strip() for name in self.presets.split(",")]
        require(names[0] == FROZEN, "presets", self.presets, f"a list that begins with {FROZEN}")
        methods = [variant(name) for name in names]
        require(len(set(names)) == len(names), "presets", self.presets, "different from each other")
        return methods

    def run_config(self, method: MethodConfig) -> RunConfig:
        """The run of one preset. Raises `ConfigError`."""
        return RunConfig(
            input=self.input,
            output=str(self.output / _folder(method.name)),
            labels=self.labels,
            model=ModelConfig(
                model=self.model, weights=self.weights, device=self.device, dtype=self.dtype
            ),
            method=method,
            bank_scope=self.bank_scope,
            limit=self.limit,
            seed=self.seed,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and answer with an exit code: 0 done, 1 it failed, 2 it could not start."""
    options = tyro.cli(Options, args=arguments, prog="mint-stream evaluate")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        evaluate(options)
    except (ConfigError, StorageError, LeaseHeld) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DeviceFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def evaluate(options: Options) -> None:
    """Label what is missing, then write and print what all of it comes to."""
    require(options.every >= 1, "every", options.every, "at least 1")
    configs = {method.name: options.run_config(method) for method in options.methods()}
    listed = load_class_list(options.labels)
    for config in configs.values():
        check_name_length(listed, config.model, config.method.templates)
    classes = listed.names
    # Torch takes seconds to import: not for --help, and not for a preset that does not exist.
    from mint_stream.evaluation.run import run_preset

    truth = read_any_truth(options.input, options.truth)
    frames = _count_frames(options) // options.every
    with _progress(options.quiet) as progress:
        for name, config in configs.items():
            task = progress.add_task(name, total=frames)
            run_preset(config, functools.partial(progress.advance, task), every=options.every)
    labels = {
        name: read_labels(config.output).slice(0, options.limit) for name, config in configs.items()
    }
    costs = {name: read_costs(config.output) for name, config in configs.items()}
    found = study(labels, truth, classes, costs)
    pq.write_table(found.frames, options.output / "frames.parquet", compression="zstd")
    _write_scores(options.output / "scores.csv", found)
    views = [
        dataclasses.replace(view_run(config.output, name=name), labels=labels[name])
        for name, config in configs.items()
    ]
    report = render_study(found, views, truth=truth, input_url=options.input)
    (options.output / "report.html").write_text(report, encoding="utf-8")
    if not options.quiet:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = 28 + 13 * len(configs)
        print_study(found, console)


def _folder(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "+-_.=" else "_" for letter in name)


def _count_frames(options: Options) -> int:
    """How many frames the stream has, or `--limit` leaves of it."""
    total = 0
    for shard in discover(options.input, unit_size=1024):
        total += count_frames(shard)
        if options.limit is not None and total >= options.limit:
            return options.limit
    return total


def _progress(quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )


def _write_scores(path: Path, found: Study) -> None:
    """A row for each preset and group of frames; shares in [0, 1]."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        names = [field.name for field in dataclasses.fields(Score) if field.name != "difference"]
        rows.writerow([*names, "difference", "difference_low", "difference_high"])
        for score in found.scores:
            gain = score.difference
            values = [getattr(score, name) for name in names]
            rows.writerow([*map(escape_cell, values), gain.mean, gain.low, gain.high])
