"""Loose images, fetched ahead."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from mint_stream.input.frames import (
    MAX_IMAGE_BYTES,
    MAX_SIDECAR_BYTES,
    Facts,
    Frame,
    Left,
    Reject,
    ShardError,
    parse_sidecar,
    path_facts,
    valid_text,
)
from mint_stream.input.shard import Member, Shard
from mint_stream.store.errors import ObjectChanged, ObjectMissing, StorageError
from mint_stream.store.store import Store

log = logging.getLogger(__name__)

_READ_AHEAD = 8  # loose images that are fetched at the same time


def loose_items(
    shard: Shard, store: Store, data_from: int | None, *, facts: bool = True
) -> Iterator[Frame | Reject | Left]:
    """A group of loose images; their bytes from index `data_from` on (None: of none of them).

    facts: what their sidecars say is asked for, of those whose bytes are, or of all with None.
    """
    first = len(shard.members) if data_from is None else min(data_from, len(shard.members))

    def fetch(index: int) -> tuple[bytes | ShardError | StorageError, Facts]:
        member = shard.members[index]
        wanted = facts and (data_from is None or index >= first)
        try:
            said = _said(member, store) if wanted else Facts()
        except StorageError as error:
            return error, Facts()
        return (b"" if index < first else read(member)), said

    def read(member: Member) -> bytes | ShardError | StorageError:
        if member.size_bytes > MAX_IMAGE_BYTES:
            limit = f"the limit is {MAX_IMAGE_BYTES:,}"
            return ShardError(f"the image has {member.size_bytes:,} bytes; {limit}")
        try:
            return store.read(member.name, listed=member.listed)
        except StorageError as error:
            return error

    with ThreadPoolExecutor(_READ_AHEAD) as pool:
        fetched = pool.map(fetch, range(len(shard.members)))
        for index, (member, (content, said)) in enumerate(zip(shard.members, fetched, strict=True)):
            uri = valid_text(store.uri(member.name))
            name = valid_text(member.name.rpartition("/")[2])
            if isinstance(content, StorageError):
                yield Left(uri, shard.uri, name, index, content)
            elif isinstance(content, ShardError):
                kind, size = type(content).__name__, member.size_bytes
                yield Reject(uri, shard.uri, name, index, "read", kind, str(content), size)
            else:
                yield Frame(uri, shard.uri, name, index, content, said.or_else(path_facts(uri)))


def _said(member: Member, store: Store) -> Facts:
    """What the sidecar of a loose image says; nothing where it has none, or that is gone."""
    if member.sidecar is None:
        return Facts()
    try:
        with store.open(member.sidecar) as file:
            data = file.read(MAX_SIDECAR_BYTES)
    except (ObjectMissing, ObjectChanged) as error:
        log.warning("the sidecar of %s cannot be read: %s", store.uri(member.name), error)
        return Facts()
    return parse_sidecar(data, valid_text(store.uri(member.sidecar)))
