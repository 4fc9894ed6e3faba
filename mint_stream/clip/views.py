"""Views of one image: the image itself and random resized crops with horizontal flips.

The crops are drawn from a generator seeded by (run seed, frame id): a frame has the same views on
any labeler, in any order, and on a retry. METHOD.md, "Symbols", V.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from mint_stream.clip.model import Preprocess

_LOG_ASPECT = math.log(4 / 3)
"""Crops have an aspect ratio between 3:4 and 4:3, uniform in its logarithm (torchvision)."""


_EXTREME = 16
"""Long side over short side beyond which an image is cropped before it is resized."""


def make_views(
    image_HW3: np.ndarray,
    preprocess: Preprocess,
    *,
    count: int,
    min_crop_area: float,
    seed: int,
    frame: str,
    device: torch.device | None = None,
) -> Tensor:
    """`count` normalised views of a decoded image; view 0 is the image itself.

    Args:
        image_HW3: uint8 RGB.
        min_crop_area: smallest share of the image's area that a crop may cover.
        seed, frame: the run's seed and the frame's id; together they fix every crop.
        device: where the views are made; the CPU if not given.

    Returns:
        (count, 3, size, size) float32 on `device`.
    """
    image_3HW = torch.from_numpy(image_HW3).permute(2, 0, 1).contiguous().to(device)
    size = preprocess.size
    views = [_centre(image_3HW, preprocess)]
    if count > 1:
        rng = np.random.default_rng(_seed(seed, frame))
        height, width = image_HW3.shape[:2]
        for _ in range(count - 1):
            top, left, h, w = _random_crop(rng, height, width, min_crop_area)
            view = tv.resized_crop(image_3HW, top, left, h, w, [size, size], antialias=True)
            views.append(view.flip(-1) if rng.random() < 0.5 else view)
    return normalise(torch.stack(views), preprocess)


def first_views(
    images: Sequence[np.ndarray], preprocess: Preprocess, *, device: torch.device | None = None
) -> Tensor:
    """View 0 of B decoded images (uint8 RGB (H, W, 3)), those of one shape made together.

    Bit for bit what `make_views` gives: (B, 3, size, size) float32 on `device`.
    """
    of_shape: dict[tuple[int, ...], list[int]] = {}
    for place, image_HW3 in enumerate(images):
        of_shape.setdefault(image_HW3.shape, []).append(place)
    size = preprocess.size
    views_B3HW = torch.empty(len(images), 3, size, size, device=device)
    for places in of_shape.values():
        images_BHW3 = torch.from_numpy(np.stack([images[place] for place in places]))
        centred_B3HW = _centre(images_BHW3.to(device).permute(0, 3, 1, 2), preprocess)
        views_B3HW[torch.tensor(places, device=device)] = normalise(centred_B3HW, preprocess)
    return views_B3HW


def normalise(images_B3HW: Tensor, preprocess: Preprocess) -> Tensor:
    """uint8 images as the encoder's input: (B, 3, H, W) float32."""
    mean = images_B3HW.new_tensor(preprocess.mean, dtype=torch.float32)[:, None, None]
    std = images_B3HW.new_tensor(preprocess.std, dtype=torch.float32)[:, None, None]
    return (images_B3HW.float() / 255 - mean) / std


def _seed(seed: int, frame: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{frame}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:16], "big")


def _centre(image_3HW: Tensor, preprocess: Preprocess) -> Tensor:
    """Short side resized, centre cropped: open_clip's preprocessing for inference.

    The image may be a batch of them, (B, 3, H, W).
    """
    size = preprocess.size
    height, width = image_3HW.shape[-2:]
    if height == width == size:
        return image_3HW
    mode = InterpolationMode(preprocess.interpolation)
    short = min(height, width)
    if max(height, width) > _EXTREME * short:
        # Else resizing 1 x 10,000 pixels would make an image of 224 x 2,240,000.
        keep = _EXTREME * short
        image_3HW = tv.center_crop(image_3HW, [min(height, keep), min(width, keep)])
    return tv.center_crop(tv.resize(image_3HW, [size], mode, antialias=True), [size, size])


def _random_crop(
    rng: np.random.Generator, height: int, width: int, min_area: float
) -> tuple[int, int, int, int]:
    """(top, left, height, width) of torchvision's RandomResizedCrop, from our own generator."""
    for _ in range(10):
        area = height * width * rng.uniform(min_area, 1.0)
        aspect = math.exp(rng.uniform(-_LOG_ASPECT, _LOG_ASPECT))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return top, left, h, w
    # An extreme shape: the largest central crop whose aspect ratio is allowed.
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    return (height - h) // 2, (width - w) // 2, h, w
