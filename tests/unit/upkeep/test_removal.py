"""Unit files removed: the copy is the record, for every reader and every run, cut off anywhere."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from plain_run import run_plainly
from tiny import Assets, members, put, put_tars, tar, write_assets

from mint_stream import read_labels, read_rejects
from mint_stream.bank.log import committed_log, log_since
from mint_stream.cli.outputs import main
from mint_stream.output.done import load_done, settled_frames
from mint_stream.output.generations import RECORD, RecordError, newest, read_record
from mint_stream.output.lease import Lease
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep import compaction, removal
from mint_stream.upkeep.compaction import compact
from mint_stream.upkeep.compare import compare
from mint_stream.upkeep.contents import describe
from mint_stream.upkeep.removal import remove_units
from mint_stream.upkeep.verify.verify import verify

UNIT_SIZE = 4
SMALL = ("labels/", "rejects/", "shards/")


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 frames of two cameras, two with a decodable image and one without."""
    root = str(tmp_path_factory.mktemp("feed"))
    put_tars(root, shards=2, frames=10, cameras=("north", "a b/c"))
    bad = tar([("x.png", b"no image"), *members(range(20, 23)), ("z.png", b"GIF89a")])
    put(root, {"bad.tar": bad})
    return root


@pytest.fixture(scope="module")
def copy_of(
    tmp_path_factory: pytest.TempPathFactory, assets: Assets, feed: str
) -> Callable[[str], Store]:
    """Copies an output of that feed, which was cut short once and has a bank with its log."""
    made = str(tmp_path_factory.mktemp("whole"))
    for limit in (7, None):
        run_plainly(assets.config(feed, made, limit=limit, unit_size=UNIT_SIZE))
    store = Store(made)
    objects = {info.name: store.read(info.name) for info in store.list()}
    return lambda to: put(to, objects)


@pytest.fixture
def output(copy_of: Callable[[str], Store], tmp_path: Path) -> str:
    return copy_of(str(tmp_path / "out")).url


def told(output: str) -> dict[str, Any]:
    """What everybody who asks is told of an output."""
    store = Store(output)
    done = load_done(store, UNIT_SIZE)
    merges, _ = log_since(store, 0, (), [])
    return {
        "labels": read_labels(output),
        "rejects": read_rejects(output),
        "done": {shard: progress.frames_from for shard, progress in done._shards.items()},
        "frames": done.frames,
        "ends": {shard: done.frames_in(shard) for shard in done._shards},
        "settled": settled_frames(store),
        "merges": [name for name, _ in merges],
    }


def small(store: Store) -> list[str]:
    return [info.name for folder in SMALL for info in store.list(folder)]


def test_everybody_is_told_the_same_and_the_small_files_are_gone(
    copy_of: Callable[[str], Store], root: str, tmp_path: Path
) -> None:
    store = copy_of(root)
    before, contents = told(root), describe(root)
    assert len(before["merges"]) > 5
    assert len(small(store)) > 10
    removed = remove_units(root)
    assert removed is not None
    assert removed.removed > 10
    assert small(store) == []
    assert told(root) == before
    verdict = verify(root)
    assert (verdict.findings, verdict.notes) == ((), ())
    assert verdict.checked["units"] == contents.units
    after = describe(root)
    assert (after.units, after.shards, after.labels) == (
        contents.units,
        contents.shards,
        contents.labels,
    )
    assert after.record
    assert compare(root, copy_of(str(tmp_path / "untouched")).url).same
    assert "lease.json" not in {info.name for info in store.list()}


def test_what_a_run_does_afterwards_is_what_it_would_have_done(
    assets: Assets, tmp_path: Path
) -> None:
    feed, output, plain = (str(tmp_path / name) for name in ("in", "out", "plain"))
    put_tars(feed, shards=3, frames=10, cameras=("north", "south", "east"))
    for limit in (6, 13, None):
        units = [run_plainly(assets.config(feed, to, limit=limit)) for to in (output, plain)]
        assert units[0] == units[1] > 0
        assert remove_units(output) is not None
        assert small(Store(output)) == []
        assert comparable(read_labels(output)).equals(comparable(read_labels(plain)))
        assert verify(output, input_url=feed if limit is None else None).findings == ()
    assert run_plainly(assets.config(feed, output)) == 0
    (mine, theirs) = (
        {info.name.rpartition("-")[2] for info in Store(at).list("bank/checkpoints/")}
        for at in (output, plain)
    )
    assert mine == theirs, "the banks are bit for bit the same"
    put_tars(feed, shards=4, frames=10, cameras=("north", "south", "east", "west"))
    assert run_plainly(assets.config(feed, output)) == run_plainly(assets.config(feed, plain)) > 0
    # Without removing: the record is taken over, and the new units come to it.
    compact(output)
    record = read_record(Store(output))
    assert record is not None
    assert len(record.units) == verify(output).checked["units"]
    assert comparable(read_labels(output)).equals(comparable(read_labels(plain)))


