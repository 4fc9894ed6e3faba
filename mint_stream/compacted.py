"""The compacted copy of an output: few large files beside the many small ones of its units.

    compact/<number>.json               a generation: which files, and which units stand in them
    compact/<number>-<digits>/...       its files; they never change

A generation exists once its JSON does, which is created, never overwritten; the highest number
counts. Unit files stay where they are: they are the record of what is committed, and whoever reads
`labels/*.parquet` sees every row once, whatever happens in `compact/`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from mint_stream import schema
from mint_stream.storage import ObjectMissing, StorageError, Store

FOLDER = "compact/"
MANIFEST = re.compile(rf"{FOLDER}([0-9]{{8,}})\.json")
FILE = re.compile(rf"({FOLDER}([0-9]{{8,}})-[0-9a-f]{{8}}/).+\.parquet")


class CompactedError(StorageError):
    """A generation that is not what its manifest says. The message names what is damaged."""


@dataclass(frozen=True, kw_only=True)
class CompactFile:
    """One Parquet file of a generation."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the JSON of a generation says."""

    number: int
    labels: tuple[CompactFile, ...]
    rejects: tuple[CompactFile, ...]
    units: CompactFile
    """A table of the units whose rows stand in `labels` and `rejects`."""
    schema_version: int = schema.SCHEMA_VERSION

    @property
    def name(self) -> str:
        """Of its JSON."""
        return manifest_name(self.number)

    @property
    def folder(self) -> str:
        """Where its files are."""
        match = FILE.fullmatch(self.units.name)
        return match[1] if match else FOLDER

    @property
    def files(self) -> tuple[CompactFile, ...]:
        """All of them."""
        return (*self.labels, *self.rejects, self.units)

    def to_json(self) -> bytes:
        """With a hash over itself."""
        values = asdict(self)
        return json.dumps({**values, "sha256": _hash_of(values)}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Generation:
        """Raises `ValueError` unless `data` is what `to_json` gave."""
        values = json.loads(data)
        if not isinstance(values, dict) or values.pop("sha256", None) != _hash_of(values):
            raise ValueError("its hash does not match its content")
        try:
            for kind in ("labels", "rejects"):
                values[kind] = tuple(CompactFile(**file) for file in values[kind])
            return cls(**{**values, "units": CompactFile(**values["units"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it has other fields than this version's ({error})") from error


def manifest_name(number: int) -> str:
    """The JSON of generation `number`."""
    return f"{FOLDER}{number:08d}.json"


def newest(store: Store, names: Iterable[str] | None = None) -> Generation | None:
    """The generation that counts; None where there is none.

    names: of the objects in `compact/`, where they are known. Raises `CompactedError` if its
    manifest is damaged, `StorageError` as the store does.
    """
    if names is None:
        names = [info.name for info in store.list(FOLDER)]
    numbers = [int(match[1]) for name in names if (match := MANIFEST.fullmatch(name))]
    if not numbers:
        return None
    name = manifest_name(max(numbers))
    try:
        return Generation.from_json(store.read(name))
    except ObjectMissing:  # a newer one has replaced it
        return newest(store)
    except ValueError as error:
        raise CompactedError(
            f"{store.uri(name)} is damaged: {error}; delete it, and compact again: no row is lost"
        ) from error


def read_file(store: Store, file: CompactFile) -> bytes:
    """A file of a generation. Raises `ObjectMissing`, or `CompactedError` if it was changed."""
    data = store.read(file.name)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise CompactedError(
            f"{store.uri(file.name)} does not match the hash in its manifest: delete the manifest "
            "of that generation, and compact again: no row is lost"
        )
    return data


def _hash_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
