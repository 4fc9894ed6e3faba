"""Reading outputs back, and accuracy against a truth."""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_tables import CLASSES, frame_id, labels_table, put, truth_table

from mint_stream.bank import checkpoint
from mint_stream.bank.checkpoint import read_bank_usage
from mint_stream.method.bank_state import Banks, initial_state
from mint_stream.output import schema
from mint_stream.output.accuracy import accuracy_by, with_truth
from mint_stream.output.read import read_labels, read_rejects
from mint_stream.reports.report import labelling_rate
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store


@pytest.fixture(params=["local", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_an_output_that_is_not_there_is_no_empty_table(output: str) -> None:
    for folder in (output, f"{output}/typo"):
        for read in (read_labels, read_rejects):
            with pytest.raises(StorageError, match=rf"no output of mint_stream at .*{folder[-8:]}"):
                read(folder)
        Store(output).write("other.txt", b"not an output either")


def test_an_output_without_anything_gives_empty_tables_with_the_schema(output: str) -> None:
    Store(output).write(schema.SETTINGS, b"{}")
    assert read_labels(output).schema.equals(schema.LABELS, check_metadata=True)
    assert read_rejects(output).schema.equals(schema.REJECTS, check_metadata=True)
    assert read_labels(output).num_rows == read_rejects(output).num_rows == 0
    assert read_bank_usage(output).num_rows == 0


def test_labels_come_by_shard_then_unit_then_row(output: str) -> None:
    # Ids of shards are hashes: their order says nothing about the order of the shards.
    for unit, answers, shard, first in (
        ("f0-00000000", ["car"] * 2, "a1.tar", 0),
        ("f0-00000002", ["bus"] * 3, "a1.tar", 2),
        ("10-00000000", ["dog"], "a10.tar", 0),
        ("20-00000000", ["dog"], "a9.tar", 0),
    ):
        table = labels_table(answers, shard=shard, first=first, unit=unit)
        put(output, f"labels/{unit}.parquet", table)
    put(output, "labels/10-00000001.parquet", schema.LABELS.empty_table())
    table = read_labels(output)
    assert table.schema.equals(schema.LABELS, check_metadata=True)
    wanted = [frame_id(k, "a1.tar") for k in range(5)]
    assert table["frame"].to_pylist() == [*wanted, "a9.tar#000000.png", "a10.tar#000000.png"]


def test_extra_columns_of_some_units_are_kept(output: str) -> None:
    plain = labels_table(["car"])
    put(output, "labels/a-00000000.parquet", plain)
    with_embedding = plain.append_column("embedding", pa.array([[1.0, 2.0]]))
    put(output, "labels/a-00000001.parquet", with_embedding)
    assert read_labels(output)["embedding"].to_pylist() == [None, [1.0, 2.0]]


def test_a_damaged_file_is_named(output: str) -> None:
    Store(output).write("labels/a-00000000.parquet", b"PAR1 but no more")
    with pytest.raises(StorageError, match=r"labels/a-00000000\.parquet is not a readable Parquet"):
        read_labels(output)


def bank(usage: int, seq: int) -> Banks:
    start = initial_state(entries=2, prompt_rows=1, width=2, seed=0)
    state = dataclasses.replace(start, usage_K=np.array([usage, 0]))
    return Banks(start, {"shared": state}, seq)


def test_bank_usage_is_of_the_newest_sound_checkpoint(output: str) -> None:
    store, numbers = Store(output), itertools.count(1)

    def save(seq: int, usage: int) -> str:
        banks = bank(usage, seq)
        saved = checkpoint.save(store, banks, covered=(), number=next(numbers), identity={})
        return saved.name

    for usage in range(1, 9):  # of one seq, as after a rollback: names are in any order
        save(9, usage)
        assert read_bank_usage(output)["usage"].to_pylist() == [usage, 0]
    assert read_bank_usage(output).column_names == ["scope", "entry", "usage"]
    store.delete(f"{save(10, usage=20)}.json")
    store.write(f"{save(11, usage=30)}.json", b"{}")
    store.write(f"{save(12, usage=40)}.parquet", b"PAR1")
    assert read_bank_usage(output)["usage"].to_pylist() == [8, 0]


def test_accuracy_by_segment_counts_what_adapting_fixed_and_broke() -> None:
    labels = labels_table(
        answers=["car", "car", "bus", "dog", "dog", "bus"],
        source=["car", "bus", "bus", "dog", "car", "dog"],
    )
    truth = truth_table(
        ["car", "car", "car", "dog", "car", "bus"],
        ["night", "night", "night", "day", "day", "day"],
    )
    night, day, overall = accuracy_by(with_truth(labels, truth))
    assert (night.name, night.frames) == ("night", 3)  # first appearance, not the alphabet
    assert night.source_accuracy == pytest.approx(1 / 3)
    assert (night.accuracy, night.fixed, night.broken) == (pytest.approx(2 / 3), 1, 0)
    assert (day.name, day.fixed, day.broken) == ("day", 1, 1)
    assert (overall.frames, overall.fixed, overall.broken) == (6, 2, 1)
    assert [row.overall for row in (night, day, overall)] == [False, False, True]


def test_frames_without_truth_do_not_count() -> None:
    labels = labels_table(["car", "bus", "dog"])
    truth = truth_table(["car", "car"], ["day", "day"])
    joined = with_truth(labels, truth)
    assert joined["truth"].to_pylist() == ["car", "car", None]
    assert [row.frames for row in accuracy_by(joined)] == [2, 2]
    assert accuracy_by(with_truth(labels, truth.slice(0, 0))) == []


def test_joining_twice_is_joining_once() -> None:
    labels = labels_table(["car"])
    truth = truth_table(["car"], ["day"])
    once = with_truth(labels, truth)
    assert with_truth(once, truth).equals(once)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(CLASSES),
            st.sampled_from(CLASSES),
            st.sampled_from(CLASSES),
            st.sampled_from(["day", "fog", None]),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_accuracy_and_changes_agree(rows: list[tuple[str, str, str, str | None]]) -> None:
    answers, source, truth, domains = (list(column) for column in zip(*rows, strict=True))
    joined = with_truth(labels_table(answers, source), truth_table(truth, domains))  # type: ignore[arg-type]
    table = accuracy_by(joined)
    assert (table[-1].overall, table[-1].frames) == (True, len(rows))
    assert sum(row.frames for row in table[:-1]) == sum(domain is not None for domain in domains)
    for row in table:
        gained = (row.accuracy - row.source_accuracy) * row.frames
        assert gained == pytest.approx(row.fixed - row.broken)


def test_the_labelling_rate_forgets_pauses() -> None:
    units = [
        labels_table(["car"] * 10, unit=f"a-{k:08d}", first=10 * k, seconds_a_frame=0.5)
        for k in range(4)
    ]
    late = labels_table(["car"] * 10, unit="a-00000040", first=10_000, seconds_a_frame=0.5)
    assert labelling_rate(pa.concat_tables([*units, late])) == pytest.approx(2.0)
    assert labelling_rate(units[0]) == 0.0
    assert labelling_rate(schema.LABELS.empty_table()) == 0.0
