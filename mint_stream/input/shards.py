"""From an address to shards, and from a shard to frames, one after the other.

A shard is a tar in WebDataset form, a Parquet file with a column of images, or up to `unit_size`
loose images of one folder. Whatever is wrong with one costs its own row: `read_frames` yields a
`Reject` in its place, which is final. What the store does not give, or not as it was listed, is
`Left`: it may be there the next time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator

from mint_stream.input.discovery import discover
from mint_stream.input.frames import (
    Frame,
    Left,
    Reject,
    ShardError,
)
from mint_stream.input.left_out import LeftOut
from mint_stream.input.loose import loose_items
from mint_stream.input.parquet import count_rows, read_parquet
from mint_stream.input.shard import Member, Shard
from mint_stream.input.tar import count_tar, read_tar
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store

__all__ = [
    "Frame",
    "Left",
    "Member",
    "Reject",
    "Shard",
    "count_frames",
    "discover",
    "read_frames",
    "read_ids",
]


def read_frames(
    shard: Shard,
    *,
    start: int = 0,
    stop: int | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    store: Store | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[Frame | Reject | Left]:
    """Everything that `shard` yields from index `start` up to before `stop`, in a stable order.

    A few items of a shard are in memory at a time: an image waits for its sidecar, loose images
    are fetched ahead, a Parquet file is read by its pages (which hold up to 1,024 images where the
    writer was not told otherwise). A damaged shard yields what comes before the damage and then one
    `Reject` without a frame, which has an index like any other item. `left_out` counts the members
    of a tar that are of other kinds, once it has been read to its end.

    Where the store fails (an object that is gone, refused, out of reach, or was written anew since
    it was listed) it ends with a `Left` for the rest; of loose images each is one by itself.
    """
    items = all_items(shard, store, image_column, id_column, start, left_out)
    with contextlib.closing(items):
        for item in items:
            # What is left may begin before `start`, where the shard cannot even be opened.
            if item.index >= start or isinstance(item, Left):
                yield item
            if stop is not None and item.index + 1 >= stop:
                return


def read_ids(
    shard: Shard,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
    left_out: LeftOut | None = None,
) -> Iterator[str]:
    """The frame ids of everything that `read_frames` yields, found without reading images.

    Raises `StorageError` as the store does.
    """
    items = had(all_items(shard, None, image_column, id_column, None, left_out, facts=False))
    return (item.frame for item in items if item.frame is not None)


def had(items: Iterator[Frame | Reject | Left]) -> Iterator[Frame | Reject]:
    """`items`, for those who cannot go on without what is left. Raises its `StorageError`."""
    for item in items:
        if isinstance(item, Left):
            raise item.error
        yield item


def count_frames(
    shard: Shard,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
    store: Store | None = None,
) -> int:
    """How many items `read_frames` yields for `shard`, found without reading its images.

    A Parquet file costs its footer, a plain tar its headers, a compressed one all of it. Raises
    `StorageError` as the store does.
    """
    if shard.kind == "images":
        return len(shard.members)
    store = store or Store(shard.root)
    member = shard.members[0]
    try:
        with store.open(member.name, listed=member.listed) as file:
            if shard.kind == "tar":
                return count_tar(file, member.size_bytes, shard.uri)
            return count_rows(file, member.size_bytes, image_column, id_column)
    except ShardError:
        return 1


def all_items(
    shard: Shard,
    store: Store | None,
    image_column: str | None,
    id_column: str | None,
    data_from: int | None,
    left_out: LeftOut | None = None,
    *,
    facts: bool = True,
) -> Generator[Frame | Reject | Left]:
    """All items from index 0; those from `data_from` on with their bytes (None: none of them).

    facts: what sidecars of loose images say is asked for, of those whose bytes are or of all.
    """
    store = store or Store(shard.root)
    if shard.kind == "images":
        yield from loose_items(shard, store, data_from, facts=facts)
        return
    member = shard.members[0]
    index = 0
    try:
        with store.open(member.name, listed=member.listed) as file:
            if shard.kind == "tar":
                items = read_tar(
                    file,
                    member.size_bytes,
                    shard.uri,
                    data_from=data_from,
                    left_out=left_out,
                )
            else:
                items = read_parquet(
                    file,
                    member.size_bytes,
                    shard.uri,
                    data_from=data_from,
                    image_column=image_column,
                    id_column=id_column,
                )
            for item in items:
                yield item
                index += 1
    except StorageError as error:
        yield Left(None, shard.uri, None, index, error)
    except ShardError as error:
        kind = type(error.__cause__ or error).__name__
        size = member.size_bytes
        yield Reject(None, shard.uri, None, index, "read", kind, str(error), size)
