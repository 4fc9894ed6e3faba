"""Which column of a Parquet file holds the images: the one with the largest images in it.

Images may be binary, a struct with a `bytes` field (the form in which Hugging Face stores them) or
lists of uint8. The type alone does not tell: hashes, JSON and embeddings have such types as well.
So the first bytes of some rows are looked at.
"""

from __future__ import annotations

import io
import itertools
import logging
import re
import struct
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mint_stream.input.frames import ShardError
from mint_stream.logs import warn_once
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "image_bytes", "bytes", "content", "data")
"""Names that settle which column holds the images where several are as large."""

_SURE = IMAGE_COLUMNS[:6]  # the others are names for anything
_SAMPLED_ROWS = 4  # of each of up to `_SAMPLED_GROUPS` row groups
_SAMPLED_GROUPS = 3
_DIGESTS = {16, 20, 28, 32, 40, 48, 56, 64, 96, 128}  # bytes of MD5 to SHA-512, raw or in hex
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|II\+\0|MM\0\+"
    rb"|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|P[1-6]\s|.{4}ftyp(?:avi|hei|hev|mif|msf)"
    rb"|\xff\x0a|\0\0\0\x0cJXL |\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)


def image_column_of(table: pq.ParquetFile, wanted: str | None) -> str:
    """The column that holds the images. Raises `ShardError`, with the columns that there are.

    wanted: the one that was asked for; it is taken for whatever is in it.
    """
    schema = table.schema_arrow
    fitting = [field.name for field in schema if bytes_of(field.type) is not None]
    if wanted is not None:
        _check_wanted(schema, wanted, fitting)
        return wanted
    if len(fitting) == 1 and fitting[0] in _SURE:
        return fitting[0]
    samples = _samples(table, fitting)
    sizes = {name: _image_pixels(values) for name, values in samples.items()}
    images = [name for name, pixels in sizes.items() if pixels]
    if images:
        # A mask or a second view is as large as the picture; a thumbnail is not.
        largest = max(sizes[name] for name in images)
        chosen = _settled([name for name in images if 2 * sizes[name] > largest])
        for name in {*fitting} & {*_SURE} if chosen not in _SURE else ():
            message = "images are read from column %r, which has the largest; not from %r"
            warn_once(log, "column", message, chosen, name)
        return chosen
    possible = [name for name in fitting if not samples[name] or name in IMAGE_COLUMNS]
    possible = [name for name in possible if not _is_other(samples[name])]
    if possible:
        return _settled(possible)
    raise ShardError(_none_of(schema, samples))


def _check_wanted(schema: pa.Schema, wanted: str, fitting: list[str]) -> None:
    if wanted not in schema.names:
        raise ShardError(f"there is no column {wanted!r}; the columns are {shown(schema)}")
    if wanted not in fitting:
        raise ShardError(
            f"column {wanted!r} is of type {schema.field(wanted).type}; images are binary, a "
            f"struct with a field `bytes`, or lists of uint8{_about_paths(schema, [wanted])}"
        )


def _settled(names: list[str]) -> str:
    named = [name for name in IMAGE_COLUMNS if name in names]
    if named or len(names) == 1:
        return (named or names)[0]
    raise ShardError(
        f"several columns could hold the images ({', '.join(names)}); choose one "
        "with --image-column"
    )


def _none_of(schema: pa.Schema, samples: dict[str, list[bytes]]) -> str:
    begins = [f"{name} begins with {values[0][:12]!r}" for name, values in samples.items()]
    looked = f", and no image is in any of them ({'; '.join(begins)})" if begins else ""
    choose = "; if one holds images nevertheless, name it with --image-column" if begins else ""
    return (
        f"there is no column of images; the columns are {shown(schema)}{looked}{choose}"
        f"{_about_paths(schema, list(IMAGE_COLUMNS))}"
    )


def _about_paths(schema: pa.Schema, names: list[str]) -> str:
    """What to do where a column that should hold images says only where they are."""
    for name in names:
        kind = schema.field(name).type if name in schema.names else pa.null()
        is_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
        if is_path or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            return (
                f". Paths or addresses in {name} are not followed: write the images' bytes into "
                "the file, or label the folder of the images"
            )
    return ""


def _samples(table: pq.ParquetFile, names: list[str]) -> dict[str, list[bytes]]:
    """Some values of the columns `names`, without nulls and what is damaged."""
    groups = table.num_row_groups
    chosen = sorted({0, groups // 2, groups - 1}) if groups and names else []
    found: dict[str, list[bytes]] = {name: [] for name in names}
    for name in names:
        take = bytes_of(table.schema_arrow.field(name).type)
        for group in chosen[:_SAMPLED_GROUPS]:
            found[name] += [v for v in _values(table, group, name, take) if v]
            if _image_pixels(found[name]):
                break
    return found


def _values(table: pq.ParquetFile, group: int, name: str, take: Any) -> Iterator[bytes | None]:
    try:
        batches = table.iter_batches(_SAMPLED_ROWS, row_groups=[group], columns=[name])
        for batch in itertools.islice(batches, 1):
            yield from map(take, batch.column(name))
    except StorageError:
        raise
    except Exception as error:  # whatever Arrow makes of damage; reading the rows will say it
        log.debug("row group %d cannot be looked at: %s", group, error)


def _image_pixels(values: list[bytes]) -> float:
    """Median pixels of the images among `values`, at least 1 where there is one; else 0."""
    return median([_pixels(value) for value in values if _MAGIC.match(value)] or [0])


def _pixels(image: bytes) -> int:
    try:
        with Image.open(io.BytesIO(image)) as opened:
            return max(1, opened.width * opened.height)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return max(1, len(image))  # of a kind that is not decoded, or damaged


def _is_other(values: list[bytes]) -> bool:
    """Whether this is certainly something else: JSON, or digests."""
    lengths = {len(value) for value in values}
    digests = len(values) > 1 and len(lengths) == 1 and lengths <= _DIGESTS
    json = all(value.lstrip()[:1] in (b"{", b"[") for value in values)
    return bool(values) and (json or digests)


def shown(schema: pa.Schema) -> str:
    """The columns with their types, for a message."""
    return ", ".join(f"{field.name} ({field.type})" for field in schema) or "none at all"


def bytes_of(kind: pa.DataType) -> Callable[[pa.Scalar], bytes | None] | None:
    """How an image's bytes are taken from a value of type `kind`; None for other types."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    ):
        return lambda value: value.as_py()
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    if is_list and pa.types.is_uint8(kind.value_type):
        return lambda value: value.values.to_numpy().tobytes() if value.is_valid else None
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inner = bytes_of(kind.field("bytes").type)
        if inner is not None:
            take = inner
            return lambda value: take(value["bytes"]) if value.is_valid else None
    return None


def path_of(value: pa.Scalar) -> str | None:
    """The path in a struct with a field `path`; None where there is none."""
    if not pa.types.is_struct(value.type) or not value.is_valid:
        return None
    path = value["path"].as_py() if value.type.get_field_index("path") >= 0 else None
    return str(path) if path else None
