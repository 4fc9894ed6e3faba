"""Loose images, fetched ahead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mint_stream.input.frames import (
    MAX_IMAGE_BYTES,
    Frame,
    Left,
    Reject,
    ShardError,
    path_facts,
    valid_text,
)
from mint_stream.input.shard import Member, Shard
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store

_READ_AHEAD = 8  # loose images that are fetched at the same time


def loose_items(
    shard: Shard, store: Store, data_from: int | None
) -> Iterator[Frame | Reject | Left]:
    """A group of loose images; their bytes from index `data_from` on (None: of none of them)."""

    def fetch(member: Member) -> bytes | ShardError | StorageError:
        if member.size_bytes > MAX_IMAGE_BYTES:
            limit = f"the limit is {MAX_IMAGE_BYTES:,}"
            return ShardError(f"the image has {member.size_bytes:,} bytes; {limit}")
        try:
            return store.read(member.name, listed=member.listed)
        except StorageError as error:
            return error

    first = len(shard.members) if data_from is None else min(data_from, len(shard.members))
    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        unread: list[bytes | ShardError | StorageError] = [b""] * first
        contents = itertools.chain(unread, pool.map(fetch, shard.members[first:]))
        for index, (member, content) in enumerate(zip(shard.members, contents, strict=True)):
            uri = valid_text(store.uri(member.name))
            name = valid_text(member.name.rpartition("/")[2])
            if isinstance(content, StorageError):
                yield Left(uri, shard.uri, name, index, content)
            elif isinstance(content, ShardError):
                kind, size = type(content).__name__, member.size_bytes
                yield Reject(uri, shard.uri, name, index, "read", kind, str(content), size)
            else:
                yield Frame(uri, shard.uri, name, index, content, path_facts(uri))
