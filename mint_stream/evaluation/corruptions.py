"""What weather, light, lenses, sensors and transmission do to a picture, at severity 0 to 5.

After ImageNet-C (Hendrycks and Dietterich 2019), with its constants for severities 1 to 5 where
they have no unit; its lengths are for pictures of 224 pixels and scale with the short side. Between
two severities the constants are interpolated, so that a corruption can set in gradually; at 0 a
picture stays as it is. `low_light` and `infrared` are not in ImageNet-C.

Pictures are uint8 (H, W, 3) RGB in and out; in between x_HW3 is float in [0, 1].
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Light = NDArray[np.float64]
Corruption = Callable[[Light, float, np.random.Generator], Light]

_SIDE = 224
_LUMA = np.array([0.299, 0.587, 0.114])


def corrupt(name: str, picture: Picture, severity: float, rng: np.random.Generator) -> Picture:
    """Put a picture through the corruption `name`; `clear` leaves it as it is.

    Raises ValueError for a name that is not in `CORRUPTIONS` or a severity outside 0 to 5.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"corruption {name!r} is not one of {', '.join(CORRUPTIONS)}")
    if not 0 <= severity <= 5:
        raise ValueError(f"severity {severity} is not between 0 and 5")
    if severity == 0 or name == "clear":
        return picture
    x_HW3 = CORRUPTIONS[name](picture / 255.0, severity, rng)
    return _encode(x_HW3)


def noise_like(picture: Picture, rng: np.random.Generator) -> Picture:
    """What a camera without a signal sends: every value at random."""
    return rng.integers(0, 256, picture.shape, dtype=np.uint8)


