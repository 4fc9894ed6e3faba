"""Which frames are left to label, told from object names alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mint_stream.input.grid import ShardProgress, shard_id, unit_id
from mint_stream.output.done import Done
from mint_stream.output.names import labels_name, partial_name, shard_end_name

SHARD = shard_id("s3://bucket/a.tar", "etag-1")


def units_left(progress: ShardProgress, frames: int, stop: int) -> list[tuple[int, int]]:
    """(start, end) of the units that a reader would make: the plan, spelled out frame by frame."""
    left: list[tuple[int, int]] = []
    for frame in range(min(frames, stop)):
        cell = progress.cell(frame)
        if frame < progress.labelled_until(cell):
            continue
        if left and left[-1][1] == frame and progress.cell(left[-1][0]) == cell:
            left[-1] = (left[-1][0], frame + 1)
        else:
            left.append((frame, frame + 1))
    return left


@given(
    frames=st.integers(0, 60),
    unit_size=st.integers(1, 20),
    limits=st.lists(st.integers(1, 70), max_size=4),
    data=st.data(),
)
def test_every_frame_is_in_exactly_one_unit_after_any_runs(frames, unit_size, limits, data) -> None:
    """Runs with growing limits, each interrupted anywhere, then one to the end."""
    names: dict[str, int] = {}
    partial: list[str] = []

    def load() -> Done:
        labels = [labels_name(unit) for unit in names]
        return Done(unit_size, labels=labels, partial=partial, frames_of=names.__getitem__)

    for limit in [*sorted(limits), 10**6]:
        left = units_left(load().progress(SHARD), frames, limit)
        last = limit == 10**6
        assert load().progress(SHARD).first_left() <= (left[0][0] if left else frames + unit_size)
        kept = left if last else data.draw(st.lists(st.sampled_from(left or [(0, 0)]), unique=True))
        for start, end in kept:
            if end == start:
                continue
            unit = unit_id(SHARD, start)
            assert unit not in names, "a unit was handed out twice"
            names[unit] = end - start
            if end == limit and not last:
                partial.append(partial_name(unit))
    starts = sorted((int(unit.rpartition("-")[2]), n) for unit, n in names.items())
    covered = [frame for start, n in starts for frame in range(start, start + n)]
    assert covered == list(range(frames))
    if frames:
        assert load().progress(SHARD).is_complete(frames)
        assert load().progress(SHARD).first_left() >= frames


def test_a_shard_is_complete_only_when_its_size_is_known() -> None:
    unit = unit_id(SHARD, 0)
    assert not Done(16, labels=[labels_name(unit)]).is_complete(SHARD)
    end = shard_end_name(SHARD, 7)
    done = Done(16, labels=[labels_name(unit)], shards=[end])
    assert done.is_complete(SHARD)
    assert done.frames == 7
    assert done.frames_in(SHARD) == 7


def test_an_empty_shard_is_done_by_an_empty_unit() -> None:
    end = shard_end_name(SHARD, 0)
    assert not Done(16, shards=[end]).is_complete(SHARD)
    assert Done(16, labels=[labels_name(unit_id(SHARD, 0))], shards=[end]).is_complete(SHARD)


def test_only_units_marked_partial_are_asked_for_their_size() -> None:
    asked: list[str] = []

    def frames_of(unit: str) -> int:
        asked.append(unit)
        return 12

    cut = unit_id(SHARD, 48)
    labels = [labels_name(unit_id(SHARD, start)) for start in (0, 16, 32, 48)]
    done = Done(16, labels=labels, partial=[partial_name(cut)], frames_of=frames_of)
    assert asked == [cut]
    assert done.frames == 60
    assert done.progress(SHARD).labelled_until(48) == 60


def test_a_replaced_shard_is_recognised_by_its_address() -> None:
    other = shard_id("s3://bucket/a.tar", "etag-2")
    done = Done(16, labels=[labels_name(unit_id(SHARD, 0))])
    assert done.replaced(other)
    assert not done.replaced(SHARD)
    assert not done.replaced(shard_id("s3://bucket/b.tar", "etag-1"))
