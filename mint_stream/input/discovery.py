"""From an address to shards: tars, Parquet files, and loose images in groups."""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

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
from mint_stream.input.patterns import SPECIAL, WILDCARDS, expand_braces
from mint_stream.input.shard import Kind, Member, Shard
from mint_stream.store.address import HTTP, Address, parse, protocol_of
from mint_stream.store.store import RetryPolicy, Store, split_url
from mint_stream.store.types import ObjectInfo

log = logging.getLogger(__name__)

_AT_ONCE = 16
"""Named objects that are asked for at the same time."""

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
    """The shards of a folder, file or pattern (local or any fsspec address), in natural order.

    A pattern has wildcards (`*`, `**`, `?`, `[0-9]`) or braces (`{00000..00009}`, `{a,b}`).

    Natural order: digits count as numbers, so `frame2` comes before `frame10`. Hidden files and
    what systems keep for themselves (`_temporary`, `@eaDir`, ...) are passed over; so are files of
    kinds that are not read, which `left_out` counts. Nothing found is an empty list. Loose images
    whose frame ids are in `taken` are left out as well: the others are grouped anew, so that a
    folder that has grown makes shards of its new images only.

    Raises `ConfigError` for a single file that is no shard, `StorageError` as the store does.
    """
    store, found, listed = _find(input_url, retry)
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
            members = (Member.of(info),)
            shards.append(Shard(uri, shard_id(uri, info.version), kind, store.address, members))
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
) -> tuple[Store, list[ObjectInfo], list[ObjectInfo]]:
    """The store that names are relative to, what was found, and what else is there beside it.

    What is there under exactly this name counts; only then do braces and wildcards mean others.
    """
    folder, name = split_url(input_url)
    store = Store(folder, retry=retry)
    web = protocol_of(input_url) in HTTP
    # A web server answers for a folder as for a file: its page.
    if name and (_kind(name) is not None or not web):
        info = store.stat(name)
        if info is not None:
            if _kind(info.name) is None:
                raise ConfigError(
                    f"input is {input_url!r}; a single file must be a tar (.tar, .tar.gz, .tgz, "
                    ".tar.zst, .tar.bz2, .tar.xz), a Parquet file (.parquet) or an image"
                )
            stems = sidecar_stems(name) if _kind(name) == "images" else ()
            beside = [store.stat(f"{stem}.json") for stem in dict.fromkeys(stems)]
            return store, [info], [other for other in beside if other is not None]
    address = parse(input_url)
    if not SPECIAL.search(address.path):
        store = Store(input_url, retry=retry)
        listed = store.list()
        return store, _seen(listed), listed
    root, pattern = _literally_there(address, retry)
    if WILDCARDS.search(pattern) and input_url.endswith("/"):
        pattern += "/**"
    store = Store(root, retry=retry)
    if not pattern:
        listed = store.list()
        return store, _seen(listed), listed
    matching, listed = _matching(store, pattern, web)
    return store, _seen(matching), listed


def _sidecars_of(found: list[ObjectInfo], listed: list[ObjectInfo]) -> dict[str, str]:
    """For the loose images among `found`: the names of their sidecars, which are in `listed`."""
    stems = ((sidecar_stem(info.name, info.size), info.name) for info in listed)
    names = {stem: name for stem, name in stems if stem is not None}
    images = [info.name for info in found if names and _kind(info.name) == "images"]
    theirs = ((name, next(filter(names.get, sidecar_stems(name)), None)) for name in images)
    return {name: names[stem] for name, stem in theirs if stem is not None}


def _seen(found: Iterable[ObjectInfo]) -> list[ObjectInfo]:
    return [info for info in found if not _is_hidden(info.name)]


def _literally_there(address: Address, retry: RetryPolicy | None) -> tuple[str, str]:
    """The longest part of an address that means itself, and the pattern that is left of it."""
    parts = address.path.split("/")
    for at, part in enumerate(parts):
        if not SPECIAL.search(part):
            continue
        root = address.at("/".join(parts[:at]) or ("/" if not address.base else ""))
        if not Store(root, retry=retry).holds(f"{part}/"):
            return root, "/".join(parts[at:]).rstrip("/")
    return address.at(address.path), ""


def _matching(store: Store, pattern: str, web: bool) -> tuple[list[ObjectInfo], list[ObjectInfo]]:
    """What `pattern` stands for below the root: files, and what lies in folders of these names; and
    all that was listed for it."""
    patterns = expand_braces(pattern)
    exact = {text for text in patterns if not WILDCARDS.search(text)}
    globs = [re.compile(glob_translate(text)).match for text in patterns if text not in exact]
    if web and not globs:  # many a server shows no page, and each file all the same
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            stats = pool.map(store.stat, sorted(exact))
        found = [info for info in stats if info is not None]
    else:
        heads = [SPECIAL.split(text, maxsplit=1)[0] for text in patterns]
        found = store.list(os.path.commonprefix(heads))  # noqa: RUF071  of text, not of folders
    matching, named = [], set[str]()
    for info in found:
        folders = {info.name[: at.start()] for at in re.finditer("/", info.name)}
        own = exact & {info.name, *folders}
        named |= own
        if own or any(match(info.name) for match in globs):
            matching.append(info)
    if missing := sorted(exact - named):
        _warn_once(
            f"{len(missing):,} of the {len(exact):,} names that {pattern!r} stands for are not in "
            f"{store.uri()}: {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        )
    return matching, found


@functools.lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
    """An input is listed several times in a run, and with --follow for ever."""
    log.warning("%s", text)


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


def _loose_shard(
    store: Store, folder: str, images: list[ObjectInfo], sidecars: Mapping[str, str]
) -> Shard:
    """A group of loose images. Its address names the first and the last of them."""
    names = [info.name.rpartition("/")[2] for info in images]
    ends = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
    uri = valid_text(f"{store.uri(folder)}#{ends}")
    version = json.dumps([[info.name, info.version] for info in images])
    members = tuple(Member.of(info, sidecars.get(info.name)) for info in images)
    return Shard(uri, shard_id(uri, version), "images", store.address, members)
