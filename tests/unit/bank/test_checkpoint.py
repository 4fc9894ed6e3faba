"""Checkpoints on the store: exact, checked, fallen back from, and never outliving their log."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bank_work import START, Shelf, labels_file, work, write_labels, write_log
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mint_stream.bank import checkpoint
from mint_stream.bank.checkpoint import KEPT
from mint_stream.bank.exchange import banks_digest, update_digest
from mint_stream.bank.files import (
    BankFileError,
    LogName,
    read_bank,
    read_delta,
    write_bank,
    write_delta,
)
from mint_stream.bank.log import RestoreError
from mint_stream.method.bank_state import (
    Banks,
    BankState,
    Delta,
    Update,
    initial_state,
    merge_all,
    replay,
)
from mint_stream.output import schema
from mint_stream.output.names import labels_name
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store

MINE = {"model": "abc", "steps": 3}
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


class Run:
    """A run that commits one unit after another."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.banks = Banks(START)
        self.covered: set[str] = set()
        self.number = 0
        self.units = 0

    def unit(self, *, commit: bool = True, scope: str = "shared") -> str:
        """The name of the unit's log object."""
        self.units += 1
        unit = f"{self.units:04d}"
        update = {scope: work(self.banks.state(scope), unit)}
        name = str(LogName.of(self.units, unit, update))
        write_log(self.store, name, update, unit, self.units)
        if commit:
            write_labels(self.store, unit, name)
            self.banks = merge_all(self.banks, update, self.units)
            self.covered.add(name)
        return name

    def save(self) -> checkpoint.Checkpoint:
        self.number += 1
        saved = checkpoint.save(
            self.store, self.banks, covered=self.covered, number=self.number, identity=MINE
        )
        self.covered.difference_update(checkpoint.retire(self.store))
        return saved

    def restored(self) -> checkpoint.RestoreResult:
        return checkpoint.restore(self.store, START, MINE)

    def check(self) -> checkpoint.RestoreResult:
        found = self.restored()
        assert banks_digest(found.banks()) == banks_digest(self.banks)
        return found


@pytest.fixture
def run(root: str) -> Run:
    """On each kind of store."""
    return Run(Store(root))


@pytest.fixture
def quick() -> Run:
    return Run(Shelf())


@st.composite
def deltas(draw: st.DrawFn) -> Delta:
    entries = draw(st.lists(st.integers(0, 5), unique=True, max_size=6).map(sorted))
    count = len(entries)
    return Delta(
        entries_E=np.array(entries, np.int32),
        keys_ED=draw(arrays.arrays(np.float32, (count, 3), elements=FLOATS)),
        prompts_EPD=draw(arrays.arrays(np.float32, (count, 2, 3), elements=FLOATS)),
        usage_E=draw(arrays.arrays(np.int64, (count,), elements=st.integers(0, 2**62))),
        decay=draw(st.floats(1e-300, 1.0)),
        scale=draw(st.floats(1e-300, 1.0)),
        rescales=draw(st.integers(0, 10**6)),
    )


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(max_size=8), deltas(), max_size=3))
def test_a_delta_comes_back_from_its_log_object_bit_for_bit(update: Update):
    data = write_delta(update, unit="u", seq=3)
    assert update_digest(read_delta(data)) == update_digest(update)
    assert write_delta(update, unit="u", seq=3) == data


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), st.integers(0, 2**32), max_size=3),
    arrays.arrays(np.float32, (6, 3), elements=FLOATS),
    st.floats(2.0**-20, 1.0),
    st.integers(0, 10**9),
)
def test_banks_come_back_from_their_checkpoint_bit_for_bit(seeds, keys_KD, decay, seq):
    def state(seed: int) -> BankState:
        return replace(
            initial_state(entries=6, prompt_rows=2, width=3, seed=seed),
            keys_KD=keys_KD,
            last_seq_K=np.arange(6) + seq,
            decay=decay,
            rescales=seed,
        )

    banks = Banks(START, {scope: state(seed) for scope, seed in seeds.items()}, seq)
    data = write_bank(banks)
    assert banks_digest(read_bank(data, START)) == banks_digest(banks)
    assert write_bank(banks) == data


@pytest.mark.parametrize("bad", [b"", b"PAR1", b"no parquet" * 99, labels_file("x")])
def test_other_bytes_are_not_taken_for_a_delta_or_a_bank(bad):
    with pytest.raises(BankFileError):
        read_delta(bad)
    with pytest.raises(BankFileError):
        read_bank(bad, START)


def test_a_bank_of_another_shape_is_refused():
    wide = initial_state(entries=6, prompt_rows=2, width=4, seed=1)
    data = write_bank(Banks(wide, {"a": wide}))
    with pytest.raises(BankFileError, match=r"shape \(6, 2, 4\)"):
        read_bank(data, START)