def clear(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """The picture as it is."""
    return x_HW3


def brightness(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Overexposed: the value of HSV raised."""
    value_HW1 = x_HW3.max(-1, keepdims=True)
    raised_HW1 = np.minimum(value_HW1 + _at(severity, 0, 0.1, 0.2, 0.3, 0.4, 0.5), 1)
    # Hue and saturation stay when all three colours grow by the same factor; black becomes grey.
    return np.where(value_HW1 > 0, x_HW3 * raised_HW1 / np.maximum(value_HW1, 1e-9), raised_HW1)


def contrast(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Low contrast: drawn towards the mean colour."""
    mean_3 = x_HW3.mean((0, 1))
    return mean_3 + (x_HW3 - mean_3) * _at(severity, 1, 0.4, 0.3, 0.2, 0.1, 0.05)


def low_light(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Night without a lamp: a share of the linear light, and the sensor's shot and read noise."""
    light_HW3 = x_HW3**2.2 * _at(severity, 1, 0.4, 0.22, 0.12, 0.06, 0.03)
    spread_HW3 = np.sqrt(light_HW3 / _at(severity, 1e5, 3000, 2000, 1500, 1200, 1000))
    noisy_HW3 = light_HW3 + spread_HW3 * rng.standard_normal(x_HW3.shape)
    noisy_HW3 += 0.0006 * severity * rng.standard_normal(x_HW3.shape)
    lit_HW3: Light = np.clip(noisy_HW3, 0, 1) ** (1 / 2.2)
    return lit_HW3


def infrared(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Grey as by an infrared lamp: mostly the red, lifted, with the picture's edges in the dark."""
    height, width = x_HW3.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    off = np.hypot(rows / max(1, height - 1) - 0.5, columns / max(1, width - 1) - 0.5)
    grey_HW1 = (x_HW3 @ np.array([0.7, 0.25, 0.05]))[..., None] ** 0.8
    grey_HW1 = grey_HW1 * np.clip(1.15 - 0.9 * off, 0, 1)[..., None]
    return x_HW3 + (grey_HW1 - x_HW3) * _at(severity, 0, 0.4, 0.7, 1, 1, 1) * np.ones(3)


def fog(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Fog of uneven density: a plasma fractal laid over the picture."""
    height, width = x_HW3.shape[:2]
    thick = _at(severity, 0, 1.5, 2.0, 2.5, 2.5, 3.0)
    plasma = _plasma(max(height, width), _at(severity, 2, 2, 2, 1.7, 1.5, 1.4), rng)
    top = x_HW3.max()
    return (x_HW3 + thick * plasma[:height, :width, None]) * top / (top + thick)


def snow(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Snow: white light, and flakes near and far that the wind draws out."""
    height, width = x_HW3.shape[:2]
    # On a small picture flakes are smaller than a pixel: made larger, and reduced.
    fine = max(1, _SIDE // min(height, width))
    scale = fine * min(height, width) / _SIDE
    flake = max(1, round(3 * scale))
    shape = (-(-height * fine // flake), -(-width * fine // flake))
    flakes = rng.normal(_at(severity, 0, 0.1, 0.2, 0.55, 0.55, 0.55), 0.3, shape)
    flakes = flakes.repeat(flake, 0).repeat(flake, 1)[: height * fine, : width * fine]
    flakes[flakes < _at(severity, 1.5, 0.5, 0.5, 0.9, 0.85, 0.85)] = 0
    radius = _at(severity, 10, 10, 12, 12, 12, 12) * scale
    sigma = _at(severity, 4, 4, 4, 8, 8, 12) * scale
    kernel = _line(radius, sigma, rng.uniform(-135, -45))
    flakes_HW1 = _convolved(np.clip(flakes, 0, 1)[..., None], kernel)
    flakes_HW1 = flakes_HW1.reshape(height, fine, width, fine, 1).mean((1, 3))
    kept = _at(severity, 1, 0.8, 0.7, 0.7, 0.65, 0.55)
    white_HW1 = (x_HW3 @ _LUMA)[..., None] * 1.5 + 0.5
    x_HW3 = kept * x_HW3 + (1 - kept) * np.maximum(x_HW3, white_HW1)
    return x_HW3 + flakes_HW1 + flakes_HW1[::-1, ::-1]


def motion_blur(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """A camera that shakes: drawn out along a line of random direction."""
    scale = min(x_HW3.shape[:2]) / _SIDE
    radius = _at(severity, 0, 10, 15, 15, 15, 20) * scale
    sigma = _at(severity, 1, 3, 5, 8, 12, 15) * scale
    return _convolved(x_HW3, _line(radius, sigma, rng.uniform(-45, 45)))


def defocus(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """A lens out of focus: every point becomes a disk."""
    radius = _at(severity, 0, 3, 4, 6, 8, 10) * min(x_HW3.shape[:2]) / _SIDE
    reach = math.ceil(radius + 0.5)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # A pixel at the edge counts by how much of it the disk covers, nearly.
    disk = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    return _convolved(x_HW3, disk)


def gaussian_noise(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Sensor noise that does not depend on the light."""
    spread = _at(severity, 0, 0.08, 0.12, 0.18, 0.26, 0.38)
    return x_HW3 + spread * rng.standard_normal(x_HW3.shape)


def shot_noise(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Too few photons: Poisson noise."""
    # The spread grows as one over the root of the photons: that is what is interpolated.
    photons = _at(severity, 0, *(n**-0.5 for n in (60, 25, 12, 5, 3))) ** -2.0
    return rng.poisson(x_HW3 * photons) / photons


def jpeg(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """A link that is too slow: JPEG of low quality."""
    buffer = io.BytesIO()
    quality = round(_at(severity, 80, 25, 18, 15, 10, 7))
    Image.fromarray(_encode(x_HW3)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image) / 255.0


def pixelate(x_HW3: Light, severity: float, rng: np.random.Generator) -> Light:
    """Too few pixels, shown larger."""
    height, width = x_HW3.shape[:2]
    share = _at(severity, 1, 0.6, 0.5, 0.4, 0.3, 0.25)
    small = (max(1, round(width * share)), max(1, round(height * share)))
    image = Image.fromarray(_encode(x_HW3)).resize(small, Image.Resampling.BOX)
    return np.asarray(image.resize((width, height), Image.Resampling.NEAREST)) / 255.0


CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        clear,
        brightness,
        contrast,
        low_light,
        infrared,
        fog,
        snow,
        motion_blur,
        defocus,
        gaussian_noise,
        shot_noise,
        jpeg,
        pixelate,
    )
}


def _at(severity: float, *constants: float) -> float:
    """The constant for a severity, from those for 0 to 5."""
    return float(np.interp(severity, range(6), constants))


def _encode(x_HW3: NDArray[Any]) -> Picture:
    return np.rint(np.clip(x_HW3, 0, 1) * 255).astype(np.uint8)


def _line(radius: float, sigma: float, degrees: float) -> NDArray[np.float64]:
    """A kernel of half a Gaussian along a line, `radius` pixels long from the centre."""
    reach = math.ceil(radius) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.arange(0, radius + 1e-9, 0.25)
    for step, weight in zip(steps, np.exp(-0.5 * (steps / max(sigma, 1e-6)) ** 2), strict=True):
        row = reach + step * math.sin(math.radians(degrees))
        column = reach + step * math.cos(math.radians(degrees))
        top, left = int(row), int(column)
        down, right = row - top, column - left
        kernel[top, left] += weight * (1 - down) * (1 - right)
        kernel[top, left + 1] += weight * (1 - down) * right
        kernel[top + 1, left] += weight * down * (1 - right)
        kernel[top + 1, left + 1] += weight * down * right
    return kernel


def _convolved(x_HWC: Light, kernel: NDArray[np.float64]) -> Light:
    """Correlated with the kernel's shares, edges repeated. Sums in a fixed order: bit for bit."""
    reach = len(kernel) // 2
    height, width = x_HWC.shape[:2]
    padded = np.pad(x_HWC, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    found = np.zeros_like(x_HWC)
    for row, column in np.argwhere(kernel):
        found += kernel[row, column] * padded[row : row + height, column : column + width]
    return found / kernel.sum()


def _plasma(side: int, decay: float, rng: np.random.Generator) -> Light:
    """Diamond-square fractal on a torus in [0, 1], of at least `side` pixels a side.

    For a small picture it is made at 256 pixels and reduced: the banks of fog are as smooth there.
    """
    wanted = 2 ** max(1, math.ceil(math.log2(side)))
    size = max(256, wanted)
    grid = np.zeros((size, size))
    step, wobble = size, 1.0
    while step >= 2:
        half = step // 2
        corners = grid[::step, ::step]
        sums = corners + np.roll(corners, -1, 0)
        sums = sums + np.roll(sums, -1, 1)
        grid[half::step, half::step] = sums / 4 + wobble * rng.uniform(-1, 1, sums.shape)
        centres = grid[half::step, half::step]
        across = corners + np.roll(corners, -1, 1) + centres + np.roll(centres, 1, 0)
        grid[::step, half::step] = across / 4 + wobble * rng.uniform(-1, 1, across.shape)
        down = corners + np.roll(corners, -1, 0) + centres + np.roll(centres, 1, 1)
        grid[half::step, ::step] = down / 4 + wobble * rng.uniform(-1, 1, down.shape)
        step, wobble = half, wobble / decay
    parts = size // wanted
    grid = grid.reshape(wanted, parts, wanted, parts).mean((1, 3))
    grid -= grid.min()
    return grid / max(float(grid.max()), 1e-9)
