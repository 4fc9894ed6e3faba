"""The ways in which `Store` reaches objects: a local disk, S3, HTTP, and any other fsspec system.

A backend makes one attempt for each call and raises whatever its filesystem raises; `Store` decides
what to try again. Names are relative to the backend's root, with `/` between their parts.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from mint_stream.store.address import (
    ANONYMOUS,
    HTTP,
    KEYLESS,
    Address,
    links,
    parse,
    without_caches,
)
from mint_stream.store.errors import StorageError
from mint_stream.store.http import HttpBackend
from mint_stream.store.s3 import S3Backend
from mint_stream.store.types import Backend, ObjectInfo, seconds


def open_backend(url: str, connect_timeout_s: float, read_timeout_s: float) -> Backend:
    """The backend for `url`. Raises `ValueError` or `ImportError` for an unknown protocol."""
    own = without_caches(url)
    address = parse(own)
    protocol = address.base.partition("://")[0]
    if not protocol:
        if own == url:
            return _LocalBackend(address.path)
    elif own == url and protocol in ("s3", "s3a"):
        return S3Backend(own, connect_timeout_s, read_timeout_s)
    elif own == url and protocol in HTTP:
        return HttpBackend(own, connect_timeout_s, read_timeout_s)
    asked = "::".join(_keyless(link) for link in links(url))
    options = {kind: options for link in links(url) for kind, options in _options(link).items()}
    filesystem, path = fsspec.core.url_to_fs(asked, **options)
    root = parse("::".join(_keyless(link) for link in links(own)))
    return _FsspecBackend(filesystem, path, root)


_DRIVERS = {
    **dict.fromkeys(("abfs", "abfss", "az"), "adlfs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **{"hf": "huggingface_hub", "github": "requests", "smb": "smbprotocol", "webdav": "webdav4"},
    **{"oci": "ocifs", "oss": "ossfs", "libarchive": "libarchive-c"},
}


def driver_missing(url: str, error: ImportError) -> str:
    """What to install for an address whose driver is not there."""
    packages = {_DRIVERS[word] for link in links(url) if (word := link.split(":")[0]) in _DRIVERS}
    if not packages:
        return str(error)
    return f"its driver is not installed: pip install {' '.join(sorted(packages))}, on every node"


def _keyless(link: str) -> str:
    return link.replace(f"://{ANONYMOUS}", "://", 1) if _options(link) else link


def _options(link: str) -> dict[str, dict[str, Any]]:
    """What a driver is told of a public bucket."""
    protocol, _, path = link.partition("://")
    if protocol not in KEYLESS or not path.startswith(ANONYMOUS):
        return {}
    return {protocol: {"anon": True} if protocol.startswith("s3") else {"token": "anon"}}


_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{16}\.part")


class _LocalBackend:
    """A folder. Objects appear at once and whole: written beside, synced, then linked or moved."""

    tail = ""

    def __init__(self, path: str) -> None:
        self._root = os.path.abspath(path)
        self.root_uri = self._root.rstrip("/")

    def look(self) -> None:
        os.listdir(self._root)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = os.path.join(self._root, os.path.dirname(prefix))
        seen: set[tuple[int, int]] = set()
        for base, folders, files in os.walk(folder, followlinks=True):
            status = os.stat(base)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            for file in files:
                name = os.path.relpath(os.path.join(base, file), self._root)
                if not name.startswith(prefix) or _UNFINISHED.fullmatch(file):
                    continue
                # Gone since the folder was read, or a dangling link.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.isfile(os.path.join(base, file)):
                        yield self.stat(name)

    def stat(self, name: str) -> ObjectInfo:
        path = self._path(name)
        status = os.stat(path)
        if os.path.isdir(path):
            raise FileNotFoundError(path)
        return ObjectInfo(name, status.st_size, None, status.st_mtime)

    def read(self, name: str) -> bytes:
        return Path(self._path(name)).read_bytes()

    def read_known(self, name: str) -> tuple[bytes, ObjectInfo]:
        with self.open(name) as file:
            data = file.read()
            return data, self.known(name, file)  # after reading: it may be written meanwhile

    def open(self, name: str) -> BinaryIO:
        return open(self._path(name), "rb", buffering=0)

    def known(self, name: str, file: BinaryIO) -> ObjectInfo:
        status = os.fstat(file.fileno())
        return ObjectInfo(name, status.st_size, None, status.st_mtime)

    def write(self, name: str, data: bytes) -> None:
        with self._beside(name, data) as temporary:
            os.replace(temporary, self._path(name))

    def create(self, name: str, data: bytes) -> None:
        with self._beside(name, data) as temporary:
            try:
                os.link(temporary, self._path(name))
            except FileExistsError:
                raise
            except OSError as error:
                raise StorageError(
                    f"cannot create {self._path(name)}: this disk has no hard links ({error}), "
                    "which an exclusive create needs; choose an output on another disk, or give "
                    "the store's own address (s3://...) instead of its mount"
                ) from error

    def delete(self, name: str) -> None:
        Path(self._path(name)).unlink(missing_ok=True)

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    @contextlib.contextmanager
    def _beside(self, name: str, data: bytes) -> Iterator[str]:
        """`data`, synced to disk, under a temporary name in the folder of `name`."""
        folder, base = os.path.split(self._path(name))
        try:
            os.makedirs(folder, exist_ok=True)
        except FileExistsError as error:  # not to be taken for a create that lost
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder) from error
        temporary = os.path.join(folder, f".{base}.{secrets.token_hex(8)}.part")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # the new name, too, survives a power cut
            finally:
                os.close(descriptor)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


_EXCLUSIVE = {"memory", "gs", "gcs", "abfs", "az", "abfss"}
"""GCS is told `ifGenerationMatch=0`, Azure `If-None-Match: *`."""
_VERSIONS = ("ETag", "etag", "blob_id", "sha", "CRC")
"""What drivers call that which changes with the content: S3 and Azure, GCS, the Hub, Git, zip."""


class _FsspecBackend:
    """Whatever else fsspec opens: every one can be read; written only where creates exclude."""

    _creating = (
        threading.Lock()
    )  # memory:// looks and then writes; one process, so a lock is enough

    def __init__(self, filesystem: AbstractFileSystem, path: str, address: Address) -> None:
        """`path` is what the filesystem calls the root, `address` what anybody else does."""
        self._fs = filesystem
        self._root = path if path.endswith("/") or not path else f"{path}/"
        known = filesystem.protocol
        names = (known,) if isinstance(known, str) else tuple(known)
        uri = address.at(address.path).removesuffix(address.tail)
        protocol, mark, rest = uri.partition("://")
        protocol = names[0] if protocol in names else protocol
        self.root_uri = f"{protocol}://{rest.strip('/')}" if mark else uri
        self.tail = address.tail

    def look(self) -> None:
        self._fs.invalidate_cache(self._root)
        self._fs.ls(self._root.rstrip("/") or self._root)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self._path(prefix.rpartition("/")[0]).rstrip("/")
        self._fs.invalidate_cache(folder)
        root = self._root.strip("/")
        for path, info in self._fs.find(folder, detail=True).items():
            name = path.lstrip("/")[len(root) :].lstrip("/")
            if name.startswith(prefix) and info.get("type") == "file":
                yield self._info(name, info)

    def stat(self, name: str) -> ObjectInfo:
        self._fs.invalidate_cache(self._path(name).rpartition("/")[0])
        info = self._fs.info(self._path(name))
        if info.get("type") == "directory":
            raise FileNotFoundError(name)
        return self._info(name, info)

    def read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(name)))

    def read_known(self, name: str) -> tuple[bytes, ObjectInfo]:
        return self.read(name), self.stat(name)

    def open(self, name: str) -> BinaryIO:
        if isinstance(self._fs, MemoryFileSystem):  # its files share one position
            return io.BytesIO(self.read(name))
        file: BinaryIO = self._fs.open(self._path(name), "rb")
        return file

    def known(self, name: str, file: BinaryIO) -> ObjectInfo:
        return self.stat(name)  # by name: not every filesystem's files keep to one version

    def write(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> None:
        if not self._creates_exclusively():
            raise StorageError(
                f"cannot create {self.root_uri}/{name}: {type(self._fs).__name__} has no exclusive "
                "create, so two runs could overwrite each other; choose an output on S3, Google "
                "Cloud Storage, Azure or a local disk"
            )
        with self._creating:
            self._fs.pipe_file(self._path(name), data, mode="create")

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _creates_exclusively(self) -> bool:
        """Whether `mode="create"` is the store's own condition: others look, and then write."""
        known = self._fs.protocol
        return not _EXCLUSIVE.isdisjoint({known} if isinstance(known, str) else known)

    def _path(self, name: str) -> str:
        return f"{self._root}{name}"

    def _info(self, name: str, info: dict[str, Any]) -> ObjectInfo:
        etag = next((str(info[field]).strip('"') for field in _VERSIONS if info.get(field)), None)
        return ObjectInfo(name, int(info.get("size") or 0), etag, seconds(info))
