"""When something that waits for a place is said, and when a run is ended for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from mint_stream.pipeline import watch as watching
from mint_stream.pipeline.placement import COMMIT_CPUS, Asks
from mint_stream.pipeline.watch import Cluster, Unplaced, Watch, shape

ASKED = Asks(labeler_cpus=0.5, labeler_gpus=1.0, reader_cpus=0.505)
LABELER, READER = shape({"CPU": 0.5, "GPU": 1.0}), shape({"CPU": 0.505})
COMMIT = shape({"CPU": COMMIT_CPUS})
NODES = ((shape({"CPU": 8, "GPU": 1}), shape({"CPU": 3.5})), (shape({"CPU": 8}), shape({})))


@dataclass
class Control:
    asked_here: bool = False


class World:
    """A watch, a clock that is set, and a cluster on which `waiting` waits."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.waiting, self.control = 100.0, dict[watching.Shape, int](), Control()
        self.ask_now = ASKED
        patch.setattr(watching.time, "monotonic", lambda: self.now)
        patch.setattr(watching, "look", lambda: Cluster(self.waiting, NODES))
        self.watch = Watch(ASKED, self.control, lambda: self.ask_now)  # type: ignore[arg-type]

    def pass_s(self, seconds: float, *, committing: bool = False) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.5
            if committing:
                self.watch.progressed()
            self.watch.on_execution_step(None)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_a_labeler_without_a_place_is_said_once_within_a_minute(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.waiting = {LABELER: 2, shape({"CPU": 64}): 1}
    world.pass_s(20, committing=True)
    assert not caplog.records
    world.pass_s(300, committing=True)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "2 labelers are waiting for a place: 0.5 CPUs and 1 GPU for each" in line
    assert "1 node of 8 CPUs and 1 GPU (3.5 CPUs free), 1 node of 8 CPUs (no CPU free)" in line


@pytest.mark.parametrize("waiting", [READER, COMMIT])
def test_tasks_that_wait_for_each_other_are_no_news(
    waiting: watching.Shape, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.waiting = {waiting: 3}
    world.pass_s(300, committing=True)
    assert not caplog.records
    world.pass_s(59)
    assert len(caplog.records) == 1, "but not when nothing is committed"


def test_what_found_a_place_and_waits_again_is_said_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        world.waiting = {LABELER: 1}
        world.pass_s(40)
        world.waiting = {}
        world.pass_s(5)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("waiting", [LABELER, READER, COMMIT])
def test_a_stop_request_ends_what_waits(waiting: watching.Shape, world: World) -> None:
    world.waiting = {waiting: 1}
    world.pass_s(300)
    world.control.asked_here = True
    with pytest.raises(Unplaced):
        world.pass_s(watching.END_AFTER_S + 2 * watching.LOOK_S)


def test_a_stop_request_waits_for_units_that_are_still_committed(world: World) -> None:
    world.control.asked_here = True
    world.waiting = {LABELER: 1}
    world.pass_s(300, committing=True)
    world.waiting = {}
    world.pass_s(300)


def test_where_the_nodes_are_others_the_run_is_placed_anew(world: World) -> None:
    """Two labelers crowded on the node that was left, and no commit found room beside them."""
    world.waiting = {COMMIT: 4}
    world.pass_s(300)
    world.ask_now = replace(ASKED, labeler_cpus=0.25)
    with pytest.raises(Unplaced, match="other nodes"):
        world.pass_s(watching.LOOK_S)


def test_other_nodes_alone_end_nothing(world: World) -> None:
    world.ask_now = replace(ASKED, labeler_cpus=0.25)
    world.pass_s(300)
    world.waiting = {READER: 1}
    world.pass_s(300, committing=True)


def test_a_head_that_does_not_answer_ends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> Cluster:
        raise RuntimeError("of Ray's core")

    monkeypatch.setattr(watching, "look", gone)
    world.pass_s(300)


def test_what_ray_data_adds_does_not_hide_whose_it_is() -> None:
    assert shape({"CPU": 0.505, "memory": 19981.0}) == READER
    assert shape({"CPU": 0.5, "GPU": 1.0, "object_store_memory": 7.0}) == LABELER
