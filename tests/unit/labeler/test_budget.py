"""`--adapt-budget`: the rule by a clock that only the test turns, then labelled streams."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_run import run_plainly
from tiny import Assets, put_tars, write_assets

import mint_stream.labeler.labeler as labeler_module
import mint_stream.method.frozen as frozen_module
import mint_stream.method.realtime as realtime_module
from mint_stream import read_labels
from mint_stream.clip.encoder import ImageEncoder, Stem
from mint_stream.config import PRESETS, ConfigError, RunConfig
from mint_stream.labeler.budget import AdaptBudget
from mint_stream.method.domains import answer
from mint_stream.method.stopwatch import Stopwatch
from mint_stream.pipeline.preflight import prepare
from mint_stream.upkeep.verify.verify import verify

FRAMES = 24


class Clock:
    """Stands still unless it is turned."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def work(clock: Clock, stopwatch: Stopwatch, stage: str, seconds: float) -> None:
    with stopwatch(stage):
        clock.now_s += seconds


@given(
    share=st.floats(0.01, 1.0),
    units=st.lists(
        st.tuples(st.integers(0, 20), st.floats(0.0, 2.0), st.floats(0.001, 50.0)), max_size=60
    ),
)
def test_the_share_is_never_passed_by_more_than_a_wrong_expectation(
    share: float, units: list[tuple[int, float, float]]
) -> None:
    """Whatever frozen answers and adapting take from unit to unit."""
    clock = Clock()
    stopwatch = Stopwatch(clock)
    budget = AdaptBudget(share, stopwatch)
    too_dear_s = 0.0
    for frames, frozen_s, each_s in units:
        work(clock, stopwatch, "encoder", frames * frozen_s)
        expected_s = budget.spent_s / budget._frames if budget._frames else each_s
        count = budget.affordable(frames, each_s)
        assert 0 <= count <= frames
        with budget.spending(count):
            work(clock, stopwatch, "step", count * each_s)
        too_dear_s += max(0.0, count * (each_s - expected_s))
        clock.now_s += 1.0  # a stage that nobody measures is nobody's time
        assert budget.spent_s <= share * stopwatch.total_s + too_dear_s + 1e-6


def test_what_was_spent_too_much_is_paid_back() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    budget = AdaptBudget(0.1, stopwatch)
    work(clock, stopwatch, "encoder", 10.0)
    assert budget.affordable(4, guess_s=0.25) == 4
    assert budget.affordable(8, guess_s=0.25) == 4
    with budget.spending(4):
        work(clock, stopwatch, "step", 8.0)  # eight times as long as was guessed
    assert budget.affordable(1) == 0
    work(clock, stopwatch, "encoder", 70.0)
    assert budget.affordable(1) == 0, "8 of 88 seconds: with two more it would be 10 of 90"
    work(clock, stopwatch, "encoder", 12.0)
    assert budget.affordable(4) == 1, "8 of 100 seconds"


def test_only_the_stage_that_is_named_is_spent() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    budget = AdaptBudget(0.5, stopwatch)
    with budget.spending(3, stage="domains"):
        work(clock, stopwatch, "encoder", 5.0)
        work(clock, stopwatch, "domains", 1.5)
    assert budget.spent_s == 1.5
    assert stopwatch.total_s == 6.5
    assert stopwatch.take() == {"encoder": 5.0, "domains": 1.5}
    assert stopwatch.total_s == 6.5


class Queue:
    """A device that does later what it was given, as a GPU does."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._queued_s = clock, 0.0

    def give(self, seconds: float) -> None:
        self._queued_s += seconds

    def wait(self) -> None:
        self._clock.now_s += self._queued_s
        self._queued_s = 0.0


def test_the_wait_for_a_queued_encoder_is_not_spent_on_adapting() -> None:
    """What adapting reads first is the encoder's answer; the pass that makes it is not its own."""
    clock = Clock()
    device, stopwatch = Queue(clock), Stopwatch(clock)
    stopwatch.settle = device.wait
    budget = AdaptBudget(0.5, stopwatch)
    with stopwatch("encoder"):
        device.give(5.0)
    with budget.spending(8, stage="domains"), stopwatch("domains"):
        device.wait()
        device.give(0.25)
    assert stopwatch.take() == {"encoder": 5.0, "domains": 0.25}
    assert budget.spent_s == 0.25
    assert stopwatch.total_s == 5.25