def comparable(labels: pa.Table) -> pa.Table:
    return labels.drop_columns(["labelled_at"])


class Killed(BaseException):
    """The process ends here: nothing after it runs."""


class DyingStore(Store):
    """Dies at its n-th change, and does nothing from then on."""

    left = 0

    def _change(self, call: Callable[[], Any]) -> Any:
        with LOCK:
            DyingStore.left -= 1
            left = DyingStore.left
        if left <= 0:
            raise Killed
        return call()

    def create(self, name: str, data: bytes) -> bool:
        if name == "lease.json":
            return super().create(name, data)
        return bool(self._change(functools.partial(super().create, name, data)))

    def delete(self, name: str) -> None:
        if name == "lease.json":
            return super().delete(name)
        return self._change(functools.partial(super().delete, name))


LOCK = threading.Lock()


def test_cut_off_anywhere_nothing_is_lost_or_doubled(
    copy_of: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_gone: set[int] = set()
    for change in range(1, 100):
        store = copy_of(f"memory://removal{change}")
        output, before, whole = store.url, told(store.url), len(small(store))
        with monkeypatch.context() as patch:
            for module in (compaction, removal):
                patch.setattr(module, "Store", DyingStore)
            patch.setattr(DyingStore, "left", change)
            try:
                remove_units(output)
                break
            except Killed:
                pass
        seen_gone.add(whole - len(small(store)))
        assert told(output) == before
        assert verify(output).findings == ()
        remove_units(output)
        assert small(store) == []
        assert told(output) == before
        verdict = verify(output)
        assert (verdict.findings, verdict.notes) == ((), ())
    assert change > 20
    assert len(seen_gone) > 10, "it was cut off between removals as well"


@pytest.mark.parametrize(
    ("call", "at"),
    [("create", RECORD), ("delete", "labels/")],
)
def test_a_process_that_is_killed_loses_nothing(output: str, call: str, at: str) -> None:
    before = told(output)
    code = (
        "import os, sys\n"
        "from mint_stream.upkeep import compaction, removal\n"
        "from mint_stream.store.store import Store\n"
        "class Dying(Store):\n"
        "    pass\n"
        "def dies(self, name, *data):\n"
        "    if sys.argv[3] in name:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return getattr(Store, sys.argv[2])(self, name, *data)\n"
        "setattr(Dying, sys.argv[2], dies)\n"
        "compaction.Store = removal.Store = Dying\n"
        "removal.remove_units(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, output, call, at], check=False)
    assert done.returncode == -9
    assert told(output) == before
    assert verify(output).findings == ()
    # Its lease is seen to be a dead process's.
    assert remove_units(output) is not None
    assert told(output) == before
    assert small(Store(output)) == []


def test_readers_go_on_while_units_are_removed(
    copy_of: Callable[[str], Store], tmp_path: Path
) -> None:
    output = ""
    stop, wrong, reads = threading.Event(), [], []

    def keep_reading() -> None:
        while not stop.is_set():
            reads.append(1)
            if told(output) != before:
                wrong.append(1)

    for turn in range(3):
        output = copy_of(str(tmp_path / str(turn))).url
        before = told(output)
        stop.clear()
        readers = [threading.Thread(target=keep_reading) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            assert remove_units(output) is not None
            compact(output)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
    assert not wrong
    assert len(reads) > 10


def test_a_file_that_comes_back_does_not_count(output: str) -> None:
    store, before = Store(output), told(output)
    name = store.list("labels/")[0].name
    table = pq.read_table(io.BytesIO(store.read(name)))
    remove_units(output)
    other = pa.array(["another"] * table.num_rows)
    table = table.set_column(table.column_names.index("label"), "label", other)
    table = table.replace_schema_metadata(
        {**table.schema.metadata, b"mint.bank_log": b"", b"mint.frames": b"99"}
    )
    store.write(name, written(table))
    assert told(output) == before
    verdict = verify(output)
    assert verdict.findings == ()
    assert "do not count" in verdict.notes[0]
    compact(output)
    assert told(output) == before
    with pytest.raises(StorageError, match=f"{name} is not what .* has of it.*delete it"):
        remove_units(output)
    store.delete(name)
    remove_units(output)
    assert verify(output).notes == ()


def written(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, write_page_checksum=True)
    return sink.getvalue()


def test_nothing_is_removed_while_a_run_is_writing(
    output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(output)
    there = small(store)
    run = Lease(store, beat_s=0.05)
    run.acquire()
    try:
        assert main(["compact", output, "--remove-units"]) == 2
    finally:
        run.release()
    assert "another run" in capsys.readouterr().err
    assert small(store) == there
    assert newest(store) is None
    assert main(["compact", output, "--remove-units"]) == 0
    said = capsys.readouterr().out
    assert f"removed {len(there)} small files" in said
    assert main(["inspect", output, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"]


def test_nothing_is_removed_of_an_output_that_is_not_whole(output: str) -> None:
    store = Store(output)
    name = store.list("bank/log/")[0].name
    held = store.read(name)
    store.delete(name)
    there = small(store)
    with pytest.raises(StorageError, match=r"is not whole .* nothing was removed"):
        remove_units(output)
    assert small(store) == there
    store.write(name, held)
    remove_units(output)


@pytest.mark.parametrize("column", ["confidence", "label", "unit"])
def test_nothing_is_removed_if_the_copy_differs(
    output: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(output)
    there, real = small(store), compaction.placed

    def wrong(table: pa.Table, kind: pa.Schema) -> pa.Table:
        table = real(table, kind)
        if column not in table.column_names or table.num_rows < 2:
            return table
        at = table.column_names.index(column)
        values = table[column].to_pylist()
        values[0] = {"confidence": 0.5, "label": "another", "unit": "f" * 20 + "-00000000"}[column]
        return table.set_column(at, table.schema.field(at), pa.array(values, table[column].type))

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "placed", wrong)
        with pytest.raises(StorageError, match="nothing was removed"):
            remove_units(output)
    assert small(store) == there
    store.delete(newest(store).name)  # type: ignore[union-attr]
    remove_units(output)


@pytest.mark.parametrize(
    "damage",
    [
        lambda store, g: store.write(g.name, b"{}"),
        lambda store, g: store.write(g.units.name, b"PAR1"),
        lambda store, g: store.delete(g.units.name),
        lambda store, g: store.write(g.labels[0].name, b"PAR1"),
        lambda store, g: store.delete(g.labels[0].name),
        lambda store, g: [store.delete(i.name) for i in store.list("compact/0")],
    ],
    ids=["manifest", "index", "index gone", "labels", "labels gone", "all gone"],
)
def test_a_damaged_record_is_found_and_never_passed_over(
    output: str, damage: Callable[[Store, Any], None], request: pytest.FixtureRequest
) -> None:
    remove_units(output)
    store = Store(output)
    generation = newest(store)
    assert generation is not None
    damage(store, generation)
    with pytest.raises(StorageError):
        read_labels(output)
    if "labels" not in request.node.name:
        for ask in (read_record, settled_frames, lambda s: load_done(s, UNIT_SIZE)):
            with pytest.raises(RecordError, match="from a backup"):
                ask(store)
        with pytest.raises(RecordError):
            compact(output)
    found = verify(output).findings
    assert any("backup" in finding.remedy for finding in found)
    assert main(["compact", output, "--remove-units"]) == 2


def test_a_commit_of_a_recorded_unit_is_known_to_the_bank(output: str) -> None:
    store = Store(output)
    names = [info.name for info in store.list("labels/")]
    units = [name.removeprefix("labels/").removesuffix(".parquet") for name in names]
    before = {unit: committed_log(store, unit, None) for unit in units}
    remove_units(output)
    assert {unit: committed_log(store, unit, read_record(store)) for unit in units} == before
    assert {unit: committed_log(store, unit, None) for unit in units} == before
    assert committed_log(store, "f" * 20 + "-00000000", None) is None


def test_columns_that_some_units_have_are_no_difference(output: str) -> None:
    store = Store(output)
    name = store.list("labels/")[0].name
    table = pq.read_table(io.BytesIO(store.read(name)))
    store.write(name, written(table.append_column("embedding", pa.array([[1.0]] * len(table)))))
    before = read_labels(output)
    remove_units(output)
    assert read_labels(output).select(before.column_names).equals(before)
    assert pc.sum(pc.list_value_length(before["embedding"])).as_py() == len(table)


def test_nothing_to_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", str(tmp_path), "--remove-units"]) == 0
    assert "nothing is committed" in capsys.readouterr().out
