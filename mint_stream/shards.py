"""From an address to shards, and from a shard to frames, one after the other.

A shard is a tar in WebDataset form, a Parquet file with a column of images, or up to `unit_size`
loose images of one folder. Whatever is wrong with one costs its own row: `read_frames` yields a
`Reject` in its place and never fails on what a shard holds, only where the store does.
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.config import ConfigError, require
from mint_stream.discovery import Member, Shard, discover
from mint_stream.frames import (
    MAX_IMAGE_BYTES,
    Frame,
    Reject,
    ShardError,
    path_facts,
    valid_text,
)
from mint_stream.parquet_shard import count_rows, read_parquet
from mint_stream.storage import (
    PREFLIGHT,
    ObjectChanged,
    ObjectMissing,
    StorageError,
    Store,
    split_url,
)
from mint_stream.tar_shard import count_tar, read_tar

__all__ = [
    "Frame",
    "Member",
    "Reject",
    "Shard",
    "count_frames",
    "discover",
    "read_frames",
    "read_ids",
    "read_truth",
]

_READ_AHEAD = 8  # loose images that are fetched at the same time


def read_frames(
    shard: Shard,
    *,
    start: int = 0,
    stop: int | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    store: Store | None = None,
) -> Iterator[Frame | Reject]:
    """Everything that `shard` yields from index `start` up to before `stop`, in a stable order.

    A few items of a shard are in memory at a time: an image waits for its sidecar, loose images
    are fetched ahead, a Parquet file is read by its pages (which hold up to 1,024 images where the
    writer was not told otherwise). A damaged shard yields what comes before the damage and then one
    `Reject` without a frame, which has an index like any other item.

    Raises `StorageError` where the store fails; an object that is gone or was overwritten since it
    was listed is a reject.
    """
    items = _items(shard, store, image_column, id_column, start)
    with contextlib.closing(items):
        yield from itertools.islice(items, start, stop)


def read_ids(
    shard: Shard, *, image_column: str | None = None, id_column: str | None = None
) -> Iterator[str]:
    """The frame ids of everything that `read_frames` yields, found without reading images."""
    items = _items(shard, None, image_column, id_column, None)
    return (item.frame for item in items if item.frame is not None)


def count_frames(
    shard: Shard,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
    store: Store | None = None,
) -> int:
    """How many items `read_frames` yields for `shard`, found without reading its images.

    A Parquet file costs its footer, a plain tar its headers, a gzipped one all of it.
    """
    if shard.kind == "images":
        return len(shard.members)
    store = store or Store(shard.root)
    member = shard.members[0]
    try:
        with store.open(member.name) as file:
            if shard.kind == "tar":
                return count_tar(file, member.size_bytes, shard.uri)
            return count_rows(file, member.size_bytes, image_column, id_column)
    except (ShardError, ObjectMissing, ObjectChanged):
        return 1


def read_truth(
    input_url: str, *, image_column: str | None = None, id_column: str | None = None
) -> pa.Table:
    """What the input itself says about its frames: frame, camera, timestamp, domain, label.

    From sidecars, Parquet columns and folder names; null where they say nothing. For evaluation.
    """
    frames = [
        item
        for shard in discover(input_url, unit_size=1024)
        for item in _items(shard, None, image_column, id_column, None)
        if isinstance(item, Frame)
    ]
    time = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "frame": pa.array([frame.frame for frame in frames], pa.string()),
            "camera": pa.array([frame.facts.camera for frame in frames], pa.string()),
            "timestamp": pa.array([frame.facts.timestamp for frame in frames], time),
            "domain": pa.array([frame.facts.domain for frame in frames], pa.string()),
            "label": pa.array([frame.facts.label for frame in frames], pa.string()),
        }
    )


def read_any_truth(input_url: str | None, file: str | None) -> pa.Table:
    """Columns frame, domain and label: from the Parquet `file`, or else `read_truth`.

    Raises `ConfigError` for a file that has none.
    """
    if file is None:
        require(input_url is not None, "input", None, "given, or a file with the truth")
        return read_truth(str(input_url))
    try:
        folder, name = split_url(file)
        table = pq.read_table(io.BytesIO(Store(folder or ".", retry=PREFLIGHT).read(name)))
    except (StorageError, ObjectMissing, pa.ArrowInvalid) as error:
        raise ConfigError(f"truth is {file!r}, which cannot be read: {error}") from error
    for column in ("frame", "label"):
        require(column in table.column_names, "truth", file, f"a table with column {column}")
    if "domain" not in table.column_names:
        table = table.append_column("domain", pa.nulls(table.num_rows, pa.string()))
    return table


def _items(
    shard: Shard,
    store: Store | None,
    image_column: str | None,
    id_column: str | None,
    data_from: int | None,
) -> Generator[Frame | Reject]:
    """All items from index 0; those from `data_from` on with their bytes (None: none of them)."""
    store = store or Store(shard.root)
    if shard.kind == "images":
        yield from _loose_items(shard, store, data_from)
        return
    member = shard.members[0]
    index = 0
    try:
        with store.open(member.name) as file:
            if shard.kind == "tar":
                items = read_tar(file, member.size_bytes, shard.uri, data_from=data_from)
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
    except (ShardError, ObjectMissing, ObjectChanged) as error:
        cause = error.__cause__ if isinstance(error, ShardError) and error.__cause__ else error
        kind = type(cause).__name__
        size = member.size_bytes
        yield Reject(None, shard.uri, None, index, "read", kind, str(error), size)


def _loose_items(shard: Shard, store: Store, data_from: int | None) -> Iterator[Frame | Reject]:
    def fetch(member: Member) -> bytes | Exception:
        if member.size_bytes > MAX_IMAGE_BYTES:
            limit = f"the limit is {MAX_IMAGE_BYTES:,}"
            return ShardError(f"the image has {member.size_bytes:,} bytes; {limit}")
        try:
            return store.read(member.name)
        except (ObjectMissing, ObjectChanged) as error:
            return error

    first = len(shard.members) if data_from is None else min(data_from, len(shard.members))
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        unread: list[bytes | Exception] = [b""] * first
        contents = itertools.chain(unread, pool.map(fetch, shard.members[first:]))
        for index, (member, content) in enumerate(zip(shard.members, contents, strict=True)):
            uri = valid_text(store.uri(member.name))
            name = valid_text(member.name.rpartition("/")[2])
            if isinstance(content, Exception):
                kind, size = type(content).__name__, member.size_bytes
                yield Reject(uri, shard.uri, name, index, "read", kind, str(content), size)
            else:
                yield Frame(uri, shard.uri, name, index, content, path_facts(uri))
