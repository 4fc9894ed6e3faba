"""From an address to shards: tars, Parquet files, and loose images in groups."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Collection, Mapping

from fsspec.utils import glob_translate

from mint_stream.config import ConfigError
from mint_stream.input.frames import (
    has_image_suffix,
    sidecar_stem,
    sidecar_stems,
    valid_text,
)
from mint_stream.input.grid import shard_id
from mint_stream.input.left_out import LeftOut, is_system
from mint_stream.input.shard import Kind, Member, Shard
from mint_stream.store.store import RetryPolicy, Store, split_url
from mint_stream.store.types import ObjectInfo

TAR_SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd", ".tzst"),
    *(".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz"),
)


def discover(
    input_url: str,
    *,
    unit_size: int,
    taken: Collection[str] = frozenset(),
    retry: RetryPolicy | None = None,
    left_out: LeftOut | None = None,
) -> list[Shard]:
    """The shards of a folder, file or glob (local or any fsspec address), in natural order.

    Natural order: digits count as numbers, so `frame2` comes before `frame10`. Hidden files and
    what systems keep for themselves (`_temporary`, `@eaDir`, ...) are passed over; so are files of
    kinds that are not read, which `left_out` counts. Nothing found is an empty list. Loose images
    whose frame ids are in `taken` are left out as well: the others are grouped anew, so that a
    folder that has grown makes shards of its new images only.

    Raises `ConfigError` for a single file that is no shard, `StorageError` as the store does.
    """
    root, found, listed = _find(input_url, retry)
    store = Store(root, retry=retry)
    sidecars = _sidecars_of(found, listed)
    used = set(sidecars.values())
    shards: list[Shard] = []
    loose: list[ObjectInfo] = []
    left_out = LeftOut() if left_out is None else left_out
    for info in sorted(found, key=_order):
        kind = _kind(info.name)
        if kind == "images":
            if valid_text(store.uri(info.name)) not in taken:
                loose.append(info)
        elif kind is not None:
            uri = valid_text(store.uri(info.name))
            members = (Member(info.name, info.size),)
            shards.append(Shard(uri, shard_id(uri, _version(info)), kind, store.uri(), members))
        elif info.name not in used:
            left_out.add(valid_text(info.name))
    for folder, images in itertools.groupby(loose, key=lambda info: info.name.rpartition("/")[0]):
        images_left = list(images)
        while images_left:
            shards.append(_loose_shard(store, folder, images_left[:unit_size], sidecars))
            del images_left[:unit_size]
    return sorted(shards, key=lambda shard: _natural(shard.members[0].name))


def _find(
    input_url: str, retry: RetryPolicy | None
) -> tuple[str, list[ObjectInfo], list[ObjectInfo]]:
    """The root that names are relative to, what was found, and what else is there beside it."""
    folder, name = split_url(input_url)
    if name:
        store = Store(folder, retry=retry)
        info = store.stat(name)
        if info is not None:
            if _kind(info.name) is None:
                raise ConfigError(
                    f"input is {input_url!r}; a single file must be a tar (.tar, .tar.gz, .tgz, "
                    ".tar.zst, .tar.bz2, .tar.xz), a Parquet file (.parquet) or an image"
                )
            stems = sidecar_stems(name) if _kind(name) == "images" else ()
            beside = [store.stat(f"{stem}.json") for stem in dict.fromkeys(stems)]
            return folder, [info], [other for other in beside if other is not None]
    if re.search(r"[*?\[]", input_url):
        root, pattern = _split_glob(input_url)
        matches = re.compile(glob_translate(pattern)).match
        prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        listed = Store(root, retry=retry).list(prefix)
        found = [info for info in listed if matches(info.name) and not _is_hidden(info.name)]
        return root, found, listed
    listed = Store(input_url, retry=retry).list()
    return input_url, [info for info in listed if not _is_hidden(info.name)], listed


def _sidecars_of(found: list[ObjectInfo], listed: list[ObjectInfo]) -> dict[str, str]:
    """For the loose images among `found`: the names of their sidecars, which are in `listed`."""
    stems = ((sidecar_stem(info.name, info.size), info.name) for info in listed)
    names = {stem: name for stem, name in stems if stem is not None}
    images = [info.name for info in found if names and _kind(info.name) == "images"]
    theirs = ((name, next(filter(names.get, sidecar_stems(name)), None)) for name in images)
    return {name: names[stem] for name, stem in theirs if stem is not None}


def _split_glob(url: str) -> tuple[str, str]:
    """The folder before the first part that holds a wildcard, and the rest."""
    protocol, mark, path = url.rpartition("://")
    parts = (path if mark else os.path.abspath(os.path.expanduser(path))).split("/")
    first = next(n for n, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return protocol + mark + ("/".join(parts[:first]) or "/"), "/".join(parts[first:])


_OF_WRITERS = re.compile(
    r"(?:.*/)?(?:(?:_temporary|_delta_log|_spark_metadata)/.*"
    r"|_success|_metadata|_common_metadata|_(?:started|committed)_[0-9]+)",
    re.IGNORECASE | re.DOTALL,
)
"""What Spark and its kind write beside their Parquet files."""


def _is_hidden(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return hidden or is_system(name) or _OF_WRITERS.fullmatch(name) is not None


def _kind(name: str) -> Kind | None:
    lower = name.lower()
    if lower.endswith(TAR_SUFFIXES):
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


def _version(info: ObjectInfo) -> str:
    return info.etag or f"{info.size}-{info.mtime!r}"


def _loose_shard(
    store: Store, folder: str, images: list[ObjectInfo], sidecars: Mapping[str, str]
) -> Shard:
    """A group of loose images. Its address names the first and the last of them."""
    names = [info.name.rpartition("/")[2] for info in images]
    ends = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
    uri = valid_text(f"{store.uri(folder)}#{ends}")
    version = json.dumps([[info.name, _version(info)] for info in images])
    members = tuple(Member(info.name, info.size, sidecars.get(info.name)) for info in images)
    return Shard(uri, shard_id(uri, version), "images", store.uri(), members)
