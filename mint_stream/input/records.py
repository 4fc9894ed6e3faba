"""Frozen dataclasses as Arrow rows, and back: what travels between processes has types.

    @dataclass(frozen=True, kw_only=True)
    class Rejected:
        frame: str | None
        size_bytes: int | None

    struct = struct_of(Rejected)              # struct<frame: string, size_bytes: int64>
    rows = pa.array(map(to_row, rejects), struct)
    assert [from_row(Rejected, row) for row in rows.to_pylist()] == rejects

Fields may be `str`, `int`, `float`, `bool`, `bytes` (of any size), `datetime` (UTC, microseconds),
another such dataclass, a tuple of one of these (`tuple[X, ...]`), a mapping from text
(`Mapping[str, X]`), and each of them or None.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import pyarrow as pa

Record = TypeVar("Record")

_PLAIN: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.large_binary(),
    datetime: pa.timestamp("us", tz="UTC"),
}


@cache
def struct_of(kind: type) -> pa.DataType:
    """The Arrow struct of a dataclass. Raises `TypeError` for a field that no row can hold."""
    return pa.struct([(name, _arrow(hint)) for name, hint in _hints(kind).items()])


def to_row(record: Any) -> dict[str, Any]:
    """A record as Arrow takes it; nothing is copied."""
    kind: Any = type(record)
    row: dict[str, Any] = _writer(kind)(record)
    return row


def from_row(kind: type[Record], row: Mapping[str, Any]) -> Record:
    """The record of a row, as `to_pylist` gives it."""
    hint: Any = kind
    record: Record = _reader(hint)(row)
    return record


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _required(hint: Any) -> Any:
    """`X` of `X | None`."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (option for option in get_args(hint) if option is not type(None))
        return inner
    return hint


def _arrow(hint: Any) -> pa.DataType:
    hint = _required(hint)
    if hint in _PLAIN:
        return _PLAIN[hint]
    if dataclasses.is_dataclass(hint):
        return struct_of(typing.cast(type, hint))
    if get_origin(hint) is tuple:
        return pa.list_(_arrow(get_args(hint)[0]))
    if get_origin(hint) is Mapping:
        return pa.map_(pa.string(), _arrow(get_args(hint)[1]))
    raise TypeError(f"{hint!r} has no Arrow type here")


def _same(value: Any) -> Any:
    return value


@cache
def _writer(hint: Any) -> Callable[[Any], Any]:
    hint = _required(hint)
    if hint in _PLAIN:
        return _same
    if dataclasses.is_dataclass(hint):
        fields = [(name, _writer(inner)) for name, inner in _hints(typing.cast(type, hint)).items()]

        def record(value: Any) -> Any:
            if value is None:
                return None
            return {name: write(getattr(value, name)) for name, write in fields}

        return record
    inner = _writer(get_args(hint)[-1 if get_origin(hint) is Mapping else 0])
    if get_origin(hint) is Mapping:
        return lambda value: None if value is None else [(k, inner(v)) for k, v in value.items()]
    return lambda value: None if value is None else [inner(item) for item in value]


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    hint = _required(hint)
    if hint in _PLAIN:
        return _same
    if dataclasses.is_dataclass(hint):
        kind = typing.cast(type, hint)
        fields = [(name, _reader(inner)) for name, inner in _hints(kind).items()]

        def record(row: Any) -> Any:
            return None if row is None else kind(**{name: read(row[name]) for name, read in fields})

        return record
    inner = _reader(get_args(hint)[-1 if get_origin(hint) is Mapping else 0])
    if get_origin(hint) is Mapping:
        return lambda pairs: None if pairs is None else {k: inner(v) for k, v in pairs}
    return lambda items: None if items is None else tuple(map(inner, items))