def test_a_delta_is_not_a_bank():
    with pytest.raises(BankFileError, match="not a bank file"):
        read_bank(write_delta({"a": work(START, "u")}, unit="u", seq=1), START)


@given(st.integers(0, 10**12 - 1), st.from_regex(r"[0-9a-f]{4,20}-[0-9]{8}", fullmatch=True))
def test_log_names_say_seq_and_unit_and_sort_by_them(seq, unit):
    name = LogName(seq, unit, "0123456789ab")
    assert LogName.parse(str(name)) == name
    later = LogName(seq + 1, "0-0", "000000000000")
    assert later > name
    if seq + 1 < 10**12:
        assert str(later) > str(name)


@pytest.mark.parametrize("name", ["", "bank/log/x.parquet", "bank/log/1-u-d.parquet", "u.tmp"])
def test_other_names_are_not_log_names(name):
    with pytest.raises(BankFileError, match="not the name of a bank log object"):
        LogName.parse(name)


def test_a_restore_is_the_checkpoint_and_what_was_committed_since(run):
    assert run.check().merges == []
    run.unit()
    assert len(run.check().merges) == 1
    run.unit(scope="gate/7 ü")
    run.save()
    assert run.check().merges == []
    run.unit()
    run.unit(commit=False)
    run.unit()
    assert [name.seq for name, _ in run.check().merges] == [3, 5]


def test_a_checkpoint_reads_as_a_table_and_as_text(quick):
    quick.unit()
    saved = quick.save()
    about = json.loads(quick.store.read(f"{saved.name}.json"))
    assert about["seq"] == 1
    assert about["identity"]["model"] == "abc"
    assert about["decay"] == {"shared": 0.998}
    table = pq.read_table(io.BytesIO(quick.store.read(f"{saved.name}.parquet")))
    assert table.schema.names == schema.BANK.names
    assert table["entry"].to_pylist() == list(range(6))


def test_of_several_log_objects_of_a_unit_the_labels_name_the_one_that_counts(quick):
    update, other = {"a": work(START, "u")}, {"a": work(START, "v")}
    names = [str(LogName.of(seq, "u", u)) for seq, u in ((1, update), (2, other))]
    for name, content, seq in zip(names, (update, other), (1, 2), strict=True):
        write_log(quick.store, name, content, "u", seq)
    write_labels(quick.store, "u", names[1])
    found = quick.restored()
    assert [str(name) for name, _ in found.merges] == [names[1]]
    assert found.covered == {names[0]}
    assert banks_digest(found.banks()) == banks_digest(replay(Banks(START), [(2, other)]))


def test_the_log_object_of_an_attempt_whose_labels_say_none_is_not_replayed(quick):
    update = {"a": work(START, "u")}
    name = str(LogName.of(1, "u", update))
    write_log(quick.store, name, update, "u", 1)
    write_labels(quick.store, "u", "")
    found = quick.restored()
    assert (found.merges, found.covered) == ([], {name})


def test_checkpoints_and_covered_log_objects_are_removed_when_enough_newer_ones_are_down(run):
    for _ in range(KEPT + 2):
        run.unit()
        run.save()
    stems = {info.name.rpartition(".")[0] for info in run.store.list(checkpoint.FOLDER)}
    assert len(stems) == KEPT
    # The oldest checkpoint that is kept covers the first three log objects: those are gone.
    assert [LogName.parse(info.name).seq for info in run.store.list("bank/log/")] == [4, 5]
    run.unit()
    assert [name.seq for name, _ in run.check().merges] == [6]


