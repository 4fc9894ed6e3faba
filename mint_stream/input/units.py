"""From a shard to its units, decoded: what a read task does, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mint_stream.input.frames import Frame, Left, Reject, valid_text
from mint_stream.input.grid import ShardProgress, unit_id
from mint_stream.input.images import ImageError, decode
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shard import Shard
from mint_stream.input.shards import read_frames
from mint_stream.store.store import Store


@dataclass(frozen=True, kw_only=True)
class DecodedFrame:
    """A frame as pixels."""

    frame: str
    """Its id."""
    member: str | None
    camera: str | None
    timestamp: datetime | None
    width: int
    height: int
    """Of the stored image, after EXIF rotation."""
    pixels_height: int
    pixels_width: int
    pixels: bytes
    """uint8 RGB, row by row: pixels_height * pixels_width * 3."""

    @property
    def rgb_HW3(self) -> NDArray[np.uint8]:
        """The pixels as a read-only array: (pixels_height, pixels_width, 3)."""
        shape = (self.pixels_height, self.pixels_width, 3)
        return np.frombuffer(self.pixels, np.uint8).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """What cannot be labelled: a frame, or a shard as a whole where `frame` is None."""

    frame: str | None
    member: str | None
    stage: str
    """Where it failed: list, read, decode or label."""
    error_type: str
    message: str
    size_bytes: int | None

    @classmethod
    def of(cls, reject: Reject) -> Rejected:
        """What `read_frames` gave in place of a frame."""
        return cls(
            frame=reject.frame,
            member=reject.member,
            stage=reject.stage,
            error_type=reject.error_type,
            message=reject.message,
            size_bytes=reject.size_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Consecutive frames of one shard: what is labelled, merged, committed and retried whole."""

    unit: str
    """Its id."""
    shard_id: str
    shard: str
    """Uri of the shard."""
    frames: tuple[DecodedFrame, ...]
    rejects: tuple[Rejected, ...]
    partial: bool = False
    """Whether `--limit` cut it short, or something of its shard is left."""
    shard_frames: int | None = None
    """In a shard's last unit: how many frames the shard has."""
    left_out: str | None = None
    """In that unit too: members of kinds that are not read, a `LeftOut` as JSON; None for none."""
    read_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """What could not be had, and is left for another run: a shard's rest, or one loose image."""

    uri: str
    """Of the shard, or of the image."""
    shard_id: str
    is_image: bool
    error_type: str
    message: str

    @classmethod
    def of(cls, shard: Shard, left: Left) -> LeftBehind:
        """What `read_frames` gave in its place."""
        return cls(
            uri=left.frame or shard.uri,
            shard_id=shard.id,
            is_image=left.frame is not None,
            error_type=type(left.error).__name__,
            message=str(left.error),
        )


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """A shard to read."""

    shard: Shard
    frames_from: Mapping[int, int] = field(default_factory=dict)
    """Its committed units: for each, its first frame and its number of frames."""
    stop: int | None = None
    """Frames from this one on are left."""
    refused: str | None = None
    """Why it is not read and becomes one reject."""


class Control(Protocol):
    """What the source and the readers ask; see `pipeline.control.RunControl`."""

    def stopping(self) -> bool: ...
    def handed_out(self) -> list[ShardTask]: ...
    def hand_out(self, start: int, shards: list[ShardTask]) -> int: ...
    def left(self) -> list[LeftBehind]: ...


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How shards are read; small, and the same for every read task."""

    unit_size: int
    image_column: str | None = None
    id_column: str | None = None
    min_short_side: int | None = None
    """Pixels that the method needs of an image's short side; larger photographs are reduced."""


_DEADLY = (
    "reading on from here ended the process that read, several times, most often because the "
    "machine had no memory left: the rest of the shard is given up. If it is sound and the machine "
    "was too small, label it under another name, or into another --output"
)


def read_shard(
    task: ShardTask,
    config: ReadConfig,
    control: Control,
    leave: Callable[[LeftBehind], None],
    *,
    given_up: int | None = None,
) -> Iterator[Unit]:
    """The units of a shard that are not yet committed.

    leave: told of what could not be had this time. It is in no unit, so that it is found again by
    whoever looks for what is not committed. given_up: after so many units the rest of the shard is
    one reject, and not read.
    """
    if task.refused:
        yield _refused(task.shard, task.refused)
        return
    progress = ShardProgress(config.unit_size, task.frames_from)
    for unit in _units(task.shard, progress, task.stop, config, leave, given_up):
        if control.stopping():
            return
        yield unit


