"""Image files for the tests, down to kinds that Pillow reads but does not write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

RED, GREEN, BLUE, YELLOW = (230, 20, 10), (20, 200, 40), (10, 30, 220), (240, 220, 20)


def quadrants(width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """Red top left, green top right, blue bottom left, yellow bottom right: shows any turn."""
    image_HW3 = np.zeros((height, width, 3), np.uint8)
    image_HW3[: height // 2, : width // 2] = RED
    image_HW3[: height // 2, width // 2 :] = GREEN
    image_HW3[height // 2 :, : width // 2] = BLUE
    image_HW3[height // 2 :, width // 2 :] = YELLOW
    return image_HW3


def corners(rgb_HW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The middle pixels of the quadrants: top left, top right, bottom left, bottom right."""
    height, width = rgb_HW3.shape[:2]
    rows, columns = (height // 4, height * 3 // 4), (width // 4, width * 3 // 4)
    return np.array([rgb_HW3[row, column] for row in rows for column in columns], np.int64)


def encode(image: npt.NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """`image` as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **options)
    return file.getvalue()


def jpeg(number: int = 0, width: int = 32, height: int = 24) -> bytes:
    """A small JPEG of one colour that depends on `number`."""
    colour = (number * 37 % 256, number * 91 % 256, number * 53 % 256)
    return encode(Image.new("RGB", (width, height), colour), "JPEG")


def with_orientation(image: npt.NDArray[np.uint8], kind: str, orientation: int) -> bytes:
    """`image` as a file whose EXIF says how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encode(image, kind, exif=exif.tobytes() if kind != "TIFF" else exif, **lossless)


def png(values: npt.NDArray[np.generic], *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG with 8 or 16 bits a channel of `values`, (H, W) or (H, W, 2 to 4 channels)."""
    values = np.atleast_3d(values)
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    bits = values.dtype.itemsize * 8
    rows = values.astype(f">u{bits // 8}").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def bmp32(rgb_HW3: npt.NDArray[np.uint8], alpha: int | npt.NDArray[np.uint8], masks: bool) -> bytes:
    """A BMP of 32 bits a pixel with `alpha` in the fourth byte, which `masks` call so."""
    height, width = rgb_HW3.shape[:2]
    alpha_HW = np.broadcast_to(np.asarray(alpha, np.uint8), (height, width))
    pixels = np.dstack([rgb_HW3[..., ::-1], alpha_HW])[::-1].tobytes()
    size = 108 if masks else 40
    facts = struct.pack(
        "<IiiHHIIiiII", size, width, height, 1, 32, 3 * masks, len(pixels), 0, 0, 0, 0
    )
    if masks:
        facts += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    start = 14 + size
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + facts + pixels


def png_that_claims(width: int, height: int) -> bytes:
    """A small PNG file whose header claims a huge image."""
    whole = bytearray(png(np.zeros((1, 1), np.uint8)))
    whole[16:24] = struct.pack(">II", width, height)
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    return bytes(whole)


def tiff(values: npt.NDArray[np.generic], photometric: int) -> bytes:
    """An uncompressed TIFF of `values` (H, W, channels), unsigned or floating-point."""
    values = np.atleast_3d(values)
    height, width, channels = values.shape
    bits = values.dtype.itemsize * 8
    sample_format = 3 if values.dtype.kind == "f" else 1
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    count = 10
    after = 8 + 2 + count * 12 + 4
    per_channel = struct.pack(f"<{channels}H", *[bits] * channels)
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, after if channels > 2 else bits),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
        (273, 4, 1, after + len(per_channel)),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
        (339, 3, 1, sample_format),
    ]
    head = b"II*\0" + struct.pack("<IH", 8, count)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return head + entries + struct.pack("<I", 0) + per_channel + data
