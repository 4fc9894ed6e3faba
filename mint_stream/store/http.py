"""Web servers: objects behind their addresses, folders where a server shows them as a page."""

from __future__ import annotations

import asyncio
import builtins
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote

import fsspec
from fsspec.asyn import sync

from mint_stream.store.address import Address, parse
from mint_stream.store.errors import ObjectChanged, StorageError
from mint_stream.store.types import ObjectInfo, seconds

_AT_ONCE = 32
"""Objects that are looked at at the same time."""


@dataclass(frozen=True)
class _Found:
    """What a server says about one address."""

    size: int | None
    ranges: bool
    """Whether it hands out parts of it."""
    headers: Mapping[str, Any]


class HttpBackend:
    """A folder of a web server, to be read; a `Backend` whose methods are described there.

    Names are as they stand in addresses, percent signs and all. What stands behind the `?` goes
    along with each request and is shown nowhere. Proxies and `~/.netrc` count as they do for curl.
    """

    def __init__(self, url: str, connect_timeout_s: float, read_timeout_s: float) -> None:
        import aiohttp

        for name in ("fsspec", "fsspec.http"):  # both write addresses as they are
            logging.getLogger(name).setLevel(logging.INFO)
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout_s, sock_read=read_timeout_s
        )
        self._fs: Any = fsspec.filesystem(
            "http",
            skip_instance_cache=True,
            encoded=True,  # a signature holds for the very bytes that were signed
            client_kwargs={"timeout": timeout, "trust_env": True},
        )
        address = parse(url)
        self._address = Address(address.base, address.path.strip("/"), address.tail)
        self.root_uri = _quoted(Address(address.base, self._address.path).at(self._address.path))
        self.tail = ""

    def look(self) -> None:
        self._links(self.root_uri)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        root = f"{self.root_uri}/"
        folder = prefix.rpartition("/")[0]
        pages, seen = [f"{root}{folder}/" if folder else root], set[str]()
        names: builtins.list[str] = []
        while pages:
            page = pages.pop()
            seen.add(page)
            # Pages link to their parents, to themselves in another order, and to anywhere else.
            for link in {link.partition("#")[0].partition("?")[0] for link in self._links(page)}:
                name = link.removeprefix(root)
                if not link.startswith(page) or link in seen or ".." in name.split("/"):
                    continue
                if link.endswith("/"):
                    pages.append(link)
                elif name.startswith(prefix):
                    names.append(name)
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            found = self._sync(self._find_all, some)
            yield from (self._info(n, f) for n, f in zip(some, found, strict=True) if f is not None)

    def stat(self, name: str) -> ObjectInfo:
        found = self._sync(self._find, name)
        if str(found.headers.get("Content-Type", "")).startswith("text/html"):
            raise FileNotFoundError(name)  # a folder's page, or a polite way to say so
        return self._info(name, found)

    def read(self, name: str) -> bytes:
        return bytes(self._sync(self._get, name, {})[0])

    def read_known(self, name: str) -> tuple[bytes, ObjectInfo]:
        return self.read(name), self.stat(name)

    def known(self, name: str, file: BinaryIO) -> ObjectInfo:
        return self.stat(name)

    def open(self, name: str) -> BinaryIO:
        found = self._sync(self._find, name)
        if found.ranges and found.size is not None:
            return _Ranges(self, name, found)  # type: ignore[return-value]
        file = tempfile.TemporaryFile()  # noqa: SIM115  closed by whoever reads it
        try:
            self._sync(self._copy, name, file)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file  # type: ignore[return-value]

    def write(self, name: str, data: bytes) -> None:
        raise StorageError(
            f"cannot write {self.root_uri}/{name}: a web server has no exclusive create; choose an "
            "output on S3, Google Cloud Storage, Azure or a local disk"
        )

    def create(self, name: str, data: bytes) -> None:
        self.write(name, data)

    def delete(self, name: str) -> None:
        self.write(name, b"")

    def _links(self, page: str) -> builtins.list[str]:
        links: builtins.list[str] = self._fs.ls(page + self._address.tail, detail=False)
        return links

    def _url(self, name: str) -> str:
        path = "/".join(part for part in (self._address.path, name) if part)
        return _quoted(Address(self._address.base, path).at(path)) + self._address.tail

    async def _find_all(self, names: Sequence[str]) -> Sequence[_Found | None]:
        async def find(name: str) -> _Found | None:
            try:
                return await self._find(name)
            except FileNotFoundError:  # a page may name what is gone
                return None

        return await asyncio.gather(*map(find, names))

    async def _find(self, name: str) -> _Found:
        """What is there, by asking for its first byte: a presigned GET is not good for HEAD."""
        session = await self._fs.set_session()
        headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
        async with session.get(self._fs.encode_url(self._url(name)), headers=headers) as answer:
            if answer.status == 416:  # it has no first byte
                return _Found(0, True, answer.headers)
            self._check(answer, name)
            total = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if answer.status == 206 and total.isdecimal():
                return _Found(int(total), True, answer.headers)
            return _Found(answer.content_length, False, answer.headers)

    async def _get(self, name: str, headers: dict[str, str]) -> tuple[bytes, int]:
        session = await self._fs.set_session()
        async with session.get(self._fs.encode_url(self._url(name)), headers=headers) as answer:
            if answer.status == 412:
                raise ObjectChanged(f"{self.root_uri}/{name} was overwritten while it was read")
            self._check(answer, name)
            return await answer.read(), answer.status

    async def _copy(self, name: str, file: io.BufferedIOBase) -> None:
        session = await self._fs.set_session()
        async with session.get(self._fs.encode_url(self._url(name))) as answer:
            self._check(answer, name)
            async for chunk in answer.content.iter_chunked(2**20):
                file.write(chunk)

    def _check(self, answer: Any, name: str) -> None:
        if answer.status in (404, 410):
            raise FileNotFoundError(name)
        answer.raise_for_status()

    def _sync(self, call: Any, *arguments: Any) -> Any:
        return sync(self._fs.loop, call, *arguments)

    def _info(self, name: str, found: _Found) -> ObjectInfo:
        return ObjectInfo(name, found.size or 0, _etag(found.headers), seconds(found.headers))


class _Ranges(io.RawIOBase):
    """An object of a server that hands out parts."""

    def __init__(self, backend: HttpBackend, name: str, found: _Found) -> None:
        self._backend, self._name, self._size = backend, name, int(found.size or 0)
        etag = str(found.headers.get("ETag", ""))
        self._same = {"If-Match": etag} if etag.startswith('"') else {}
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._position + size)
        if self._position >= stop:
            return b""
        asked = {**self._same, "Range": f"bytes={self._position}-{stop - 1}"}
        asked["Accept-Encoding"] = "identity"
        data, status = self._backend._sync(self._backend._get, self._name, asked)
        if status != 206:
            raise ConnectionError("the server sent the whole object in place of a part")
        self._position += len(data)
        return bytes(data)


def _etag(headers: Mapping[str, Any]) -> str | None:
    return str(headers.get("ETag", "")).removeprefix("W/").strip('"') or None


def _quoted(url: str) -> str:
    """With percent signs for what cannot stand in an address, and nothing else changed."""
    return quote(url, safe="%/:?#[]@!$&'()*+,;=~")
