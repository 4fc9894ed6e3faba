"""Addresses: what they are made of, what of them may be shown, and what is refused in them.

/data/in/a.tar                        a local path (`file:///data/in/a.tar` is the same)
s3://bucket/in/a.tar                  base `s3://bucket`, path `in/a.tar`
s3://anonymous@bucket/in              the same for a public bucket, asked without keys
https://host/in/a.tar?X-Amz-...       a query is a credential: sent, and never shown
zip://in/a.jpg::s3://bucket/a.zip     a member of an archive
simplecache::s3://bucket/in/a.tar     the same object as without the cache
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from mint_stream.config import without_queries
from mint_stream.store.errors import StorageError

HTTP = frozenset({"http", "https"})
KEYLESS = frozenset({"s3", "s3a", "gs", "gcs"})
"""Stores whose public buckets are asked without keys by `anonymous@`, as Ray and Arrow write it."""
ANONYMOUS = "anonymous@"
_CACHES = frozenset({"simplecache", "filecache", "blockcache", "cached"})
_ARCHIVES = frozenset({"zip", "tar", "libarchive"})
_WITHOUT_HOST = frozenset({"memory", *_ARCHIVES})
_LOCAL = frozenset({"file", "local"})


@dataclass(frozen=True, repr=False)
class Address:
    """An address in three parts, of which `path` alone names an object below the other two."""

    base: str
    """Up to what cannot be left out: `s3://bucket`, `https://host`, `zip://`; "" where local."""
    path: str
    tail: str = ""
    """What comes behind every path: a query, or the archive that the path lies in."""

    def at(self, path: str) -> str:
        """The address of `path` below the same base."""
        between = "" if not self.base or self.base.endswith(("://", "::")) or not path else "/"
        return f"{self.base}{between}{path}{self.tail}"

    def __repr__(self) -> str:
        return without_queries(self.at(self.path))


def parse(url: str | os.PathLike[str]) -> Address:
    """`url` taken apart. Local paths become absolute."""
    text = os.fspath(url)
    first, rest = _first_link(text)
    if rest is not None and _word(first) in _CACHES:
        inner = parse(rest)
        return Address(f"{first}::{inner.base}", inner.path, inner.tail)
    if rest is not None:
        protocol, _, path = first.partition("://")
        return Address(f"{protocol}://", path, f"::{rest}")
    protocol, mark, path = text.partition("://")
    if not mark:
        return Address("", os.path.abspath(os.path.expanduser(text)))
    if protocol in _LOCAL:
        return Address("", _local(path))
    if protocol in HTTP:
        path, mark, query = path.partition("#")[0].partition("?")
        return _split(protocol, path, 1, mark + query)
    return _split(protocol, path, _parts_of_root(protocol, path))


def split_url(url: str | os.PathLike[str]) -> tuple[str, str]:
    """The address of the folder that holds the object `url`, and the object's name in it.

    The name is empty where `url` is a bucket (a host, a repository) or ends with a slash.
    """
    address = parse(url)
    folder, _, name = address.path.rpartition("/")
    return address.at(folder or ("/" if not address.base else "")), name


def protocol_of(url: str) -> str:
    """`s3`, `https`, ... of what `url` points at, behind caches; "" for a local path."""
    base = parse(url).base.rpartition("::")[2]
    return base.partition("://")[0]


def links(url: str) -> list[str]:
    """The addresses that are chained in `url`; itself, if none are."""
    first, rest = _first_link(url)
    return [first] if rest is None else [first, *links(rest)]


def without_caches(url: str) -> str:
    """`url` without the caches in front, which change nothing of what it names."""
    first, rest = _first_link(url)
    return without_caches(rest) if rest is not None and _word(first) in _CACHES else url


def anonymous(url: str) -> str:
    """`url` as the address of a public bucket that is asked without keys.

    Raises `StorageError` where the store is none with such buckets.
    """
    first, rest = _first_link(url)
    if rest is not None:
        return f"{first}::{anonymous(rest)}"
    protocol, _, path = url.partition("://")
    if protocol in KEYLESS:
        return url if path.startswith(ANONYMOUS) else f"{protocol}://{ANONYMOUS}{path}"
    how = "; for public containers set AZURE_STORAGE_ANON=true" if _azure(protocol) else ""
    raise StorageError(
        f"{without_queries(url)} cannot be asked without keys: that is for s3:// and gs:// "
        f"(http:// never sends any){how}"
    )


def refuse_credentials(url: str) -> None:
    """Raise `StorageError` if a password or a token stands in `url`, without repeating it.

    A user's name is none (`sftp://user@host`), nor is an Azure account (`abfs://container@account`)
    or a branch (`github://org:repo@branch`).
    """
    for link in links(url):
        protocol, mark, rest = link.partition("://")
        if not mark or protocol in _LOCAL | _WITHOUT_HOST | {"github", "hf"}:
            continue
        user, _, host = rest.partition("/")[0].partition("?")[0].rpartition("@")
        port = re.sub(r"^\[[^\]]*\]", "", host).partition(":")[2]
        # Behind a slash in a password the rest of it looks like a path.
        if ":" in user or (user and protocol in HTTP) or (port and not port.isdecimal()):
            of = f"the address of {host}" if user else f"an address that begins {protocol}://"
            raise StorageError(
                f"{of} contains credentials (or a port that is no number), which would end up in "
                "logs and results; give them in the environment, in a profile or in ~/.netrc "
                "instead"
            )


def _split(protocol: str, path: str, parts: int, tail: str = "") -> Address:
    pieces = path.split("/")
    root = "/".join(pieces[:parts])
    return Address(f"{protocol}://{root}", "/".join(pieces[parts:]), tail)


def _parts_of_root(protocol: str, path: str) -> int:
    """How many parts at its beginning name a bucket, a host, an account or a repository."""
    if protocol in _WITHOUT_HOST:
        return 0
    if protocol == "hf":
        return 3 if path.startswith(("datasets/", "spaces/", "buckets/")) else 2
    return 1


def _local(path: str) -> str:
    """The path in a `file://` address, where `%20` stands for a space unless it is a name's own."""
    if path.startswith("localhost/"):
        path = path.removeprefix("localhost")
    path = os.path.abspath(path)
    # What lies on the disk literally counts, up to the first wildcard.
    known = re.split(r"/[^/]*[*?\[{]", path, maxsplit=1)[0]
    return path if "%" not in path or os.path.exists(known or "/") else unquote(path)


def _first_link(url: str) -> tuple[str, str | None]:
    first, mark, rest = url.partition("::")
    chained = mark and _word(first) in _CACHES | _ARCHIVES
    return (first, rest) if chained else (url, None)


def _word(link: str) -> str:
    return link.partition("://")[0]


def _azure(protocol: str) -> bool:
    return protocol in ("az", "abfs", "abfss")
