"""The members of a tar that matter: images and sidecars, and links to those before them."""

from __future__ import annotations

import io
import logging
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from mint_stream.input.frames import (
    MAX_IMAGE_BYTES,
    Facts,
    Frame,
    FrameIds,
    Reject,
    has_image_suffix,
    key_of,
    name_digest,
    parse_sidecar,
    sidecar_stem,
    valid_text,
)
from mint_stream.input.left_out import LeftOut, is_system
from mint_stream.input.tar_archives import TarStream, content, cut_short, headers

log = logging.getLogger(__name__)

_MAX_PLACES = 100_000
"""Members that a link can mean: the last ones."""
_MAX_NAME = 4096
"""Characters; no system has longer paths."""
_LINKS = {tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link"}
_FOLDERS = (tarfile.DIRTYPE, b"D")


@dataclass(frozen=True, slots=True)
class Image:
    """An image member: its raw name, its key as WebDataset has it, its item without facts yet."""

    name: str
    key: str
    item: Frame | Reject


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A sidecar: the name of what it belongs to, and that name's key."""

    stem: str
    key: str
    facts: Facts


def members(
    file: io.BufferedReader,
    size_bytes: int,
    uri: str,
    data_from: int | None,
    *,
    sidecars: bool = True,
    left_out: LeftOut | None = None,
) -> Iterator[Image | Sidecar]:
    """Images and sidecars in the order of the tar, those of appended archives behind.

    left_out: counts members of other kinds. Raises `ShardError`, and what tarfile and the
    decompressors raise.
    """
    stream = TarStream(file, size_bytes)
    reader = _Reader(stream, uri, data_from)
    left_out = LeftOut() if left_out is None else left_out
    for tar, info in headers(stream):
        key = key_of(info.name)
        if info.type in _FOLDERS or is_system(info.name):
            continue
        if has_image_suffix(info.name) and key is not None:
            yield Image(info.name, key, reader.image(tar, info))
            continue
        if info.isreg() and not stream.holds(info, look=False):
            raise cut_short(info)
        stem = sidecar_stem(info.name, info.size)
        if key is not None and stem is not None and len(stem) <= _MAX_NAME:
            if sidecars:
                yield Sidecar(stem, key, reader.facts(tar, info))
            elif info.isreg():
                reader.remember(info)
        elif info.isreg() and not info.name.rpartition("/")[2].startswith("."):
            left_out.add(valid_text(info.name))


class _Reader:
    """Numbers the images of a tar, and reads them."""

    def __init__(self, stream: TarStream, uri: str, data_from: int | None) -> None:
        self._stream, self._uri, self._data_from = stream, uri, data_from
        self._ids = FrameIds(uri)
        self._index = 0
        self._places: dict[bytes, tuple[int, int]] = {}
        """Where what a link can mean lies, and how long it is."""

    def image(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Frame | Reject:
        """The next item: an image, or why it is none."""
        index = self._index
        self._index += 1
        member = valid_text(info.name)
        if len(member) > _MAX_NAME:
            short = f"{member[:200]}...{member[-50:]}"
            return self._reject(short, index, "its name has more than 4,096 characters", info)
        if info.type in _LINKS:
            return self._linked(info, member, index)
        if not info.isreg():
            why = f"it is no file but a member of type {info.type!r}, which holds no image"
            return self._reject(member, index, why, info)
        wanted = self._data_from is not None and index >= self._data_from
        if not self._stream.holds(info, look=not wanted and info.size <= MAX_IMAGE_BYTES):
            raise cut_short(info)
        if info.size > MAX_IMAGE_BYTES:
            why = f"the image has {info.size:,} bytes; the limit is {MAX_IMAGE_BYTES:,}"
            return self._reject(member, index, why, info, "ImageError")
        self.remember(info)
        data = content(tar, info) if wanted else b""
        return Frame(self._ids.take(member), self._uri, member, index, data)

    def facts(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Facts:
        """What a sidecar says; nothing for a link to what cannot be read."""
        shown = f"{self._uri}#{valid_text(info.name)}"
        if info.isreg():
            self.remember(info)
            return parse_sidecar(content(tar, info), shown)
        place = self._target(info)
        if place is None:
            log.warning("sidecar %s is a link to what cannot be read here", shown)
            return Facts()
        return parse_sidecar(self._read(info, *place), shown)

    def remember(self, info: tarfile.TarInfo, place: tuple[int, int] | None = None) -> None:
        """Keep where the member is: a link may mean it. Only a plain tar can be read again."""
        if self._stream.size is not None and info.sparse is None:
            self._places[_digest(info.name)] = place or (info.offset_data, info.size)
            if len(self._places) > _MAX_PLACES:
                self._places.pop(next(iter(self._places)))

    def _linked(self, info: tarfile.TarInfo, member: str, index: int) -> Frame | Reject:
        """What a link means, if that is an image before it in a plain tar."""
        place = self._target(info)
        if place is None:
            why = (
                f"it is {_LINKS[info.type]} to {valid_text(info.linkname)[:_MAX_NAME]!r}, which "
                "cannot be read here (only what comes before it in an uncompressed tar can): pack "
                "the files themselves (tar --dereference --hard-dereference)"
            )
            return self._reject(member, index, why, info)
        self.remember(info, place)
        wanted = self._data_from is not None and index >= self._data_from
        data = self._read(info, *place) if wanted else b""
        return Frame(self._ids.take(member), self._uri, member, index, data)

    def _target(self, info: tarfile.TarInfo) -> tuple[int, int] | None:
        """Where that lies which a link means; None where it cannot be read."""
        target = info.linkname
        if info.type == tarfile.SYMTYPE:
            target = posixpath.join(posixpath.dirname(info.name), target)
        return self._places.get(_digest(target)) if info.type in _LINKS else None

    def _read(self, info: tarfile.TarInfo, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(size)
        if len(data) != size:
            raise cut_short(info)
        return data

    def _reject(
        self,
        member: str,
        index: int,
        why: str,
        info: tarfile.TarInfo,
        error_type: str = "TarMember",
    ) -> Reject:
        frame = self._ids.take(member)
        return Reject(frame, self._uri, member, index, "read", error_type, why, info.size)


def _digest(name: str) -> bytes:
    return name_digest(posixpath.normpath(name))