@pytest.mark.parametrize("suffix", [".parquet", ".json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"garbage"])
def test_from_a_damaged_checkpoint_the_one_before_is_used_and_said_so(
    quick, suffix, damage, caplog
):
    for _ in range(KEPT + 1):
        quick.unit()
        saved = quick.save()
    quick.unit()
    quick.store.write(saved.name + suffix, damage)
    found = quick.check()
    assert found.checkpoint.seq == KEPT
    assert saved.name in found.notes[0]
    assert "continuing from checkpoint bank/checkpoints/00000000000" in found.notes[1]
    assert saved.name in caplog.text


def test_one_flipped_bit_is_damage(quick):
    quick.unit()
    quick.save()
    quick.unit()
    saved = quick.save()
    for suffix in (".parquet", ".json"):
        sound = quick.store.read(saved.name + suffix)
        for at in (len(sound) // 3, len(sound) // 2, len(sound) - 9):
            flipped = bytearray(sound)
            flipped[at] ^= 1
            quick.store.write(saved.name + suffix, bytes(flipped))
            assert quick.check().checkpoint.seq == 1
        quick.store.write(saved.name + suffix, sound)
    assert quick.check().checkpoint.seq == 2


def test_with_every_checkpoint_damaged_the_whole_log_is_replayed_while_it_is_there(quick):
    for _ in range(KEPT - 1):
        quick.unit()
        saved = quick.save()
        quick.store.write(f"{saved.name}.parquet", b"damaged")
    found = quick.check()
    assert found.checkpoint.seq == 0
    assert "continuing from an empty bank" in found.notes[-1]


def test_with_every_checkpoint_damaged_and_the_log_removed_the_run_is_refused(quick):
    for _ in range(KEPT + 1):
        quick.unit()
        quick.save()
    for info in quick.store.list(checkpoint.FOLDER):
        quick.store.write(info.name, b"damaged")
    with pytest.raises(RestoreError, match=r"none of the 3 bank checkpoints .* is sound.*backup"):
        quick.restored()


def test_a_checkpoint_that_was_cut_off_is_not_one_and_is_removed_in_time(quick):
    quick.unit()
    quick.save()
    quick.unit()
    cut = quick.save()
    quick.store.delete(f"{cut.name}.json")
    found = quick.check()
    assert (found.checkpoint.seq, found.notes) == (1, [])
    for _ in range(KEPT):
        quick.unit()
        quick.save()
    assert f"{cut.name}.parquet" not in [info.name for info in quick.store.list()]


def test_a_damaged_log_object_of_a_committed_unit_is_named(quick):
    name = quick.unit()
    other = quick.unit()
    quick.store.write(name, quick.store.read(other))
    with pytest.raises(RestoreError, match=f"{name}.* does not match the hash in its name"):
        quick.restored()
    quick.store.write(name, b"")
    with pytest.raises(RestoreError, match=f"{name}.* is damaged.*delete it"):
        quick.restored()
    quick.store.delete(name)
    assert [n.seq for n, _ in quick.restored().merges] == [2]


def test_labels_that_do_not_name_a_log_object_are_refused(quick):
    name = quick.unit(commit=False)
    unit = LogName.parse(name).unit
    for bad in (b"garbage", _labels_without_a_name()):
        quick.store.write(labels_name(unit), bad)
        with pytest.raises(RestoreError, match=f"labels/{unit}.parquet does not say"):
            quick.restored()


def test_a_log_object_that_is_gone_although_nothing_covers_it_is_said(quick):
    """Another attempt's log object is left; that one must not be taken in its place."""
    stray = quick.unit(commit=False)
    unit = LogName.parse(stray).unit
    named = str(LogName.of(7, unit, {"a": work(START, "x")}))
    write_labels(quick.store, unit, named)
    found = quick.restored()
    assert found.merges == []
    assert named in found.notes[0]


def test_foreign_objects_in_the_log_folder_are_left_alone(quick):
    quick.unit()
    quick.store.write("bank/log/.DS_Store", b"")
    assert "it was left alone" in quick.check().notes[0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**MINE, "steps": 1}, r"steps: 3 there, 1 now"),
        ({"model": "abc"}, r"steps: 3 there, None now"),
    ],
)
def test_a_bank_of_another_run_is_refused(quick, other, message):
    quick.unit()
    quick.save()
    with pytest.raises(RestoreError, match=message):
        checkpoint.restore(quick.store, START, other)


def test_a_bank_that_started_elsewhere_is_refused(quick):
    quick.unit()
    quick.save()
    start = initial_state(entries=6, prompt_rows=2, width=3, seed=8)
    with pytest.raises(RestoreError, match="start: "):
        checkpoint.restore(quick.store, start, MINE)


class Undeletable(Shelf):
    def delete(self, name: str) -> None:
        raise StorageError(f"cannot delete {name}: denied")


def test_a_deletion_that_fails_costs_nothing_but_space(caplog):
    run = Run(Undeletable())
    for _ in range(KEPT + 2):
        run.unit()
        run.save()
    run.check()
    assert len(run.store.list("bank/log/")) == KEPT + 2
    assert len(run.covered) == KEPT + 2
    assert "could not delete" in caplog.text


def test_two_drivers_that_both_believe_in_their_lease_lose_no_update(quick):
    """Each checkpoints its own bank; neither removes what the other has not got."""
    other = Run(quick.store)
    other.units = 100
    for _ in range(KEPT + 2):
        for run in (quick, other):
            run.unit()
            run.number = max(quick.number, other.number)
            run.save()
    found = quick.restored()
    units = {info.name for info in quick.store.list("labels/")}
    expected = 2 * (KEPT + 2)
    assert len(units) == expected
    assert int(found.banks().state("shared").usage_K.sum()) == int(
        quick.banks.state("shared").usage_K.sum() + other.banks.state("shared").usage_K.sum()
    )


def _labels_without_a_name() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), sink)
    return sink.getvalue()
