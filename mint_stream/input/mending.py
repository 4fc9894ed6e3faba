"""Images with sound pixels and damage beside them: what to decode in their place."""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Iterator

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"

_PNG_NEEDED = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_PNG_WANTED = {b"tRNS", b"eXIf"}
_JPEG_END = b"\xff\xd9"
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_NOISE = random.Random(0).randbytes(4096).replace(b"\xff", b"\x7f")


def png_of_pixels(data: bytes) -> bytes:
    """A PNG without the chunks that its pixels do not need: long texts, profiles, animations.

    Of what is wanted besides (transparency, EXIF) what has the right checksum is kept.
    """
    kept = [PNG_MAGIC]
    at = len(PNG_MAGIC)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if kind in _PNG_NEEDED or (kind in _PNG_WANTED and _is_sound(data[at:end])):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _is_sound(chunk: bytes) -> bool:
    return struct.pack(">I", zlib.crc32(chunk[4:-4])) == chunk[-4:]


def jpegs_with_an_end(data: bytes) -> tuple[bytes, bytes] | None:
    """A JPEG that was cut short, ended in two ways: at once, and after noise in place of the rest.

    Pixels that come out alike do not depend on what is missing. None where whole scans are missing:
    then all pixels would be alike, and none as sharp as it was.
    """
    if not _has_all_scans(data):
        return None
    data = data.rstrip(b"\xff")  # half a marker, which would make one of what follows
    return data + _JPEG_END, data + _NOISE + _JPEG_END


def _has_all_scans(data: bytes) -> bool:
    """Whether every coefficient of every component is in some scan to its last bit."""
    missing: dict[int, set[int]] = {}
    for marker, content in _segments(data):
        if marker in _JPEG_FRAMES and len(content) > 5:
            parts = content[6 : 6 + 3 * content[5] : 3]
            missing = {part: set(range(64)) for part in parts}
        elif marker == _JPEG_SCAN and content and len(content) >= 4 + 2 * content[0]:
            first, last, bits = content[1 + 2 * content[0] :][:3]
            if bits & 0x0F == 0:
                for part in content[1 : 1 + 2 * content[0] : 2]:
                    missing.get(part, set()).difference_update(range(first, last + 1))
    return bool(missing) and not any(missing.values())


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers with what they hold; the compressed data behind a scan's is passed over."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8:  # fillers and markers that hold nothing
            at += 1 if marker == 0xFF else 2
            continue
        size = int.from_bytes(data[at + 2 : at + 4])
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + max(size, 2)
        if marker == _JPEG_SCAN:
            found = _AFTER_SCAN.search(data, at)
            if found is None:
                return
            at = found.end() - 2
