"""What cannot be had is left, never rejected: only damage in the bytes themselves is final."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tiny import members, parquet, png, put, tar

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Left
from mint_stream.input.grid import unit_start
from mint_stream.input.shard import Shard
from mint_stream.input.shards import Frame, Reject, count_frames, had, read_frames, read_ids
from mint_stream.input.units import LeftBehind, ReadConfig, ShardTask, Unit, read_shard
from mint_stream.pipeline.control import RunControl
from mint_stream.store import backends
from mint_stream.store.errors import ObjectChanged, ObjectMissing, StorageError
from mint_stream.store.store import Store

TAR = tar(members(range(10)))
SHARDS = {"a.tar": TAR, "a.parquet": parquet([png(n) for n in range(10)])}
kinds = pytest.mark.parametrize("name", SHARDS)


def found(root: str) -> Shard:
    (shard,) = discover(root, unit_size=4)
    return shard


def read(shard: Shard, done: dict[int, int] | None = None) -> tuple[list[Unit], list[LeftBehind]]:
    """The units of a shard, and what is left of it."""
    left: list[LeftBehind] = []
    task = ShardTask(shard=shard, frames_from=done or {})
    return list(read_shard(task, ReadConfig(unit_size=4), RunControl(), left.append)), left


def frames(unit: Unit) -> int:
    return len(unit.frames)


@kinds
def test_a_shard_that_is_missing_is_left_and_no_unit_says_that_it_is_done(
    root: str, name: str
) -> None:
    store = put(root, {name: SHARDS[name]})
    shard = found(root)
    store.delete(name)
    units, (left,) = read(shard)
    assert units == []
    assert (left.uri, left.shard_id, left.is_image) == (store.uri(name), shard.id, False)
    assert left.error_type == "ObjectMissing"


@kinds
def test_a_shard_that_is_missing_in_its_middle_is_not_taken_for_read(root: str, name: str) -> None:
    """Of eight committed frames, the place where it fails (0) is before the first that is left."""
    store = put(root, {name: SHARDS[name]})
    shard = found(root)
    store.delete(name)
    units, left = read(shard, {0: 4, 4: 4})
    assert units == []
    assert len(left) == 1


@kinds
@pytest.mark.parametrize("doing", [count_frames, lambda shard: list(read_ids(shard))])
def test_a_missing_shard_has_no_frames_that_could_be_counted_or_named(
    root: str, name: str, doing: Callable[[Shard], object]
) -> None:
    store = put(root, {name: SHARDS[name]})
    shard = found(root)
    store.delete(name)
    with pytest.raises(ObjectMissing, match=name):
        doing(shard)


def test_loose_images_that_are_missing_are_left_one_by_one(root: str) -> None:
    store = put(root, {f"{n}.png": png(n) for n in range(4)})
    shard = found(root)
    for name in ("0.png", "2.png"):
        store.delete(name)
    (unit,), left = read(shard)
    assert [frame.member for frame in unit.frames] == ["1.png", "3.png"]
    assert (unit.partial, unit.shard_frames, unit.rejects) == (True, None, ())
    assert [what.uri for what in left] == [store.uri("0.png"), store.uri("2.png")]


def test_all_loose_images_missing_make_no_unit(root: str) -> None:
    store = put(root, {"0.png": png(0)})
    shard = found(root)
    store.delete("0.png")
    units, left = read(shard)
    assert (units, len(left)) == ([], 1)


def test_who_cannot_go_on_without_it_is_told_by_an_error(root: str) -> None:
    store = put(root, {"0.png": png(0)})
    shard = found(root)
    store.delete("0.png")
    with pytest.raises(ObjectMissing):
        list(had(read_frames(shard)))


def test_damage_in_the_bytes_is_final_all_the_same(root: str) -> None:
    put(root, {"a.tar": TAR[: len(TAR) // 2]})
    units, left = read(found(root))
    assert left == []
    assert sum(len(unit.rejects) for unit in units) == 1
    assert units[-1].shard_frames is not None


class Failing(io.FileIO):
    """A file whose medium fails from some byte on."""

    good_bytes = 0
    number = errno.EIO

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() + (size or 0) > self.good_bytes:
            raise OSError(self.number, os.strerror(self.number))
        return super().read(size) or b""


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOTCONN, errno.ENODEV])
@kinds
def test_a_medium_that_fails_in_mid_shard_leaves_the_rest(
    tmp_path: Path, name: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(str(tmp_path), {name: SHARDS[name]})
    shard = found(str(tmp_path))
    (path,) = tmp_path.iterdir()

    def opened(*_: object) -> BinaryIO:
        file = Failing(path)
        file.good_bytes = path.stat().st_size * 7 // 10 if name == "a.tar" else 1000
        file.number = number
        return file  # type: ignore[return-value]

    small = Store.open

    def in_small_pieces(self: Store, name: str, **options: Any) -> io.BufferedReader:
        return small(self, name, **{**options, "buffer_bytes": 1024})

    with monkeypatch.context() as patch:
        patch.setattr(backends._LocalBackend, "open", opened)
        patch.setattr(Store, "open", in_small_pieces)
        units, (left,) = read(shard)
    assert left.error_type == StorageError.__name__
    assert os.strerror(number) in left.message
    assert not any(unit.rejects for unit in units)
    assert all(unit.shard_frames is None for unit in units)
    done = {unit_start(unit.unit): frames(unit) for unit in units}
    if name == "a.tar":
        assert 0 < sum(done.values()) < 10, "what comes before the failure is labelled"
    units, left_then = read(shard, done)
    assert left_then == []
    assert sum(done.values()) + sum(map(frames, units)) == 10, "and the rest by the next run"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tar", tar(members(range(20, 30)))),  # of the same size
        ("a.tar", tar(members(range(20, 32)))),
        ("a.tar", TAR[:5120]),
        ("a.tar", b""),
        ("a.parquet", parquet([png(n) for n in range(20, 30)])),
        ("a.parquet", parquet([png(n) for n in range(20, 40)])),
        ("1.png", png(2)),
    ],
)
def test_what_is_replaced_between_listing_and_reading_is_not_read_under_its_old_id(
    root: str, name: str, data: bytes
) -> None:
    store = put(root, {name: SHARDS.get(name, png(1))})
    shard = found(root)
    store.write(name, data)
    units, (left,) = read(shard)
    assert units == []
    assert left.error_type == "ObjectChanged"
    assert f"{name}: it was written anew since it was listed" in left.message
    if data:
        new = found(root)
        assert new.id != shard.id
        units, left_then = read(new)
        assert (left_then, sum(map(frames, units)) > 0) == ([], True)
    with pytest.raises(ObjectChanged):
        list(had(read_frames(shard)))
    if name != "1.png":
        with pytest.raises(ObjectChanged):
            count_frames(shard)


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced"])
@kinds
def test_a_shard_that_changes_while_it_is_read_gives_nothing_more(
    root: str, name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if root.startswith("memory:"):
        pytest.skip("an object in memory is read in one piece")
    large = {
        "a.tar": tar([(f"{n}.png", png(n) + bytes(60_000)) for n in range(10)]),
        "a.parquet": parquet([png(n) + bytes(60_000) for n in range(10)]),
    }[name]
    store = put(root, {name: large})
    shard = found(root)
    opened = Store.open

    def in_small_pieces(self: Store, name: str, **options: Any) -> io.BufferedReader:
        return opened(self, name, **{**options, "buffer_bytes": 4096})

    monkeypatch.setattr(Store, "open", in_small_pieces)
    data = {
        "grows": large + bytes(1000),
        "shrinks": large[: len(large) // 3],
        "is replaced": large[::-1],
    }[change]
    items = read_frames(shard)
    first = next(items)
    assert isinstance(first, Frame)
    if root.startswith("s3:"):
        store.write(name, data)
    else:  # in place, as who appends or truncates does
        with (Path(root) / name).open("r+b") as file:
            file.write(data)
            file.truncate(len(data))
    rest = list(items)
    assert isinstance(rest[-1], Left)
    assert isinstance(rest[-1].error, ObjectChanged)
    assert not any(isinstance(item, Reject) for item in rest)
    for item in (first, *rest[:-1]):
        assert isinstance(item, Frame)
        assert item.data.startswith(b"\x89PNG")
        assert item.data[-60_000:] == bytes(60_000), "not a byte of the new version"


def test_a_local_shard_that_is_replaced_as_a_whole_is_read_to_its_end(tmp_path: Path) -> None:
    """A rename: who has the old file open goes on to read the old content, which is whole."""
    store = put(str(tmp_path), {"a.tar": TAR})
    items = read_frames(found(str(tmp_path)))
    first = next(items)
    store.write("a.tar", tar(members(range(50, 60))))
    everything = [first, *items]
    assert [type(item) for item in everything] == [Frame] * 10
    assert [item.data for item in everything if isinstance(item, Frame)] == [
        data for _, data in members(range(10))
    ]
