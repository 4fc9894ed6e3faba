"""`mint-stream make-drift`: a stream that drifts, made of labelled pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

import tyro

from mint_stream.config import ConfigError
from mint_stream.evaluation.drift import Drift, read_pictures, write_stream
from mint_stream.store.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Options(Drift):
    """Make a stream that drifts from labelled pictures, to find out what adaptation does on it.

    Example: mint-stream make-drift --input pictures --output stream --segments clear fog:3 clear
    """

    input: str
    """A folder with a subfolder for each class, or shards whose sidecars tell the label."""
    output: str
    """A new folder for the shards, labels.txt and drift.json, which says how they were made."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and write; 0 if done, 2 for what cannot work."""
    try:
        options = tyro.cli(Options, args=arguments, prog="mint-stream make-drift")
        drift = Drift(**{field.name: getattr(options, field.name) for field in fields(Drift)})
        shards = write_stream(options.output, read_pictures(options.input), drift)
    except (ConfigError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{drift.frames:,} frames in {len(shards)} shards in {options.output}")
    return 0
