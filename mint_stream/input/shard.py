"""What a shard is: where it lies, and the objects that it consists of."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from mint_stream.store.types import ObjectInfo

Kind = Literal["tar", "parquet", "images"]


@dataclass(frozen=True)
class Member:
    """One object that a shard consists of: its name below the shard's root, its size in bytes.

    With what the listing said of its version: what is read must be that one.
    """

    name: str
    size_bytes: int
    etag: str | None = None
    mtime: float | None = None
    """Seconds since 1970."""
    sidecar: str | None = None
    """Of a loose image: name of the object that says what camera and time are."""

    @classmethod
    def of(cls, info: ObjectInfo, sidecar: str | None = None) -> Member:
        """A member as its store listed it."""
        return cls(info.name, info.size, info.etag, info.mtime, sidecar)

    @property
    def listed(self) -> ObjectInfo:
        """What the store said of it."""
        return ObjectInfo(self.name, self.size_bytes, self.etag, self.mtime)


@dataclass(frozen=True)
class Shard:
    """A shard as it was found. Its id changes when its content does."""

    uri: str
    id: str
    kind: Kind
    root: str = dataclasses.field(repr=False)
    """Address of the store below which its members are, with what is never shown of it."""
    members: tuple[Member, ...]
    """The file itself, or the loose images."""

    @property
    def size_bytes(self) -> int:
        """Of all members together."""
        return sum(member.size_bytes for member in self.members)

    def to_json(self) -> str:
        """The shard as ASCII text, whatever bytes its names hold."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Shard:
        """The shard that `to_json` wrote."""
        fields = json.loads(text)
        fields["members"] = tuple(Member(**member) for member in fields["members"])
        return cls(**fields)
