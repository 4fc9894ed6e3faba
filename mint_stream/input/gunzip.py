"""A gzipped file as a stream that gives what it can before it reports damage."""

from __future__ import annotations

import gzip
import io
from typing import BinaryIO

_KEPT_BYTES = 2**18
_PIECE_BYTES = 2**16


class Gunzip(io.RawIOBase):
    """The content of a gzipped `file`, read forwards, with steps back of up to 256 KiB.

    `gzip.GzipFile` starts all over for each step back, and a buffer around it loses the good bytes
    that stand just before damaged ones.

    Raises what gzip raises: `EOFError` for a file that was cut short, `gzip.BadGzipFile` or
    `zlib.error` for a damaged one; `OSError` for a step back that is too long.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = gzip.GzipFile(fileobj=file)
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
            raise OSError("the length of a gzipped file is not known")
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if target < self._end - len(self._kept):
            raise OSError(f"cannot go back from byte {self._end:,} to byte {target:,}")
        self._position = target
        return target

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Up to `len(buffer)` bytes; 0 at the end."""
        while self._position >= self._end:
            piece = self._file.read1(_PIECE_BYTES)
            if not piece:
                return 0
            self._end += len(piece)
            self._kept = self._kept[-_KEPT_BYTES:] + piece
        start = len(self._kept) - (self._end - self._position)
        data = self._kept[start : start + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
