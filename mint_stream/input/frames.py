"""A frame, a reject, and how names, cameras and times are read from whatever the input says."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from mint_stream.input.times import parse_timestamp
from mint_stream.logs import warn_once
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

FACTS = ("camera", "timestamp", "domain", "label")
"""What an input may say about a frame."""
_PUNCTUATION = string.punctuation + string.whitespace

_DECODED = {"jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "gif"} | {
    *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif")
}
# A file with such a name is a frame all the same, so that its loss shows among the rejects.
_NOT_DECODED = {"heic", "heif", "jp2", "j2k", "jxl", "tga"}
IMAGE_SUFFIXES = frozenset(_DECODED | _NOT_DECODED)
_MOST_TEXT = 1024
"""Characters of a camera's name: thousands of them wait in memory for their images."""
MAX_IMAGE_BYTES = 256 * 2**20
"""A larger image is rejected unread, so that one damaged length cannot take all the memory."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the input says about a frame besides its pixels; None where it says nothing."""

    camera: str | None = None
    timestamp: datetime | None = None
    """In UTC."""
    domain: str | None = None
    """The segment of a test stream; for evaluation only."""
    label: str | None = None
    """The truth; for evaluation only."""

    def or_else(self, other: Facts) -> Facts:
        """These facts, with the gaps filled from `other`."""
        return Facts(
            self.camera if self.camera is not None else other.camera,
            self.timestamp if self.timestamp is not None else other.timestamp,
            self.domain if self.domain is not None else other.domain,
            self.label if self.label is not None else other.label,
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One image, still encoded, with its id."""

    frame: str
    shard: str
    member: str
    index: int
    """Position among everything that the shard yields, frames and rejects alike."""
    data: bytes
    facts: Facts = Facts()

    @property
    def camera(self) -> str | None:
        """The camera, where the input names one."""
        return self.facts.camera

    @property
    def timestamp(self) -> datetime | None:
        """When the frame was taken, in UTC, where the input says so."""
        return self.facts.timestamp


@dataclass(frozen=True, slots=True)
class Reject:
    """One image that cannot be had, or (without `frame`) the damaged rest of a shard."""

    frame: str | None
    shard: str
    member: str | None
    index: int
    stage: str
    """Where it failed, as in the schema of `rejects/`: list, read, decode or label."""
    error_type: str
    message: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """One image, or (without `frame`) the rest of a shard, that could not be had this time.

    Its bytes are not to blame, as a `Reject`'s are: they are missing, refused, out of reach, or no
    longer those that were listed. Another run may have them.
    """

    frame: str | None
    shard: str
    member: str | None
    index: int
    """Where it would have been among everything that the shard yields."""
    error: StorageError


class ShardError(ValueError):
    """A shard (or what is left of it) cannot be read. The message says why, for a person."""


def has_image_suffix(name: str) -> bool:
    """Whether `name` is that of an image; hidden files are none."""
    base = name.rpartition("/")[2]
    stem, dot, suffix = base.rpartition(".")
    return bool(stem and dot) and not base.startswith(".") and suffix.lower() in IMAGE_SUFFIXES


def valid_text(name: str) -> str:
    """`name` as valid UTF-8: bytes that are none, kept as surrogates so far, become `\\xff`."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that stand for no byte, as JSON can hold them
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


class FrameIds:
    """Ids of the frames of one shard: a name that was there before gets `~1`, `~2`, ..."""

    def __init__(self, shard_uri: str) -> None:
        self._shard_uri = shard_uri
        self._taken: set[bytes] = set()
        self._repeats: dict[bytes, int] = {}

    def take(self, name: str) -> str:
        """The id of the next frame, whose member is called `name` (valid text)."""
        unique, first = name, name_digest(name)
        while (digest := name_digest(unique)) in self._taken:
            self._repeats[first] = self._repeats.get(first, 0) + 1
            unique = f"{name}~{self._repeats[first]}"
        self._taken.add(digest)
        return f"{self._shard_uri}#{unique}"


def name_digest(name: str) -> bytes:
    """What stands for `name` where there may be millions of them, each as long as it likes."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def parse_facts(fields: Mapping[str, Any], where: str) -> Facts:
    """The facts among `fields` (of a sidecar, a row, a path), whatever the case of their names.

    What cannot be read is left out; `where` it stood is said once in each process.
    """
    by_name = {str(name).strip().casefold(): value for name, value in reversed([*fields.items()])}
    by_name.update((name, fields[name]) for name in FACTS if name in fields)
    camera, taken = by_name.get("camera"), by_name.get("timestamp")
    facts = Facts(
        None if says_nothing(camera) else parse_text(camera),
        None if _no_time(taken) else parse_timestamp(taken),
        parse_text(by_name.get("domain")),
        parse_text(by_name.get("label")),
    )
    if facts.timestamp is None and not _no_time(taken):
        message = (
            "the timestamp %.80r of %s is left out, as will be others like it: it is not a date "
            "with the year first (2024-05-01T12:30:00+02:00), nor a count since 1970 in s to ns"
        )
        warn_once(log, "timestamp", message, taken, where)
    if facts.camera is None and not says_nothing(camera):
        message = "the camera %.80r of %s is left out, as will be others like it: it is no text"
        warn_once(log, "camera", message, camera, where)
    return facts


MAX_SIDECAR_BYTES = 2**20
"""A larger JSON file is none."""


def sidecar_stem(name: str, size_bytes: int) -> str | None:
    """What a sidecar of that name belongs to (see `sidecar_stems`); None for what is none."""
    fits = name.lower().endswith(".json") and size_bytes <= MAX_SIDECAR_BYTES
    return name[: -len(".json")] if fits else None


def sidecar_stems(name: str) -> tuple[str, str, str]:
    """What sidecars of the image `name` may be called before `.json`, the surest first.

    As the image itself; as that up to its last dot; as WebDataset's key.
    """
    return name, name.rpartition(".")[0], key_of(name) or name


def key_of(name: str) -> str | None:
    """WebDataset's key: the name up to the first dot of its last part; None without one."""
    folder, slash, base = name.rpartition("/")
    stem, dot, _ = base.partition(".")
    return f"{folder}{slash}{stem}" if stem and dot else None


def parse_sidecar(data: bytes, name: str) -> Facts:
    """The facts in a sidecar's JSON. A broken one costs only itself: it is logged."""
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError(f"it holds a {type(fields).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        log.warning("sidecar %s cannot be read, its frame has no camera and time: %s", name, error)
        return Facts()
    return parse_facts(fields, f"sidecar {name}")


_PATH_FIELD = re.compile(
    r"(?:^|/)(camera|timestamp|date|year|month|day|hour|domain|label)=([^/]+)(?=/)", re.IGNORECASE
)


def path_facts(path: str) -> Facts:
    """The facts in folder names of the form `camera=north/date=2026-03-01/hour=14/`.

    A time is `timestamp=`, or `date=` (or `year=`, `month=` and `day=`), with or without `hour=`,
    in UTC. Percent signs escape.
    """
    fields = {key.lower(): unquote(value) for key, value in _PATH_FIELD.findall(path)}
    if "timestamp" not in fields:
        day = fields.get("date")
        if day is None and {"year", "month", "day"} <= fields.keys():
            day = "-".join(fields[name] for name in ("year", "month", "day"))
        hour = fields.get("hour")
        if day is not None and not says_nothing(day):
            fields["timestamp"] = day if says_nothing(hour) else f"{day} {hour}:00"
    return parse_facts(fields, path)


_NOTHING = {"na", "n/a", "nan", "nat", "none", "null", "nil", "undefined", "\\n"} | {
    "__hive_default_partition__"
}


def says_nothing(value: Any) -> bool:
    """Whether `value` is what tables write where there is none: null, NaN, `N/A`, `-`."""
    if value is None or (isinstance(value, float | Decimal) and value != value):
        return True
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return False
    text = value.strip().casefold()
    return text in _NOTHING or text.strip("<>()#") in _NOTHING or not text.strip(_PUNCTUATION)


def _no_time(value: Any) -> bool:
    """As `says_nothing`; a camera without a clock writes zeros, as `0000:00:00 00:00:00`."""
    zeros = isinstance(value, str) and not value.strip("0TZ" + _PUNCTUATION)
    return zeros or says_nothing(value) or (isinstance(value, int | float) and value == 0)


def parse_text(value: Any) -> str | None:
    """A name given as text, UTF-8, UUID, or a finite number; None for anything else."""
    if isinstance(value, bytes):
        try:
            value = value.decode().rstrip("\0")  # of a column of a fixed width
        except UnicodeDecodeError:
            return None
    if isinstance(value, UUID):
        value = str(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    if isinstance(value, float | Decimal):  # tables turn numbers with gaps into floats
        if not math.isfinite(value):
            return None
        value = f"{Decimal(str(value)).normalize():f}"
    try:
        text = valid_text(str(value).strip())
    except ValueError:  # a number of more digits than Python is willing to write
        return None
    return text if 0 < len(text) <= _MOST_TEXT else None
