"""A compressed file as a stream that gives what it can before it reports damage."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
from collections.abc import Callable
from typing import BinaryIO, Protocol

import pyarrow as pa

_KEPT_BYTES = 2**18
_PIECE_BYTES = 2**16
_ZSTD_PIECE_BYTES = 2**12
"""Of a piece that damage lies in Arrow gives nothing: small ones lose little."""
_XZ_MEMORY_BYTES = 2**28
"""Of the dictionary that an xz file asks for: four times what `xz -9` takes."""


class Source(Protocol):
    """Pieces of a content, from front to back."""

    def read1(self, size: int) -> bytes:
        """At most `size` bytes of what comes next; none at the end."""


class Decompressed(io.RawIOBase):
    """The content that `source` gives, read forwards, with steps back of up to 256 KiB.

    The readers of Python's standard library start all over for each step back, and a buffer around
    them loses the good bytes that stand just before damaged ones.

    Raises what `source` raises: `EOFError` for a file that was cut short, `OSError`, `zlib.error`
    or `lzma.LZMAError` for a damaged one; `OSError` for a step back that is too long.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept = b""  # the last bytes before `_end`
        self._end = 0
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is, within limits."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to `offset`; further forwards costs reading, see `readinto`."""
        if whence == io.SEEK_END:
            raise OSError("the length of a compressed file is not known")
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if target < self._end - len(self._kept):
            raise OSError(f"cannot go back from byte {self._end:,} to byte {target:,}")
        self._position = target
        return target

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Up to `len(buffer)` bytes; 0 at the end."""
        while self._position >= self._end:
            piece = self._source.read1(_PIECE_BYTES)
            if not piece:
                return 0
            self._end += len(piece)
            self._kept = self._kept[-_KEPT_BYTES:] + piece
        start = len(self._kept) - (self._end - self._position)
        data = self._kept[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def decompressed(file: BinaryIO) -> Decompressed | None:
    """The content of `file`, by its first bytes gzip, zstd, bzip2 or xz; None for anything else.

    Whatever a file of several streams one after the other holds is one content.
    """
    head = file.read(16)
    file.seek(0)
    for magic, source in _SOURCES:
        if magic.match(head):
            return Decompressed(source(file))
    return None


class _Zstd:
    def __init__(self, file: BinaryIO) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")

    def read1(self, size: int) -> bytes:
        return bytes(self._stream.read(min(size, _ZSTD_PIECE_BYTES)))


class _Streams:
    """bzip2 or xz streams one after the other, padded with zeros or not."""

    def __init__(
        self, file: BinaryIO, new: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
    ) -> None:
        self._file, self._new = file, new
        self._stream = new()

    def read1(self, size: int) -> bytes:
        piece = b""
        while not piece:
            compressed = b""
            if self._stream.eof:
                compressed = self._stream.unused_data.lstrip(b"\0")
                while not compressed:
                    read = self._file.read(_PIECE_BYTES)
                    if not read:
                        return b""
                    compressed = read.lstrip(b"\0")
                self._stream = self._new()
            elif self._stream.needs_input:
                compressed = self._file.read(_PIECE_BYTES)
                if not compressed:
                    raise EOFError("the compressed file ended before its end-of-stream marker")
            piece = self._stream.decompress(compressed, size)
        return piece


def _gzip(file: BinaryIO) -> Source:
    return gzip.GzipFile(fileobj=file)


def _bzip2(file: BinaryIO) -> Source:
    return _Streams(file, bz2.BZ2Decompressor)


def _xz(file: BinaryIO) -> Source:
    return _Streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES))


_SOURCES: tuple[tuple[re.Pattern[bytes], Callable[[BinaryIO], Source]], ...] = (
    (re.compile(rb"\x1f\x8b"), _gzip),
    # A frame, or one of those to be skipped, which parallel compressors begin with.
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), _Zstd),
    # Longer than the mark itself, which could be a name in the header of a tar.
    (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), _bzip2),
    (re.compile(rb"\xfd7zXZ\x00"), _xz),
)
