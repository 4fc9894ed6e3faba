"""The quickstart: a street feed drifts, frozen CLIP and the adapting ones label it, a report says
how they did.

    <output>/feed/          the rendered feed: WebDataset shards with the truth in their sidecars
    <output>/frozen/        labels of the frozen model
    <output>/realtime/      labels and bank of the preset for streams
    <output>/paper/         those of the published settings, for a quarter of each segment: they
                            cost hundreds of encoder passes a frame
    <output>/report.html    all of them, held against the truth

Started again it does only what is missing.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console

from mint_stream.clip.model import pick_device
from mint_stream.config import BUNDLED, PRESETS, ConfigError, Dtype, ModelConfig, RunConfig, require
from mint_stream.demo.feed import SEGMENTS, parts, write_feed
from mint_stream.input.truth import read_truth
from mint_stream.output.accuracy import accuracy_by, with_truth
from mint_stream.output.read import read_labels
from mint_stream.pipeline.core_lines import core_lines_kept_out
from mint_stream.pipeline.progress import RunProgress
from mint_stream.pipeline.run import prepare_run
from mint_stream.pipeline.summary import RunSummary
from mint_stream.reports.accuracy import print_accuracy
from mint_stream.reports.report import view_run, write_report

FRAMES = 1216
_PRESETS = ("frozen", "realtime", "paper")
_SAMPLED = "paper"
"""Labels only the last shard of each segment, where the drift is whole."""
_MARKER = "quickstart.json"
"""Written when the feed is whole: its frames and seed."""


def quickstart(
    output: str,
    *,
    frames: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: Dtype = "auto",
    quiet: bool = False,
) -> Path | None:
    """Render the feed, label it with each preset, print accuracy by segment, write the report.

    `quiet` leaves out the progress. Gives the path of the report; None if a run was stopped.
    Raises `ConfigError` for settings that cannot work or an output of another quickstart, and
    whatever the pipeline raises.
    """
    folder, frames = Path(output), FRAMES if frames is None else frames
    pick_device(device)
    progress = Console(stderr=True, highlight=False, quiet=quiet)
    feed = ensure_feed(folder, frames=frames, seed=seed, console=progress)
    model = ModelConfig(model=BUNDLED, device=device, dtype=dtype)
    for preset in _PRESETS:
        sampled = preset == _SAMPLED
        config = RunConfig(
            input=str(feed / f"*-{parts(frames)}.tar" if sampled else feed),
            output=str(folder / preset),
            labels=str(feed / "labels.txt"),
            model=model,
            method=PRESETS[preset],
            seed=seed,
        )
        progress.print(f"\nLabelling with preset {preset}.")
        summary = _run(config, frames // parts(frames) if sampled else frames, progress)
        if summary.stopped:
            progress.print("Stopped. The same command goes on from here.")
            return None
    return _compare(folder, feed, device)


def ensure_feed(folder: Path, *, frames: int, seed: int, console: Console) -> Path:
    """The feed's folder, rendered unless it is there already.

    Raises `ConfigError` if there are too few frames for all segments, or if `folder` holds a feed
    with other frames or another seed: labels of two feeds must not end up in one output.
    """
    require(frames >= len(SEGMENTS), "limit", frames, f"at least {len(SEGMENTS)}, one a segment")
    feed, marker = folder / "feed", folder / _MARKER
    wanted = {"frames": frames, "seed": seed}
    if marker.exists():
        made = json.loads(marker.read_text())
        if {name: made.get(name) for name in wanted} != wanted:
            raise ConfigError(
                f"output {str(folder)!r} holds a quickstart with {made.get('frames')} frames and "
                f"seed {made.get('seed')}, not {frames} and {seed}: choose another --output"
            )
        if all((feed / name).exists() for name in made["files"]):
            return feed
    console.print(f"Rendering {frames} frames of a street feed that drifts into {feed}.")
    written = write_feed(feed, frames=frames, seed=seed)
    files = [path.name for path in (*written.shards, written.labels)]
    marker.write_text(json.dumps({**wanted, "files": files}))
    return feed


def _run(config: RunConfig, frames: int, console: Console) -> RunSummary:
    show = RunProgress(console, total=frames, quiet=console.quiet)
    with core_lines_kept_out(), show as progress:
        run = prepare_run(
            config, on_start=progress.start, on_commit=progress.update, handle_signals=True
        )
        return run.execute()


def _compare(folder: Path, feed: Path, device: str) -> Path:
    truth = read_truth(str(feed))
    tables = {
        preset: accuracy_by(with_truth(read_labels(str(folder / preset)), truth))
        for preset in _PRESETS
    }
    console = Console(highlight=False)
    console.print()
    sample = {_SAMPLED: tables.pop(_SAMPLED)}
    print_accuracy(tables, console)
    console.print(f"\nThe published settings ({_SAMPLED}), on the last part of each segment:")
    print_accuracy(sample, console)
    report = folder / "report.html"
    write_report(
        str(report),
        [view_run(str(folder / preset), facts=_machine(device)) for preset in _PRESETS],
        truth=truth,
        input_url=str(feed),
        title="A street feed drifts: frozen CLIP and the one that adapts",
    )
    # Soft: a path that is folded at the terminal's width cannot be opened.
    console.print(f"\nReport: {report.resolve()}", soft_wrap=True, markup=False)
    return report


def _machine(device: str) -> Mapping[str, str]:
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    used = pick_device(device)
    if used.type == "cuda":
        return {"machine": f"{torch.cuda.get_device_name(used)}; {cores}"}
    return {"machine": cores}
