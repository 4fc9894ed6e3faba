"""The run: discover -> read_units -> LabelUnits -> commit, as one Ray Data dataset.

source        hands out shards that are not done           (one task, a generator)
read_units    yields each shard's units, decoded           (CPU tasks)
LabelUnits    labels a unit and merges what it changed     (one actor a labeler)
commit        rejects, bank log, labels: create-only PUTs  (CPU tasks)
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from mint_stream.bank_server import BankClient, start_bank_server
from mint_stream.config import RunConfig
from mint_stream.console import stop_on_signals
from mint_stream.labeler import LabelerConfig, MintLabeler
from mint_stream.lease import Lease
from mint_stream.preflight import Prepared, prepare
from mint_stream.shards import Shard, count_frames
from mint_stream.sink import commit_units
from mint_stream.source import FollowConfig, ReadConfig, ShardSource, plan, read_units
from mint_stream.storage import StorageError, Store
from mint_stream.summary import RunSummary
from mint_stream.units import Done, labels_name

log = logging.getLogger(__name__)

NAMESPACE = "mint_stream"


class RunFailed(RuntimeError):
    """The run could not go on; what was committed stays. The message says what to do."""


@dataclass
class Tally:
    """What a run has committed so far."""

    frames: int = 0
    units: int = 0
    adapted: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    stage_seconds: Counter[str] = field(default_factory=Counter)
    first_label_at: float | None = None

    def add(self, unit: dict[str, Any]) -> None:
        """Count one flow.COMMITTED_ROW."""
        self.stage_seconds.update(json.loads(unit["stage_seconds"]))
        if not unit["won"]:
            return
        self.units += 1
        self.frames += unit["labelled"]
        self.adapted += unit["adapted"]
        self.rejects.update(json.loads(unit["rejected"]))
        if self.first_label_at is None and unit["labelled"]:
            self.first_label_at = time.monotonic()


class StopSignal:
    """Whether a stop was requested; an actor, so that every task can ask."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Request the stop."""
        self._set = True

    def is_set(self) -> bool:
        """Whether `set` was called."""
        return self._set


class LabelUnits(MintLabeler):
    """The labeler as Ray Data's actor pool builds it."""

    def __init__(self, config: LabelerConfig, bank: ActorHandle | None) -> None:
        super().__init__(config, None if bank is None else BankClient(bank))


