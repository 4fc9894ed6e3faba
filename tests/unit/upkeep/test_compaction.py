"""Compaction: readable before, during and after, cut off anywhere, and never in a run's way."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plain_run import run_plainly
from tiny import Assets, members, put, put_tars, tar, write_assets

from mint_stream import read_labels, read_rejects
from mint_stream.cli.outputs import main
from mint_stream.output.generations import newest
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import Store
from mint_stream.upkeep import compaction
from mint_stream.upkeep.compaction import compact
from mint_stream.upkeep.verify.verify import verify


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, assets: Assets) -> Callable[[str], Store]:
    """Copies an output: 20 frames of two cameras, 3 without camera and time, 2 rejects."""
    root = tmp_path_factory.mktemp("whole")
    feed = str(root / "in")
    put_tars(feed, shards=2, frames=10, cameras=("north", "a b/c"))
    bad = tar([("x.png", b"no image"), *members(range(20, 23)), ("z.png", b"GIF89a")])
    put(feed, {"bad.tar": bad})
    run_plainly(assets.config(feed, str(root / "out")))
    store = Store(str(root / "out"))
    objects = {info.name: store.read(info.name) for info in store.list()}
    return lambda to: put(to, objects)


@pytest.fixture
def output(whole: Callable[[str], Store], tmp_path: Path) -> str:
    return whole(str(tmp_path / "out")).url


def read(output: str) -> tuple[pa.Table, pa.Table]:
    """What a reader who follows the documentation gets."""
    return read_labels(output), read_rejects(output)


def read_directly(output: str) -> list[tuple[Any, ...]]:
    """The README's way past `read_labels`."""
    files = f"{output}/labels/*.parquet"
    return duckdb.sql(f"select frame, label from '{files}' order by frame").fetchall()


def test_what_is_read_stays_the_same_on_every_store(
    whole: Callable[[str], Store], root: str
) -> None:
    store = whole(root)
    before = read(root)
    assert [table.num_rows for table in before] == [23, 2]
    done = compact(root)
    assert done is not None
    assert done.written
    assert done.units == 8
    for table, was in zip(read(root), before, strict=True):
        assert table.equals(was, check_metadata=True)
    assert len(done.generation.labels) == 3
    assert verify(root).findings == ()
    again = compact(root)
    assert again is not None
    assert not again.written
    assert newest(store) == done.generation


def test_the_unit_files_are_read_no_more(output: str) -> None:
    before = read_labels(output)
    compact(output)
    store = Store(output)
    for info in store.list("labels/"):
        store.write(info.name, b"nobody looks here")
    assert read_labels(output).equals(before)


def test_duckdb_reads_the_unit_files_as_before_and_a_generation_as_partitions(output: str) -> None:
    direct = read_directly(output)
    compact(output)
    assert read_directly(output) == direct
    generation = newest(Store(output))
    assert generation is not None
    files = f"{output}/{generation.folder}labels/**/*.parquet"
    assert duckdb.sql(f"select frame, label from '{files}' order by frame").fetchall() == direct
    query = "select date::varchar, camera, count(*) from read_parquet(?, hive_partitioning=true)"
    query += " group by all order by all nulls last"
    counts = duckdb.execute(query, [files]).fetchall()
    assert counts == [("2026-03-01", "a b/c", 10), ("2026-03-01", "north", 10), (None, None, 3)]


def test_units_that_came_later_are_read_beside_the_generation(
    assets: Assets, tmp_path: Path
) -> None:
    feed, output, plain = (str(tmp_path / name) for name in ("in", "out", "plain"))
    put_tars(feed, shards=2, frames=10, cameras=("north", "south"))
    for at in (6, 13, None):
        run_plainly(assets.config(feed, output, limit=at))
        run_plainly(assets.config(feed, plain, limit=at))
        assert comparable(read_labels(output)).equals(comparable(read_labels(plain)))
        assert compact(output) is not None
        assert comparable(read_labels(output)).equals(comparable(read_labels(plain)))
        assert verify(output).findings == ()
    assert run_plainly(assets.config(feed, output)) == 0, "compaction takes nothing from a run"
    numbers = {info.name.partition("-")[0] for info in Store(output).list("compact/0")}
    assert numbers == {
        "compact/00000002",
        "compact/00000002.json",
        "compact/00000003",
        "compact/00000003.json",
    }, "the generation before stays for those who read it"


