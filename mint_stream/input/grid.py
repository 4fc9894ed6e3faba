"""Shards and units by name: the ids of both, and which frames of a shard are labelled already.

A unit is up to `unit_size` consecutive frames of one shard. Units lie on a grid: they end at the
next multiple of `unit_size` or at the shard's end, unless `--limit` cut one short; what it left
becomes a unit of its own in a later run, so within a grid cell the labelled frames are a prefix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

DIGITS = 8


def shard_id(uri: str, version: str) -> str:
    """20 hex digits: 12 for the address, 8 for the content's version (ETag, or size and mtime)."""
    return _hash(uri)[:12] + _hash(version)[:8]


def address(shard: str) -> str:
    """The part of a shard's id that stays when its content changes."""
    return shard[:12]


def version(shard: str) -> str:
    """The part of a shard's id that stays when it is moved."""
    return shard[12:]


def unit_id(shard: str, start: int) -> str:
    """Id of the unit of `shard` whose first frame is number `start`."""
    return f"{shard}-{start:0{DIGITS}d}"


def shard_of(unit: str) -> str:
    """Id of the shard that `unit` is of."""
    return unit.rpartition("-")[0]


def unit_start(unit: str) -> int:
    """Number of the first frame of `unit` in its shard."""
    return int(unit.rpartition("-")[2])


class ShardProgress:
    """The committed units of one shard: for each, its first frame and its number of frames."""

    def __init__(self, unit_size: int, frames_from: Mapping[int, int] | None = None) -> None:
        self.unit_size = unit_size
        self.frames_from: dict[int, int] = dict(frames_from or {})

    def cell(self, frame: int) -> int:
        """First frame of the grid cell that `frame` lies in."""
        return frame // self.unit_size * self.unit_size

    def labelled_until(self, cell: int) -> int:
        """Of the grid cell that begins at frame `cell`: the first frame not yet labelled."""
        until = cell
        while until in self.frames_from and until < cell + self.unit_size:
            until += self.frames_from[until]
        return until

    def first_left(self) -> int:
        """The first frame that is not labelled."""
        frame = 0
        while (until := self.labelled_until(self.cell(frame))) > frame:
            frame = until
        return frame

    def is_complete(self, frames: int) -> bool:
        """Whether all of the shard's `frames` frames are in committed units."""
        if frames == 0:
            return 0 in self.frames_from
        cells = range(0, frames, self.unit_size)
        return all(
            self.labelled_until(cell) >= min(cell + self.unit_size, frames) for cell in cells
        )

    def frames_done(self, frames: int | None) -> int:
        """Number of frames in committed units; exact where the shard's size is known."""
        end = float("inf") if frames is None else frames
        return sum(int(min(start + n, end)) - start for start, n in self.frames_from.items())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
