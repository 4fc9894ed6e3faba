"""Writes shards in WebDataset form, the same bytes for the same frames."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Item = tuple[str, NDArray[np.uint8], Mapping[str, Any]]
"""Key, picture (H, W, 3) RGB, and what its sidecar says."""


def write_shard(path: Path, items: Iterable[Item], *, mtime_s: int = 0) -> None:
    """A tar with `<key>.png` and `<key>.json` for each item. `mtime_s` stands in its headers."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for key, picture_HW3, sidecar in items:
            for name, data in (
                (f"{key}.png", _png(picture_HW3)),
                (f"{key}.json", json.dumps(sidecar).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.mode = len(data), mtime_s, 0o644
                archive.addfile(member, io.BytesIO(data))


def _png(picture_HW3: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture_HW3).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
