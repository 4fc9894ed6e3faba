"""What a run has committed so far, counted by its driver."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from mint_stream.config import RunConfig
from mint_stream.input.left_out import LeftOut
from mint_stream.output.done import Done
from mint_stream.output.units import CommittedUnit
from mint_stream.pipeline.leftovers import Leftovers
from mint_stream.pipeline.preflight import Prepared
from mint_stream.pipeline.summary import BESIDE, RunSummary

RECENT_FRAMES = 10_000
"""So many frames, the last ones, are looked at for rejects by themselves: what goes wrong after a
million good frames does not show in the whole."""


@dataclass
class Tally:
    """What a run has committed so far."""

    frames: int = 0
    units: int = 0
    abstained: int = 0
    adapted: int = 0
    spared: int = 0
    adapt_s: float = 0.0
    rejects: Counter[str] = field(default_factory=Counter)
    left_out: LeftOut = field(default_factory=LeftOut)
    """Members of the shards that were read to their end, of kinds that are not read."""
    stage_seconds: Counter[str] = field(default_factory=Counter)
    labelling_since: float | None = None
    """When the first unit reached a labeler, by the monotonic clock."""
    left: Leftovers = field(default_factory=Leftovers)
    """What could not be had."""
    recent: tuple[int, int] = (0, 0)
    """Rejects among the last `RECENT_FRAMES` frames (a few more: whole units), and their number."""
    _recent: deque[tuple[int, int]] = field(default_factory=deque)

    def add(self, unit: CommittedUnit) -> None:
        """Count a unit."""
        facts = unit.facts
        self.stage_seconds.update(facts.stage_seconds)
        self.adapt_s += facts.adapt_seconds
        if not unit.won:
            return
        self.left.committed()
        self.units += 1
        self.frames += facts.labelled
        self.abstained += facts.abstained
        self.adapted += facts.adapted
        self.spared += facts.spared
        self.rejects.update(facts.rejected)
        self.left_out.update([LeftOut.from_json(facts.left_out or "")])
        self._look_back(sum(facts.rejected.values()), facts.labelled)
        if self.labelling_since is None and facts.labelled:
            in_labeler = (s for stage, s in facts.stage_seconds.items() if stage not in BESIDE)
            self.labelling_since = time.monotonic() - sum(in_labeler)

    def _look_back(self, rejects: int, labelled: int) -> None:
        self._recent.append((rejects, rejects + labelled))
        rejected, seen = self.recent[0] + rejects, self.recent[1] + rejects + labelled
        while seen - self._recent[0][1] >= RECENT_FRAMES:
            old = self._recent.popleft()
            rejected, seen = rejected - old[0], seen - old[1]
        self.recent = rejected, seen

    def catch_up(self, units: int, frames: int) -> None:
        """Count what was committed and not told of before a labeler died.

        units, frames: what the run has committed by now, frames labelled or rejected; the ones
        that were not told of count as labelled.
        """
        self.units = units
        # A shard that is refused is a row, and none of its frames.
        rejected = sum(self.rejects.values()) - self.rejects["list"]
        self.frames = max(self.frames, frames - rejected)


def summarize(
    config: RunConfig,
    prepared: Prepared,
    done: Done,
    tally: Tally,
    *,
    started: float,
    seq: int | None,
    stopped: str | None,
) -> RunSummary:
    """The end of a run.

    done: what was committed before. started: by the monotonic clock. seq: of the bank. stopped: why
    it ended before its input did.
    """
    ended, abstention = time.monotonic(), prepared.abstention
    return RunSummary(
        output=config.output,
        preset=config.method.name,
        frames=tally.frames,
        units=tally.units,
        seconds=ended - started,
        already_done=done.frames,
        follow=config.follow,
        relabels=config.relabel_suspect,
        rejects=dict(tally.rejects),
        left_out=str(prepared.left_out),
        left_out_members=str(tally.left_out),
        abstained=tally.abstained,
        abstention=None if abstention is None else abstention.describe(),
        adapted=tally.adapted,
        adapt_budget=config.adapt_budget,
        spared=tally.spared,
        adapt_s=tally.adapt_s,
        labelers=config.num_labelers,
        startup_s=max(0.0, (tally.labelling_since or ended) - started),
        stage_seconds=dict(tally.stage_seconds),
        bank_seq=seq,
        stopped=stopped,
        left_shards=tally.left.shards,
        left_images=tally.left.images,
        left_why=tally.left.reasons,
        left_example=tally.left.example,
    )
