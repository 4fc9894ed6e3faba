"""From a shard to its units, decoded: what a read task does, without Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mint_stream.input.frames import Frame, Reject, valid_text
from mint_stream.input.grid import ShardProgress, unit_id
from mint_stream.input.images import ImageError, decode
from mint_stream.input.shard import Shard
from mint_stream.input.shards import read_frames
from mint_stream.store.store import Store


class Control(Protocol):
    """What the source and the readers ask; see `pipeline.control.RunControl`."""

    def stopping(self) -> bool: ...
    def handed_out(self) -> list[dict[str, Any]]: ...
    def hand_out(self, start: int, shards: list[dict[str, Any]]) -> int: ...


class Undisturbed:
    """The `Control` of a loop in one process, which nobody asks to stop."""

    def stopping(self) -> bool:
        return False

    def handed_out(self) -> list[dict[str, Any]]:
        return []

    def hand_out(self, start: int, shards: list[dict[str, Any]]) -> int:
        return start + len(shards)


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How shards are read; small, and the same for every read task."""

    unit_size: int
    image_column: str | None = None
    id_column: str | None = None
    min_short_side: int | None = None
    """Pixels that the method needs of an image's short side; larger photographs are reduced."""


def loose_frames(shard: Shard) -> list[str]:
    """Frame ids of a group of loose images; none for another kind of shard."""
    if shard.kind != "images":
        return []
    store = Store(shard.root)
    return [valid_text(store.uri(member.name)) for member in shard.members]


def read_shard(
    values: Mapping[str, Any], config: ReadConfig, control: Control
) -> Iterator[dict[str, Any]]:
    """The units (rows.UNIT_ROW) of a shard (rows.SHARD_ROW) that are not yet committed."""
    shard = Shard.from_json(values["shard"])
    if values["refused"]:
        yield _refused(shard, values["refused"])
        return
    progress = ShardProgress(config.unit_size, dict(json.loads(values["done"])))
    for unit in _units(shard, progress, values["stop"], config):
        if control.stopping():
            return
        yield unit


def _refused(shard: Shard, why: str) -> dict[str, Any]:
    """A unit without frames that says why the shard has none: committed, it is not asked again."""
    reject = Reject(None, shard.uri, None, 0, "list", "ShardReplaced", why, shard.size_bytes)
    unit = {**_new_unit(shard, 0), "shard_frames": 0, "read_seconds": 0.0}
    return {**unit, "rejects": [_reject_row(reject)]}


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
        unit["rejects"].append(_reject_row(item))
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


def _reject_row(reject: Reject) -> dict[str, Any]:
    fields = ("frame", "member", "stage", "error_type", "message", "size_bytes")
    return {name: getattr(reject, name) for name in fields}
