"""What a run did, as a small record, and how it reads in a terminal or a plain log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mint_stream.reports.text import FROZEN, percent

_BUSY = 0.8
"""Share of its time from which on a part of the run is what the others wait for."""

_MOSTLY = 0.5
"""Share of its time from which on a run was mostly something."""

BESIDE = frozenset({"decode", "commit", "idle"})
"""Stages that run in processes of their own while the labelers go on; and how long these had no
frame."""


class RunFailed(RuntimeError):
    """The run could not go on; what was committed stays. The message says what to do."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The end of a run. Counts are of this run alone, except `already_done`."""

    output: str
    """Root of the outputs, as it was given."""
    preset: str
    frames: int
    """Frames that this run labelled and committed."""
    units: int
    """Units that this run committed."""
    seconds: float
    """Wall time of the run, from its call to its return."""
    already_done: int = 0
    """Frames, labelled or rejected, that the output already held when the run began."""
    follow: bool = False
    """Whether the run waited for frames to arrive."""
    relabels: bool = False
    """Whether the run labelled again what was suspect, and nothing else."""
    rejects: Mapping[str, int] = field(default_factory=dict)
    """Rows written to `rejects/`, by stage (list, read, decode, label)."""
    left_out: str = ""
    """Files of the input that are of kinds that are not read: how many of which, with a name."""
    left_out_members: str = ""
    """The same of what was in the tars that this run read to their end."""
    abstained: int = 0
    """Frames among `frames` without a label, since none was sure enough."""
    abstention: str | None = None
    """From which confidence on there is a label, in words; None if there always is one."""
    adapted: int = 0
    """Frames among `frames` whose adapted answer stands."""
    adapt_budget: float | None = None
    """Share of the labelers' time that adapting was allowed; None for all that it needs."""
    spared: int = 0
    """Frames among `frames` that kept the frozen answer because of it."""
    adapt_s: float = 0.0
    """What adapting took, where there is a budget."""
    labelers: int = 1
    startup_s: float = 0.0
    """Part of `seconds` before the first frame was labelled: Ray, listing, loading the model."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds by stage: `views`, `encoder`, `retrieve`, `text`, `step`, `bank` (waiting for the
    bank server) and `write` in the labelers; `decode` and `commit` beside them; `idle`: labelers
    without a frame. Where the encoder looks ahead, it runs while the others do."""
    bank_seq: int | None = None
    """Merges that the bank has seen, over all runs of this output; None where none is kept."""
    stopped: str | None = None
    """Why the run ended before its input did (`interrupted`, ...); None if it did not."""
    left_shards: int = 0
    """Shards that could not be read, or not to their end, and are left for the next run."""
    left_images: int = 0
    """The same of loose images."""
    left_why: Mapping[str, int] = field(default_factory=dict)
    """How many of both for each type of error (`ObjectMissing`, ...)."""
    left_example: str | None = None
    """The error of one of them."""

    @property
    def left(self) -> int:
        """Shards and loose images that are left for the next run."""
        return self.left_shards + self.left_images

    @property
    def rejected(self) -> int:
        """Rows written to `rejects/`, all stages together."""
        return sum(self.rejects.values())

    @property
    def frames_per_s(self) -> float:
        """Frames labelled a second once labelling had begun; 0 where nothing was labelled."""
        working_s = self.seconds - self.startup_s
        return self.frames / working_s if self.frames and working_s > 0 else 0.0

    @property
    def adapted_share(self) -> float:
        """Share of `frames` whose adapted answer stands, in [0, 1]; 0 where there are none."""
        return self.adapted / self.frames if self.frames else 0.0


def print_summary(summary: RunSummary, console: Console) -> None:
    """The end of a run: what was labelled, rejected and spent, and where the outputs are."""
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column()
    for name, text in _facts(summary):
        lines.add_row(name, text)
    console.print(lines, highlight=False)
    if summary.left_example is not None:
        line = Text("such as   ", style="bold").append(summary.left_example, style="not bold")
        console.print(line, soft_wrap=True, highlight=False)
    for name, folder in (("labels", "labels"), ("rejects", "rejects"), ("bank", "bank")):
        if name == "rejects" and not summary.rejected:
            continue
        if name == "bank" and summary.bank_seq is None:
            continue
        line = Text(f"{name:<9} ", style="bold").append(
            f"{summary.output.rstrip('/')}/{folder}/", style="not bold"
        )
        # Soft: a path that is folded at 80 columns cannot be copied out of a log.
        console.print(line, soft_wrap=True, highlight=False)


