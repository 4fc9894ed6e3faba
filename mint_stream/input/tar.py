"""Frames from a tar in WebDataset form, plain or gzipped, read once from front to back.

Members whose names agree up to the first dot of their last part belong together: an image and its
sidecar `<key>.json`. The sidecar stands beside its images, before or after them, or anywhere before
them; one that comes later, after members of other keys, is too late for a stream and not used.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from mint_stream.input.frames import (
    MAX_IMAGE_BYTES,
    Facts,
    Frame,
    FrameIds,
    Reject,
    ShardError,
    has_image_suffix,
    parse_sidecar,
    path_facts,
    valid_text,
)
from mint_stream.input.gunzip import Gunzip
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

_MAX_SIDECAR_BYTES = 2**20
_MAX_WAITING = 64  # images of one key that are held back until their sidecar may have come
_MAX_WAITING_BYTES = 64 * 2**20
_MAX_EARLY_SIDECARS = 10_000
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class _Image:
    """An image member: its raw name, its item without facts yet, and its key."""

    name: str
    key: str
    item: Frame | Reject


@dataclass(frozen=True, slots=True)
class _Sidecar:
    name: str
    key: str
    facts: Facts


def read_tar(
    file: io.BufferedReader, size_bytes: int, uri: str, *, data_from: int | None
) -> Iterator[Frame | Reject]:
    """Everything in the tar `file`; frames from index `data_from` on come with their bytes.

    (`data_from` None: none does.) Raises `ShardError` where the tar is damaged, after what comes
    before the damage.
    """
    early: dict[str, Facts] = {}  # sidecars whose images have not come yet
    group: list[_Image] = []
    names: set[str] = set()
    facts = Facts()
    key: str | None = None
    damage: Exception | None = None
    members = _members(file, size_bytes, uri, data_from)
    while True:
        try:
            member = next(members, None)
        except StorageError:
            raise
        except Exception as error:
            # tarfile meets bytes from anywhere, and fails on some in ways that are not listed.
            member, damage = None, error
        if member is None or member.key != key or member.name in names:
            yield from _complete(group, facts, uri, early)
            if not group and key is not None and facts != Facts():
                early[key] = facts
                if len(early) > _MAX_EARLY_SIDECARS:
                    early.pop(next(iter(early)))
            group, names, facts = [], set(), Facts()
        if damage is not None:
            raise _as_shard_error(damage) from damage
        if member is None:
            return
        key = member.key
        names.add(member.name)
        if isinstance(member, _Sidecar):
            facts = member.facts
            continue
        group.append(member)
        held = sum(len(image.item.data) for image in group if isinstance(image.item, Frame))
        if len(group) >= _MAX_WAITING or held > _MAX_WAITING_BYTES:
            yield from _complete(group, facts, uri, early)
            group = []


def count_tar(file: io.BufferedReader, size_bytes: int, uri: str) -> int:
    """Number of items that `read_tar` yields, one more where it then finds damage."""
    count = 0
    try:
        for _ in _members(file, size_bytes, uri, None, sidecars=False):
            count += 1
    except StorageError:
        raise
    except Exception as error:
        log.debug("%s: %s", uri, _as_shard_error(error))
        count += 1
    return count


def _as_shard_error(error: Exception) -> ShardError:
    if isinstance(error, ShardError):
        return error
    return ShardError(f"the tar cannot be read: {error or type(error).__name__}")


def _complete(
    group: list[_Image], facts: Facts, uri: str, early: dict[str, Facts]
) -> Iterator[Frame | Reject]:
    for image in group:
        if isinstance(image.item, Frame):
            known = facts.or_else(early.get(image.key, Facts()))
            known = known.or_else(path_facts(f"{uri}/{image.item.member}"))
            yield replace(image.item, facts=known)
        else:
            yield image.item


def _members(
    file: io.BufferedReader,
    size_bytes: int,
    uri: str,
    data_from: int | None,
    sidecars: bool = True,
) -> Iterator[_Image | _Sidecar]:
    """Images and sidecars in the order of the tar. Raises what tarfile and gzip raise."""
    ids = FrameIds(uri)
    index = 0
    stream, known_size = _opened(file, size_bytes)
    with tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        while (info := _next(tar)) is not None:
            if not info.isreg() or _key(info.name) is None:
                continue
            if has_image_suffix(info.name):
                wanted = data_from is not None and index >= data_from
                _check_within(info, None if wanted else stream, known_size)
                item = _image_item(tar, info, uri, ids, index, wanted)
                yield _Image(info.name, str(_key(info.name)), item)
                index += 1
                continue
            _check_within(info, None, known_size)
            if sidecars and _is_sidecar(info.name) and info.size <= _MAX_SIDECAR_BYTES:
                shown = f"{uri}#{valid_text(info.name)}"
                facts = parse_sidecar(_content(tar, info), shown)
                yield _Sidecar(info.name, str(_key(info.name)), facts)
        _check_end(tar, stream)


def _opened(file: io.BufferedReader, size_bytes: int) -> tuple[BinaryIO, int | None]:
    """The tar's own bytes, and how many there are (None where that is not known)."""
    if size_bytes == 0:
        raise ShardError("the tar is empty (0 bytes)")
    magic = file.read(2)
    file.seek(0)
    if magic != _GZIP_MAGIC:
        return file, size_bytes
    return io.BufferedReader(Gunzip(file), 2**16), None


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    info = tar.next()
    tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
    return info


