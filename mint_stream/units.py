"""Which frames of which shard are labelled already, told from the names of committed objects.

A unit is up to `unit_size` consecutive frames of one shard. Units lie on a grid: they end at the
next multiple of `unit_size` or at the shard's end, unless `--limit` cut one short; what it left
becomes a unit of its own in a later run, so within a grid cell the labelled frames are a prefix.

What a store holds for this, all of it readable from names alone:

    labels/<shard id>-<start>.parquet     the unit is committed
    shards/<shard id>-<frames>            the shard has so many frames
    partial/<shard id>-<start>            the unit may have been cut short: its labels say
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

_DIGITS = 8


def shard_id(uri: str, version: str) -> str:
    """20 hex digits: 12 for the address, 8 for the content's version (ETag, or size and mtime)."""
    return _hash(uri)[:12] + _hash(version)[:8]


def address(shard: str) -> str:
    """The part of a shard's id that stays when its content changes."""
    return shard[:12]


def unit_id(shard: str, start: int) -> str:
    """Id of the unit of `shard` whose first frame is number `start`."""
    return f"{shard}-{start:0{_DIGITS}d}"


def shard_of(unit: str) -> str:
    """Id of the shard that `unit` is of."""
    return unit.rpartition("-")[0]


def unit_start(unit: str) -> int:
    """Number of the first frame of `unit` in its shard."""
    return int(unit.rpartition("-")[2])


def labels_name(unit: str) -> str:
    """Object whose existence means that `unit` is committed."""
    return f"labels/{unit}.parquet"


def rejects_name(unit: str) -> str:
    """Object with the unit's rejects, where it has any."""
    return f"rejects/{unit}.parquet"


def relabelled_name(unit: str) -> str:
    """Object with rows of `unit` that stand in place of those in its labels."""
    return f"relabelled/{unit}.parquet"


def partial_name(unit: str) -> str:
    """Marker of a unit that ended before its grid cell and its shard did."""
    return f"partial/{unit}"


def shard_end_name(shard: str, frames: int) -> str:
    """Marker that says how many frames a shard has."""
    return f"shards/{shard}-{frames:0{_DIGITS}d}"


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


class Done:
    """The committed units of an output, by shard.

    Args:
        unit_size: frames in a grid cell.
        labels, shards, partial: names of the objects below these prefixes.
        frames_of: number of frames in a committed unit; asked only for those marked partial.
    """

    def __init__(
        self,
        unit_size: int,
        *,
        labels: Iterable[str] = (),
        shards: Iterable[str] = (),
        partial: Iterable[str] = (),
        frames_of: Callable[[str], int] | None = None,
    ) -> None:
        self.unit_size = unit_size
        self._shards: dict[str, ShardProgress] = {}
        self._frames = dict(_split(name) for name in shards)
        self._by_address: defaultdict[str, set[str]] = defaultdict(set)
        self.units: set[str] = set()
        cut = {_stem(name) for name in partial}
        for name in labels:
            shard, start = _split(name)
            unit = unit_id(shard, start)
            progress = self._shards.setdefault(shard, ShardProgress(unit_size))
            whole = progress.cell(start) + unit_size - start
            asked = unit in cut and frames_of is not None
            progress.frames_from[start] = frames_of(unit) if asked and frames_of else whole
            self._by_address[address(shard)].add(shard)
            self.units.add(unit)

    def progress(self, shard: str) -> ShardProgress:
        """What is committed of `shard`."""
        return self._shards.get(shard, ShardProgress(self.unit_size))

    def frames_in(self, shard: str) -> int | None:
        """Number of frames of a shard that was read to its end before."""
        return self._frames.get(shard)

    def is_complete(self, shard: str) -> bool:
        """Whether `shard` was read to its end and all of its frames are in committed units."""
        frames = self._frames.get(shard)
        return frames is not None and self.progress(shard).is_complete(frames)

    def replaced(self, shard: str) -> bool:
        """Whether another version of the same address was labelled, in whole or in part."""
        return bool(self._by_address.get(address(shard), set()) - {shard})

    @property
    def frames(self) -> int:
        """Number of frames in committed units, labelled or rejected."""
        return sum(p.frames_done(self._frames.get(shard)) for shard, p in self._shards.items())


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".parquet")


def _split(name: str) -> tuple[str, int]:
    shard, _, number = _stem(name).rpartition("-")
    return shard, int(number)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
