"""What happens to a street camera's picture between one clear day and the next.

Each condition is a function `(frame, severity, rng) -> frame` on uint8 (H, W, 3) RGB frames;
`severity` runs from 0 (hardly any effect) to 1 (as bad as it gets), `rng` places noise, drops and
flakes. Light is scaled in linear intensity, not in the encoded values, as a sensor sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mint_stream.demo.street.scene import Frame

Condition = Callable[[Frame, float, np.random.Generator], Frame]
_Light = NDArray[np.float32]
_GAMMA = 2.2
_LUMA = np.array([0.30, 0.59, 0.11], dtype=np.float32)


def _linear(frame: Frame) -> _Light:
    light: _Light = np.power(frame.astype(np.float32) / 255.0, _GAMMA)
    return light


def _encode(light: NDArray[Any]) -> Frame:
    encoded = np.power(np.clip(light, 0.0, 1.0), 1.0 / _GAMMA)
    frame: Frame = (encoded * 255.0 + 0.5).astype(np.uint8)
    return frame


def _blurred(frame: Frame, radius: float) -> Frame:
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius)))


def _grid(frame: Frame) -> tuple[_Light, _Light]:
    """Columns and rows of the pixels as shares of the frame, 0 to 1."""
    height, width = frame.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return columns / width, rows / height


def _sensor_noise(light: _Light, photons: float, read: float, rng: np.random.Generator) -> _Light:
    """Shot noise of `photons` at full scale plus `read` noise (full scale = 1), in linear light."""
    spread = np.sqrt(np.clip(light, 0, None) / photons + read**2)
    noisy: _Light = light + rng.standard_normal(light.shape).astype(np.float32) * spread
    return noisy


def day(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Clear day: the frame as it is, with the exposure's small changes (up to 6 %)."""
    return _encode(_linear(frame) * (1.0 + 0.06 * severity * float(rng.uniform(-1, 1))))


def dusk(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Dusk: little light from a low red sky, blue shadows below, and some sensor noise."""
    _, rows = _grid(frame)
    light = _linear(frame)
    glow = np.exp(-(((rows - 0.36) / 0.22) ** 2))[..., None]
    warm = np.array([1.5, 0.62, 0.4], dtype=np.float32)
    cold = np.array([0.5, 0.55, 0.98], dtype=np.float32)
    tint = 1 + severity * (cold + (warm - cold) * glow - 1)
    light = light * tint * (1 - 0.84 * severity)
    return _encode(_sensor_noise(light, 2500.0, 0.004 * severity, rng))


def night(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Night: a sodium lamp's pool of light, darkness around it, gain and much sensor noise."""
    columns, rows = _grid(frame)
    x, y = float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.4, 0.75))
    pool = np.exp(-(((columns - x) / 0.34) ** 2) - ((rows - y) / 0.4) ** 2)[..., None]
    sky = np.clip((0.5 - rows) / 0.5, 0, 1)[..., None]
    sodium = np.array([1.0, 0.72, 0.34], dtype=np.float32)
    moon = np.array([0.34, 0.42, 0.62], dtype=np.float32)
    lamp = 0.30 * pool * sodium + 0.035 * moon * (1 - 0.8 * sky)
    share = min(1.0, 1.6 * severity)
    light = _linear(frame) * ((1 - share) + share * lamp)
    light = _sensor_noise(light, 1800.0 - 1500.0 * severity, 0.012 * severity, rng)
    return _encode(np.clip(light, 0, None) * (1 + 0.8 * severity))


