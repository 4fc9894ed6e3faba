"""Tars for the tests, with every member that a real one may hold."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable
from typing import Any

Member = tuple[str, bytes] | tarfile.TarInfo


def tar(*members: Member, compress: bool = False) -> bytes:
    """A tar of (name, content) pairs and of ready headers without content, in this order."""
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return gzip.compress(file.getvalue()) if compress else file.getvalue()


def header(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """The header of a link, folder or device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sidecar(key: str, **fields: Any) -> tuple[str, bytes]:
    """The member `<key>.json`."""
    return f"{key}.json", json.dumps(fields).encode()


def offset_of(data: bytes, name: str) -> int:
    """Where in the tar `data` the header of member `name` begins."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmember(name).offset


def images(names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Members whose content is their own name: reading does not decode."""
    return [(name, name.encode("utf-8", "surrogateescape")) for name in names]
