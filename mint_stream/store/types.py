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

    def open(self, name: str) -> BinaryIO:
        """An object as a seekable stream without a buffer."""

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
