"""`--adapt on|shadow|off`: what stands, what is recorded beside it, and what the bank learns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from plain_run import run_plainly
from tiny import METHOD, Assets, put_tars, write_assets

from mint_stream import read_labels
from mint_stream.config import PRESETS, Adapt, MethodConfig, RunConfig
from mint_stream.method.guard import ADAPTING
from mint_stream.store.store import Store
from mint_stream.upkeep.verify.verify import verify

REALTIME = dataclasses.replace(PRESETS["realtime"], guard=False)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> str:
    feed = str(tmp_path_factory.mktemp("feed"))
    put_tars(feed, shards=2, frames=10)
    return feed


def config(
    assets: Assets, feed: str, output: Path, method: MethodConfig, adapt: Adapt
) -> RunConfig:
    base = assets.config(feed, str(output))
    return dataclasses.replace(base, method=method, adapt=adapt)


def labelled(output: Path) -> pa.Table:
    assert verify(str(output)).findings == ()
    return read_labels(str(output)).sort_by("frame")


@pytest.mark.parametrize("method", [METHOD, REALTIME], ids=["mint", "domains"])
def test_in_shadow_the_bank_learns_and_the_frozen_answer_stands(
    assets: Assets, feed: str, tmp_path: Path, method: MethodConfig
) -> None:
    outputs: dict[Adapt, Path] = {"on": tmp_path / "on", "shadow": tmp_path / "shadow"}
    for adapt, output in outputs.items():
        run_plainly(config(assets, feed, output, method, adapt))
    on, shadow = (labelled(output) for output in outputs.values())
    assert pc.all(on["adapted"]).as_py()
    assert set(on["guard"].to_pylist()) == {"off" if method is METHOD else ADAPTING}
    assert not pc.any(shadow["adapted"]).as_py()
    assert shadow["label"] == shadow["source_label"]
    assert shadow["confidence"] == shadow["source_confidence"]
    assert on["label"] == on["adapted_label"]
    for column in ("adapted_label", "adapted_confidence", "source_label", "bank_seq"):
        assert shadow[column] == on[column], column
    # What is recorded is not the frozen answer again.
    assert shadow["adapted_confidence"] != shadow["source_confidence"]
    logs = [{i.name for i in Store(str(o)).list("bank/log/")} for o in outputs.values()]
    assert logs[0] == logs[1]


def test_off_is_the_frozen_model_and_leaves_the_bank_as_it_is(
    assets: Assets, feed: str, tmp_path: Path
) -> None:
    first = dataclasses.replace(config(assets, feed, tmp_path / "o", METHOD, "shadow"), limit=10)
    run_plainly(first)
    taught = {info.name for info in Store(str(tmp_path / "o")).list("bank/")}
    run_plainly(dataclasses.replace(first, limit=16, adapt="off"))
    assert {info.name for info in Store(str(tmp_path / "o")).list("bank/")} == taught
    run_plainly(dataclasses.replace(first, limit=None, adapt="on"))
    rows = labelled(tmp_path / "o")
    assert rows.num_rows == 20
    assert pc.sum(rows["adapted"]).as_py() == 4
    without = rows.filter(pc.is_null(rows["adapted_label"]))
    assert without.num_rows == 6
    assert without["label"] == without["source_label"]
