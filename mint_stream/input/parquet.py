"""Frames from a Parquet file with a column of encoded images.

Which column that is, and its forms: `image_column`. `camera`, `timestamp`, `domain` and `label` are
read where there are such columns, in letters of any case.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.input.frames import (
    FACTS,
    MAX_IMAGE_BYTES,
    Facts,
    Frame,
    FrameIds,
    Reject,
    ShardError,
    parse_facts,
    path_facts,
    valid_text,
)
from mint_stream.input.image_column import bytes_of, image_column_of, path_of, shown
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

_EXACT_FLOAT32 = 2**24
_ROWS = 16  # rows in memory at a time
_MAX_LOST_ROWS = 1_000_000


def read_parquet(
    file: io.BufferedReader,
    size_bytes: int,
    uri: str,
    *,
    data_from: int | None,
    image_column: str | None,
    id_column: str | None,
) -> Iterator[Frame | Reject]:
    """A frame for each row; frames from index `data_from` on come with their bytes (None: none).

    Rows of a damaged row group are rejects, one by one. Raises `ShardError` for a file that cannot
    be read at all.
    """
    table, images = open_parquet(file, size_bytes, image_column, id_column)
    rows = _Rows(uri, id_column, images, path_facts(f"{uri}/"))
    names = [name for name in table.schema_arrow.names if name != images]
    columns = [name for name in names if name.strip().casefold() in FACTS]
    columns += [id_column] if id_column and id_column not in columns else []
    for group in range(table.num_row_groups):
        first, count = rows.index, table.metadata.row_group(group).num_rows
        wanted = data_from is not None and data_from < first + count
        try:
            chosen = [*columns, images] if wanted else columns
            yield from _group_rows(table, group, count, chosen, rows, data_from)
        except StorageError:
            raise
        except Exception as error:
            # Arrow meets bytes from anywhere, and fails on some in ways that are not listed.
            lost = first + count - rows.index
            if lost > _MAX_LOST_ROWS:
                raise ShardError(f"row group {group} claims {count:,} rows: {error}") from error
            message = f"row group {group} of the Parquet file cannot be read: {error}"
            for identity in _identities(table, group, count, id_column)[count - lost :]:
                yield rows.reject(identity, type(error).__name__, message)


def count_rows(
    file: io.BufferedReader, size_bytes: int, image_column: str | None, id_column: str | None
) -> int:
    """Number of rows. Raises `ShardError` as `read_parquet` does."""
    table, _ = open_parquet(file, size_bytes, image_column, id_column)
    return int(table.metadata.num_rows)


def open_parquet(
    file: io.BufferedReader, size_bytes: int, image_column: str | None, id_column: str | None
) -> tuple[pq.ParquetFile, str]:
    """The file, and the column that holds its images. Raises `ShardError`."""
    if size_bytes == 0:
        raise ShardError("the Parquet file is empty (0 bytes)")
    try:
        # Pages are read one after the other: a row group of images may be larger than the memory.
        table = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
        schema, footer = table.schema_arrow, table.metadata
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
    except StorageError:
        raise
    except Exception as error:  # as above: whatever Arrow makes of a damaged footer
        raise ShardError(f"the Parquet file cannot be read: {error}") from error
    if any(count < 0 for count in rows) or sum(rows) != footer.num_rows:
        raise ShardError("the Parquet file cannot be read: its footer contradicts itself")
    read = {name for name in schema.names if name in (id_column, image_column)} | {
        *(field.name for field in schema if bytes_of(field.type) is not None),
        *(name for name in schema.names if name.strip().casefold() in FACTS),
    }
    twice = sorted(name for name in read if schema.names.count(name) > 1)
    if twice:
        raise ShardError(f"it has more than one column {twice[0]!r}: rename them")
    if id_column is not None and id_column not in schema.names:
        raise ShardError(f"there is no column {id_column!r}; the columns are {shown(schema)}")
    return table, image_column_of(table, image_column)


class _Rows:
    """Turns values of one file's rows into frames and rejects, numbering them."""

    def __init__(self, uri: str, id_column: str | None, images: str, facts: Facts) -> None:
        self.index = 0
        self._uri = uri
        self._ids = FrameIds(uri)
        self._id_column = id_column
        self._images = images
        self._path_facts = facts

    def frame(self, row: dict[str, pa.Scalar], with_data: bool) -> Frame | Reject:
        """The next row as a frame, or as a reject where its image is null."""
        identity = _plain(row[self._id_column]) if self._id_column else None
        data = b""
        if with_data:
            value = row[self._images]
            take = bytes_of(value.type)
            found = take(value) if take is not None else None
            if found is None:
                return self.reject(identity, "NullImage", self._lacking(value))
            data = found
            if len(data) > MAX_IMAGE_BYTES:
                message = f"the image has {len(data):,} bytes; the limit is {MAX_IMAGE_BYTES:,}"
                return self.reject(identity, "ImageError", message)
        said = {name: _plain(value) for name, value in row.items() if name != self._images}
        facts = parse_facts(said, f"row {self.index} of {self._uri}")
        member, frame = self._name(identity)
        item = Frame(frame, self._uri, member, self.index, data, facts.or_else(self._path_facts))
        self.index += 1
        return item

    def _lacking(self, value: pa.Scalar) -> str:
        path = path_of(value)
        if path is None:
            return f"column {self._images!r} is null here"
        return (
            f"column {self._images!r} has no bytes here, only the path {path!r}: write the bytes "
            "into the file, or label the folder of the images instead"
        )

    def reject(self, identity: Any, error_type: str, message: str) -> Reject:
        """The next row as a reject."""
        member, frame = self._name(identity)
        item = Reject(frame, self._uri, member, self.index, "read", error_type, message)
        self.index += 1
        return item

    def _name(self, identity: Any) -> tuple[str, str]:
        """Member and frame id: the value of the id column; the row's number where it has none."""
        if isinstance(identity, bytes):
            identity = identity.decode("utf-8", "backslashreplace")
        member = valid_text(str(self.index if identity is None else identity))
        return member, self._ids.take(member)


