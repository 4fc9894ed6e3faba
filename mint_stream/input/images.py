"""From the bytes of an image file, as cameras and people really leave them, to RGB pixels.

Legend: H height, W width, 3 the colours red, green, blue.
"""

from __future__ import annotations

import functools
import io
import logging
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from mint_stream.input.mending import (
    JPEG_MAGIC,
    PNG_MAGIC,
    jpegs_with_an_end,
    png_of_pixels,
)

log = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
"""Largest image that is decoded, in pixels, unless another limit is given."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF")
"""Pillow's names of what is decoded; by content, whatever the name of the file says."""

_MOST_MISSING = 0.01
_FEW_PIXELS = 384
"""Of a JPEG may be missing at its end: a share, or a block and its edges."""
_NAMED = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM or AVIF"
_ORIENTATION = 0x0112
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = {_TURNS[orientation] for orientation in (5, 6, 7, 8)}


class ImageError(ValueError):
    """An image that cannot be decoded. The message says why, for a person."""


class TooManyPixels(ImageError):
    """An image that is not decoded because it is too large; smaller it would be."""


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, with the size of the stored one (after rotation, before reduction)."""

    rgb_HW3: npt.NDArray[np.uint8]
    width: int
    height: int


def decode(
    data: bytes, *, max_pixels: int = MAX_PIXELS, min_short_side: int | None = None
) -> DecodedImage:
    """Decode `data`, turned as its EXIF says, as uint8 RGB; thread safe.

    16-bit and floating-point values are scaled to 8 bits, CMYK and palettes converted, transparent
    pixels laid over white, unless all of them are (then the colours count, as in a BMP); of an
    animation or a stack of pages the first is taken. Damage to what is not pixels (a text or a
    checksum in a PNG), and a few pixels that are missing at a JPEG's end, are passed over. With
    `min_short_side` the pixels may come out smaller, by a whole factor and averaged, with a short
    side of at least that many pixels: much faster for large JPEGs.

    Raises `ImageError` for what is no image, is damaged, or has more than `max_pixels` (which is
    checked before any pixel is decoded).
    """
    if not data:
        raise ImageError("the image is empty (0 bytes)")
    try:
        return _decode(data, max_pixels, min_short_side)
    except ImageError:
        mended = _mended(data, max_pixels, min_short_side)
        if mended is None:
            raise
        return mended


def _mended(data: bytes, max_pixels: int, min_short_side: int | None) -> DecodedImage | None:
    """An image that cannot be decoded as it is, where its pixels are sound; else None."""
    try:
        if data.startswith(PNG_MAGIC):
            pixels = png_of_pixels(data)
            return _decode(pixels, max_pixels, min_short_side) if len(pixels) < len(data) else None
        ended = jpegs_with_an_end(data) if data.startswith(JPEG_MAGIC) else None
        if ended is None:
            return None
        image, other = (_decode(jpeg, max_pixels, min_short_side) for jpeg in ended)
    except ImageError:
        return None
    missing = float((image.rgb_HW3 != other.rgb_HW3).any(axis=2).mean())
    few = max(_MOST_MISSING, _FEW_PIXELS / (image.width * image.height))
    return image if missing <= few else None


def _decode(data: bytes, max_pixels: int, min_short_side: int | None) -> DecodedImage:
    try:
        with _open(data) as image:
            stored = image.size
            if stored[0] * stored[1] > max_pixels:
                raise TooManyPixels(_too_large(*stored, max_pixels))
            drafted = _draft(image, min_short_side)
            image.load()
            # Asked only now: Pillow turns TIFFs while it loads them, and then says so here.
            turn = _TURNS.get(_orientation(image))
            width, height = stored if drafted else image.size
            if turn in _SWAPPING:
                width, height = height, width
            upright = image if turn is None else image.transpose(turn)
            rgb = _reduce(_to_rgb(upright), min_short_side)
            return DecodedImage(np.array(rgb), width, height)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"the image is too large to decode: {error}") from error
    except MemoryError as error:
        raise ImageError("the image does not fit into memory") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise ImageError(_damage(error)) from error
    except Exception as error:
        # Pillow's parsers meet bytes from anywhere, and fail on some in ways that are not listed.
        raise ImageError(f"the image cannot be decoded: {type(error).__name__}: {error}") from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        shown = data[:8].hex(" ")
        raise ImageError(
            f"not an image in a supported format ({_NAMED}), or its header is damaged; "
            f"it begins with the bytes {shown}"
        ) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _too_large(width: int, height: int, max_pixels: int) -> str:
    return (
        f"the image has {width} x {height} = {width * height / 1e6:,.1f} million pixels; "
        f"the limit is {max_pixels / 1e6:,.1f} million"
    )


def _damage(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if "truncated" in text or isinstance(error, EOFError):
        return f"the image is truncated ({text})"
    return f"the image is damaged or of a kind that is not supported ({text})"


def _draft(image: Image.Image, min_short_side: int | None) -> bool:
    """Let the JPEG decoder itself scale down by 2, 4 or 8 where the short side allows it."""
    if min_short_side is None or image.format not in ("JPEG", "MPO"):
        return False
    for factor in (8, 4, 2):
        width, height = (side // factor for side in image.size)
        if min(width, height) >= min_short_side:
            return image.draft(None, (width, height)) is not None
    return False


def _orientation(image: Image.Image) -> object:
    """EXIF's number for how the camera was held; 1 (upright) where that part is broken."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error) as error:
        log.debug("broken EXIF data: %s", error)
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_to_8_bits(image)).convert("RGB")
    if image.has_transparency_data and image.format not in ("BMP", "DIB"):
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() == (0, 0):  # nobody's picture: a field left empty
            return rgba.convert("RGB")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Grey values of 16 or 32 bits as 8 bits: the format's whole range, where it has one.

    16 bits count from 0 to 65,535; so do 32 bits that stay within that. Floating-point values have
    no agreed white: it is the first of 1, 255 and 65,535 that none exceeds, else the largest value.
    """
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = min(0.0, float(values.min())), float(values.max())
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    white = next((white for white in whites if high <= white), high)
    return np.rint((values - low) * (255.0 / (white - low))).astype(np.uint8)


def _reduce(image: Image.Image, min_short_side: int | None) -> Image.Image:
    if min_short_side is None:
        return image
    factor = min(image.size) // min_short_side
    return image.reduce(factor) if factor > 1 else image
