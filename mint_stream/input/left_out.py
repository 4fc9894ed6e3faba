"""What of an input is not read: system folders without a word, other kinds with a count."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_SYSTEM = re.compile(
    r"@eadir|@recycle|@recently-snapshot|@tmp|@sharebin|@__thumb|\.@__thumb|[#~]recycle"
    r"|[#~.]snapshots?|\$recycle\.bin|lost\+found|lost\.dir|found\.[0-9]{3}"
    r"|\.trash(?:es|-[0-9]+)?|system volume information|__macosx|\.appledouble|\.appledb"
    r"|\.appledesktop|network trash folder|temporary items|\.temporaryitems|\.fseventsd"
    r"|\.spotlight-v100|\.documentrevisions-v100|\.thumbnails|\.thumbs|\.zfs"
    r"|desktop\.ini|(?:eh)?thumbs\.db|icon\r|\._.*|\.ds_store",
    re.IGNORECASE,
)
"""Names that network disks and operating systems give to what they keep for themselves."""
_COMPRESSED = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd", ".lz4", ".lzma", ".z", ".br", ".sz")
_SUFFIX = re.compile(r"(?:\.[a-z0-9_+-]{1,12})+")
_MOST_KINDS = 32
_MOST_NAME = 120


def is_system(name: str) -> bool:
    """Whether `name`, or a folder in it, is one that a system keeps for itself (`@eaDir/`, ...)."""
    return any(_SYSTEM.fullmatch(part) for part in name.split("/"))


class LeftOut:
    """Files of kinds that are not read, counted by kind, with the first name of each.

    but: the name of a file that is used in another way, as the class list is.
    """

    def __init__(self, but: str | None = None) -> None:
        self._but = but
        self._kinds: dict[str, tuple[int, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def __len__(self) -> int:
        return sum(count for count, _ in self._kinds.values())

    def __str__(self) -> str:
        """`3 .zip (such as a.zip), 1 .arrow (b.arrow)`: the most frequent first."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1][0], item[0]))
        return ", ".join(
            f"{count:,} {kind} ({'such as ' if count > 1 else ''}{example})"
            for kind, (count, example) in kinds
        )

    @property
    def kinds(self) -> frozenset[str]:
        """What there was of."""
        return frozenset(self._kinds)

    def add(self, name: str) -> None:
        """Count one file that is called `name` (valid text)."""
        if name == self._but:
            return
        shown = name if len(name) <= _MOST_NAME else f"{name[:_MOST_NAME]}..."
        # As one line: the names are anybody's.
        self._add(_kind(name), 1, "".join(c if c.isprintable() else "?" for c in shown))

    def update(self, others: Iterable[LeftOut]) -> LeftOut:
        """Count what `others` counted as well."""
        for other in others:
            for kind, (count, example) in other._kinds.items():
                self._add(kind, count, example)
        return self

    def _add(self, kind: str, count: int, example: str) -> None:
        if kind not in self._kinds and len(self._kinds) >= _MOST_KINDS:
            kind = "of other kinds"
        before, first = self._kinds.get(kind, (0, example))
        self._kinds[kind] = before + count, first

    def to_json(self) -> str:
        """As `{".zip": [3, "a.zip"]}`."""
        return json.dumps(self._kinds)

    @classmethod
    def from_json(cls, text: str | bytes) -> LeftOut:
        """What `to_json` wrote; of anything else what can be made out."""
        found = cls()
        try:
            kinds = json.loads(text or "{}")
        except (ValueError, RecursionError):
            return found
        for kind, value in kinds.items() if isinstance(kinds, dict) else ():
            match value:
                case [int(count), str(example)]:
                    found._add(kind, count, example)
        return found


def _kind(name: str) -> str:
    """The suffix, that of what is compressed included (`.parquet.gzip`)."""
    base = name.rpartition("/")[2].lower()
    stem, dot, suffix = base.rpartition(".")
    if not (stem and dot):
        return "without a suffix"
    kind = f".{suffix}"
    inner, dot, before = stem.rpartition(".")
    if kind in _COMPRESSED and inner and dot:
        kind = f".{before}{kind}"
    return kind if _SUFFIX.fullmatch(kind) else "of other kinds"