def _group_rows(
    table: pq.ParquetFile,
    group: int,
    count: int,
    columns: list[str],
    rows: _Rows,
    data_from: int | None,
) -> Iterator[Frame | Reject]:
    if not columns:
        for _ in range(count):
            yield rows.frame({}, False)
        return
    end = rows.index + count
    for batch in table.iter_batches(_ROWS, row_groups=[group], columns=columns):
        for at in range(min(batch.num_rows, end - rows.index)):
            row = {name: batch.column(name)[at] for name in columns}
            yield rows.frame(row, data_from is not None and rows.index >= data_from)
    if rows.index < end:  # some damage does not make Arrow fail: it just ends early
        raise ShardError(f"its last {end - rows.index:,} rows are missing")


def _identities(table: pq.ParquetFile, group: int, count: int, id_column: str | None) -> list[Any]:
    """The ids of a row group whose images cannot be read; None where they cannot be, either."""
    if id_column is not None:
        try:
            ids = table.read_row_group(group, columns=[id_column]).column(id_column).to_pylist()
            if len(ids) == count:
                return list(ids)
        except StorageError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            log.debug("the ids cannot be read either: %s", error)
    return [None] * count


def _plain(value: pa.Scalar) -> Any:
    """A value as Python has it, times in UTC and whole us.

    Of what Python cannot hold (a time beyond its years, text that is not UTF-8), and of counts in
    floats of 32 bits, which are minutes wrong by now, a text that says so.
    """
    if pa.types.is_dictionary(value.type):
        value = value.value
    if value is None or not value.is_valid:
        return None
    try:
        if pa.types.is_timestamp(value.type):
            # Only of ns may something be cut off: other units would run over, into another time.
            value = value.cast(pa.timestamp("us", tz="UTC"), safe=value.type.unit != "ns")
        plain = value.as_py()
    except (pa.ArrowException, ValueError, OverflowError):
        if pa.types.is_string(value.type) or pa.types.is_large_string(value.type):
            return value.as_buffer().to_pybytes()
        return f"{value.type} beyond what can be read"
    if pa.types.is_float32(value.type) and plain > _EXACT_FLOAT32:
        return f"{plain} ({value.type})"
    return plain
