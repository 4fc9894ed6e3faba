"""Which rows are suspect, and what labelling them again leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from forged import refuse_third_unit
from plain_run import run_plainly
from tiny import Assets, put_tars, write_assets

from mint_stream import read_labels
from mint_stream.config import PRESETS, ConfigError, RunConfig
from mint_stream.method.guard import ADAPTING, LEARNING
from mint_stream.output.names import labels_name, relabelled_name
from mint_stream.output.suspects import suspect, suspect_units
from mint_stream.store.store import Store
from mint_stream.upkeep.compaction import compact
from mint_stream.upkeep.verify.verify import verify

HALF_LIFE = 3.0


def stream(*runs: tuple[str, int, int], scope: str = "shared") -> pa.Table:
    """Rows by (verdict, domain, how many); four to a unit."""
    verdicts = [(verdict, domain) for verdict, domain, n in runs for _ in range(n)]
    return pa.table(
        {
            "bank_scope": [scope] * len(verdicts),
            "bank_domain": pa.array([domain for _, domain in verdicts], pa.int32()),
            "bank_seq": [n // 4 for n in range(len(verdicts))],
            "guard": [verdict for verdict, _ in verdicts],
            "adapted": [verdict == ADAPTING for verdict, _ in verdicts],
        }
    )


def test_the_last_rows_before_a_refusal_are_suspect() -> None:
    found = suspect(stream((ADAPTING, 0, 10), ("narrow", 0, 5), (ADAPTING, 0, 10)), HALF_LIFE)
    assert np.flatnonzero(found).tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "after",
    [(LEARNING, 0, 5), ("narrow", 1, 5), (ADAPTING, 1, 5)],
    ids=["too little is known", "another domain", "nothing was refused"],
)
def test_what_says_nothing_against_a_row_leaves_it_alone(after: tuple[str, int, int]) -> None:
    assert not suspect(stream((ADAPTING, 0, 10), after), HALF_LIFE).any()


def test_a_domain_counts_its_own_frames_only() -> None:
    # Twenty frames of another domain lie between; for domain 0 the refusal is the next one.
    rows = stream((ADAPTING, 0, 4), (ADAPTING, 1, 20), ("uniform", 0, 1))
    assert np.flatnonzero(suspect(rows, HALF_LIFE)).tolist() == [0, 1, 2, 3]


def test_each_bank_has_its_own_domains() -> None:
    rows = pa.concat_tables(
        [stream((ADAPTING, 0, 8), scope="north"), stream(("narrow", 0, 8), scope="south")]
    )
    assert not suspect(rows, HALF_LIFE).any()


def test_time_is_what_the_bank_saw_and_not_the_order_of_names() -> None:
    rows = stream((ADAPTING, 0, 8), ("narrow", 0, 4))
    backwards = rows.take(list(range(11, -1, -1)))
    assert suspect(backwards, HALF_LIFE).sum() == suspect(rows, HALF_LIFE).sum() == 6


def test_without_rows_and_without_domains_nothing_is_suspect() -> None:
    assert not suspect(stream(), HALF_LIFE).size
    frozen = stream(("off", 0, 8))
    domain = frozen.schema.get_field_index("bank_domain")
    frozen = frozen.set_column(domain, "bank_domain", pa.nulls(8, pa.int32()))
    assert not suspect(frozen, HALF_LIFE).any()


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def run(assets: Assets, tmp_path: Path) -> RunConfig:
    """24 frames of two cameras by units of 4, the third unit refused after two adapted ones."""
    put_tars(str(tmp_path / "in"), shards=2, frames=12)
    base = assets.config(str(tmp_path / "in"), str(tmp_path / "out"))
    run = dataclasses.replace(base, method=PRESETS["realtime"], unit_size=4)
    run_plainly(run)
    refuse_third_unit(run.output)
    return run


def test_suspect_units_are_labelled_again_once(run: RunConfig) -> None:
    before = read_labels(run.output)
    suspects = suspect_units(run.output, run.method.half_life)
    assert sum(suspects.values()) == 8
    bank = {info.name for info in Store(run.output).list("bank/")}
    again = dataclasses.replace(run, relabel_suspect=True)
    assert run_plainly(again) == len(suspects) == 2
    assert {info.name for info in Store(run.output).list("bank/")} == bank
    store = Store(run.output)
    assert {i.name for i in store.list("relabelled/")} == {relabelled_name(u) for u in suspects}
    assert verify(run.output, input_url=run.input).findings == ()
    after = read_labels(run.output)
    assert after["frame"] == before["frame"]
    new = after.filter(after["relabelled"])
    assert set(new["unit"].to_pylist()) == set(suspects)
    assert new.num_rows == 8
    # By the bank as it is: six units have taught it, too few for an answer that stands.
    assert pc.all(pc.equal(new["bank_seq"], 6)).as_py()
    assert new["label"] == new["source_label"]
    assert set(new["guard"].to_pylist()) == {LEARNING}
    rest = pc.invert(pc.is_in(before["unit"], value_set=pa.array(list(suspects))))
    assert after.filter(rest).equals(before.filter(rest))
    assert read_labels(run.output, relabelled=False).equals(before)
    assert suspect_units(run.output, run.method.half_life) == {}
    assert run_plainly(again) == 0


def test_a_compacted_output_shows_the_new_rows_too(run: RunConfig) -> None:
    run_plainly(dataclasses.replace(run, relabel_suspect=True))
    before = read_labels(run.output)
    compact(run.output)
    assert read_labels(run.output).equals(before)
    assert verify(run.output).findings == ()


def test_suspect_frames_whose_shard_is_gone_keep_their_rows(
    run: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    units = list(suspect_units(run.output, run.method.half_life))
    labels = read_labels(run.output)
    held = labels.filter(pc.is_in(labels["unit"], value_set=pa.array(units)))
    for shard in set(held["shard"].to_pylist()):
        (Path(run.input) / PurePosixPath(shard).name).unlink()
    assert run_plainly(dataclasses.replace(run, relabel_suspect=True)) == 0
    assert "8 suspect frames stay as they are" in caplog.text
    assert not pc.any(read_labels(run.output)["relabelled"]).as_py()


def test_rows_for_frames_without_a_label_are_found(run: RunConfig) -> None:
    run_plainly(dataclasses.replace(run, relabel_suspect=True))
    store = Store(run.output)
    name = next(iter(store.list("relabelled/"))).name
    gone = name.rpartition("/")[2].removesuffix(".parquet")
    store.delete(labels_name(gone))
    found = [finding.object for finding in verify(run.output).findings]
    assert name in found


@pytest.mark.parametrize(
    "changes",
    [{"method": PRESETS["paper"]}, {"adapt": "shadow"}, {"limit": 5}, {"follow": True}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_labelling_again_cannot_be_combined_with(
    run: RunConfig, changes: dict[str, object]
) -> None:
    with pytest.raises(ConfigError, match="relabel-suspect"):
        dataclasses.replace(run, relabel_suspect=True, **changes)
