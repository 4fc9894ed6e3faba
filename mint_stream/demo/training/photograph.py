"""Takes training photographs of rendered frames: crop, tilt, flip, light, colour and focus.

The ranges stay within what cameras do on a clear day. Images whose settings the tower is told
(`towers.py`) come from about twice the range: there the settings say what the picture hides.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mint_stream.demo.training.captions import Shot

_BLUR_STEP_PX = 0.55
_LUMA = (0.30, 0.59, 0.11)


def sample_shots(
    rng: np.random.Generator, count: int, *, told: bool, strength: float = 1.0
) -> list[Shot]:
    """Draw how `count` frames are taken; `told` widens the ranges of light, colour and focus.

    `strength` (0 to 1) scales the crops and all that `told` adds, for a gentle start.
    """
    reach = 1.0 + 0.8 * strength if told else 1.0
    shots = []
    for _ in range(count):
        exposure, contrast, warmth, saturation = rng.uniform(-1, 1, 4)
        # Darker, flatter and greyer is where a clear day's camera errs; the far side stays at 1.
        shots.append(
            Shot(
                exposure=float(exposure if exposure > 0 else reach * exposure),
                contrast=float(contrast if contrast > 0 else reach * contrast),
                warmth=float(reach * warmth),
                saturation=float(
                    saturation if saturation > 0 else (0.5 + 0.5 * reach) * saturation
                ),
                focus=-float(int(rng.integers(0, 3 + round(2 * strength) if told else 3)) / 2),
                area=float(rng.uniform(0.85 - 0.35 * strength, 1.0)),
                tilt=float(rng.normal(0, 4.0)),
                flipped=bool(rng.random() < 0.5),
                readings=(float(rng.normal()), float(rng.normal()), float(rng.normal())),
            )
        )
    return shots


def settings(shots: list[Shot]) -> Tensor:
    """The five settings and the three readings of each shot: float32 (B, 8)."""
    rows = [
        (s.exposure, s.contrast, s.warmth, s.saturation, s.focus + 0.5, *s.readings) for s in shots
    ]
    return torch.tensor(rows, dtype=torch.float32)


def _crop_grid(
    shots: list[Shot], centres: NDArray[np.float32], size: int, rng: np.random.Generator
) -> Tensor:
    """Crops that keep the object's centre (x, y in -1..1) well inside."""
    thetas: NDArray[np.float32] = np.zeros((len(shots), 2, 3), dtype=np.float32)
    for row, (shot, centre) in enumerate(zip(shots, centres, strict=True)):
        stretch = math.exp(rng.uniform(-0.2, 0.2))
        side = math.sqrt(shot.area)
        halves = np.array([min(1.0, side * stretch), min(1.0, side / stretch)])
        low, high = (
            np.maximum(halves - 1, centre - 0.6 * halves),
            np.minimum(1 - halves, centre + 0.6 * halves),
        )
        shift = low + (high - low) * rng.random(2)
        cos, sin = math.cos(math.radians(shot.tilt)), math.sin(math.radians(shot.tilt))
        mirror = -1.0 if shot.flipped else 1.0
        thetas[row] = (
            (mirror * halves[0] * cos, -halves[1] * sin, shift[0]),
            (mirror * halves[0] * sin, halves[1] * cos, shift[1]),
        )
    return F.affine_grid(torch.from_numpy(thetas), [len(shots), 3, size, size], align_corners=False)


def _blur(images: Tensor, kernel: int, sigma_px: float) -> Tensor:
    """A Gaussian as two passes of one dimension, which torchvision's single pass is not."""
    weight = torch.exp(-0.5 * ((torch.arange(kernel) - kernel // 2) / sigma_px) ** 2)
    weight = (weight / weight.sum()).view(1, 1, 1, kernel)
    flat = images.flatten(0, 1)[:, None]
    half = kernel // 2
    flat = F.conv2d(F.pad(flat, (half, half, half, half), mode="reflect"), weight)
    return F.conv2d(flat, weight.transpose(2, 3)).view_as(images)


def _developed(images: Tensor, shots: list[Shot]) -> Tensor:
    """Saturation, contrast, white balance and exposure: one affine map of colours an image."""
    exposure, contrast, warmth, saturation = settings(shots)[:, :4].unbind(1)
    luma = torch.tensor(_LUMA).expand(3, 3)
    keep = (1 + 0.62 * saturation).clamp(min=0.0)[:, None, None]
    colour_B33 = luma + (torch.eye(3) - luma) * keep
    pixels = images.flatten(2)
    mean_B = pixels.mean(-1) @ torch.tensor(_LUMA)
    gain_B = torch.exp(0.4 * contrast)
    tint = torch.stack([0.12 * warmth, 0.02 * warmth, -0.12 * warmth], dim=1)
    light_B3 = torch.exp2(0.75 * exposure)[:, None] * torch.exp(tint)
    colour_B33 = colour_B33 * (light_B3 * gain_B[:, None])[..., None]
    offset_B3 = light_B3 * (mean_B * (1 - gain_B))[:, None]
    return torch.baddbmm(offset_B3[..., None], colour_B33, pixels).clamp_(0, 1).view_as(images)


def take(
    frames: NDArray[np.uint8],
    centres: NDArray[np.float32],
    shots: list[Shot],
    size: int,
    rng: np.random.Generator,
) -> Tensor:
    """Photograph frames (B, H, W, 3) uint8 whose objects are at `centres` (B, 2), x and y in -1..1.

    Returns float32 (B, 3, size, size) in 0..1, not normalised.
    """
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(255)
    grid = _crop_grid(shots, centres, size, rng)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    levels = torch.tensor([round(-2 * shot.focus) for shot in shots])
    for level in range(1, 5):
        chosen = levels == level
        if chosen.any():
            kernel = 2 * math.ceil(2 * level * _BLUR_STEP_PX) + 1
            images[chosen] = _blur(images[chosen], kernel, level * _BLUR_STEP_PX)
    return _developed(images, shots)