def test_a_budget_makes_stages_wait_for_their_own_work(
    base: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `realtime`, through the whole labeler: an encoder that queues a minute's work a pass."""
    clock = Clock()
    device = Queue(clock)
    plain = ImageEncoder.plain

    def queued(self: ImageEncoder, stem: Stem) -> tuple[torch.Tensor, torch.Tensor]:
        device.give(60.0)
        return plain(self, stem)

    def reads(*arguments: object, **more: object) -> object:
        device.wait()  # the first number that is read back
        return answer(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageEncoder, "plain", queued)
    monkeypatch.setattr(realtime_module, "answer", reads)
    monkeypatch.setattr(frozen_module, "Stopwatch", lambda: Stopwatch(clock))
    monkeypatch.setattr(labeler_module, "settler", lambda _: device.wait)
    method = dataclasses.replace(PRESETS["realtime"], guard=False)
    run_plainly(dataclasses.replace(base, method=method, adapt_budget=0.05))
    guard = read_labels(base.output)["guard"].to_pylist()
    assert guard == ["adapting"] * FRAMES, "it took no time of its own"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def base(assets: Assets, tmp_path: Path) -> RunConfig:
    put_tars(str(tmp_path / "in"), shards=1, frames=FRAMES)
    return assets.config(str(tmp_path / "in"), str(tmp_path / "out"), unit_size=8)


def test_without_time_the_frozen_answer_stands_and_the_bank_stays(base: RunConfig) -> None:
    run_plainly(dataclasses.replace(base, adapt_budget=1e-9))
    rows = read_labels(base.output)
    assert rows["guard"].to_pylist() == ["budget"] * FRAMES
    assert not pc.any(rows["adapted"]).as_py()
    assert rows["label"] == rows["source_label"]
    assert set(rows["bank_seq"].to_pylist()) == {0}
    assert verify(base.output).findings == ()


def test_with_all_the_time_everything_is_as_without_a_budget(
    base: RunConfig, tmp_path: Path
) -> None:
    free = dataclasses.replace(base, output=str(tmp_path / "free"))
    run_plainly(free)
    run_plainly(dataclasses.replace(base, adapt_budget=1.0))
    mine, theirs = read_labels(base.output), read_labels(free.output)
    for column in ("frame", "label", "confidence", "adapted", "guard", "bank_seq"):
        assert mine[column] == theirs[column], column


def test_the_most_uncertain_frames_of_a_unit_come_first(
    base: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdaptBudget, "affordable", lambda self, frames, guess_s=0.0: frames // 4)
    run_plainly(dataclasses.replace(base, adapt_budget=0.5))
    rows = read_labels(base.output)
    assert verify(base.output).findings == ()
    assert pc.sum(rows["adapted"]).as_py() == FRAMES // 4
    frozen = dataclasses.replace(base, output=f"{base.output}-frozen", adapt="off")
    run_plainly(frozen)
    alone = {row["frame"]: row["entropy"] for row in read_labels(frozen.output).to_pylist()}
    for start in range(0, FRAMES, 8):
        unit = rows.slice(start, 8).to_pylist()
        chosen = {row["frame"] for row in unit if row["adapted"]}
        assert chosen == set(sorted((row["frame"] for row in unit), key=alone.__getitem__)[-2:])


def test_realtime_skips_whole_units_and_catches_up(
    base: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = dataclasses.replace(PRESETS["realtime"], guard=False)
    answers = iter([True, False, True, True])
    monkeypatch.setattr(
        AdaptBudget, "affordable", lambda self, frames, guess_s=0.0: frames * next(answers)
    )
    run_plainly(dataclasses.replace(base, method=method, adapt_budget=0.5))
    rows = read_labels(base.output)
    guard = rows["guard"].to_pylist()
    assert np.array(guard).reshape(3, 8)[:, 0].tolist() == ["adapting", "budget", "adapting"]
    assert verify(base.output).findings == ()


def test_an_output_keeps_its_budget(base: RunConfig) -> None:
    prepare(dataclasses.replace(base, adapt_budget=0.05))
    with pytest.raises(ConfigError, match=r"adapt_budget was 0\.05, now None"):
        prepare(base)
    with pytest.raises(ConfigError, match=r"adapt-budget is 0.*\(0, 1\]"):
        dataclasses.replace(base, adapt_budget=0.0)
