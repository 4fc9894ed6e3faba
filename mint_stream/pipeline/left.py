"""What a run has to do, from the shards that there are and what is committed of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mint_stream.config import RunConfig, without_queries
from mint_stream.input.discovery import discover
from mint_stream.input.shard import Shard
from mint_stream.input.shards import count_frames
from mint_stream.input.units import ShardTask, loose_frames
from mint_stream.output.done import Done, settled_frames
from mint_stream.output.suspects import suspect_units
from mint_stream.pipeline.moved import warn_if_moved
from mint_stream.pipeline.plan import plan, plan_again
from mint_stream.pipeline.preflight import Prepared
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)


def left_to_do(
    config: RunConfig,
    prepared: Prepared,
    done: Done,
    leave: Callable[[Shard, StorageError], None],
) -> list[ShardTask]:
    """What is not committed; with `relabel_suspect` what the guard would not stand by.

    leave: told of shards whose frames cannot be counted for a limit.
    """
    if config.relabel_suspect:
        return _suspects(config, prepared, done)
    shards, counted = prepared.shards, 0
    warn_if_moved(shards, done, config.input, config.output)
    loose = [shard for shard in shards if shard.kind == "images"]
    if done.units and not all(done.is_complete(shard.id) for shard in loose):
        # The folder may have grown, and then its images are grouped in another way.
        settled = settled_frames(prepared.store)
        counted = sum(frame in settled for shard in loose for frame in loose_frames(shard))
        shards = discover(config.input, unit_size=prepared.unit_size, taken=settled)
    return plan(
        shards,
        done,
        lambda shard: count_frames(
            shard, image_column=config.image_column, id_column=config.id_column
        ),
        config.limit,
        counted=counted,
        leave=leave,
    )


def _suspects(config: RunConfig, prepared: Prepared, done: Done) -> list[ShardTask]:
    suspects = suspect_units(config.output, config.method.half_life)
    left, missing = plan_again(prepared.shards, done, suspects)
    if missing:
        log.warning(
            "%d suspect frames stay as they are: their shards are no longer in %s",
            sum(suspects[unit] for unit in missing),
            without_queries(config.input),
        )
    return left
