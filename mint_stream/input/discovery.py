"""From an address to shards: tars, Parquet files, and loose images in groups."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Collection

from fsspec.utils import glob_translate

from mint_stream.config import ConfigError
from mint_stream.input.frames import has_image_suffix, valid_text
from mint_stream.input.grid import shard_id
from mint_stream.input.shard import Kind, Member, Shard
from mint_stream.store.store import RetryPolicy, Store, split_url
from mint_stream.store.types import ObjectInfo


def discover(
    input_url: str,
    *,
    unit_size: int,
    taken: Collection[str] = frozenset(),
    retry: RetryPolicy | None = None,
) -> list[Shard]:
    """The shards of a folder, file or glob (local or any fsspec address), in natural order.

    Natural order: digits count as numbers, so `frame2` comes before `frame10`. Hidden files,
    `_temporary` folders and files of other kinds are left out; nothing found is an empty list.
    Loose images whose frame ids are in `taken` are left out as well: the others are grouped anew,
    so that a folder that has grown makes shards of its new images only.

    Raises `ConfigError` for a single file that is no shard, `StorageError` as the store does.
    """
    root, found = _find(input_url, retry)
    store = Store(root, retry=retry)
    shards: list[Shard] = []
    loose: list[ObjectInfo] = []
    for info in sorted(found, key=_order):
        kind = _kind(info.name)
        if kind == "images":
            if valid_text(store.uri(info.name)) not in taken:
                loose.append(info)
        elif kind is not None:
            uri = valid_text(store.uri(info.name))
            members = (Member.of(info),)
            shards.append(Shard(uri, shard_id(uri, info.version), kind, store.uri(), members))
    for folder, images in itertools.groupby(loose, key=lambda info: info.name.rpartition("/")[0]):
        images_left = list(images)
        while images_left:
            shards.append(_loose_shard(store, folder, images_left[:unit_size]))
            del images_left[:unit_size]
    return sorted(shards, key=lambda shard: _natural(shard.members[0].name))


def _find(input_url: str, retry: RetryPolicy | None) -> tuple[str, list[ObjectInfo]]:
    """The root that the names found are relative to, and what was found."""
    folder, name = split_url(input_url)
    if name:
        store = Store(folder, retry=retry)
        info = store.stat(name)
        if info is not None:
            if _kind(info.name) is None:
                raise ConfigError(
                    f"input is {input_url!r}; a single file must be a tar (.tar, .tar.gz, .tgz), "
                    "a Parquet file (.parquet) or an image"
                )
            return folder, [info]
    if re.search(r"[*?\[]", input_url):
        root, pattern = _split_glob(input_url)
        matches = re.compile(glob_translate(pattern)).match
        prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        found = Store(root, retry=retry).list(prefix)
        return root, [info for info in found if matches(info.name) and not _is_hidden(info.name)]
    found = Store(input_url, retry=retry).list()
    return input_url, [info for info in found if not _is_hidden(info.name)]


def _split_glob(url: str) -> tuple[str, str]:
    """The folder before the first part that holds a wildcard, and the rest."""
    protocol, mark, path = url.rpartition("://")
    parts = (path if mark else os.path.abspath(os.path.expanduser(path))).split("/")
    first = next(n for n, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return protocol + mark + ("/".join(parts[:first]) or "/"), "/".join(parts[first:])


_SKIPPED = {"_temporary", "__MACOSX"}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part in _SKIPPED for part in name.split("/"))


def _kind(name: str) -> Kind | None:
    lower = name.lower()
    if lower.endswith((".tar", ".tar.gz", ".tgz")):
        return "tar"
    if lower.endswith((".parquet", ".pq")):
        return "parquet"
    return "images" if has_image_suffix(name) else None


def _natural(name: str) -> tuple[list[str | int], str]:
    pieces = re.split(r"([0-9]+)", name)
    return [int(piece) if n % 2 else piece for n, piece in enumerate(pieces)], name


def _order(info: ObjectInfo) -> tuple[object, object]:
    folder = info.name.rpartition("/")[0]
    return _natural(folder), _natural(info.name)


def _loose_shard(store: Store, folder: str, images: list[ObjectInfo]) -> Shard:
    """A group of loose images. Its address names the first and the last of them."""
    names = [info.name.rpartition("/")[2] for info in images]
    ends = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
    uri = valid_text(f"{store.uri(folder)}#{ends}")
    version = json.dumps([[info.name, info.version] for info in images])
    members = tuple(Member.of(info) for info in images)
    return Shard(uri, shard_id(uri, version), "images", store.uri(), members)
