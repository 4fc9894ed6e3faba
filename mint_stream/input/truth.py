"""What an input itself says about its frames, or a file with the truth. For evaluation."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.config import ConfigError, require
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame
from mint_stream.input.shards import all_items, had
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import PREFLIGHT, Store, split_url


def read_truth(
    input_url: str, *, image_column: str | None = None, id_column: str | None = None
) -> pa.Table:
    """What the input itself says about its frames: frame, camera, timestamp, domain, label.

    From sidecars, Parquet columns and folder names; null where they say nothing. For evaluation.
    Raises `StorageError` as the store does.
    """
    frames = [
        item
        for shard in discover(input_url, unit_size=1024)
        for item in had(all_items(shard, None, image_column, id_column, None))
        if isinstance(item, Frame)
    ]
    time = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "frame": pa.array([frame.frame for frame in frames], pa.string()),
            "camera": pa.array([frame.facts.camera for frame in frames], pa.string()),
            "timestamp": pa.array([frame.facts.timestamp for frame in frames], time),
            "domain": pa.array([frame.facts.domain for frame in frames], pa.string()),
            "label": pa.array([frame.facts.label for frame in frames], pa.string()),
        }
    )


def read_any_truth(input_url: str | None, file: str | None) -> pa.Table:
    """Columns frame, domain and label: from the Parquet `file`, or else `read_truth`.

    Raises `ConfigError` for a file that has none.
    """
    if file is None:
        require(input_url is not None, "input", None, "given, or a file with the truth")
        return read_truth(str(input_url))
    try:
        folder, name = split_url(file)
        table = pq.read_table(io.BytesIO(Store(folder or ".", retry=PREFLIGHT).read(name)))
    except (StorageError, ObjectMissing, pa.ArrowInvalid) as error:
        raise ConfigError(f"truth is {file!r}, which cannot be read: {error}") from error
    for column in ("frame", "label"):
        require(column in table.column_names, "truth", file, f"a table with column {column}")
    if "domain" not in table.column_names:
        table = table.append_column("domain", pa.nulls(table.num_rows, pa.string()))
    return table
