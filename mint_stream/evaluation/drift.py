"""Makes a stream that drifts from any labelled pictures, as WebDataset shards with the truth.

What is seen (`Drift.segments`, each at its severity, at once or gradually, once or in cycles), who
sees it (cameras that take turns) and in which order the classes come are drawn from one seed: the
same pictures and the same `Drift` give the same bytes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mint_stream.config import ConfigError, require
from mint_stream.evaluation.corruptions import CORRUPTIONS, corrupt, noise_like
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame
from mint_stream.input.images import decode
from mint_stream.input.shard_writer import Item, write_shard
from mint_stream.input.shards import had, read_frames

START = datetime(2026, 1, 1, 6, tzinfo=UTC)
NOTHING = "nothing"
"""The truth of a frame that shows noise."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """What becomes of the pictures, complete. Shares are of the stream, in [0, 1]."""

    frames: int = 2000
    segments: tuple[str, ...] = ("clear", "fog:3", "low_light:3", "clear")
    """Corruptions in their order, of equal length, with their severity: `fog:3`."""
    change: Literal["sudden", "gradual"] = "sudden"
    """sudden: full severity from a segment's first frame. gradual: from 0 up to it in the middle of
    the segment and back to 0."""
    cycles: int = 1
    """How often all segments come."""
    order: Literal["shuffled", "runs", "dirichlet"] = "shuffled"
    """Of the classes, for each camera: at random; in runs of one class; in stretches whose mixture
    of classes is drawn from a Dirichlet distribution."""
    run_length: int = 60
    """Frames of a run (from half to one and a half of it), or of a stretch."""
    concentration: float = 0.1
    """Of the Dirichlet distribution: the smaller, the fewer classes in a stretch."""
    cameras: int = 1
    """They take turns."""
    unknown: tuple[str, ...] = ()
    """Classes that are left out of labels.txt."""
    unknown_share: float = 0.3
    """Share of frames that show one of them."""
    episode: tuple[float, float] = (0.4, 0.6)
    """From where to where `only` or `noise_camera` hold."""
    only: str | None = None
    """The one class that is seen in the episode."""
    noise_camera: int | None = None
    """Number, from 1, of the camera that shows noise in the episode."""
    interval_s: float = 10.0
    """Between two frames."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.frames >= 1, "frames", self.frames, "at least 1")
        require(bool(self.segments), "segments", self.segments, "at least one")
        for segment in self.segments:
            parse_segment(segment)
        require(self.cycles >= 1, "cycles", self.cycles, "at least 1")
        parts = len(self.segments) * self.cycles
        require(parts <= self.frames, "frames", self.frames, f"at least {parts}, one a segment")
        require(self.run_length >= 1, "run-length", self.run_length, "at least 1")
        require(self.concentration > 0, "concentration", self.concentration, "positive")
        require(self.cameras >= 1, "cameras", self.cameras, "at least 1")
        require(0 <= self.unknown_share <= 1, "unknown-share", self.unknown_share, "in [0, 1]")
        start, stop = self.episode
        require(0 <= start <= stop <= 1, "episode", self.episode, "two shares that grow, in [0, 1]")
        require(
            self.noise_camera is None or 1 <= self.noise_camera <= self.cameras,
            "noise-camera",
            self.noise_camera,
            f"one of the cameras, 1 to {self.cameras}",
        )


def parse_segment(text: str) -> tuple[str, float]:
    """Corruption and severity of `fog:3` (3 where it is not said). Raises `ConfigError`."""
    name, _, number = text.partition(":")
    require(name in CORRUPTIONS, "segments", text, f"of the corruptions {', '.join(CORRUPTIONS)}")
    try:
        severity = float(number or 3)
    except ValueError:
        severity = -1
    require(0 <= severity <= 5, "segments", text, "with a severity of 0 to 5, as in fog:3")
    return name, severity


def read_pictures(input_url: str) -> dict[str, list[bytes]]:
    """The encoded pictures of each class, all in memory, in the order of their names.

    The class is what sidecars, columns or `label=` folders say, else the name of an image's folder.
    Raises `ConfigError` where none has a class, `StorageError` as the store does.
    """
    pictures: dict[str, list[bytes]] = {}
    for shard in discover(input_url, unit_size=1024):
        for item in had(read_frames(shard)):
            if not isinstance(item, Frame):
                continue
            folder = item.frame.split("/")[-2] if shard.kind == "images" else None
            label = item.facts.label or folder
            if label:
                pictures.setdefault(label, []).append(item.data)
    require(bool(pictures), "input", input_url, "pictures whose class is known")
    return dict(sorted(pictures.items()))


