"""Banks and deltas as Parquet bytes, float for float, and the names of bank log objects.

    bank/log/<seq>-<unit>-<digest>.parquet     what one unit changed (`schema.BANK_LOG`)
    bank/checkpoints/<seq>-<digest>.parquet    all banks, one row group a scope (`schema.BANK`)

Factors, shapes and counters travel in the schema's metadata, floats in their shortest exact form.
The same content gives the same bytes (with one version of pyarrow), so a retry writes the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mint_stream.bank.exchange import update_digest
from mint_stream.method.bank_state import Banks, BankState, Delta, Update, frozen, significant
from mint_stream.output import schema

LOG_FOLDER = "bank/log/"
_SEQ_DIGITS = 12
_DIGEST_DIGITS = 12
_SCOPES = "mint.scopes"
_SHAPE = "mint.shape"
_SEQ = "mint.seq"
_UNIT = "mint.unit"


class BankFileError(ValueError):
    """Bytes that are not what their name promises."""


@dataclass(frozen=True, order=True)
class LogName:
    """The parts of a bank log object's name; they sort as the names do."""

    seq: int
    unit: str
    digest: str

    @classmethod
    def of(cls, seq: int, unit: str, update: Update) -> LogName:
        """The name under which merge `seq`, the `update` of `unit`, is logged."""
        return cls(seq, unit, update_digest(update)[:_DIGEST_DIGITS])

    @classmethod
    def parse(cls, name: str) -> LogName:
        """From an object's name. Raises `BankFileError` for a name of another form."""
        stem = name.removeprefix(LOG_FOLDER).removesuffix(".parquet")
        seq, _, rest = stem.partition("-")
        unit, _, digest = rest.rpartition("-")
        if not (seq.isdecimal() and unit and digest) or str(cls(int(seq), unit, digest)) != name:
            raise BankFileError(f"{name!r} is not the name of a bank log object")
        return cls(int(seq), unit, digest)

    def __str__(self) -> str:
        return f"{LOG_FOLDER}{seq_text(self.seq)}-{self.unit}-{self.digest}.parquet"


def seq_text(seq: int) -> str:
    """A seq as it stands in names, so that names sort by seq."""
    return f"{seq:0{_SEQ_DIGITS}d}"


def write_delta(update: Update, *, unit: str, seq: int) -> bytes:
    """Merge `seq`, the `update` of `unit`, as a bank log object."""
    update = significant(update)
    scopes = {
        scope: {"decay": change.decay, "scale": change.scale, "rescales": change.rescales}
        for scope, change in sorted(update.items())
    }
    shape = next(((d.prompts_EPD.shape[1:]) for d in update.values()), (0, 0))
    file = _Writer(schema.BANK_LOG, {_UNIT: unit, _SEQ: seq, _SHAPE: shape, _SCOPES: scopes})
    for scope in scopes:
        d = update[scope]
        file.rows(scope, d.entries_E, d.keys_ED, d.prompts_EPD, d.usage_E)
    return file.close()


def read_delta(data: bytes) -> Update:
    """The update in a bank log object. Raises `BankFileError` if it is none."""
    file = _Reader(data, schema.BANK_LOG)
    update = {}
    for group, (scope, about) in enumerate(file.scopes.items()):
        entries_E, keys_ED, prompts_EPD, usage_E = file.rows(scope, group)
        decay, scale, rescales = (about[key] for key in ("decay", "scale", "rescales"))
        update[scope] = Delta(entries_E, keys_ED, prompts_EPD, usage_E, decay, scale, rescales)
    return update


def write_bank(banks: Banks) -> bytes:
    """All banks but the initial ones, one row an entry."""
    scopes = {
        scope: {"decay": state.decay, "rescales": state.rescales}
        for scope, state in sorted(banks.states.items())
    }
    shape = banks.initial.prompts_KPD.shape[1:]
    file = _Writer(schema.BANK, {_SEQ: banks.seq, _SHAPE: shape, _SCOPES: scopes})
    for scope in scopes:
        s = banks.states[scope]
        entries = np.arange(len(s.usage_K), dtype=np.int32)
        file.rows(scope, entries, s.keys_KD, s.prompts_KPD, s.usage_K, s.last_seq_K)
    return file.close()


