"""The three ways in which `Store` reaches objects: the local disk, S3, and any other fsspec system.

A backend makes one attempt for each call and raises whatever its filesystem raises; `Store` decides
what to try again. Names are relative to the backend's root, with `/` between their parts.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import inspect
import io
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from mint_stream.storage_errors import StorageError


@dataclass(frozen=True)
class ObjectInfo:
    """One object as its store lists it: `name` below the root, `size` in bytes, `mtime` in s."""

    name: str
    size: int
    etag: str | None
    mtime: float | None


class Backend(Protocol):
    """One attempt at each operation; names are relative to `root_uri`."""

    root_uri: str

    def look(self) -> None:
        """Make one small request that fails where the root cannot be listed."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose name begins with `prefix`, in any order, never from a cache."""

    def stat(self, name: str) -> ObjectInfo:
        """What is known about an object. Raises `FileNotFoundError` where there is none."""

    def read(self, name: str) -> bytes:
        """A whole object."""

    def open(self, name: str) -> BinaryIO:
        """An object as a seekable stream without a buffer."""

    def write(self, name: str, data: bytes) -> None:
        """Write an object as a whole, in place of what was there."""

    def create(self, name: str, data: bytes) -> None:
        """Write an object as a whole where there is none; else fail and change nothing."""

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""


def open_backend(url: str, connect_timeout_s: float, read_timeout_s: float) -> Backend:
    """The backend for `url`. Raises `ValueError` or `ImportError` for an unknown protocol."""
    protocol = fsspec.core.split_protocol(url)[0]
    if protocol in ("s3", "s3a"):
        return _S3Backend(url, connect_timeout_s, read_timeout_s)
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

    def open(self, name: str) -> BinaryIO:
        return open(self._path(name), "rb", buffering=0)

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


class _S3Backend:
    """A prefix of a bucket, through s3fs with its caches and its own retries turned off.

    Credentials, endpoint and region come from the environment or the profile of the process that
    makes the call; none is held here.
    """

    part_bytes = 50 * 2**20
    """Objects of twice this size and more are written in parts of it."""

    def __init__(self, url: str, connect_timeout_s: float, read_timeout_s: float) -> None:
        settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
        digest = hashlib.sha256(repr(settings).encode()).hexdigest()
        self._fs: Any = _s3_filesystem(os.getpid(), digest, connect_timeout_s, read_timeout_s)
        path = url.split("://", 1)[1].strip("/")
        self._bucket, _, key = path.partition("/")
        self._prefix = f"{key}/" if key else ""
        self.root_uri = f"s3://{path}"

    def look(self) -> None:
        next(self._pages(self._prefix, MaxKeys=1))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for page in self._pages(self._prefix + prefix):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # a folder's marker
                    yield self._info(item["Key"], item["Size"], item)

    def _pages(self, key_prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
        """Pages of a fresh listing of the keys that begin with `key_prefix`."""
        request = {"Bucket": self._bucket, "Prefix": key_prefix, **more}
        while True:
            page = self._fs.call_s3("list_objects_v2", **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def stat(self, name: str) -> ObjectInfo:
        head = self._fs.call_s3("head_object", Bucket=self._bucket, Key=self._prefix + name)
        return self._info(self._prefix + name, head["ContentLength"], head)

    def read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        file: BinaryIO = self._fs.open(self._path(name), "rb", cache_type="none")
        return file

    def write(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data, chunksize=self.part_bytes)

    def create(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data, chunksize=self.part_bytes, mode="create")

    def delete(self, name: str) -> None:
        self._fs.call_s3("delete_object", Bucket=self._bucket, Key=self._prefix + name)

    def _path(self, name: str) -> str:
        return f"{self._bucket}/{self._prefix}{name}"

    def _info(self, key: str, size: int, answer: dict[str, Any]) -> ObjectInfo:
        etag = (answer.get("ETag") or "").strip('"') or None
        return ObjectInfo(key[len(self._prefix) :], int(size), etag, _seconds(answer))


@functools.lru_cache(maxsize=8)
def _s3_filesystem(
    process: int, environment: str, connect_timeout_s: float, read_timeout_s: float
) -> Any:
    """One client for all stores of a process with the same `environment` (a digest of it).

    To set one up takes a third of a second; connections do not survive a fork.
    """
    region = os.environ.get("AWS_REGION")  # botocore itself knows AWS_DEFAULT_REGION only
    filesystem: Any = fsspec.filesystem(
        "s3",
        skip_instance_cache=True,
        use_listings_cache=False,
        max_concurrency=1,  # more would ask for an object's size before each read
        config_kwargs={
            "connect_timeout": connect_timeout_s,
            "read_timeout": read_timeout_s,
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 32,
        },
        client_kwargs={"region_name": region} if region else {},
    )
    filesystem.retries = 1
    return filesystem


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

    def open(self, name: str) -> BinaryIO:
        if isinstance(self._fs, MemoryFileSystem):  # its files share one position
            return io.BytesIO(self.read(name))
        file: BinaryIO = self._fs.open(self._path(name), "rb")
        return file

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
        return ObjectInfo(name, int(info.get("size") or 0), etag, _seconds(info))


def _seconds(info: dict[str, Any]) -> float | None:
    """When the object was last changed, in seconds since 1970, under whatever name it is given."""
    for field in ("LastModified", "last_modified", "mtime", "updated", "modified", "created"):
        value = info.get(field)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value).timestamp()
    return None
