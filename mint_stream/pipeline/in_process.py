"""A run in this process, without Ray: the same parts, called one after the other.

For a laptop with a folder of pictures, for evaluations and for tests: it starts as fast as the
model loads, and what it writes is what the pipeline with one labeler writes, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext

from mint_stream.bank.client import BankClient
from mint_stream.bank.server import BankServer
from mint_stream.clip.model import pick_device
from mint_stream.config import RunConfig, require
from mint_stream.input.grid import unit_start
from mint_stream.input.units import LeftBehind, ShardTask, Unit, read_shard
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.output.commit import commit_unit
from mint_stream.output.done import load_done
from mint_stream.output.lease import Lease
from mint_stream.output.units import CommittedUnit
from mint_stream.pipeline.left import left_to_do
from mint_stream.pipeline.parts import labeler_config, read_config, run_bank
from mint_stream.pipeline.preflight import Prepared, prepare, tell_left_out
from mint_stream.pipeline.signals import stop_on_signals
from mint_stream.pipeline.summary import RunSummary
from mint_stream.pipeline.tally import Tally, summarize


class _Stop:
    """The `Control` of a loop that nobody but a signal stops."""

    why: str | None = None

    def request(self, why: str) -> None:
        self.why = self.why or why

    def stopping(self) -> bool:
        return self.why is not None

    def handed_out(self) -> list[ShardTask]:
        return []

    def hand_out(self, start: int, shards: list[ShardTask]) -> int:
        return start + len(shards)

    def left(self) -> list[LeftBehind]:
        return []


def run_in_process(
    config: RunConfig,
    *,
    on_start: Callable[[int, int], None] = lambda done, left: None,
    on_commit: Callable[[Tally], None] = lambda tally: None,
    on_unit: Callable[[CommittedUnit, float], None] = lambda unit, seconds: None,
    every: int = 1,
    checkpoint_every: int = 0,
    handle_signals: bool = False,
) -> RunSummary:
    """Label what is left of `config`'s stream with one labeler, and commit it.

    Args:
        on_start: told the frames that are done and the shards that are left.
        on_commit, on_unit: told after each unit; `on_unit` also how long labelling it took.
        every: of each shard's units only the first, and each `every`th after it.
        checkpoint_every: units between two bank checkpoints, besides those by the clock.
        handle_signals: take SIGTERM and Ctrl-C as requests to stop after this unit.

    Raises:
        ConfigError: with one line that names the setting, its value and the remedy; for
            `follow` and more than one labeler too, which need Ray.
        LeaseHeld, StorageError: as a run on Ray.
    """
    require(not config.follow, "follow", True, "left out in one process: it needs Ray")
    require(
        config.num_labelers == 1,
        "num-labelers",
        config.num_labelers,
        "1 in one process, without Ray",
    )
    started = time.monotonic()
    prepared = prepare(config)
    lease, stop, tally = Lease(prepared.store), _Stop(), Tally()
    lease.acquire()
    try:
        tell_left_out(prepared)
        done = load_done(prepared.store, prepared.unit_size)
        left = left_to_do(config, prepared, done, tally.left.add_shard)
        on_start(0 if config.relabel_suspect else done.frames, len(left))
        seq = None
        if left:
            with stop_on_signals(stop.request) if handle_signals else nullcontext():
                labelling = _Labelling(config, prepared, stop, every, checkpoint_every)
                seq = labelling.run(left, tally, on_commit, on_unit)
        return summarize(config, prepared, done, tally, started=started, seq=seq, stopped=stop.why)
    finally:
        lease.release()


class _Labelling:
    def __init__(
        self,
        config: RunConfig,
        prepared: Prepared,
        stop: _Stop,
        every: int,
        checkpoint_every: int,
    ) -> None:
        self._config, self._prepared, self._stop = config, prepared, stop
        self._every, self._checkpoint_every = every, checkpoint_every
        self._bank = BankServer(run_bank(config, prepared)) if config.keeps_bank else None
        gpus = float(pick_device(config.model.device).type == "cuda")
        client = None if self._bank is None else BankClient(self._bank)
        self._labeler = MintLabeler(labeler_config(config, prepared, gpus), client)

    def run(
        self,
        left: list[ShardTask],
        tally: Tally,
        on_commit: Callable[[Tally], None],
        on_unit: Callable[[CommittedUnit, float], None],
    ) -> int | None:
        """Label and commit; gives the bank's seq."""
        bank, reading = self._bank, read_config(self._config, self._prepared)
        if bank is not None:
            bank.start_clock()
        try:
            for task in left:
                for unit in read_shard(task, reading, self._stop, lambda it: tally.left.add([it])):
                    if unit_start(unit.unit) // self._prepared.unit_size % self._every == 0:
                        self._label(unit, tally, on_unit)
                        on_commit(tally)
        finally:
            status = None if bank is None else bank.finish()
        return None if status is None else status.seq

    def _label(
        self, unit: Unit, tally: Tally, on_unit: Callable[[CommittedUnit, float], None]
    ) -> None:
        started = time.perf_counter()
        labelled = self._labeler(unit)
        seconds = time.perf_counter() - started
        again = self._config.relabel_suspect
        committed = commit_unit(labelled, self._prepared.store, self._bank, again=again)
        tally.add(committed)
        on_unit(committed, seconds)
        every = self._checkpoint_every
        if self._bank is not None and every and tally.units % every == 0:
            self._bank.checkpoint()
