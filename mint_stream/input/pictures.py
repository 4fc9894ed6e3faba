"""The pictures of frames, found again in the input."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame, Left
from mint_stream.input.shards import read_frames
from mint_stream.input.units import loose_frames
from mint_stream.store.errors import ObjectMissing


def read_pictures(
    input_url: str,
    wanted: pa.Table,
    *,
    image_column: str | None = None,
    id_column: str | None = None,
) -> dict[str, bytes]:
    """The encoded images of `wanted` (rows of a labels table) by frame id, read from the input.

    Frames that the input does not have any more are left out. Of a shard only the wanted units
    are read. Raises `StorageError` as the store does.
    """
    units: defaultdict[str, defaultdict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    columns = (wanted[name].to_pylist() for name in ("shard", "unit", "frame"))
    for uri, unit, frame in zip(*columns, strict=True):
        units[uri][int(unit.rpartition("-")[2])].add(frame)
    loose = {frame for starts in units.values() for frames in starts.values() for frame in frames}
    pictures: dict[str, bytes] = {}
    # Loose images one by one: how they were grouped is the run's affair, and may have changed.
    for shard in discover(input_url, unit_size=1):
        if shard.kind == "images":
            (frame,) = loose_frames(shard)
            starts = {0: {frame}} if frame in loose else {}
        else:
            starts = dict(units.get(shard.uri, {}))
        for start, frames in sorted(starts.items()):
            items = read_frames(shard, start=start, image_column=image_column, id_column=id_column)
            left = set(frames)
            for item in items:
                if isinstance(item, Left) and not isinstance(item.error, ObjectMissing):
                    raise item.error
                if isinstance(item, Frame) and item.frame in left:
                    pictures[item.frame] = item.data
                    left.remove(item.frame)
                if not left:
                    break
    return pictures
