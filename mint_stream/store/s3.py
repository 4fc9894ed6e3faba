"""S3 and what speaks its language, through s3fs with its caches and its own retries turned off."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec
from fsspec.asyn import sync

from mint_stream.store.address import ANONYMOUS
from mint_stream.store.types import ObjectInfo, seconds


class S3Backend:
    """A prefix of a bucket; a `Backend` whose methods are described there.

    Credentials, endpoint and region come from the environment or the profile of the process that
    makes the call; none is held here. `s3://anonymous@bucket` asks without any.
    """

    tail = ""
    part_bytes = 50 * 2**20
    """Objects of twice this size and more are written in parts of it."""

    def __init__(self, url: str, connect_timeout_s: float, read_timeout_s: float) -> None:
        settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
        digest = hashlib.sha256(repr(settings).encode()).hexdigest()
        path = url.split("://", 1)[1].strip("/")
        keyless = path.startswith(ANONYMOUS)
        path = path.removeprefix(ANONYMOUS)
        timeouts = (connect_timeout_s, read_timeout_s)
        self._fs: Any = _s3_filesystem(os.getpid(), digest, *timeouts, keyless)
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

    def read_known(self, name: str) -> tuple[bytes, ObjectInfo]:
        key = self._prefix + name

        async def fetch() -> tuple[bytes, dict[str, Any]]:
            answer = await self._fs._call_s3("get_object", Bucket=self._bucket, Key=key)
            async with answer["Body"] as body:
                return await body.read(), answer

        data, answer = sync(self._fs.loop, fetch)
        return data, self._info(key, len(data), answer)

    def open(self, name: str) -> BinaryIO:
        file: BinaryIO = self._fs.open(self._path(name), "rb", cache_type="none")
        return file

    def known(self, name: str, file: BinaryIO) -> ObjectInfo:
        # As it was opened: each read asks for that ETag (If-Match).
        details: dict[str, Any] = file.details  # type: ignore[attr-defined]
        return self._info(self._prefix + name, details["size"], details)

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
        return ObjectInfo(key[len(self._prefix) :], int(size), etag, seconds(answer))


@functools.lru_cache(maxsize=8)
def _s3_filesystem(
    process: int,
    environment: str,
    connect_timeout_s: float,
    read_timeout_s: float,
    keyless: bool,
) -> Any:
    """One client for all stores of a process with the same `environment` (a digest of it).

    To set one up takes a third of a second; connections do not survive a fork.
    """
    region = os.environ.get("AWS_REGION")  # botocore itself knows AWS_DEFAULT_REGION only
    filesystem: Any = fsspec.filesystem(
        "s3",
        anon=keyless,
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