def read_bank(data: bytes, initial: BankState) -> Banks:
    """The banks in a checkpoint, around the `initial` one. Raises `BankFileError` if it is none."""
    file = _Reader(data, schema.BANK)
    states = {}
    for group, (scope, about) in enumerate(file.scopes.items()):
        entries_K, keys_KD, prompts_KPD, usage_K, last_seq_K = file.rows(scope, group)
        if prompts_KPD.shape != initial.shape or not np.array_equal(
            entries_K, np.arange(len(entries_K))
        ):
            raise BankFileError(
                f"the bank of {scope!r} has shape {prompts_KPD.shape}; this run's {initial.shape}"
            )
        decay, rescales = about["decay"], about["rescales"]
        states[scope] = frozen(
            BankState(keys_KD, prompts_KPD, usage_K, last_seq_K, decay, rescales)
        )
    return Banks(initial, states, seq=int(file.about(_SEQ)))


def bank_width(data: bytes) -> int:
    """D of the banks in a checkpoint. Raises `BankFileError` if it is none."""
    return int(_Reader(data, schema.BANK).about(_SHAPE)[1])


class _Writer:
    """One Parquet file, one row group for each scope."""

    def __init__(self, fields: pa.Schema, about: Mapping[str, Any]) -> None:
        texts = {key: json.dumps(value) for key, value in about.items()}
        self._schema = fields.with_metadata({**fields.metadata, **texts})
        self._sink = pa.BufferOutputStream()
        # Mantissas do not compress, and no reader filters by them: plain pages, no statistics.
        self._file = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
        )

    def rows(self, scope: str, entries_E: NDArray[Any], *arrays: NDArray[Any]) -> None:
        columns = [pa.array([scope] * len(entries_E), pa.string()), pa.array(entries_E)]
        columns += [_lists(array) if array.ndim > 1 else pa.array(array) for array in arrays]
        self._file.write_table(pa.table(columns, schema=self._schema))

    def close(self) -> bytes:
        self._file.close()
        return bytes(self._sink.getvalue())


class _Reader:
    """What `_Writer` wrote. Raises `BankFileError` for anything else."""

    def __init__(self, data: bytes, fields: pa.Schema) -> None:
        try:
            self._file = pq.ParquetFile(pa.BufferReader(data))
        except (pa.ArrowException, OSError) as error:
            raise BankFileError(f"not a Parquet file: {error}") from error
        found = self._file.schema_arrow
        self._about, self._columns = found.metadata or {}, fields.names
        if any(self._about.get(key) != value for key, value in fields.metadata.items()) or any(
            field.name not in found.names or found.field(field.name).type != field.type
            for field in fields
        ):
            raise BankFileError(
                f"not a {fields.metadata[b'mint.kind'].decode()} file of schema version "
                f"{schema.SCHEMA_VERSION}"
            )
        self.scopes: dict[str, dict[str, Any]] = self.about(_SCOPES)
        rows, width = self.about(_SHAPE)
        self._shapes = {"key": (-1, width), "prompt": (-1, rows, width)}
        if self._file.num_row_groups != len(self.scopes):
            raise BankFileError(f"{self._file.num_row_groups} row groups for {len(self.scopes)}")

    def about(self, key: str) -> Any:
        try:
            return json.loads(self._about[key.encode()])
        except (KeyError, ValueError) as error:
            raise BankFileError(f"its metadata lacks a readable {key!r}") from error

    def rows(self, scope: str, group: int) -> list[NDArray[Any]]:
        """Every column but the scope, as arrays: lists with the shape that the metadata gives."""
        try:
            table = self._file.read_row_group(group).combine_chunks()
            if table["scope"].to_pylist() != [scope] * len(table):
                raise BankFileError(f"row group {group} is not of the scope {scope!r}")
            return [
                table[name].combine_chunks().flatten().to_numpy().reshape(self._shapes[name])
                if name in self._shapes
                else table[name].combine_chunks().to_numpy()
                for name in self._columns
                if name != "scope"
            ]
        except (pa.ArrowException, OSError, ValueError) as error:
            raise BankFileError(f"the rows of {scope!r} cannot be read: {error}") from error


def _lists(array: NDArray[Any]) -> pa.Array:
    values = math.prod(array.shape[1:])
    offsets = np.arange(len(array) + 1, dtype=np.int32) * np.int32(values)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(array.reshape(-1)))
