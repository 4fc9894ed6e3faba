"""What `Store` and its backends say to each other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """One object as its store lists it: `name` below the root, `size` in bytes, `mtime` in s."""

    name: str
    size: int
    etag: str | None
    mtime: float | None

    @property
    def version(self) -> str:
        """Changes whenever the content does, as far as the store tells."""
        return self.etag or f"{self.size}-{self.mtime!r}"

    def agrees(self, other: ObjectInfo) -> bool:
        """Whether both may be told of one content.

        Two requests may not say the same things: only what both say is compared.
        """
        if self.etag is not None and other.etag is not None:
            return self.etag == other.etag
        dated = self.mtime is not None and other.mtime is not None
        if dated and self.mtime != other.mtime:
            return False
        # Some stores list objects without a size, which is then 0.
        return self.size == other.size or not (dated or (self.size and other.size))


class Backend(Protocol):
    """One attempt at each operation; names are relative to `root_uri`."""

    root_uri: str
    tail: str
    """What stands behind every name in an address: the archive that the root lies in, or ""."""

    def look(self) -> None:
        """Make one small request that fails where the root cannot be listed."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name begins with `prefix`, in any order, never from a cache."""

    def stat(self, name: str) -> ObjectInfo:
        """What is known about an object. Raises `FileNotFoundError` where there is none."""

    def read(self, name: str) -> bytes:
        """A whole object."""

    def read_known(self, name: str) -> tuple[bytes, ObjectInfo]:
        """A whole object, and what is known of it that was true of these bytes."""

    def open(self, name: str) -> BinaryIO:
        """An object as a seekable stream without a buffer."""

    def known(self, name: str, file: BinaryIO) -> ObjectInfo:
        """What is known of the object that `file`, opened as `name`, gives the bytes of."""

    def write(self, name: str, data: bytes) -> None:
        """Write an object as a whole, in place of what was there."""

    def create(self, name: str, data: bytes) -> None:
        """Write an object as a whole where there is none; else fail and change nothing."""

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""


def seconds(info: Mapping[str, Any]) -> float | None:
    """When the object was last changed, in seconds since 1970, under whatever name it is given."""
    for field in _CHANGED:
        value = info.get(field)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value).timestamp()
            with contextlib.suppress(ValueError):  # HTTP's
                return parsedate_to_datetime(value).timestamp()
            with contextlib.suppress(ValueError):  # FTP's
                time = datetime.strptime(value.partition(".")[0], "%Y%m%d%H%M%S")
                return time.replace(tzinfo=UTC).timestamp()
    return None


_CHANGED = (
    *("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "modify"),
    "created",
)