def comparable(labels: pa.Table) -> pa.Table:
    return labels.drop_columns(["labelled_at"])


def test_many_rows_make_several_files(output: str) -> None:
    before = read_labels(output)
    done = compact(output, file_rows=4)
    assert done is not None
    assert len(done.generation.labels) > 3
    assert read_labels(output).equals(before)


def test_columns_of_some_units_are_kept(output: str) -> None:
    store = Store(output)
    name = store.list("labels/")[0].name
    table = pq.read_table(io.BytesIO(store.read(name)))
    embedding = pa.array([[1.0]] * table.num_rows)
    sink = io.BytesIO()
    pq.write_table(table.append_column("embedding", embedding), sink)
    store.write(name, sink.getvalue())
    before = read_labels(output)
    assert before["embedding"].null_count == 23 - table.num_rows
    for rows in (1, 1000):
        for info in store.list("compact/"):
            store.delete(info.name)
        compact(output, file_rows=rows)
        after = read_labels(output)
        assert after.select(before.column_names).equals(before)


class Killed(BaseException):
    """The process ends here: nothing after it runs."""


class DyingStore(Store):
    """Dies before, or right after, its n-th change."""

    def __init__(self, url: str, *, change: int, after: bool) -> None:
        super().__init__(url)
        self.left, self.after = change, after

    def _change(self, call: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        answer = call()
        if self.left == 0:
            raise Killed
        return answer

    def create(self, name: str, data: bytes) -> bool:
        return bool(self._change(functools.partial(super().create, name, data)))

    def delete(self, name: str) -> None:
        self._change(functools.partial(super().delete, name))


def two_generations(store: Store) -> None:
    """Generations 1 and 2, and a unit that came since: the next call also removes generation 1."""
    *_, second, third = [info.name for info in store.list("labels/")]
    aside = {name: store.read(name) for name in (second, third)}
    for name in aside:
        store.delete(name)
    for name, data in aside.items():
        compact(store.url)
        store.write(name, data)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_cut_off_anywhere_it_is_readable_and_the_next_call_finishes(
    whole: Callable[[str], Store],
    after: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for change in range(1, 100):
        store = whole(str(tmp_path / str(change)))
        output = store.url
        before, direct = read(output), read_directly(output)
        two_generations(store)
        with monkeypatch.context() as patch:
            dying = functools.partial(DyingStore, change=change, after=after)
            patch.setattr(compaction, "Store", dying)
            try:
                compact(output)
                break
            except Killed:
                pass
        for _ in range(2):
            assert all(a.equals(b) for a, b in zip(read(output), before, strict=True))
            assert read_directly(output) == direct
            verdict = verify(output)
            assert verdict.findings == ()
            compact(output)
        assert verdict.notes == (), "nothing is left behind"
        assert [info.name for info in store.list("compact/") if info.name.endswith(".json")] == [
            "compact/00000002.json",
            "compact/00000003.json",
        ]
    # Its files and its JSON are written, and those of the first generation removed.
    assert change > 10


def test_a_process_that_is_killed_leaves_a_whole_output(output: str, tmp_path: Path) -> None:
    before = read(output)
    code = (
        "import os, sys\n"
        "from mint_stream.upkeep import compaction\n"
        "from mint_stream.store.store import Store\n"
        "class Dying(Store):\n"
        "    def create(self, name, data):\n"
        "        if name.endswith(sys.argv[2]):\n"
        "            os.kill(os.getpid(), 9)\n"
        "        return super().create(name, data)\n"
        "compaction.Store = Dying\n"
        "compaction.compact(sys.argv[1])\n"
    )
    for at in ("labels/date=2026-03-01/camera_folder=north/part-00000.parquet", ".json"):
        done = subprocess.run([sys.executable, "-c", code, output, at], check=False)
        assert done.returncode == -9
        assert newest(Store(output)) is None
        assert all(a.equals(b) for a, b in zip(read(output), before, strict=True))
        (note,) = verify(output).notes
        assert "are of no generation" in note
    assert compact(output) is not None
    assert all(a.equals(b) for a, b in zip(read(output), before, strict=True))
    verdict = verify(output)
    assert (verdict.findings, verdict.notes) == ((), ())


def test_readers_go_on_while_generations_come_and_go(output: str) -> None:
    before = read_labels(output)
    store, stop, reads = Store(output), threading.Event(), []

    def keep_reading() -> None:
        while not stop.is_set():
            reads.append(read_labels(output).equals(before))

    reader = threading.Thread(target=keep_reading)
    reader.start()
    try:
        for _ in range(12):
            compact(output)
            # As if the unit had come since: the next call writes a generation of its own.
            generation = newest(store)
            assert generation is not None
            name = store.list("labels/")[0].name
            held = store.read(name)
            store.write(f"labels/{'f' * 20}-00000000.parquet", empty_unit(held))
            compact(output)
            store.delete(f"labels/{'f' * 20}-00000000.parquet")
    finally:
        stop.set()
        reader.join()
    assert len(reads) > 3
    assert all(reads)


def empty_unit(data: bytes) -> bytes:
    """A unit all of whose frames were rejected."""
    table = pq.read_table(io.BytesIO(data)).slice(0, 0)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def test_a_generation_that_is_gone_is_asked_for_again(
    output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mint_stream.output import read as results

    before = read_labels(output)
    compact(output)
    store, asked = Store(output), []
    first = newest(store)

    def outdated(store: Store) -> Any:
        asked.append(1)
        return first if len(asked) == 1 else newest(store)

    store.write(
        f"labels/{'f' * 20}-00000000.parquet", empty_unit(store.read(store.list("labels/")[0].name))
    )
    compact(output)
    assert first is not None
    for file in first.files:
        store.delete(file.name)
    monkeypatch.setattr(results, "newest", outdated)
    assert read_labels(output).equals(before)
    assert len(asked) == 3, "what to read, whether that has changed, and what to read instead"
    for file in newest(store).files:  # type: ignore[union-attr]
        store.delete(file.name)
    with pytest.raises(ObjectMissing):
        read_labels(output)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda store, g: store.delete(g.labels[0].name), "is missing, and a generation refers"),
        (lambda store, g: store.write(g.rejects[0].name, b"PAR1"), "does not match the hash"),
        (lambda store, g: store.write(g.name, b"{}"), "is not sound"),
        (lambda store, g: store.delete(store.list("labels/")[0].name), "has their rows"),
        (lambda store, g: store.write("compact/mine.parquet", b""), "not an object that a run"),
    ],
    ids=["file", "content", "manifest", "unit", "foreign"],
)
def test_damages_are_found_and_reading_does_without(
    output: str, damage: Callable[[Store, Any], None], words: str, request: Any
) -> None:
    before = read_rejects(output)
    compact(output)
    store = Store(output)
    damage(store, newest(store))
    found = [str(finding) for finding in verify(output).findings]
    assert any(words in line for line in found), found
    if "file" not in request.node.name:
        assert read_rejects(output).equals(before)


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_manifest_is_gone_when_two_newer_ones_are_there(
    output: str, damaged: int, capsys: pytest.CaptureFixture[str]
) -> None:
    store, before = Store(output), read_labels(output)
    two_generations(store)
    store.write(f"compact/{damaged:08d}.json", b"{}")
    assert read_labels(output).equals(before)
    if damaged == 2:
        assert main(["compact", output]) == 2
        assert "00000002.json is damaged" in capsys.readouterr().err
        store.delete("compact/00000002.json")
    assert main(["compact", output]) == 0
    verdict = verify(output)
    assert (verdict.findings, verdict.notes) == ((), ())
    assert read_labels(output).equals(before)


def test_two_at_once_write_one_generation(
    output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Store.create

    def overtaken(self: Store, name: str, data: bytes) -> bool:
        if name.endswith(".json"):
            with monkeypatch.context() as undo:
                undo.setattr(Store, "create", real)
                assert main(["compact", output]) == 0
        return real(self, name, data)

    before = read_labels(output)
    monkeypatch.setattr(Store, "create", overtaken)
    assert main(["compact", output]) == 2
    assert "another compaction" in capsys.readouterr().err
    monkeypatch.undo()
    assert read_labels(output).equals(before)
    assert main(["compact", output]) == 0
    assert "nothing new since generation 1: 8 units in 5 files" in capsys.readouterr().out
    verdict = verify(output)
    assert (verdict.findings, verdict.notes) == ((), ())
    assert main(["inspect", output]) == 0
    assert "generation 1, 8 of 8 units" in capsys.readouterr().out


def test_nothing_to_compact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(tmp_path)]) == 0
    assert "nothing is committed" in capsys.readouterr().out
