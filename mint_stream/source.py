"""The source of the dataset, and the stage that reads units from shards.

`ShardSource` hands out shards that are not yet done: those there are, or with `follow` those that
keep arriving. `read_units` reads a shard and yields its units one by one, decoded.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from mint_stream.flow import SHARD_ROW, UNIT_ROW, row, rows
from mint_stream.images import ImageError, decode
from mint_stream.shards import Frame, Reject, Shard, discover, read_frames
from mint_stream.units import Done, ShardProgress, unit_id

log = logging.getLogger(__name__)

Stopping = Callable[[], bool]
"""Asked between units: whether a stop was requested."""


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How shards are read; small, and the same for every read task."""

    unit_size: int
    image_column: str | None = None
    id_column: str | None = None
    min_short_side: int | None = None
    """Pixels that the method needs of an image's short side; larger photographs are reduced."""


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """How a growing input is listed."""

    input: str
    unit_size: int
    poll_s: float


def shard_row(shard: Shard, progress: ShardProgress, stop: int | None = None) -> dict[str, Any]:
    """flow.SHARD_ROW of a shard of which `progress` is committed; `stop` bounds its frames."""
    done = json.dumps(list(progress.frames_from.items()))
    return {"shard": shard.to_json(), "done": done, "stop": stop}


class ShardSource(Datasource):
    """One read task that yields a row a shard: `first`, then with `follow` each that arrives.

    The order is that of `discover`: by name, the new ones of each listing after those before.
    """

    def __init__(
        self,
        first: list[dict[str, Any]],
        *,
        follow: FollowConfig | None = None,
        known: Iterable[str] = (),
        stopping: Stopping | None = None,
    ) -> None:
        super().__init__()
        self._first, self._follow = first, follow
        self._known, self._stopping = frozenset(known), stopping

    def get_name(self) -> str:
        """Name of the operator in progress bars and the dashboard."""
        return "Follow" if self._follow else "Discover"

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: shards are references, not data."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """One task, whose generator is the listing."""
        first, follow, known, stopping = self._first, self._follow, self._known, self._stopping

        def read() -> Iterator[pa.Table]:
            for values in first:
                yield row(SHARD_ROW, values)
            if follow is not None and stopping is not None:
                yield from _arrivals(follow, set(known), stopping)

        return [ReadTask(read, BlockMetadata(None, None, None), schema=SHARD_ROW)]


def _arrivals(follow: FollowConfig, known: set[str], stopping: Stopping) -> Iterator[pa.Table]:
    """Shards that appear, each once its size and version are the same in two listings."""
    seen_before: dict[str, str] = {}
    while not stopping():
        seen: dict[str, str] = {}
        for shard in discover(follow.input, unit_size=follow.unit_size):
            if shard.id in known:
                continue
            seen[shard.uri] = shard.id
            if seen_before.get(shard.uri) == shard.id:
                known.add(shard.id)
                yield row(SHARD_ROW, shard_row(shard, ShardProgress(follow.unit_size)))
        seen_before = seen
        _wait(follow.poll_s, stopping)


def _wait(seconds: float, stopping: Stopping) -> None:
    """Until the next listing, or a stop request."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stopping():
        threading.Event().wait(min(0.5, max(0.0, until - time.monotonic())))


def read_units(batch: pa.Table, config: ReadConfig, stopping: Stopping) -> Iterator[pa.Table]:
    """flow.SHARD_ROW rows in, flow.UNIT_ROW rows out: the units that are not yet committed."""
    for values in rows(batch):
        shard = Shard.from_json(values["shard"])
        progress = ShardProgress(config.unit_size, dict(json.loads(values["done"])))
        for unit in _units(shard, progress, values["stop"], config):
            if stopping():
                return
            yield row(UNIT_ROW, unit)


def _units(
    shard: Shard, progress: ShardProgress, stop: int | None, config: ReadConfig
) -> Iterator[dict[str, Any]]:
    """The units of a shard. Each is held back until the next one begins or the shard ends, so
    that the last one can say so."""
    started = time.perf_counter()
    unit: dict[str, Any] | None = None
    cell, index = -1, progress.first_left() - 1
    items = read_frames(
        shard,
        start=index + 1,
        stop=stop,
        image_column=config.image_column,
        id_column=config.id_column,
    )
    for item in items:
        index = item.index
        if index < progress.labelled_until(progress.cell(index)):
            continue
        if unit is None or progress.cell(index) != cell:
            if unit is not None:
                yield {**unit, "read_seconds": time.perf_counter() - started}
                started = time.perf_counter()
            cell, unit = progress.cell(index), _new_unit(shard, index)
        _add(unit, item, config)
    at_end = stop is None or index + 1 < stop
    if unit is None and at_end and not progress.frames_from:
        unit = _new_unit(shard, 0)
    if unit is not None:
        end = {"shard_frames": index + 1} if at_end else {"partial": True}
        yield {**unit, **end, "read_seconds": time.perf_counter() - started}


def _new_unit(shard: Shard, start: int) -> dict[str, Any]:
    return {
        "unit": unit_id(shard.id, start),
        "shard_id": shard.id,
        "shard": shard.uri,
        "frames": [],
        "rejects": [],
        "partial": False,
        "shard_frames": None,
    }


def _add(unit: dict[str, Any], item: Frame | Reject, config: ReadConfig) -> None:
    """Decode a frame into the unit; what cannot be decoded joins the unit's rejects."""
    if isinstance(item, Reject):
        unit["rejects"].append({name: getattr(item, name) for name in _REJECT_FIELDS})
        return
    try:
        image = decode(item.data, min_short_side=config.min_short_side)
    except ImageError as error:
        unit["rejects"].append(
            {
                "frame": item.frame,
                "member": item.member,
                "stage": "decode",
                "error_type": type(error).__name__,
                "message": str(error),
                "size_bytes": len(item.data),
            }
        )
        return
    unit["frames"].append(
        {
            "frame": item.frame,
            "member": item.member,
            "camera": item.camera,
            "timestamp": item.timestamp,
            "width": image.width,
            "height": image.height,
            "pixels_height": image.rgb_HW3.shape[0],
            "pixels_width": image.rgb_HW3.shape[1],
            "pixels": image.rgb_HW3.tobytes(),
        }
    )


_REJECT_FIELDS = ("frame", "member", "stage", "error_type", "message", "size_bytes")


def plan(
    shards: Iterable[Shard], done: Done, frames_of: Callable[[Shard], int], limit: int | None
) -> list[dict[str, Any]]:
    """flow.SHARD_ROW rows for what is left to do of `shards`.

    With `limit` only the first `limit` frames count; `frames_of` is asked for the size of a shard
    that was not read to its end before.
    """
    left: list[dict[str, Any]] = []
    frames = 0
    for shard in shards:
        stop = None
        if limit is not None:
            if frames >= limit:
                break
            total = done.frames_in(shard.id)
            total = frames_of(shard) if total is None else total
            stop = limit - frames if frames + total > limit else None
            frames += total
        progress = done.progress(shard.id)
        complete = done.is_complete(shard.id) if stop is None else progress.is_complete(stop)
        if not complete:
            left.append(shard_row(shard, progress, stop))
    return left
