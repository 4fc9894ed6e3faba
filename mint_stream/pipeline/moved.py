"""An input that stands under another address than when it was labelled."""

from __future__ import annotations

import logging
from collections.abc import Collection

from mint_stream.config import without_queries
from mint_stream.input.shard import Shard
from mint_stream.output.done import Done

log = logging.getLogger(__name__)


def warn_if_moved(shards: Collection[Shard], done: Done, input_url: str, output: str) -> None:
    """Say so before frames are labelled twice, where most shards are known by another address.

    A shard is recognised by its version (its ETag, or its size and time): what was moved, mounted
    elsewhere or copied with its times is; what a copy gave a new time is not.
    """
    moved = [shard for shard in shards if done.known_elsewhere(shard.id)]
    if 2 * len(moved) <= len(shards):
        return
    log.warning(
        "%s of the %s shards in %s have the content of shards that %s holds from another address, "
        "and frame ids begin with the address: their frames will be labelled a second time, under "
        "new ids (the first is %s). If the input was moved, stop now and give it its old address, "
        "or choose another --output",
        f"{len(moved):,}",
        f"{len(shards):,}",
        without_queries(input_url),
        output,
        moved[0].uri,
    )
