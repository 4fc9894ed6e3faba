"""What a run notes of its readers: how far they got, and who died where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import members, put, tar

from mint_stream.input import units
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame, Reject
from mint_stream.input.grid import ShardProgress, unit_start
from mint_stream.input.shards import read_frames
from mint_stream.input.units import ReadConfig, ShardTask, Unit
from mint_stream.pipeline.control import RunControl
from mint_stream.pipeline.parcels import ParcelSize, place_of, unpack
from mint_stream.pipeline.rows import shard_row
from mint_stream.pipeline.stages import MOST_READERS, read_units

FRAMES = 23
CONFIG = ReadConfig(unit_size=2)
SIZE = ParcelSize(first=1, most=4)


class Died(BaseException):
    """The process of a reader was killed."""


class Nowhere:
    """The origin of a run that is none."""

    def enter(self) -> None:
        return None


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> ShardTask:
    """A tar of 23 frames, of which 2 to 5 are committed."""
    root = str(tmp_path_factory.mktemp("shard"))
    put(root, {"a.tar": tar(members(range(FRAMES)))})
    (found,) = discover(root, unit_size=2)
    return ShardTask(shard=found, frames_from={2: 2, 4: 2})


def attempt(
    shard: ShardTask,
    control: RunControl,
    patch: pytest.MonkeyPatch,
    *,
    dies_at: int | None = None,
    parcels: int | None = None,
) -> list[pa.Table]:
    """What a reader hands on before it dies: at a frame, or when it has handed on some parcels."""

    def frames(*arguments: Any, **options: Any) -> Iterator[Frame | Reject]:
        for item in read_frames(*arguments, **options):
            if item.index == dies_at:
                raise Died
            yield item

    patch.setattr(units, "read_frames", frames)
    handed_on: list[pa.Table] = []
    try:
        for parcel in read_units(shard_row(7, shard), CONFIG, SIZE, control, Nowhere()):  # type: ignore[arg-type]
            handed_on.append(parcel)
            if len(handed_on) == parcels:
                raise Died
    except Died:
        pass
    return handed_on


def units_in(parcels: list[pa.Table]) -> list[Unit]:
    return [unit for parcel in parcels for unit in unpack(Unit, parcel)]


def ids(parcels: list[pa.Table]) -> list[str]:
    return [frame.frame for unit in units_in(parcels) for frame in unit.frames]


@settings(max_examples=40)
@given(
    deadly=st.integers(0, FRAMES - 1),
    earlier=st.lists(st.integers(1, 6), max_size=3),
)
def test_the_shard_that_kills_its_readers_is_given_up_where_they_died(
    deadly: int, earlier: list[int], shard: ShardTask
) -> None:
    """Whatever earlier attempts handed on is handed on again, by position; the rest is a reject."""
    control, handed_on = RunControl(), list[pa.Table]()
    with pytest.MonkeyPatch.context() as patch:
        for parcels in earlier:
            handed_on += attempt(shard, control, patch, dies_at=deadly, parcels=parcels)[
                len(handed_on) :
            ]
        # At most so many again that got no further than one before.
        for _ in range(2 * MOST_READERS):
            again = attempt(shard, control, patch, dies_at=deadly)
            for one, other in zip(again, handed_on, strict=False):
                assert place_of(one) == place_of(other)
                assert ids([one]) == ids([other])
            assert len(again) >= len(handed_on)
            handed_on = again
            place = place_of(again[-1]) if again else None
            if place is not None and place.last:
                break
    last = units_in(handed_on)[-1]
    (reject,) = last.rejects
    assert (reject.frame, reject.error_type) == (None, "ReaderDied")
    assert "--output" in reject.message
    labelled = ids(handed_on)
    uri = last.shard
    whole = [f"{uri}#{n:06d}.png" for n in range(FRAMES) if not 2 <= n < 6]
    assert labelled == whole[: len(labelled)]
    assert last.shard_frames == unit_start(last.unit) + 1
    done = ShardProgress(2, {2: 2, 4: 2})
    for unit in units_in(handed_on):
        done.frames_from[unit_start(unit.unit)] = len(unit.frames) + len(unit.rejects)
    assert done.is_complete(last.shard_frames)


def test_readers_that_die_on_their_way_lose_nothing(shard: ShardTask) -> None:
    """Killed from outside, each a little further on, or after the last parcel: no frame is lost."""
    control = RunControl()
    with pytest.MonkeyPatch.context() as patch:
        for parcels in (1, 1, 2, 2, 3, 4, 5, 5, 5, 5, 5):
            attempt(shard, control, patch, parcels=parcels)
        whole = attempt(shard, control, patch)
    assert len(ids(whole)) == FRAMES - 4
    assert control.begin_reading(7) == (0, 0), "a shard that is read is forgotten"


def test_readers_killed_again_and_again_while_they_wait_give_nothing_up(shard: ShardTask) -> None:
    """What they had read waits for a labeler meanwhile: the shard is not to blame."""
    control = RunControl()
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(3 * MOST_READERS):
            attempt(shard, control, patch, parcels=2)
        whole = attempt(shard, control, patch)
    assert len(ids(whole)) == FRAMES - 4
