"""The table of cameras in a bank's arrays: what is kept, and what several labelers make of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from mint_stream.config import PRESETS
from mint_stream.method import cameras
from mint_stream.method.bank_state import BankState, delta, effective, initial_state, merge
from mint_stream.method.camera_rows import CameraRow
from mint_stream.method.camera_state import merge as merge_step
from mint_stream.method.camera_table import CameraTable, camera_key
from mint_stream.method.class_axes import ClassAxes, class_axes, unit

WIDTH, JOINT, CLASSES = 48, 32, 10


@pytest.fixture(scope="module")
def axes() -> ClassAxes:
    random = np.random.default_rng(0)
    projection_DE = random.standard_normal((WIDTH, JOINT)) / np.sqrt(WIDTH)
    common_E, own_CE = random.standard_normal(JOINT), random.standard_normal((CLASSES, JOINT))
    return class_axes(projection_DE, unit(1.5 * common_E + own_CE), 15.0)


def start(slots: int = 8) -> BankState:
    method = dataclasses.replace(PRESETS["cameras"], bank_size=slots + 1)
    rows = method.fitted(CLASSES, WIDTH).prompt_rows
    return initial_state(entries=slots + 1, prompt_rows=rows, width=WIDTH, seed=None)


def in_use(state: BankState, axes: ClassAxes, labelers: int = 1) -> CameraTable:
    return CameraTable(*effective(state), state.usage_K, axes, labelers)


def label(
    table: CameraTable, axes: ClassAxes, camera: str, seed: int, time_s: float = math.nan
) -> NDArray[np.float64]:
    """A step of 16 frames; gives the probabilities."""
    random = np.random.default_rng(seed)
    query_BD, activation_BD = random.standard_normal((2, 16, WIDTH))
    frozen_BC = random.standard_normal((16, CLASSES))
    key = camera_key(camera)
    answered = cameras.answer(table.state, axes, query_BD, activation_BD, frozen_BC, key, time_s)
    table.take(merge_step(table.state, answered.update, cameras=table.slots), key, 16)
    return answered.p_BC


def after(state: BankState, table: CameraTable, seq: int) -> BankState:
    return merge(state, delta(state, *table.arrays(), table.decay), seq)


def numbers(row: CameraRow) -> dict[str, NDArray[np.float64]]:
    return {name: np.atleast_1d(value) for name, value in dataclasses.asdict(row).items()}


def test_the_bank_keeps_every_row_and_sum(axes: ClassAxes) -> None:
    state, table = start(), in_use(start(), axes)
    for seed, camera in enumerate(("north", "south", "north", "yard", "Süd/4")):
        label(table, axes, camera, seed, time_s=1.7e9 + 0.25 * seed)
    again = in_use(after(state, table, 1), axes)
    wanted, found = table.state, again.state
    assert found.rows.keys() == wanted.rows.keys()
    for camera, row in wanted.rows.items():
        for name, value in numbers(row).items():
            np.testing.assert_allclose(
                numbers(found.rows[camera])[name], value, rtol=1e-6, atol=1e-6, err_msg=name
            )
        assert found.rows[camera].frames == row.frames
        assert abs(found.rows[camera].time_s - row.time_s) < 0.01
    assert found.sums["frames"] == wanted.sums["frames"] == 80
    for name, value in wanted.now().items():
        np.testing.assert_allclose(found.now()[name], value, rtol=1e-6, err_msg=name)


def test_a_frame_without_time_stays_without_one(axes: ClassAxes) -> None:
    table = in_use(start(), axes)
    label(table, axes, "north", 0)
    (row,) = in_use(after(start(), table, 1), axes).state.rows.values()
    assert math.isnan(row.time_s)


def test_an_empty_bank_knows_no_camera(axes: ClassAxes) -> None:
    assert in_use(start(), axes).state.rows == {}


def test_only_what_a_unit_saw_is_changed(axes: ClassAxes) -> None:
    table = in_use(start(), axes)
    label(table, axes, "north", 0)
    label(table, axes, "south", 1)
    state = after(start(), table, 1)
    table = in_use(state, axes)
    label(table, axes, "north", 2)
    change = delta(state, *table.arrays(), table.decay)
    assert len(change.entries_E) == 2, "the sums and one camera"
    assert change.entries_E[0] == 0


def test_the_camera_not_seen_for_longest_is_let_go(axes: ClassAxes) -> None:
    state = start(slots=3)
    for seed, camera in enumerate(("a", "b", "c", "a", "d")):
        table = in_use(state, axes)
        label(table, axes, camera, seed)
        state = after(state, table, seed + 1)
    known = in_use(state, axes).state.rows
    assert set(known) == {camera_key(camera) for camera in ("a", "c", "d")}
    assert known[camera_key("a")].frames == 32


def test_two_labelers_that_take_one_slot_for_two_cameras_both_find_another(
    axes: ClassAxes,
) -> None:
    slots = 8
    first = next(
        (a, b)
        for a in map(str, range(100))
        for b in map(str, range(100))
        if a != b and int(camera_key(a), 16) % slots == int(camera_key(b), 16) % slots
    )
    state = start(slots)
    tables = [in_use(state, axes, 2), in_use(state, axes, 2)]
    for seed, (table, camera) in enumerate(zip(tables, first, strict=True)):
        label(table, axes, camera, seed)
    for seq, table in enumerate(tables, 1):
        change = delta(start(slots), *table.arrays(), table.decay)
        state = merge(state, change, seq)
    assert in_use(state, axes).state.rows == {}, "the slot belongs to neither"
    for seq, camera in enumerate(first, 3):
        table = in_use(state, axes)
        label(table, axes, camera, seq)
        state = after(state, table, seq)
    assert set(in_use(state, axes).state.rows) == set(map(camera_key, first))


def test_sums_of_two_labelers_weigh_what_one_would_give_them(axes: ClassAxes) -> None:
    """Each sees half of the frames, and not what the other does at the same time."""
    one, two = start(), start()
    for seed in range(60):
        table = in_use(one, axes)
        label(table, axes, "north" if seed % 2 else "south", seed)
        one = after(one, table, seed + 1)
    for seed in range(0, 60, 2):
        tables = [in_use(two, axes, 2), in_use(two, axes, 2)]
        changes = []
        for offset, table in enumerate(tables):
            label(table, axes, "north" if offset else "south", seed + offset)
            changes.append(delta(two, *table.arrays(), table.decay))
        for offset, change in enumerate(changes):
            two = merge(two, change, seed + offset + 1)
    alone, together = (in_use(state, axes).state.now() for state in (one, two))
    for name in ("pairs", "marginal_C", "query_spread"):
        np.testing.assert_allclose(together[name], alone[name], rtol=0.1, err_msg=name)


@pytest.mark.parametrize(("classes", "width"), [(2, 32), (10, 192), (1000, 768), (1000, 192)])
def test_a_row_has_room_for_its_camera_at_any_number_of_classes(classes: int, width: int) -> None:
    random = np.random.default_rng(0)
    joint = min(width, 64)
    many = class_axes(
        random.standard_normal((width, joint)), unit(random.standard_normal((classes, joint))), 9.0
    )
    method = dataclasses.replace(PRESETS["cameras"], bank_size=3).fitted(classes, width)
    state = initial_state(entries=3, prompt_rows=method.prompt_rows, width=width, seed=None)
    table = CameraTable(*effective(state), state.usage_K, many)
    query_BD, activation_BD = random.standard_normal((2, 4, width))
    key = camera_key("north")
    answered = cameras.answer(
        table.state, many, query_BD, activation_BD, random.standard_normal((4, classes)), key
    )
    table.take(merge_step(table.state, answered.update, cameras=table.slots), key, 4)
    kept = after(state, table, 1)
    (row,) = CameraTable(*effective(kept), kept.usage_K, many).state.rows.values()
    np.testing.assert_allclose(row.last_X, answered.update.row.last_X, rtol=1e-6)
    np.testing.assert_allclose(row.all_D, answered.update.row.all_D, rtol=1e-6)
