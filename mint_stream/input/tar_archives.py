"""The headers of a tar, of any number of archives one after the other, within bounds.

What Python's tarfile reads before it hands a member on (long names, pax records, maps of sparse
files) is as long as the file says: here as long as `MAX_HEADER_BYTES`.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from typing import Any, cast

from mint_stream.input.decompress import decompressed
from mint_stream.input.frames import ShardError, valid_text

MAX_HEADER_BYTES = 2**20
"""Of one member, and of what an archive says for all of its members."""

_LONG_NUMBER = re.compile(rb"[0-9]{256}")
_RECORD_BYTES = 20 * tarfile.BLOCKSIZE
_PIECE_BYTES = 2**16


class TarStream:
    """The bytes of a tar `file`, plain or compressed, as tarfile and we read them.

    Raises `ShardError` for a file without a byte.
    """

    def __init__(self, file: io.BufferedReader, size_bytes: int) -> None:
        if size_bytes == 0:
            raise ShardError("the tar is empty (0 bytes)")
        content = decompressed(file)
        self.size: int | None = size_bytes if content is None else None
        """Bytes that there are, compressed ones not counted; None where that is not known."""
        self._file = file if content is None else io.BufferedReader(content, _PIECE_BYTES)
        self._headers_left: int | None = None

    def begin_headers(self) -> None:
        """From here on a member's headers are read."""
        self._headers_left = MAX_HEADER_BYTES

    def end_headers(self) -> None:
        """From here on what members hold is read."""
        self._headers_left = None

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or as many as there are."""
        if self._headers_left is None:
            return self._file.read(size)
        if size > self._headers_left:
            raise ShardError(
                f"the headers of a member take more than {MAX_HEADER_BYTES:,} bytes: no name or "
                "attribute is that long"
            )
        self._headers_left -= size
        data = self._file.read(size)
        if _LONG_NUMBER.search(data):  # which older tarfiles look at for minutes
            raise ShardError("the header of a member holds a number of more than 255 digits")
        return data

    def seek(self, offset: int) -> int:
        """Go to `offset`, counted from the start of the first archive."""
        return self._file.seek(offset)

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._file.tell()

    def holds(self, info: tarfile.TarInfo, *, look: bool) -> bool:
        """Whether the tar goes on to the end of what the member `info` holds.

        look: go there; only that shows it where the size is not known.
        """
        if info.sparse is not None or info.size == 0:
            return True
        if self.size is not None:
            return info.offset_data + info.size <= self.size
        if not look:
            return True
        self.seek(info.offset_data + info.size - 1)
        return bool(self.read(1))


def headers(stream: TarStream) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Each member of each archive of a tar. Raises `ShardError`, and what tarfile raises."""
    start: int | None = 0
    while start is not None:
        stream.seek(start)
        stream.begin_headers()
        with tarfile.open(
            fileobj=cast(Any, stream),  # it has what tarfile uses
            mode="r:",
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            while (info := _next(tar, stream)) is not None:
                yield tar, info
            start = _after(tar, stream, start)


def _next(tar: tarfile.TarFile, stream: TarStream) -> tarfile.TarInfo | None:
    stream.begin_headers()
    info = tar.next()
    stream.end_headers()
    tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header it has seen
    for_all = sum(len(key) + len(value) for key, value in tar.pax_headers.items())
    if for_all > MAX_HEADER_BYTES:
        raise ShardError(
            f"what the tar says for all of its members takes more than {MAX_HEADER_BYTES:,} bytes"
        )
    return info


def _after(tar: tarfile.TarFile, stream: TarStream, start: int) -> int | None:
    """Where the archive begins that follows `tar`, which begins at `start`; None without one.

    Raises `ShardError` unless `tar` ends with its mark (tarfile takes any end for the end), and
    where something follows that is no tar. The last record of a tar may be filled with anything.
    """
    stream.seek(tar.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if not block:
        raise ShardError("the tar is truncated: it ends without the mark of a tar's end")
    if len(block) < tarfile.BLOCKSIZE:
        raise ShardError("the tar is truncated: it ends within the header of a member")
    if any(block):
        raise ShardError(f"the tar is damaged: no valid header at byte {tar.offset:,}")
    at = tar.offset + tarfile.BLOCKSIZE
    record = start - (start - at) // _RECORD_BYTES * _RECORD_BYTES
    while (found := _first_block(stream, at)) is not None:
        at, block = found
        if _is_header(block):
            return at
        if at >= record or at == tar.offset + tarfile.BLOCKSIZE:
            raise ShardError(f"the tar is damaged: what follows its end at byte {at:,} is no tar")
        at = record
    return None


def _first_block(stream: TarStream, at: int) -> tuple[int, bytes] | None:
    """The first block from `at` on that is not all zeros, and where it is."""
    stream.seek(at)
    while piece := stream.read(_PIECE_BYTES):
        zeros = len(piece) - len(piece.lstrip(b"\0"))
        if zeros < len(piece):
            first = zeros // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            return at + first, piece[first : first + tarfile.BLOCKSIZE]
        at += len(piece)
    return None


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """What the member `info` holds. Raises `ShardError` where the tar ends within it."""
    file = tar.extractfile(info)
    data = b"" if file is None else file.read()
    if len(data) != info.size:
        raise cut_short(info)
    return data


def cut_short(info: tarfile.TarInfo) -> ShardError:
    """That the tar ends within the member `info`."""
    return ShardError(f"the tar is truncated: it ends within its member {valid_text(info.name)!r}")
