"""kill -9 at enumerated points: the run completes, every frame once, labels and bank bit for bit.

Every kind of process at every point: one run for each kind, in which one kill follows the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from forged import refuse_third_unit
from kills import POINTS, Kill, Plan
from oracle import Output, check_bank, check_bank_but_for_order, check_frames, check_same
from stages import DyingLabelUnits, losing_read_units
from tiny import METHOD
from world import World, make_world

from mint_stream.config import PRESETS
from mint_stream.output.names import relabelled_name
from mint_stream.output.read import read_labels
from mint_stream.output.suspects import suspect_units
from mint_stream.pipeline import dataset
from mint_stream.pipeline.summary import RunFailed
from mint_stream.store.store import Store

WorldOn = Callable[[str], tuple[World, Output]]


def everywhere(*victims: str) -> tuple[Kill, ...]:
    """A kill at each point, each after one more committed unit; the victims take turns."""
    return tuple(
        Kill(victim, moment, operation, after_units)
        for after_units, ((moment, operation), victim) in enumerate(
            zip(POINTS, cycle(victims)), start=1
        )
    )


@pytest.mark.parametrize(
    ("place", "victims"),
    [
        ("local", ["labeler"]),
        ("local", ["read"]),
        ("local", ["commit"]),
        ("local", ["bank"]),
        ("local", ["worker"]),
        ("s3", ["labeler", "commit"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-and-".join(value),
)
def test_a_run_survives(place: str, victims: list[str], world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on(place)
    plan = world.plan(tmp_path, everywhere(*victims))
    world.run(plan)
    check_survived(plan, world, undisturbed)


def test_bank_server_and_labeler_die_together(world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on("local")
    points = (("before", "merge"), ("after", "merge"), ("after", "log"), ("before", "labels"))
    plan = world.plan(
        tmp_path, tuple(Kill("bank+labeler", *point, n) for n, point in enumerate(points, start=2))
    )
    world.run(plan)
    check_survived(plan, world, undisturbed)


SHORT = (
    Kill("labeler", "before", "merge", 2),
    Kill("labeler", "after", "merge", 4),
    Kill("commit", "after", "log", 6),
    Kill("bank", "before", "labels", 8),
    Kill("commit", "after", "labels", 10),
    Kill("read", "after", "manifest", 12),
)


def test_a_run_with_two_labelers_survives(world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on("local")
    plan = world.plan(tmp_path, SHORT)
    world.run(plan, num_labelers=2)
    check_every_kill(plan, world)
    output = Output.read(plan.output)
    check_frames(output, world.ids)
    # The order in which units were merged is another in every run; what was rejected is not.
    check_bank_but_for_order(output, METHOD, removed=plan.removed())
    assert output.reject_rows == undisturbed.reject_rows


def test_a_run_with_a_bank_for_each_camera_survives(world_on: WorldOn, tmp_path: Path) -> None:
    world, shared = world_on("local")
    calm = world.plan(tmp_path / "calm")
    world.run(calm, bank_scope="camera")
    undisturbed = Output.read(calm.output)
    scopes = {row["bank_scope"] for row in undisturbed.label_rows}
    assert scopes == {"a", "b"}
    assert undisturbed.newest_checkpoint()[1] != shared.newest_checkpoint()[1]
    plan = world.plan(tmp_path / "disturbed", SHORT)
    world.run(plan, bank_scope="camera")
    check_survived(plan, world, undisturbed)


def test_labelling_suspect_units_again_survives(cluster: None, tmp_path: Path) -> None:
    """One labelled again at a time: what stands afterwards is what stands without kills."""
    world = make_world(tmp_path / "world", shards=1)
    first = world.plan(tmp_path / "first")
    world.run(first, method=PRESETS["realtime"])
    refuse_third_unit(first.output)
    suspects = suspect_units(first.output, PRESETS["realtime"].half_life)
    assert len(suspects) == 2
    kills = (
        Kill("labeler", "after", "merge", 1),
        Kill("commit", "before", "relabelled", 1),
        Kill("bank", "before", "relabelled", 2),
        Kill("commit", "after", "relabelled", 1),
    )
    rows = []
    for name, planned in (("calm", ()), ("disturbed", kills)):
        output = shutil.copytree(first.output, f"{world.root}/{name}")
        plan = Plan(tmp_path / name, str(output), planned).prepare()
        world.run(plan, method=PRESETS["realtime"], relabel_suspect=True)
        assert {done.kill for done in plan.done()} == set(planned)
        check_frames(Output.read(plan.output), world.ids)
        assert {info.name for info in Store(plan.output).list("relabelled/")} == {
            relabelled_name(unit) for unit in suspects
        }
        labels = read_labels(plan.output).drop_columns(["labelled_at"])
        rows.append(labels.sort_by("frame").to_pylist())
        assert sum(row["relabelled"] for row in rows[-1]) == sum(suspects.values())
    assert rows[0] == rows[1]


def test_a_stream_that_loses_a_parcel_is_handed_out_anew(
    world_on: WorldOn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a read task dies and its repetition finds another input."""
    world, undisturbed = world_on("local")
    plan = world.plan(tmp_path)
    world.run(plan, losing_read_units)
    assert "the stream broke off" in caplog.text
    check_survived(plan, world, undisturbed)


def test_a_labeler_that_dies_again_and_again_ends_the_run(
    world_on: WorldOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _ = world_on("local")
    monkeypatch.setattr(dataset, "LabelUnits", DyingLabelUnits)
    with pytest.raises(RunFailed, match=r"the labeler died, for the 4th time .* too little memory"):
        world.run(world.plan(tmp_path))


def test_a_run_is_continued_by_the_next_driver(world_on: WorldOn, tmp_path: Path) -> None:
    world, undisturbed = world_on("local")
    plan = world.plan(tmp_path, everywhere("driver"))
    with world.drivers(plan) as driver:
        assert driver.wait(600) == 0, driver.err
        check_survived(plan, world, undisturbed)


def check_every_kill(plan: Plan, world: World) -> None:
    """That each was done, in the middle of the run."""
    done = plan.done()
    assert {d.kill for d in done} == set(plan.kills), "every kill happened"
    assert all(1 <= d.committed < world.units for d in done), "with commits before and after it"


def check_survived(plan: Plan, world: World, undisturbed: Output) -> None:
    """Hold what came out against a run in which nothing happened."""
    check_every_kill(plan, world)
    output = Output.read(plan.output)
    check_frames(output, world.ids)
    check_bank(output, METHOD, removed=plan.removed())
    check_same(output, undisturbed)