def fog(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Fog: contrast falls with distance (higher in the picture is farther) towards airlight."""
    _, rows = _grid(frame)
    distance = 0.35 + 0.65 * np.clip((0.98 - rows) / 0.55, 0, 1)
    through = np.exp(-2.4 * severity * distance)[..., None]
    air = np.array([0.62, 0.64, 0.66], dtype=np.float32) * float(rng.uniform(0.92, 1.08))
    light = _linear(_blurred(frame, 1.1 * severity)) * through + air * (1 - through)
    return _encode(_sensor_noise(light, 4000.0, 0.002, rng))


def _streaks(
    frame: Frame, rng: np.random.Generator, *, count: int, length: float, slant: float
) -> _Light:
    height, width = frame.shape[:2]
    mask = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(mask)
    for _ in range(count):
        x, y = rng.uniform(-0.2, 1.1) * 2 * width, rng.uniform(-0.3, 1.0) * 2 * height
        run = length * float(rng.uniform(0.6, 1.4)) * 2 * height
        tone = int(rng.integers(70, 190))
        draw.line([(x, y), (x + slant * run, y + run)], fill=tone, width=2)
    return np.asarray(mask.reduce(2), dtype=np.float32)[..., None] / 255.0


def rain(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Rain: a shaking camera's motion blur, streaks, drops on the lens, flat grey light."""
    width = frame.shape[1]
    reach = max(1, round(0.13 * severity * width))
    light = _linear(frame)
    slope = float(rng.uniform(-0.3, 0.3))
    shaken = np.zeros_like(light)
    for k in range(reach):
        offset = k - reach // 2
        shaken += np.roll(light, (round(slope * offset), offset), axis=(0, 1))
    light = shaken / reach
    grey = light @ _LUMA
    light = light + (grey[..., None] - light) * 0.6 * severity
    light = light * (1 - 0.45 * severity) + 0.07 * severity
    streaks = _streaks(
        frame, rng, count=round(130 * severity), length=0.16, slant=float(rng.uniform(-0.25, 0.25))
    )
    light = light + (0.62 - light) * streaks * 0.55
    wet = _encode(light)
    smeared = _blurred(wet, 4.0)
    drops = Image.new("L", (width, frame.shape[0]))
    draw = ImageDraw.Draw(drops)
    for _ in range(round(9 * severity)):
        x, y = rng.uniform(0, 1, 2) * width
        r = float(rng.uniform(0.02, 0.06)) * width
        draw.ellipse((x - r, y - r, x + r, y + 1.2 * r), fill=230)
    mask = (
        np.asarray(drops.filter(ImageFilter.GaussianBlur(1.2)), dtype=np.float32)[..., None] / 255
    )
    frame = (wet * (1 - mask) + np.clip(smeared * 1.12, 0, 255) * mask + 0.5).astype(np.uint8)
    return frame


def snow(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Snow: white ground and a white sky with glare, and flakes near and far."""
    columns, rows = _grid(frame)
    height, width = frame.shape[:2]
    light = _linear(frame)
    grey = (light @ _LUMA)[..., None]
    # Snow lies where it is flat, thicker towards the bottom, and hides the road's darkness.
    cover = severity * 0.62 * np.clip((rows - 0.45) / 0.35, 0, 1)[..., None]
    light = light + (grey - light) * 0.55 * severity
    light = light * (1 - cover) + cover * 0.82
    glare = np.exp(-(((columns - float(rng.uniform(0.2, 0.8))) / 0.5) ** 2) - (rows / 0.6) ** 2)
    light = light * (1 - 0.3 * severity) + severity * (0.2 + 0.3 * glare[..., None])
    flakes = Image.new("L", (2 * width, 2 * height))
    draw = ImageDraw.Draw(flakes)
    for _ in range(round(260 * severity)):
        x, y = rng.uniform(0, 1, 2) * 2 * width
        near = float(rng.random()) ** 5
        r = 0.7 + 1.6 * float(rng.random()) + 9.0 * near
        draw.ellipse((x - r, y - r, x + r, y + 1.5 * r), fill=round(235 - 120 * near))
    soft = flakes.filter(ImageFilter.GaussianBlur(1.0)).reduce(2)
    mask = np.asarray(soft, dtype=np.float32)[..., None] / 255.0
    return _encode(light + (0.95 - light) * mask)


def infrared(frame: Frame, severity: float, rng: np.random.Generator) -> Frame:
    """Infrared: one channel, bright leaves, dark sky, a lamp's hot spot, bloom and noise."""
    columns, rows = _grid(frame)
    red, green, blue = np.moveaxis(_linear(frame), -1, 0)
    leaves = np.clip(green - np.maximum(red, blue), 0, None)
    # Leaves shine, blue (the sky, some paint) is dark, and what colour told apart looks alike.
    heat = 0.55 * red + 0.35 * green + 0.1 * blue + 2.5 * leaves + 0.03
    heat = heat + severity * 0.75 * (0.42 - heat)
    spot = np.exp(-(((columns - 0.5) / 0.42) ** 2) - ((rows - 0.58) / 0.42) ** 2)
    heat = np.clip(heat, 0, None) * (1 + severity * (1.5 * spot - 0.75))
    heat = (
        heat
        + (_linear(_blurred(_encode(np.repeat(heat[..., None], 3, -1)), 5.0))[..., 0] - heat)
        * 0.4
        * severity
    )
    heat = _sensor_noise(heat.astype(np.float32), 4000.0 - 3500.0 * severity, 0.02 * severity, rng)
    picture = _linear(frame) * (1 - min(1.0, 4 * severity))
    return _encode(picture + np.repeat(heat[..., None], 3, -1) * min(1.0, 4 * severity))


CONDITIONS: dict[str, Condition] = {
    "day": day,
    "dusk": dusk,
    "night": night,
    "fog": fog,
    "rain": rain,
    "snow": snow,
    "infrared": infrared,
}


def apply(condition: str, frame: Frame, *, severity: float, rng: np.random.Generator) -> Frame:
    """Put a clear-day frame through a condition: uint8 (H, W, 3) in and out.

    Raises ValueError for a condition that is not in `CONDITIONS` or a severity outside 0..1.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"condition {condition!r} is not one of {', '.join(CONDITIONS)}")
    if not 0.0 <= severity <= 1.0:
        raise ValueError(f"severity {severity} is not between 0 and 1")
    return CONDITIONS[condition](frame, severity, rng)
