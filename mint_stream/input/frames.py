"""A frame, a reject, and how names, cameras and times are read from whatever the input says."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

_DECODED = {"jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "gif"} | {
    *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif")
}
# A file with such a name is a frame all the same, so that its loss shows among the rejects.
_NOT_DECODED = {"heic", "heif", "jp2", "j2k", "jxl", "tga"}
IMAGE_SUFFIXES = frozenset(_DECODED | _NOT_DECODED)
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
        self._taken: set[str] = set()
        self._repeats: dict[str, int] = {}

    def take(self, name: str) -> str:
        """The id of the next frame, whose member is called `name` (valid text)."""
        unique = name
        while unique in self._taken:
            self._repeats[name] = self._repeats.get(name, 0) + 1
            unique = f"{name}~{self._repeats[name]}"
        self._taken.add(unique)
        return f"{self._shard_uri}#{unique}"


def parse_facts(fields: Mapping[str, Any]) -> Facts:
    """The facts among `fields` (of a sidecar, a row, a path); what cannot be read is left out."""
    return Facts(
        parse_text(fields.get("camera")),
        parse_timestamp(fields.get("timestamp")),
        parse_text(fields.get("domain")),
        parse_text(fields.get("label")),
    )


def parse_sidecar(data: bytes, name: str) -> Facts:
    """The facts in a sidecar's JSON. A broken one costs only itself: it is logged."""
    try:
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError(f"it holds a {type(fields).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        log.warning("sidecar %s cannot be read, its frame has no camera and time: %s", name, error)
        return Facts()
    facts = parse_facts(fields)
    for field in ("camera", "timestamp"):
        if fields.get(field) is not None and getattr(facts, field) is None:
            log.warning("sidecar %s: %s is %.80r, which is none", name, field, fields[field])
    return facts


_PATH_FIELD = re.compile(r"(?:^|/)(camera|timestamp|date|hour|domain|label)=([^/]+)(?=/)")


def path_facts(path: str) -> Facts:
    """The facts in folder names of the form `camera=north/date=2026-03-01/hour=14/`.

    A time is `timestamp=` or `date=`, with or without `hour=`, in UTC. Percent signs escape.
    """
    fields = {key: unquote(value) for key, value in _PATH_FIELD.findall(path)}
    if "timestamp" not in fields and "date" in fields:
        day = parse_timestamp(fields["date"])
        hour = fields.get("hour", "0")
        if day is not None and hour.isdecimal() and int(hour) < 24:
            return parse_facts({**fields, "timestamp": day + timedelta(hours=int(hour))})
    return parse_facts(fields)


def parse_text(value: Any) -> str | None:
    """A name given as text or as a whole number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    try:
        return valid_text(str(value).strip()) or None
    except ValueError:  # a number of more digits than Python is willing to write
        return None


def parse_timestamp(value: Any) -> datetime | None:
    """A time in UTC from ISO 8601 text, a date, or a number; None for anything else.

    A time without zone is in UTC. Numbers count from 1970 in s, ms, us or ns, told apart by size.
    """
    try:
        if isinstance(value, str):
            return _from_text(value.strip())
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _from_number(float(value))
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _from_text(text: str) -> datetime | None:
    try:
        return parse_timestamp(datetime.fromisoformat(text))
    except ValueError:
        return _from_number(float(text))


def _from_number(number: float) -> datetime | None:
    if not math.isfinite(number):
        return None
    for limit in (1e11, 1e14, 1e17, 1e20):
        if abs(number) < limit:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=number / (limit / 1e11))
    return None
