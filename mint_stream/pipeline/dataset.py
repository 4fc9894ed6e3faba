"""The dataset of a run: discover -> read_units -> LabelUnits -> commit_units, in one Ray Data plan.

ShardSource    hands out shards that are not done           (one task, a generator)
read_units     yields each shard's units, decoded           (CPU tasks)
LabelUnits     labels a unit and merges what it changed     (one actor a labeler)
commit_units   rejects, bank log, labels: create-only PUTs  (CPU tasks)

From stage to stage units travel in `parcels`; the stages themselves are in `stages`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from mint_stream.config import RunConfig
from mint_stream.input.records import from_row
from mint_stream.input.units import LeftBehind, ShardTask
from mint_stream.output.units import CommittedUnit
from mint_stream.pipeline.bank_actor import RemoteBank
from mint_stream.pipeline.control import RemoteControl
from mint_stream.pipeline.origin import Origin
from mint_stream.pipeline.parcels import ParcelSize, StreamBroken, left_of, unpack
from mint_stream.pipeline.parts import labeler_config, read_config
from mint_stream.pipeline.placement import (
    COMMIT_CPUS,
    SOURCE_CPUS,
    Asks,
    asks,
    gpus_to_come,
    nodes_there,
)
from mint_stream.pipeline.preflight import Prepared
from mint_stream.pipeline.rows import Place
from mint_stream.pipeline.source import FollowConfig, ShardSource
from mint_stream.pipeline.stages import LabelUnits, commit_units, read_units
from mint_stream.pipeline.watch import Watch

PARCEL_PASSES = 256
"""Encoder passes that labelling a parcel takes, unless a single unit takes more."""


def labelled_units(
    config: RunConfig,
    prepared: Prepared,
    left: list[ShardTask],
    control: RemoteControl,
    bank: RemoteBank | None,
    origin: Origin,
    leave: Callable[[list[LeftBehind]], None],
) -> Generator[CommittedUnit]:
    """Label the shards in `left` (and with `follow` those that arrive), and say what was committed.

    leave: told of what could not be had of a shard, once all else of it is committed.

    Closed early, it ends its tasks. Raises what Ray raises for a task or an actor that failed,
    `StreamBroken` if the only labeler did not get all parcels, and `Unplaced` where tasks
    wait for a place and a stop request would not end them, or the nodes are others by now.
    """
    _set_context()
    alone = config.num_labelers == 1

    def ask() -> Asks:
        return asks(nodes_there(), config.num_labelers, config.model.device, gpus_to_come())

    asked = ask()
    dataset = (
        ray.data.read_datasource(
            ShardSource(left, control, _follow_config(config, prepared)),
            override_num_blocks=1,
            num_cpus=SOURCE_CPUS,
        )
        .map_batches(
            read_units,
            fn_args=(
                read_config(config, prepared),
                parcel_size(config, prepared.unit_size),
                control,
                origin,
            ),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=asked.reader_cpus,
        )
        .map_batches(
            LabelUnits,
            fn_constructor_args=(
                labeler_config(config, prepared, asked.labeler_gpus),
                bank,
                control,
                origin,
            ),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=config.num_labelers,
                # Enough that a labeler goes on until Ray Data looks the next time.
                max_tasks_in_flight_per_actor=4 if alone else 2,
            ),
            num_cpus=asked.labeler_cpus,
            num_gpus=asked.labeler_gpus,
        )
        .map_batches(
            commit_units,
            fn_args=(prepared.store, bank, origin),
            fn_kwargs={"again": config.relabel_suspect},
            batch_size=1,
            batch_format="pyarrow",
            # With one labeler units are committed in the order in which they were merged.
            compute=TaskPoolStrategy(size=1 if alone else None),
            num_cpus=COMMIT_CPUS,
        )
    )
    dataset.set_name(f"label_{origin.run}")
    watch = Watch(asked, control, ask)
    place: dict[str, object] | None = None
    # Nothing ahead: a block that is fetched ahead is handed on only when the next one is there, and
    # with `follow` that may take hours.
    with watch.over(dataset):
        for batch in dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            watch.progressed()
            yield from unpack(CommittedUnit, batch)
            if left_behind := left_of(batch):
                leave(left_behind)
            # The last one that was handed on as a whole; not told of after a stop.
            place = next(filter(None, reversed(batch["place"].to_pylist())), place)
    at = None if place is None else from_row(Place, place)
    complete = at is not None and at.shard == len(left) - 1 and at.last
    if alone and not (complete or config.follow or control.stopping()):
        raise StreamBroken(f"the last parcel of {len(left)} shards did not come")


def parcel_size(config: RunConfig, unit_size: int) -> ParcelSize:
    """Up to 256 frames where one pass labels a frame, one unit for `paper`."""
    passes = config.method.views * (1 + config.method.steps)
    most = max(1, PARCEL_PASSES // (passes * unit_size))
    return ParcelSize(first=4 if config.num_labelers == 1 else 1, most=most)


def _set_context() -> None:
    context = DataContext.get_current()
    # Every unit is handed on at once.
    context.target_max_block_size = 1
    # Units reach the labelers in the order of the stream, whichever was read first.
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.issue_detectors_config.detectors = []
    context.raise_original_map_exception = True


def _follow_config(config: RunConfig, prepared: Prepared) -> FollowConfig | None:
    if not config.follow:
        return None
    return FollowConfig(
        input=config.input,
        output=prepared.store,
        unit_size=prepared.unit_size,
        poll_s=config.poll_s,
        known=frozenset(shard.id for shard in prepared.shards),
    )