def write_stream(
    output: str | Path,
    pictures: Mapping[str, Sequence[bytes]],
    drift: Drift,
    *,
    frames_per_shard: int = 250,
) -> list[Path]:
    """Write `00000.tar`, ..., `labels.txt` and `drift.json` (how it was made); gives the shards.

    The folder is made where it is missing. Raises `ConfigError` for classes that are not there, or
    a folder that holds shards already.
    """
    folder = Path(output)
    known = [name for name in pictures if name not in drift.unknown]
    require(len(known) >= 2, "input", list(pictures), "at least two classes besides the unknown")
    for name in (*drift.unknown, *([drift.only] if drift.only else [])):
        require(name in pictures, "class", name, f"one of {', '.join(pictures)}")
    if any(folder.glob("*.tar")):
        raise ConfigError(f"output {folder} holds shards already: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    frames = stream_frames(pictures, drift)
    shards: list[Path] = []
    while batch := list(itertools.islice(frames, frames_per_shard)):
        shards.append(folder / f"{len(shards):05d}.tar")
        write_shard(shards[-1], batch)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in known), encoding="utf-8")
    (folder / "drift.json").write_text(json.dumps(asdict(drift), indent=1) + "\n")
    return shards


def stream_frames(pictures: Mapping[str, Sequence[bytes]], drift: Drift) -> Iterator[Item]:
    """The frames of a stream in the order of time."""
    known = [name for name in pictures if name not in drift.unknown]
    classes = [_classes(known, drift, camera) for camera in range(drift.cameras)]
    draw = {
        name: _drawn(many, [drift.seed, 1, n]) for n, (name, many) in enumerate(pictures.items())
    }
    number, before = -1, ""
    for index in range(drift.frames):
        camera = index % drift.cameras
        name, severity, segment = _condition(index, drift)
        episode = drift.episode[0] <= index / drift.frames < drift.episode[1]
        label = next(classes[camera])
        if episode and drift.only:
            label, segment = drift.only, f"{segment} only {drift.only}"
        picture = decode(next(draw[label])).rgb_HW3
        rng = np.random.default_rng([drift.seed, 2, index])
        picture = corrupt(name, picture, severity, rng)
        if episode and drift.noise_camera:
            segment = f"{segment} noise on {_camera(drift.noise_camera - 1)}"
            if camera == drift.noise_camera - 1:
                label, picture = NOTHING, noise_like(picture, rng)
        number, before = number + (segment != before), segment
        time = START + index * timedelta(seconds=drift.interval_s)
        sidecar: dict[str, Any] = {
            "camera": _camera(camera),
            "timestamp": time.isoformat().replace("+00:00", "Z"),
            "domain": f"{number}-{segment.partition('/')[2]}",
            "label": label,
        }
        yield f"frame-{index:06d}", picture, sidecar


def _camera(number: int) -> str:
    return f"cam-{number + 1:02d}"


def _condition(index: int, drift: Drift) -> tuple[str, float, str]:
    """Corruption and severity at a frame, and its segment as `number/name`."""
    parts = drift.segments * drift.cycles
    part = index * len(parts) // drift.frames
    name, severity = parse_segment(parts[part])
    if drift.change == "gradual":
        within = index * len(parts) / drift.frames - part
        severity *= 1 - abs(2 * within - 1)
    return name, severity, f"{part}/{name}"


def _classes(known: list[str], drift: Drift, camera: int) -> Iterator[str]:
    """The classes that a camera sees, one after the other, without end."""
    rng = np.random.default_rng([drift.seed, 0, camera])
    share = drift.unknown_share if drift.unknown else 0.0
    while True:
        if drift.order == "dirichlet":
            mixture = rng.dirichlet([drift.concentration] * len(known))
            stretch = rng.choice(known, drift.run_length, p=mixture)
        elif drift.order == "runs":
            low, high = (drift.run_length + 1) // 2, drift.run_length * 3 // 2
            stretch = np.repeat(rng.choice(known), rng.integers(low, high + 1))
        else:
            stretch = rng.permutation(known)
        for name in stretch:
            yield str(rng.choice(drift.unknown) if rng.random() < share else name)


def _drawn(pictures: Sequence[bytes], seed: list[int]) -> Iterator[bytes]:
    """The pictures in random order, again and again in another one."""
    rng = np.random.default_rng(seed)
    while True:
        for index in rng.permutation(len(pictures)):
            yield pictures[index]
