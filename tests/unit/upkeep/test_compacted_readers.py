"""A compacted folder is read whole by what people have, whatever their cameras are called."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from plain_run import run_plainly
from tiny import put_tars, write_assets

from mint_stream import read_labels
from mint_stream.config import PRESETS
from mint_stream.output import schema
from mint_stream.output.generations import newest
from mint_stream.output.names import path_part
from mint_stream.store.store import Store
from mint_stream.upkeep import compaction
from mint_stream.upkeep.compaction import compact
from mint_stream.upkeep.removal import remove_units
from mint_stream.upkeep.verify.verify import verify

LONG = "Kamera am Tor " * 30
CAMERAS = ("1", "2", "CAM", "Süd", "a b/c", "cam", LONG, f"{LONG}2", "北门" * 40, "../../x")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The output of a run whose first unit file is of an older version, with fewer columns."""
    folder = tmp_path_factory.mktemp("readers")
    put_tars(str(folder / "in"), shards=2, frames=12, cameras=(*CAMERAS, "north", "south"))
    config = write_assets(folder).config(
        str(folder / "in"), str(folder / "out"), bank_scope="camera", method=PRESETS["realtime"]
    )
    run_plainly(config)
    store = Store(config.output)
    first = store.list("labels/")[0].name
    table = pq.read_table(io.BytesIO(store.read(first)))
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(sorted(schema.LATER)), sink)
    store.write(first, sink.getvalue())
    return config.output


@pytest.fixture(scope="module")
def folder(output: str) -> str:
    """The labels of its newest generation."""
    compact(output)
    generation = newest(Store(output))
    assert generation is not None
    return f"{output}/{generation.folder}labels"


READERS: dict[str, Callable[[str], Any]] = {
    "pandas": lambda folder: pa.Table.from_pandas(pd.read_parquet(folder)),
    "pyarrow.parquet": pq.read_table,
    "pyarrow.dataset": lambda folder: ds.dataset(folder).to_table(),
    "pyarrow.dataset hive": lambda folder: ds.dataset(folder, partitioning="hive").to_table(),
    "polars": lambda folder: pl.read_parquet(folder).to_arrow(),
    "polars scan": lambda folder: pl.scan_parquet(f"{folder}/**/*.parquet").collect().to_arrow(),
    "duckdb": lambda folder: _duckdb(f"from '{folder}/**/*.parquet'"),
    "duckdb hive": lambda folder: _duckdb(
        f"from read_parquet('{folder}/**/*.parquet', hive_partitioning=true)"
    ),
}


def _duckdb(query: str) -> Any:
    return duckdb.sql(f"select * {query}").to_arrow_table()


@pytest.mark.parametrize("reader", READERS)
def test_a_compacted_folder_is_read_whole(reader: str, output: str, folder: str) -> None:
    wanted = read_labels(output).sort_by("frame")
    found = READERS[reader](folder).sort_by("frame")
    for name in wanted.column_names:
        if name == "timestamp" or name.endswith("_at"):  # each has a unit and a zone of its own
            values = [str(value)[:19] for value in found[name].to_pylist()]
            assert values == [str(value)[:19] for value in wanted[name].to_pylist()], name
        else:
            assert found[name].to_pylist() == wanted[name].to_pylist(), name
    cameras = {*(name.strip() for name in CAMERAS), "north", "south"}
    assert set(found["camera"].to_pylist()) == cameras


def test_no_part_of_a_path_is_longer_than_a_file_name_may_be(output: str, folder: str) -> None:
    for info in Store(output).list():
        assert all(len(part.encode()) <= 255 for part in info.name.split("/")), info.name
    cameras = {path.parent for path in Path(folder).rglob("*.parquet")}
    assert len({str(path).lower() for path in cameras}) == len(cameras) == len(CAMERAS) + 2
    assert verify(output).findings == ()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("north", "north"),
        ("a b/c", "a%20b%2Fc"),
        ("süd", "s%C3%BCd"),
        ("..", ".."),
        ("Cam", f"Cam-{hashlib.sha256(b'Cam').hexdigest()[:16]}"),
    ],
)
def test_a_name_as_part_of_a_path(name: str, part: str) -> None:
    assert path_part(name) == part


def test_long_names_that_begin_alike_stay_apart() -> None:
    names = [f"{'x' * n}{end}" for n in (60, 78, 79, 80, 300) for end in "abü"]
    names += ["東" * 8, "東" * 9, "東" * 27]
    parts = {path_part(name) for name in names}
    assert len(parts) == len(names)
    for part in parts:
        assert len(part) <= 80
        assert part.encode().isascii()
        assert "%" not in part[-2:]


def test_a_generation_with_folders_of_the_old_name_is_taken_over(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = str(tmp_path / "copy")
    for info in Store(output).list():
        if not info.name.startswith("compact/"):
            Store(copy).write(info.name, Store(output).read(info.name))
    by_day_and_camera = compaction._by_day_and_camera

    def old(table: pa.Table) -> Any:
        for place, rows in by_day_and_camera(table):
            yield place.replace("camera_folder=", "camera="), rows

    monkeypatch.setattr(compaction, "_by_day_and_camera", old)
    before = read_labels(copy)
    remove_units(copy)
    monkeypatch.undo()
    held = newest(Store(copy))
    assert held is not None
    assert "/camera=" in held.labels[0].name
    # A unit that came since makes a new generation of all.
    first = Store(output).list("labels/")[0].name
    Store(copy).write(first.replace(".parquet", "9.parquet"), Store(output).read(first))
    done = compact(copy)
    assert done is not None
    assert done.written
    assert not [file.name for file in done.generation.labels if "/camera=" in file.name]
    assert read_labels(copy).num_rows > before.num_rows
    assert sum(file.rows for file in done.generation.labels) == read_labels(copy).num_rows