def _refused(shard: Shard, why: str) -> Unit:
    """A unit without frames that says why the shard has none: committed, it is not asked again."""
    return replace(_of_reject(shard, 0, "list", "ShardReplaced", why), shard_frames=0)


def _rest(shard: Shard, index: int) -> Unit:
    """The last unit of a shard that is given up from frame `index` on."""
    return replace(_of_reject(shard, index, "read", "ReaderDied", _DEADLY), shard_frames=index + 1)


def _of_reject(shard: Shard, start: int, stage: str, error_type: str, message: str) -> Unit:
    reject = Rejected(
        frame=None,
        member=None,
        stage=stage,
        error_type=error_type,
        message=message,
        size_bytes=shard.size_bytes,
    )
    return replace(_unit(shard, start, []), rejects=(reject,))


def _units(
    shard: Shard,
    progress: ShardProgress,
    stop: int | None,
    config: ReadConfig,
    leave: Callable[[LeftBehind], None],
    given_up: int | None,
) -> Iterator[Unit]:
    """The units of a shard. Each is held back until the next one begins or the shard ends, so
    that the last one can say so; that of a shard of which something is left does not."""
    if given_up == 0:
        yield _rest(shard, progress.first_left())
        return
    started, yielded, whole = time.perf_counter(), 0, True
    cell, index, first, left_out = -1, progress.first_left() - 1, -1, LeftOut()
    decoded: list[DecodedFrame | Rejected] = []
    items = read_frames(
        shard,
        start=index + 1,
        stop=stop,
        image_column=config.image_column,
        id_column=config.id_column,
        left_out=left_out,
    )
    for item in items:
        if isinstance(item, Left):
            leave(LeftBehind.of(shard, item))
            whole = False
            continue
        index = item.index
        if index < progress.labelled_until(progress.cell(index)):
            continue
        if progress.cell(index) != cell:
            if first >= 0:
                read_s = time.perf_counter() - started
                yield replace(_unit(shard, first, decoded), read_seconds=read_s)
                started, yielded = time.perf_counter(), yielded + 1
                if yielded == given_up:
                    yield _rest(shard, index)
                    return
            cell, first, decoded = progress.cell(index), index, []
        decoded.append(_decoded(item, config))
    at_end = whole and (stop is None or index + 1 < stop)
    if first < 0 and at_end and not progress.frames_from:
        first = 0
    if first >= 0:
        read_s = time.perf_counter() - started
        unit = replace(_unit(shard, first, decoded), read_seconds=read_s, partial=not at_end)
        if at_end:
            told = left_out.to_json() if left_out else None
            unit = replace(unit, shard_frames=index + 1, left_out=told)
        yield unit


def _unit(shard: Shard, start: int, decoded: Sequence[DecodedFrame | Rejected]) -> Unit:
    return Unit(
        unit=unit_id(shard.id, start),
        shard_id=shard.id,
        shard=shard.uri,
        frames=tuple(item for item in decoded if isinstance(item, DecodedFrame)),
        rejects=tuple(item for item in decoded if isinstance(item, Rejected)),
    )


def _decoded(item: Frame | Reject, config: ReadConfig) -> DecodedFrame | Rejected:
    if isinstance(item, Reject):
        return Rejected.of(item)
    try:
        image = decode(item.data, min_short_side=config.min_short_side)
    except ImageError as error:
        return Rejected(
            frame=item.frame,
            member=item.member,
            stage="decode",
            error_type=type(error).__name__,
            message=str(error),
            size_bytes=len(item.data),
        )
    return DecodedFrame(
        frame=item.frame,
        member=item.member,
        camera=item.camera,
        timestamp=item.timestamp,
        width=image.width,
        height=image.height,
        pixels_height=image.rgb_HW3.shape[0],
        pixels_width=image.rgb_HW3.shape[1],
        pixels=image.rgb_HW3.tobytes(),
    )


def loose_frames(shard: Shard) -> list[str]:
    """Frame ids of a group of loose images; none for another kind of shard."""
    if shard.kind != "images":
        return []
    store = Store(shard.root)
    return [valid_text(store.uri(member.name)) for member in shard.members]
