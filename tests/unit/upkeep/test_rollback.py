"""Rolling a bank back: what it is afterwards, what goes on from there, and what is refused."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from plain_run import run_plainly
from tiny import METHOD, Assets, put_tars, write_assets

from mint_stream import read_labels
from mint_stream.bank import checkpoint
from mint_stream.bank.checkpoint import read_bank_usage
from mint_stream.cli.outputs import main
from mint_stream.config import ConfigError, RunConfig
from mint_stream.method.bank_state import Banks, BankState, effective
from mint_stream.output.lease import Lease, LeaseHeld
from mint_stream.output.settings import Settings
from mint_stream.serving.banks.watch import CheckpointWatch
from mint_stream.store.store import Store
from mint_stream.upkeep.compare import compare
from mint_stream.upkeep.rollback import rollback
from mint_stream.upkeep.verify.bank import banks_in
from mint_stream.upkeep.verify.findings import Findings
from mint_stream.upkeep.verify.settings import check_settings
from mint_stream.upkeep.verify.verify import verify


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def run(assets: Assets, tmp_path: Path) -> RunConfig:
    """16 of 24 frames by units of 4, checkpoints after 2 and 4 of them; two cameras."""
    put_tars(str(tmp_path / "in"), shards=2, frames=12, cameras=("north", "south"))
    base = assets.config(str(tmp_path / "in"), str(tmp_path / "out"))
    run = dataclasses.replace(base, method=METHOD, unit_size=4, bank_scope="camera", limit=16)
    run_plainly(run, checkpoint_every=2)
    return run


def settings(run: RunConfig) -> Settings:
    found = check_settings(Store(run.output), Findings())
    assert found is not None
    return found


def initial(run: RunConfig) -> BankState:
    newest = checkpoint.find(Store(run.output)).sound[0]
    data = Store(run.output).read(f"{newest.name}.parquet")
    return banks_in(data, settings(run)).initial


def bank(run: RunConfig) -> Banks:
    """As the next run would find it."""
    return checkpoint.restore(Store(run.output), initial(run), settings(run).identity).banks()


def same(a: BankState, b: BankState) -> bool:
    pairs = zip((*effective(a), a.usage_K), (*effective(b), b.usage_K), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_the_bank_of_a_checkpoint_is_back_and_the_run_goes_on_from_it(run: RunConfig) -> None:
    kept = checkpoint.find(Store(run.output)).sound
    assert [about.seq for about in kept] == [4, 2]
    then = banks_in(Store(run.output).read(f"{kept[1].name}.parquet"), settings(run))
    before, labels = bank(run), read_labels(run.output)
    done = rollback(run.output, 2)
    assert (done.seq, done.to, done.scopes) == (4, 2, ("north", "south"))
    now = bank(run)
    assert now.seq == 4
    for scope in now.states:
        assert same(now.state(scope), then.state(scope))
        assert not same(now.state(scope), before.state(scope))
    assert read_labels(run.output).equals(labels)
    assert verify(run.output).findings == ()
    run_plainly(dataclasses.replace(run, limit=None))
    assert sorted(set(read_labels(run.output)["bank_seq"].to_pylist())) == [0, 1, 2, 3, 4, 5]
    verdict = verify(run.output, input_url=run.input)
    assert verdict.findings == ()
    assert any("brought the bank of 2 back" in note for note in verdict.notes)


@pytest.mark.parametrize(("to", "scope"), [(2, None), (0, None), (0, "north"), (2, "south")])
def test_all_who_read_the_bank_read_the_one_that_is_back(
    run: RunConfig, to: int, scope: str | None
) -> None:
    """Two checkpoints are of one seq then, and their names, which end in digests, say nothing."""
    rollback(run.output, to, scope)
    now = bank(run)
    values = settings(run).values
    watch = CheckpointWatch(
        Store(run.output),
        model_hash=values["model_hash"],
        method=run.method,
        width=now.initial.keys_KD.shape[1],
    )
    news = watch.news()
    assert news is not None
    usage = read_bank_usage(run.output)
    for name in now.states:
        assert same(news.banks.state(name), now.state(name))
        of_scope = usage.filter(pc.equal(usage["scope"], name))["usage"].to_pylist()
        assert of_scope == now.state(name).usage_K.tolist()
    assert compare(run.output, run.output).bank.same
    assert verify(run.output).findings == ()


def test_zero_is_the_start_and_one_camera_s_bank_can_be_rolled_back_alone(run: RunConfig) -> None:
    before = bank(run)
    rollback(run.output, 0, "north")
    now = bank(run)
    assert same(now.state("north"), initial(run))
    assert same(now.state("south"), before.state("south"))


def test_it_is_said_on_the_command_line(run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollback", run.output, "--to", "0"]) == 0
    assert "counting from 4" in capsys.readouterr().out
    assert main(["inspect", run.output]) == 0
    assert "rolled back to 0" in capsys.readouterr().out
    assert main(["rollback", run.output, "--to", "1"]) == 2
    assert "seq is 1; checkpoints are kept of 2, 4, and 0" in capsys.readouterr().err


def test_what_cannot_be_rolled_back_is_refused_and_stays(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {info.name for info in Store(run.output).list()}
    with pytest.raises(ConfigError, match="there are banks of north, south"):
        rollback(run.output, 0, "west")
    monkeypatch.setattr("mint_stream.upkeep.rollback.Lease", partial(Lease, beat_s=0.1))
    lease = Lease(Store(run.output), beat_s=0.1)
    lease.acquire()
    try:
        with pytest.raises(LeaseHeld):
            rollback(run.output, 0)
    finally:
        lease.release()
    with pytest.raises(ConfigError, match=r"run\.json: is missing"):
        rollback(str(tmp_path / "nowhere"), 0)
    assert {info.name for info in Store(run.output).list()} == before
