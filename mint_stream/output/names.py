"""Which frames of which shard are labelled already, told from the names of committed objects.

A unit is up to `unit_size` consecutive frames of one shard. Units lie on a grid: they end at the
next multiple of `unit_size` or at the shard's end, unless `--limit` cut one short; what it left
becomes a unit of its own in a later run, so within a grid cell the labelled frames are a prefix.

What a store holds for this, all of it readable from names alone:

    labels/<shard id>-<start>.parquet     the unit is committed
    shards/<shard id>-<frames>            the shard has so many frames (and holds what was left
                                          out of it, as JSON)
    partial/<shard id>-<start>            the unit may have been cut short: its labels say
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from mint_stream.input.grid import DIGITS

LEFT_OUT = "left_out.json"
"""Object that says which files of the input the last run found to be of kinds that are not read."""


def labels_name(unit: str) -> str:
    """Object whose existence means that `unit` is committed."""
    return f"labels/{unit}.parquet"


def rejects_name(unit: str) -> str:
    """Object with the unit's rejects, where it has any."""
    return f"rejects/{unit}.parquet"


def relabelled_name(unit: str) -> str:
    """Object with rows of `unit` that stand in place of those in its labels."""
    return f"relabelled/{unit}.parquet"


def partial_name(unit: str) -> str:
    """Marker of a unit that ended before its grid cell and its shard did."""
    return f"partial/{unit}"


def shard_end_name(shard: str, frames: int) -> str:
    """Marker that says how many frames a shard has."""
    return f"shards/{shard}-{frames:0{DIGITS}d}"


_LONGEST = 80
"""Bytes of a name as part of a path: file systems take 255, with what stands around it."""


def path_part(name: str) -> str:
    """Any name, such as a camera's, as one part of a path: percent-encoded, short, and unique.

    Of a longer one the beginning stays, with 16 digits of its hash. So they do where only capitals
    tell two names apart, which some disks do not. What it was does not follow from it: that stands
    in the file.
    """
    text = quote(name, safe="")
    if len(text) <= _LONGEST and name == name.lower():
        return text
    digits = hashlib.sha256(name.encode()).hexdigest()[:16]
    kept = re.sub("%[0-9A-F]?$", "", text[: _LONGEST - len(digits) - 1])
    return f"{kept}-{digits}"