def _image_item(
    tar: tarfile.TarFile, info: tarfile.TarInfo, uri: str, ids: FrameIds, index: int, wanted: bool
) -> Frame | Reject:
    member = valid_text(info.name)
    frame = ids.take(member)
    if info.size > MAX_IMAGE_BYTES:
        message = f"the image has {info.size:,} bytes; the limit is {MAX_IMAGE_BYTES:,}"
        return Reject(frame, uri, member, index, "read", "ImageError", message, info.size)
    data = _content(tar, info) if wanted else b""
    return Frame(frame, uri, member, index, data)


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    data = b"" if file is None else file.read()
    if len(data) != info.size:
        raise ShardError(_cut_short(info))
    return data


def _check_within(info: tarfile.TarInfo, stream: BinaryIO | None, known_size: int | None) -> None:
    """Raise `ShardError` where the tar ends before the member does, though it is not read.

    How long a gzipped tar is shows only by going there in its `stream`, forwards.
    """
    if info.sparse is not None or info.size == 0:
        return
    whole = True
    if known_size is not None:
        whole = info.offset_data + info.size <= known_size
    elif stream is not None and info.size <= MAX_IMAGE_BYTES:
        stream.seek(info.offset_data + info.size - 1)
        whole = bool(stream.read(1))
    if not whole:
        raise ShardError(_cut_short(info))


def _cut_short(info: tarfile.TarInfo) -> str:
    return f"the tar is truncated: it ends within its member {valid_text(info.name)!r}"


def _check_end(tar: tarfile.TarFile, stream: BinaryIO) -> None:
    """Raise `ShardError` unless the tar ends with its mark: tarfile takes any end for the end."""
    stream.seek(tar.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if not block:
        raise ShardError("the tar is truncated: it ends without the mark of a tar's end")
    if len(block) < tarfile.BLOCKSIZE:
        raise ShardError("the tar is truncated: it ends within the header of a member")
    if any(block):
        raise ShardError(f"the tar is damaged: no valid header at byte {tar.offset:,}")
    while isinstance(stream, io.BufferedReader) and stream.read(2**20):
        continue  # to the end, where gzip compares its checksum


def _key(name: str) -> str | None:
    """WebDataset's key: the name up to the first dot of its last part; None without one."""
    folder, slash, base = name.rpartition("/")
    stem, dot, _ = base.partition(".")
    return f"{folder}{slash}{stem}" if stem and dot else None


def _is_sidecar(name: str) -> bool:
    return name.rpartition("/")[2].partition(".")[2].lower() == "json"
