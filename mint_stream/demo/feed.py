"""Writes a feed of street cameras as WebDataset shards that drift from one clear day to the next.

The same arguments give the same bytes: pictures, sidecars and tar headers depend on the seed only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from mint_stream.demo.street.backdrop import PLACES, SKIES, TIMES, Camera, make_camera
from mint_stream.demo.street.drift import apply
from mint_stream.demo.street.objects import LABELS
from mint_stream.demo.street.scene import Frame, render, sample_scene
from mint_stream.input.shard_writer import write_shard

PARTS = 4
"""Shards of each segment, where it has as many frames."""
START = datetime(2025, 3, 20, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of the feed: its name in the sidecars, the condition and its full severity."""

    name: str
    condition: str
    severity: float


SEGMENTS: tuple[Segment, ...] = (
    Segment(name="day", condition="day", severity=0.5),
    Segment(name="dusk", condition="dusk", severity=0.9),
    Segment(name="night", condition="night", severity=0.7),
    Segment(name="fog", condition="fog", severity=0.32),
    Segment(name="rain", condition="rain", severity=0.9),
    Segment(name="snow", condition="snow", severity=0.42),
    Segment(name="infrared", condition="infrared", severity=0.22),
    Segment(name="day again", condition="day", severity=0.5),
)


@dataclass(frozen=True, kw_only=True)
class FeedFrame:
    """One frame of the feed with its truth. `frame` is uint8 (H, W, 3) RGB."""

    key: str
    frame: Frame
    camera: str
    timestamp: str
    domain: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What `write_feed` wrote: shard paths in order, the class list and the number of frames."""

    shards: tuple[Path, ...]
    labels: Path
    frames: int


def make_cameras(count: int, seed: int) -> list[Camera]:
    """The cameras of a feed, `cam-a`, `cam-b`, ..., each with its own viewpoint and place."""
    rng = np.random.default_rng([seed, 31])
    seeds, places = rng.integers(2**31, size=count), rng.permutation(len(PLACES))
    return [
        make_camera(f"cam-{chr(97 + k)}", int(value), place=PLACES[places[k % len(PLACES)]])
        for k, value in enumerate(seeds)
    ]


def stream_feed(*, frames: int = 304, seed: int = 0, cameras: int = 3) -> Iterator[FeedFrame]:
    """Yield the frames of a feed in the order of time.

    The segments have equal length (the last ones one frame less where it does not divide), every
    label comes up equally often in each, and a condition sets in over the first third of its
    segment. Raises ValueError unless 1 <= cameras <= 26 and there is a frame for every segment.
    """
    if frames < len(SEGMENTS):
        raise ValueError(f"frames is {frames}: at least {len(SEGMENTS)}, one a segment")
    if not 1 <= cameras <= 26:
        raise ValueError(f"cameras is {cameras}: allowed are 1 to 26")
    views = make_cameras(cameras, seed)
    order = np.random.default_rng([seed, 32])
    step = timedelta(hours=24) / frames
    index = 0
    for number, segment in enumerate(SEGMENTS):
        length = frames // len(SEGMENTS) + (number < frames % len(SEGMENTS))
        # A new shuffled round of all labels whenever the last one is used up.
        rounds = [order.permutation(len(LABELS)) for _ in range(-(-length // len(LABELS)))]
        labels = np.concatenate(rounds)[:length]
        for position, label in enumerate(labels):
            rng = np.random.default_rng([seed, 33, index])
            camera = views[index % cameras]
            time = TIMES[number % 3]
            sky = SKIES[int(rng.integers(len(SKIES)))]
            scene = sample_scene(rng, camera, label=LABELS[label], time=time, sky=sky)
            onset = min(1.0, 0.7 + 0.3 * position / max(1.0, length / 3))
            severity = segment.severity * onset
            yield FeedFrame(
                key=f"{index:06d}",
                frame=apply(segment.condition, render(scene), severity=severity, rng=rng),
                camera=camera.name,
                timestamp=(START + index * step).isoformat(timespec="milliseconds"),
                domain=segment.name,
                label=scene.label,
            )
            index += 1


def _sidecar(item: FeedFrame) -> dict[str, str]:
    return {
        "camera": item.camera,
        "timestamp": item.timestamp,
        "domain": item.domain,
        "label": item.label,
    }


def parts(frames: int) -> int:
    """Shards of each segment in a feed of so many frames."""
    return min(PARTS, frames // len(SEGMENTS))


def write_feed(folder: str | Path, *, frames: int = 304, seed: int = 0, cameras: int = 3) -> Feed:
    """Write `0-day-1.tar`, `0-day-2.tar`, ... and `labels.txt` (one class a line) into a folder.

    Each segment is cut into `parts(frames)` shards, numbered from 1. Each frame is `<key>.png` with
    `<key>.json` beside it: `camera`, `timestamp` (ISO 8601, UTC), `domain` (the segment's name) and
    `label` (the truth). The folder is made where it is missing; files of the same names are
    overwritten. Raises ValueError as `stream_feed` does; OSError where the folder cannot be
    written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    feed = stream_feed(frames=frames, seed=seed, cameras=cameras)
    for number, (segment, of_segment) in enumerate(groupby(feed, lambda item: item.domain)):
        batch = list(of_segment)
        bounds = np.linspace(0, len(batch), parts(frames) + 1).round().astype(int).tolist()
        for part, (start, end) in enumerate(pairwise(bounds), 1):
            shards.append(folder / f"{number}-{segment.replace(' ', '-')}-{part}.tar")
            items = ((item.key, item.frame, _sidecar(item)) for item in batch[start:end])
            write_shard(shards[-1], items, mtime_s=int(START.timestamp()))
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")
    return Feed(shards=tuple(shards), labels=labels, frames=frames)