def bottleneck(summary: RunSummary) -> str | None:
    """Which part of the run the others waited for, and what to add; None if nothing was labelled.

    A part that was busy for nearly all of the time that labelling took is what held it up; where
    nothing was busy for half of it, nothing that could be added would help.
    """
    working_s = (summary.seconds - summary.startup_s) * summary.labelers
    if not summary.frames or working_s <= 0:
        return None
    inside = {s: t for s, t in summary.stage_seconds.items() if s not in BESIDE}
    idle = summary.stage_seconds.get("idle", 0.0) / working_s
    # Each is a bound: stages may run at the same time, and a labeler may never have had a frame.
    busy = max(0.0, min(1.0 - idle, sum(inside.values()) / working_s))
    committing = min(1.0, summary.stage_seconds.get("commit", 0.0) / working_s)
    reading = min(1.0, summary.stage_seconds.get("decode", 0.0) * summary.labelers / working_s)
    if max(busy, committing, reading) < _MOSTLY and summary.follow:
        return f"none: labelers ({percent(busy)} busy) and readers waited for frames to arrive"
    if summary.startup_s > _MOSTLY * summary.seconds and not summary.follow:
        return (
            f"start-up ({summary.startup_s:.0f} of {summary.seconds:.0f} s): more frames in one "
            "run, --follow in place of many runs, or a Ray cluster that stays up"
        )
    if max(busy, committing, reading) < _MOSTLY:
        return (
            f"none: labelers ({percent(busy)} busy) and readers ({percent(reading)} busy) waited "
            "for each other: fewer and larger shards, or larger units (--unit-size, of a new "
            "output)"
        )
    if busy < _BUSY <= committing:
        return (
            f"commits ({percent(committing)} busy): a store that answers sooner, or more labelers"
        )
    if busy < _BUSY:
        return (
            f"frames, which the labelers ({percent(busy)} busy) waited for: more CPUs to read and "
            "decode, larger units (--unit-size, of a new output), or a nearer store"
        )
    stage = max(inside, key=lambda name: inside[name])
    return f"labelers ({percent(busy)} busy, most with {stage}): more of them, on GPUs or cores"


_WHY = {
    "ObjectMissing": "missing",
    "ObjectChanged": "written anew since it was listed",
    "StoreUnreachable": "unreachable",
    "StorageError": "refused",
}


def left_text(summary: RunSummary) -> str:
    """What is left for the next run, why, and what to do."""
    counts = {"shard": summary.left_shards, "image": summary.left_images}
    what = " and ".join(f"{n:,} {kind}{'s'[: n > 1]}" for kind, n in counts.items() if n)
    why = ", ".join(f"{_WHY.get(kind, kind)} {n:,}" for kind, n in summary.left_why.items())
    return (
        f"{what} could not be read ({why}): run the same command again, which labels what is "
        "there by then"
    )


def _facts(summary: RunSummary) -> Iterator[tuple[str, Text]]:
    if summary.left:
        yield "left", Text(left_text(summary), style="yellow")
    if summary.relabels:
        what = f"{summary.frames:,} frames in {summary.units:,} units that held suspect ones"
        yield "relabelled", Text(what if summary.units else "nothing: no row is suspect")
        yield from _work(summary)
        return
    before = f", {summary.already_done:,} were done before" if summary.already_done else ""
    if summary.frames or summary.rejected or not summary.already_done:
        labelled = f"{summary.frames:,} frames in {summary.units:,} units{before}"
    elif summary.left:
        labelled = f"nothing{before}"
    else:
        labelled = f"nothing to do: all {summary.already_done:,} frames were done before"
    yield "labelled", Text(labelled)
    if summary.stopped:
        yield "stopped", Text(f"{summary.stopped}; run again to continue", style="yellow")
    if summary.rejected:
        by_stage = ", ".join(f"{stage} {count:,}" for stage, count in summary.rejects.items())
        yield "rejected", Text(f"{summary.rejected:,} ({by_stage})", style="yellow")
    for what, left_out in (
        ("not read", summary.left_out),
        ("not read in tars", summary.left_out_members),
    ):
        if left_out:
            yield what, Text(left_out, style="yellow")
    yield from _work(summary)


def _work(summary: RunSummary) -> Iterator[tuple[str, Text]]:
    """What labelling took."""
    if not summary.frames:
        return
    if summary.abstention is not None:
        share = percent(summary.abstained / summary.frames)
        yield "no label", Text(f"{share} of the frames: {summary.abstention}")
    if summary.preset != FROZEN:
        yield "adapted", Text(f"{percent(summary.adapted_share)} of the frames")
    yield (
        "speed",
        Text(
            f"{summary.frames_per_s:.1f} frames/s; {summary.seconds:.0f} s in all, "
            f"{summary.startup_s:.0f} s of them to start"
        ),
    )
    stages = sorted(summary.stage_seconds.items(), key=lambda item: -item[1])
    inside = [(name, s) for name, s in stages if name not in BESIDE]
    spent_s = sum(s for _, s in inside)
    if spent_s > 0:
        if summary.adapt_budget is not None:
            yield (
                "budget",
                Text(
                    f"adapting took {percent(summary.adapt_s / spent_s)} of the labelers' time, of "
                    f"{percent(summary.adapt_budget)}; no time for {summary.spared:,} frames"
                ),
            )
        shares = ", ".join(f"{name} {s:.1f} s ({s / spent_s:.1%})" for name, s in inside)
        yield "labelers", Text(shares)
        beside = ", ".join(f"{name} {s:.1f} s" for name, s in stages if name in BESIDE)
        yield "beside", Text(beside)
        yield "bottleneck", Text(bottleneck(summary) or "")
    if summary.bank_seq is not None:
        yield "bank seq", Text(f"{summary.bank_seq:,}")
