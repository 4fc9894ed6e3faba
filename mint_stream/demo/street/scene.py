"""Renders street-camera frames: a description (`Scene`) and the picture that it stands for.

Everything is a pure function of seeds. A frame is a uint8 array (FRAME_SIZE, FRAME_SIZE, 3), RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from mint_stream.demo.street.backdrop import SKIES, TIMES, Camera, paint
from mint_stream.demo.street.look import PAINT, Look
from mint_stream.demo.street.objects import DRAW, EXTENT, FRONT_EXTENT, LABELS, PALETTE
from mint_stream.demo.street.pen import Pen

FRAME_SIZE = 128
_SUPERSAMPLE = 3
Frame = NDArray[np.uint8]

_LIGHT = {"morning": (1.0, 0.98, 0.93), "noon": (1.03, 1.03, 1.02), "afternoon": (1.05, 0.98, 0.88)}
_SHADOW = {"morning": 0.9, "noon": 0.1, "afternoon": -0.9}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What one frame shows. `fill` is the object's larger side as a share of the frame's side;
    `x`, `y` (shares of the frame) is where the object stands; `tilt` is in radians."""

    camera: Camera
    label: str
    colour: str
    time: str
    sky: str
    front: bool
    left: bool
    fill: float
    x: float
    y: float
    tilt: float
    variant: int
    pose: tuple[float, float, float]
    noise_seed: int


def sample_scene(
    rng: np.random.Generator,
    camera: Camera,
    *,
    label: str | None = None,
    time: str | None = None,
    sky: str | None = None,
) -> Scene:
    """Draw a scene in front of a camera; `label`, `time` and `sky` may be given.

    Raises ValueError for a label, time or sky that the renderer does not know.
    """
    for name, value, known in (
        ("label", label, LABELS),
        ("time", time, TIMES),
        ("sky", sky, SKIES),
    ):
        if value is not None and value not in known:
            raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")
    label = label or LABELS[int(rng.integers(len(LABELS)))]
    colours = PALETTE[label]
    front = label in ("car", "bus", "pedestrian") and rng.random() < 0.25
    fill = float(rng.uniform(0.6, 0.9))
    if label == "pedestrian" or (label in FRONT_EXTENT and front):
        fill = 0.9 * fill
    wide, high = _extent(label, front)
    height = fill * high / max(wide, high)
    # Feet stay on the ground, the top stays in the picture.
    low, top = camera.horizon + 0.14, min(0.97, camera.horizon + 0.44)
    y = min(0.97, max(float(rng.uniform(low, top)), height + 0.03))
    return Scene(
        camera=camera,
        label=label,
        colour=colours[int(rng.integers(len(colours)))],
        time=time or TIMES[int(rng.integers(len(TIMES)))],
        sky=sky or SKIES[int(rng.integers(len(SKIES)))],
        front=bool(front),
        left=bool(rng.random() < 0.5),
        fill=fill,
        x=float(rng.uniform(0.38, 0.62)),
        y=y,
        tilt=float(rng.normal(0, 0.035)),
        variant=int(rng.integers(60)),
        pose=(float(rng.random()), float(rng.random()), float(rng.random())),
        noise_seed=int(rng.integers(2**31)),
    )


def _extent(label: str, front: bool) -> tuple[float, float]:
    return FRONT_EXTENT.get(label, EXTENT[label]) if front else EXTENT[label]


def render(scene: Scene) -> Frame:
    """Render a scene as a clear-day frame: uint8 (FRAME_SIZE, FRAME_SIZE, 3)."""
    rng = np.random.default_rng([scene.noise_seed, 21])
    size = FRAME_SIZE * _SUPERSAMPLE
    canvas = paint(size, scene.camera, time=scene.time, sky=scene.sky, rng=rng)
    draw = ImageDraw.Draw(canvas, "RGBA")
    wide, high = _extent(scene.label, scene.front)
    scale = scene.fill * size / max(wide, high)
    x, y = scene.x * size, scene.y * size
    _cast_shadow(draw, scene, x, y, wide * scale, high * scale)
    squeeze = 1.0 if scene.front else 0.86 + 0.14 * scene.pose[1]
    pen = Pen(draw=draw, x=x, y=y, scale=scale, mirror=scene.left, squeeze=squeeze, tilt=scene.tilt)
    look = Look(
        colour=PAINT[scene.colour], variant=scene.variant, front=scene.front, pose=scene.pose
    )
    DRAW[scene.label](pen, look)
    small = np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float32)
    light = np.array(_LIGHT[scene.time], dtype=np.float32)
    grain = rng.normal(0, 2.0, small.shape[:2]).astype(np.float32)[..., None]
    frame: Frame = np.clip(small * light + grain, 0, 255).astype(np.uint8)
    return frame


def _cast_shadow(
    draw: ImageDraw.ImageDraw, scene: Scene, x: float, y: float, wide: float, high: float
) -> None:
    weak = 0.45 if scene.sky == "cloudy" else 1.0
    reach = _SHADOW[scene.time] * min(high, wide) * 0.5 * weak
    thick = max(0.05 * wide, 0.02 * high) + 3
    for grow, alpha in ((1.12, 46), (1.0, 60), (0.86, 60)):
        half = 0.5 * wide * grow
        box = (
            x - half + min(reach, 0), y - thick * grow,
            x + half + max(reach, 0), y + thick * grow * 0.8,
        )  # fmt: skip
        draw.ellipse(box, fill=(16, 18, 24, round(alpha * weak)))
