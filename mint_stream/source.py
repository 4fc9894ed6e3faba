"""The source of the dataset, and the stage that reads units from shards.

`ShardSource` hands out shards that are not yet done: those there are, or with `follow` those that
keep arriving. `read_shard` reads one and yields its units one by one, decoded.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from mint_stream.committed import settled_frames
from mint_stream.flow import SHARD_ROW, row
from mint_stream.frames import valid_text
from mint_stream.images import ImageError, decode
from mint_stream.shards import Frame, Reject, Shard, discover, read_frames
from mint_stream.storage import Store
from mint_stream.units import Done, ShardProgress, address, unit_id

log = logging.getLogger(__name__)

REPLACED = (
    "another version of this shard was labelled before, and its frames have the same ids: give "
    "the new version a name of its own, or label it into another --output"
)


class Control(Protocol):
    """What the source and the readers ask; see `run_control.RunControl`."""

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


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """How a growing input is listed."""

    input: str
    output: Store
    """Whose frames are not to be labelled again."""
    unit_size: int
    poll_s: float
    known: frozenset[str]
    """Ids of the shards that were there at the start, done or among the first."""


def shard_row(
    shard: Shard, progress: ShardProgress, stop: int | None = None, refused: str | None = None
) -> dict[str, Any]:
    """flow.SHARD_ROW of a shard of which `progress` is committed, but for its number.

    `stop` bounds its frames."""
    done = json.dumps(list(progress.frames_from.items()))
    return {"shard": shard.to_json(), "done": done, "stop": stop, "refused": refused}


class ShardSource(Datasource):
    """One read task that yields a row a shard: `first`, then with `follow` each that arrives.

    The order is that of `discover`: by name, the new ones of each listing after those before.
    """

    def __init__(
        self, first: list[dict[str, Any]], control: Control, follow: FollowConfig | None = None
    ) -> None:
        super().__init__()
        self._first, self._control, self._follow = first, control, follow

    def get_name(self) -> str:
        """Name of the operator in progress bars and the dashboard."""
        return "Follow" if self._follow else "Discover"

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: shards are references, not data."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """One task, whose generator is the listing."""
        first, follow, control = self._first, self._follow, self._control

        def read() -> Iterator[pa.Table]:
            arriving = () if follow is None else _arrivals(follow, first, control)
            for number, values in enumerate(chain(first, arriving)):
                yield row(SHARD_ROW, {**values, "number": number})

        return [ReadTask(read, BlockMetadata(None, None, None), schema=SHARD_ROW)]


def _arrivals(
    follow: FollowConfig, first: list[dict[str, Any]], control: Control
) -> Iterator[dict[str, Any]]:
    """Shards that appear, each once its size and version are the same in two listings.

    Repeated after its process died, it yields what it yielded before, in that order, and goes on.
    """
    handed_out = control.handed_out()
    yield from handed_out
    listing = _Listing(follow, [*first, *handed_out])
    while not control.stopping():
        for values in listing.stable():
            handed_out.append(values)
            noted = control.hand_out(len(handed_out) - 1, handed_out[-1:])
            if noted < len(handed_out):
                control.hand_out(noted, handed_out[noted:])
            yield values
        _wait(follow.poll_s, control)


class _Listing:
    """An input that grows: what is new in it since the last look, and no longer being written."""

    def __init__(self, follow: FollowConfig, handed_out: list[dict[str, Any]]) -> None:
        self._follow = follow
        self._known = set(follow.known)
        self._images: set[str] | None = None
        self._before: dict[str, str] = {}
        self._handed_out = [Shard.from_json(values["shard"]) for values in handed_out]
        self._known |= {shard.id for shard in self._handed_out}
        self._addresses = {address(known) for known in self._known}

    def stable(self) -> list[dict[str, Any]]:
        """Rows for the new shards that looked the same the time before."""
        seen: dict[str, str] = {}
        found = []
        for shard in self._shards():
            if shard.id in self._known:
                continue
            seen[shard.uri] = shard.id
            if self._before.get(shard.uri) != shard.id:
                continue
            refused = REPLACED if address(shard.id) in self._addresses else None
            found.append(shard_row(shard, ShardProgress(self._follow.unit_size), refused=refused))
            self._known.add(shard.id)
            self._addresses.add(address(shard.id))
            if self._images is not None:
                self._images.update(loose_frames(shard))
        self._before = seen
        return found

    def _shards(self) -> list[Shard]:
        follow = self._follow
        shards = discover(follow.input, unit_size=follow.unit_size, taken=self._images or ())
        if self._images is None and any(shard.kind == "images" for shard in shards):
            # Loose images are grouped anew as their folder grows: what counts is each of them.
            handed_out = (frame for shard in self._handed_out for frame in loose_frames(shard))
            self._images = {*settled_frames(follow.output), *handed_out}
            shards = discover(follow.input, unit_size=follow.unit_size, taken=self._images)
        return shards


def loose_frames(shard: Shard) -> list[str]:
    """Frame ids of a group of loose images; none for another kind of shard."""
    if shard.kind != "images":
        return []
    store = Store(shard.root)
    return [valid_text(store.uri(member.name)) for member in shard.members]


def _wait(seconds: float, control: Control) -> None:
    """Until the next listing, or a stop request."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not control.stopping():
        threading.Event().wait(min(0.5, max(0.0, until - time.monotonic())))


def read_shard(
    values: Mapping[str, Any], config: ReadConfig, control: Control
) -> Iterator[dict[str, Any]]:
    """The units (flow.UNIT_ROW) of a shard (flow.SHARD_ROW) that are not yet committed."""
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


def plan_again(
    shards: Iterable[Shard], done: Done, units: Collection[str]
) -> tuple[list[dict[str, Any]], set[str]]:
    """flow.SHARD_ROW rows for committed `units`, and those of them that are in none of `shards`."""
    left: list[dict[str, Any]] = []
    missing = set(units)
    for shard in shards:
        starts = done.progress(shard.id).frames_from
        wanted = {start for start in starts if unit_id(shard.id, start) in missing}
        if wanted:
            others = {start: n for start, n in starts.items() if start not in wanted}
            stop = max(start + starts[start] for start in wanted)
            left.append(shard_row(shard, ShardProgress(done.unit_size, others), stop))
            missing -= {unit_id(shard.id, start) for start in wanted}
    return left, missing


def plan(
    shards: Iterable[Shard],
    done: Done,
    frames_of: Callable[[Shard], int],
    limit: int | None,
    *,
    counted: int = 0,
) -> list[dict[str, Any]]:
    """flow.SHARD_ROW rows for what is left to do of `shards`.

    With `limit` only the first `limit` frames count; `frames_of` is asked for the size of a shard
    that was not read to its end before. `counted`: frames of the input that are done and stand in
    none of `shards`.
    """
    left: list[dict[str, Any]] = []
    frames = counted
    for shard in shards:
        progress = done.progress(shard.id)
        if done.replaced(shard.id) and not progress.frames_from:
            left.append(shard_row(shard, progress, refused=REPLACED))
            continue
        stop = None
        if limit is not None:
            if frames >= limit:
                break
            total = done.frames_in(shard.id)
            total = frames_of(shard) if total is None else total
            stop = limit - frames if frames + total > limit else None
            frames += total
        complete = done.is_complete(shard.id) if stop is None else progress.is_complete(stop)
        if not complete:
            left.append(shard_row(shard, progress, stop))
    return left