@dataclass
class Run:
    """A prepared run: what is left to do, and who watches it.

    Args:
        on_start: called once with (frames already done, shards left).
        on_commit: called after each committed unit with the tally so far.
    """

    config: RunConfig
    prepared: Prepared
    on_start: Callable[[int, int], None]
    on_commit: Callable[[Tally], None]
    handle_signals: bool = False
    """Take SIGTERM and Ctrl-C as requests to stop in an orderly way while labelling."""
    _signal: ActorHandle | None = None
    _stopped: str | None = None

    def stop(self, why: str) -> None:
        """Finish the units in flight, write a checkpoint and return. Safe in a signal handler."""
        self._stopped = why
        if self._signal is not None:
            self._signal.set.remote()

    def execute(self) -> RunSummary:
        """Label everything that is left. Raises `RunFailed`, `LeaseHeld` or `StorageError`."""
        started = time.monotonic()
        config, store = self.config, self.prepared.store
        lease = Lease(store, on_lost=lambda: self.stop("another run took the output over"))
        lease.acquire()
        try:
            done = load_done(store, self.prepared.unit_size)
            left = plan(self.prepared.shards, done, self._frames_of, config.limit)
            self.on_start(done.frames, len(left))
            tally, seq = Tally(), None
            if left or config.follow:
                seq = self._label(left, tally)
            ended = time.monotonic()
            return RunSummary(
                output=config.output,
                preset=config.method.name,
                frames=tally.frames,
                units=tally.units,
                seconds=ended - started,
                already_done=done.frames,
                rejects=dict(tally.rejects),
                adapted=tally.adapted,
                startup_s=(tally.first_label_at or ended) - started,
                stage_seconds=dict(tally.stage_seconds),
                bank_seq=seq,
                stopped=self._stopped,
            )
        finally:
            lease.release()

    def _frames_of(self, shard: Shard) -> int:
        return count_frames(shard)

    def _label(self, left: list[dict[str, Any]], tally: Tally) -> int | None:
        start_ray()
        config, prepared = self.config, self.prepared
        self._signal = ray.remote(StopSignal).options(num_cpus=0).remote()
        if self._stopped:
            self._signal.set.remote()
        bank = None
        if config.method.adapts:
            bank = start_bank_server(config, prepared, namespace=NAMESPACE)
        signals = stop_on_signals(self.stop) if self.handle_signals else nullcontext()
        try:
            with signals:
                for unit in self._dataset(left, bank):
                    tally.add(unit)
                    self.on_commit(tally)
                    self._check_rejects(tally)
        except ray.exceptions.RayTaskError as error:
            raise _readable(error) from error
        finally:
            if bank is not None:
                seq = ray.get(bank.checkpoint.remote())
                ray.kill(bank)
            ray.kill(self._signal)
        return seq if bank is not None else None

    def _dataset(self, left: list[dict[str, Any]], bank: ActorHandle | None) -> Iterator[dict]:
        config, signal = self.config, self._signal
        context = DataContext.get_current()
        context.target_max_block_size = 1
        context.execution_options.preserve_order = config.num_labelers == 1
        context.enable_progress_bars = False
        context.issue_detectors_config.detectors = []

        def stopping() -> bool:
            return bool(ray.get(signal.is_set.remote()))

        follow = None
        if config.follow:
            unit_size = self.prepared.unit_size
            follow = FollowConfig(input=config.input, unit_size=unit_size, poll_s=config.poll_s)
        source = ShardSource(
            left, follow=follow, known=[s.id for s in self.prepared.shards], stopping=stopping
        )
        gpus = labeler_gpus(config)
        dataset = (
            ray.data.read_datasource(source, override_num_blocks=1, num_cpus=0.01)
            .map_batches(
                read_units,
                fn_args=(self._read_config(), stopping),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=0.25,
            )
            .map_batches(
                LabelUnits,
                fn_constructor_args=(self._labeler_config(gpus), bank),
                batch_size=1,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=config.num_labelers),
                num_cpus=0.5,
                num_gpus=gpus,
            )
            .map_batches(
                commit_units,
                fn_args=(self.prepared.store, None if bank is None else RemoteBank(bank)),
                batch_size=1,
                batch_format="pyarrow",
                # With one labeler units are committed in the order in which they were merged.
                compute=TaskPoolStrategy(size=config.num_labelers),
                num_cpus=0.2,
            )
        )
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from batch.to_pylist()

    def _read_config(self) -> ReadConfig:
        config = self.config
        return ReadConfig(
            unit_size=self.prepared.unit_size,
            image_column=config.image_column,
            id_column=config.id_column,
        )

    def _labeler_config(self, gpus: float) -> LabelerConfig:
        config, prepared = self.config, self.prepared
        return LabelerConfig(
            model=config.model,
            method=config.method,
            phrases=prepared.classes.phrases,
            templates=prepared.classes.templates,
            model_hash=prepared.model_hash,
            classes_hash=prepared.classes.hash,
            bank_scope=config.bank_scope,
            seed=config.seed,
            top_k=config.top_k,
            threads=None if gpus else max(1, (os.cpu_count() or 1) // config.num_labelers),
        )

    def _check_rejects(self, tally: Tally) -> None:
        rejected = sum(tally.rejects.values())
        seen = tally.frames + rejected
        if seen >= 50 and rejected / seen > self.config.max_reject_ratio:
            raise RunFailed(
                f"{rejected} of {seen} frames were rejected ({dict(tally.rejects)}), more than "
                f"--max-reject-ratio {self.config.max_reject_ratio}: see the messages in "
                f"{self.config.output}/rejects; what was labelled is kept"
            )


@dataclass(frozen=True)
class RemoteBank:
    """The bank server as the commit stage knows it."""

    server: ActorHandle

    def committed(self, unit: str, log_name: str) -> None:
        """Tell the server that the unit's labels are down."""
        ray.get(self.server.committed.remote(unit, log_name))


def prepare_run(
    config: RunConfig,
    *,
    on_start: Callable[[int, int], None] = lambda done, left: None,
    on_commit: Callable[[Tally], None] = lambda tally: None,
    handle_signals: bool = False,
) -> Run:
    """Check everything that can be checked before a model is loaded; then `execute` it."""
    return Run(config, prepare(config), on_start, on_commit, handle_signals)


def run(config: RunConfig) -> RunSummary:
    """Prepare and execute a run, quietly."""
    return prepare_run(config).execute()


def start_ray() -> None:
    """Join the cluster that the environment names (`ray job submit` does), else start one here."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR)
    else:
        ray.init(include_dashboard=False, logging_level=logging.ERROR)


def labeler_gpus(config: RunConfig) -> float:
    """GPUs for each labeler: a whole one if there are enough, a share if not, none on a CPU."""
    if config.model.device == "cpu":
        return 0
    there = ray.cluster_resources().get("GPU", 0)
    share = there / config.num_labelers
    return float(min(1.0, math.floor(share * 100) / 100)) if there else 0.0


def load_done(store: Store, unit_size: int) -> Done:
    """What is committed in an output, from the names of its objects."""

    def frames_of(unit: str) -> int:
        data = store.read(labels_name(unit))
        metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
        return int(metadata[b"mint.frames"])

    def names(prefix: str) -> list[str]:
        return [info.name for info in store.list(prefix)]

    return Done(
        unit_size,
        labels=names("labels/"),
        shards=names("shards/"),
        partial=names("partial/"),
        frames_of=frames_of,
    )


def _readable(error: ray.exceptions.RayTaskError) -> Exception:
    """What a person needs of an error that came back from a task."""
    cause = error.cause
    if isinstance(cause, StorageError):
        return RunFailed(f"{cause}. What was committed is kept; run the same command to go on")
    return RunFailed(f"a task failed: {type(cause).__name__}: {cause}")
