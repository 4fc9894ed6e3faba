"""Dataclasses as Arrow rows: whatever they hold comes back, as what it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_stream.input.records import from_row, struct_of, to_row
from mint_stream.input.units import DecodedFrame, Rejected, Unit
from mint_stream.output.units import CameraDomain, CommittedUnit, LabelledUnit, UnitFacts

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.integers(-(2**40), 2**40)
FLOATS = st.floats(allow_nan=False)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(
    lambda time: time.replace(tzinfo=UTC)
)

FRAMES = st.builds(
    DecodedFrame,
    frame=TEXT,
    member=st.none() | TEXT,
    camera=st.none() | TEXT,
    timestamp=st.none() | TIMES,
    width=NUMBERS,
    height=NUMBERS,
    pixels_height=NUMBERS,
    pixels_width=NUMBERS,
    pixels=st.binary(max_size=9),
)
REJECTS = st.builds(
    Rejected,
    frame=st.none() | TEXT,
    member=st.none() | TEXT,
    stage=TEXT,
    error_type=TEXT,
    message=TEXT,
    size_bytes=st.none() | NUMBERS,
)
UNITS = st.builds(
    Unit,
    unit=TEXT,
    shard_id=TEXT,
    shard=TEXT,
    frames=st.lists(FRAMES, max_size=3).map(tuple),
    rejects=st.lists(REJECTS, max_size=2).map(tuple),
    partial=st.booleans(),
    shard_frames=st.none() | NUMBERS,
    read_seconds=FLOATS,
)
CAMERAS = st.builds(
    CameraDomain,
    camera=TEXT,
    domain=NUMBERS,
    drift=st.none() | FLOATS,
    guard=TEXT,
    frames=NUMBERS,
)
FACTS = st.builds(
    UnitFacts,
    labelled=NUMBERS,
    abstained=NUMBERS,
    adapted=NUMBERS,
    spared=NUMBERS,
    adapt_seconds=FLOATS,
    passes=NUMBERS,
    rejected=st.dictionaries(TEXT, NUMBERS, max_size=2),
    bank_seq=st.none() | NUMBERS,
    bank_staleness=st.none() | NUMBERS,
    cameras=st.lists(CAMERAS, max_size=2).map(tuple),
    stage_seconds=st.dictionaries(TEXT, FLOATS, max_size=3),
)
LABELLED = st.builds(
    LabelledUnit,
    unit=TEXT,
    shard_id=TEXT,
    partial=st.booleans(),
    shard_frames=st.none() | NUMBERS,
    labels=st.binary(max_size=9),
    rejects=st.none() | st.binary(max_size=9),
    log_name=TEXT,
    log=st.none() | st.binary(max_size=9),
    facts=FACTS,
)
COMMITTED = st.builds(CommittedUnit, unit=TEXT, won=st.booleans(), facts=FACTS)


@given(st.lists(UNITS, max_size=3), st.lists(LABELLED, max_size=3), st.lists(COMMITTED, max_size=3))
def test_units_come_back_as_they_went(
    units: list[Unit], labelled: list[LabelledUnit], committed: list[CommittedUnit]
) -> None:
    for records in (units, labelled, committed):
        for record in records:
            array = pa.array([to_row(record)], struct_of(type(record)))
            assert [from_row(type(record), row) for row in array.to_pylist()] == [record]


def test_the_schema_follows_from_the_fields() -> None:
    assert struct_of(Rejected) == pa.struct(
        [
            ("frame", pa.string()),
            ("member", pa.string()),
            ("stage", pa.string()),
            ("error_type", pa.string()),
            ("message", pa.string()),
            ("size_bytes", pa.int64()),
        ]
    )


def test_a_field_that_no_row_can_hold_is_named() -> None:
    @dataclass(frozen=True)
    class Odd:
        what: complex

    with pytest.raises(TypeError, match=r"complex.* has no Arrow type"):
        struct_of(Odd)


@dataclass(frozen=True)
class Nested:
    inner: Rejected | None = None
    by_name: Mapping[str, Rejected] = field(default_factory=dict)


def test_records_within_mappings_and_none() -> None:
    reject = Rejected(
        frame=None, member="a", stage="read", error_type="E", message="m", size_bytes=None
    )
    for nested in (Nested(), Nested(reject, {"x": reject, "y": replace(reject, member=None)})):
        (row,) = pa.array([to_row(nested)], struct_of(Nested)).to_pylist()
        assert from_row(Nested, row) == nested
