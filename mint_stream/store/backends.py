"""The three ways in which `Store` reaches objects: the local disk, S3, and any other fsspec system.

A backend makes one attempt for each call and raises whatever its filesystem raises; `Store` decides
what to try again. Names are relative to the backend's root, with `/` between their parts.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import io
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from mint_stream.store.errors import StorageError
from mint_stream.store.s3 import S3Backend
from mint_stream.store.types import Backend, ObjectInfo, seconds


def open_backend(url: str, connect_timeout_s: float, read_timeout_s: float) -> Backend:
    """The backend for `url`. Raises `ValueError` or `ImportError` for an unknown protocol."""
    protocol = fsspec.core.split_protocol(url)[0]
    if protocol in ("s3", "s3a"):
        return S3Backend(url, connect_timeout_s, read_timeout_s)
    filesystem, path = fsspec.core.url_to_fs(url)
    if isinstance(filesystem, LocalFileSystem):
        return _LocalBackend(path)
    return _FsspecBackend(filesystem, path)


_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{16}\.part")


class _LocalBackend:
    """A folder. Objects appear at once and whole: written beside, synced, then linked or moved."""

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


class _FsspecBackend:
    """Whatever else fsspec opens: every one can be read; written only where creates exclude."""

    _creating = (
        threading.Lock()
    )  # memory:// looks and then writes; one process, so a lock is enough

    def __init__(self, filesystem: AbstractFileSystem, path: str) -> None:
        self._fs = filesystem
        self._root = path.rstrip("/")
        protocol = filesystem.protocol
        protocol = protocol if isinstance(protocol, str) else protocol[0]
        self.root_uri = f"{protocol}://{self._root.lstrip('/')}"

    def look(self) -> None:
        self._fs.invalidate_cache(self._root)
        self._fs.ls(self._root)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = "/".join([self._root, *prefix.split("/")[:-1]])
        self._fs.invalidate_cache(folder)
        for path, info in self._fs.find(folder, detail=True).items():
            name = path[len(self._root) :].lstrip("/")
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
        """Whether `mode="create"` is the filesystem's own: fsspec's default looks, then writes."""
        kind = type(self._fs)
        own = kind._pipe_file if isinstance(self._fs, AsyncFileSystem) else kind.pipe_file
        return (
            own not in (AbstractFileSystem.pipe_file, getattr(AsyncFileSystem, "_pipe_file", None))
            and "mode" in inspect.signature(own).parameters
        )

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _info(self, name: str, info: dict[str, Any]) -> ObjectInfo:
        etag = str(info.get("ETag") or info.get("etag") or "").strip('"') or None
        return ObjectInfo(name, int(info.get("size") or 0), etag, seconds(info))
