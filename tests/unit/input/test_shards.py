"""Loose images, damage of every kind, and the truth that an input holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_reading import TEN, frames, parquet, read_all, rejects
from tar_files import images, sidecar, tar

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Left
from mint_stream.input.shards import read_frames
from mint_stream.input.truth import read_truth
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import Store


class TestLooseImages:
    def test_they_come_in_groups_of_a_unit_within_their_folder(self, root: str) -> None:
        store = Store(root)
        names = [f"x/{number}.jpg" for number in range(12)] + ["y/1.PNG", "z.webp", "y/notes.txt"]
        for name in names:
            store.write(name, name.encode())
        shards = discover(root, unit_size=5)
        assert [len(shard.members) for shard in shards] == [5, 5, 2, 1, 1]
        assert {shard.kind for shard in shards} == {"images"}
        assert shards[1].uri == f"{store.uri()}/x#5.jpg..9.jpg"
        items = [item for shard in shards for item in read_frames(shard)]
        assert [item.frame for item in items] == [store.uri(name) for name in names[:14]]
        assert [item.data for item in frames(items)] == [name.encode() for name in names[:14]]
        assert [item.member for item in items][-3:] == ["11.jpg", "1.PNG", "z.webp"]
        assert len({shard.id for shard in shards}) == 5

    def test_a_grown_folder_makes_shards_of_its_new_images_only(self, root: str) -> None:
        store = Store(root)
        for number in (1, 3, 5, 7):
            store.write(f"{number}.jpg", b"x")
        done = {item.frame for shard in discover(root, unit_size=3) for item in read_frames(shard)}
        for number in (2, 8):
            store.write(f"{number}.jpg", b"x")
        (new,) = discover(root, unit_size=3, taken={str(frame) for frame in done})
        assert [item.frame for item in read_frames(new)] == [
            store.uri("2.jpg"),
            store.uri("8.jpg"),
        ]

    def test_an_image_that_went_away_is_left_and_no_reject(self, root: str) -> None:
        store = Store(root)
        for name in TEN:
            store.write(name, b"x")
        (shard,) = discover(root, unit_size=100)
        store.delete("03.jpg")
        items = list(read_frames(shard))
        assert len(frames(items)) == 9
        assert rejects(items) == []
        (left,) = (item for item in items if isinstance(item, Left))
        assert (left.frame, left.member, left.index) == (store.uri("03.jpg"), "03.jpg", 3)
        assert isinstance(left.error, ObjectMissing)

    def test_camera_and_time_from_the_path(self, root: str) -> None:
        store = Store(root)
        store.write("camera=north%20gate/date=2026-03-01/hour=7/a.jpg", b"x")
        store.write("camera=2/timestamp=2026-03-01T08:30:00Z/b.jpg", b"x")
        store.write("date=yesterday/c.jpg", b"x")
        items = [item for shard in discover(root, unit_size=9) for item in read_frames(shard)]
        assert [(item.camera, item.timestamp) for item in frames(items)] == [
            ("2", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
            ("north gate", datetime(2026, 3, 1, 7, tzinfo=UTC)),
            (None, None),
        ]


IMAGES = [f"image {number}".encode() for number in range(10)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data(), kind=st.sampled_from(["tar", "tar.gz", "parquet", "parquet.zstd"]))
def test_whatever_is_damaged_every_index_is_accounted_for(
    draw: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`read_all` holds: counts agree, indices run through, ids are unique, nothing is raised."""
    members = [
        member
        for number in range(6)
        for member in (*images([f"{number}.jpg"]), sidecar(f"{number}", camera="c"))
    ]
    columns = {"image": IMAGES, "camera": ["c"] * 10, "key": [str(n) for n in range(10)]}
    data = bytearray(
        tar(*members, compress=kind == "tar.gz")
        if kind.startswith("tar")
        else parquet(
            columns, row_group_size=4, compression="zstd" if kind.endswith("zstd") else "none"
        )
    )
    for _ in range(draw.draw(st.integers(1, 6))):
        at = draw.draw(st.integers(0, len(data) - 1))
        length = draw.draw(st.sampled_from([1, 1, 1, 40]))
        data[at : at + length] = draw.draw(st.binary(min_size=length, max_size=length))
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data))) :]
    path = tmp_path_factory.mktemp("damaged") / f"s.{kind.split('.')[0]}"
    path.write_bytes(bytes(data))
    for id_column in (None, "key") if kind.startswith("parquet") else (None,):
        items = read_all(str(path), id_column=id_column)
        assert sum(item.frame is None for item in items) <= 1


def test_the_truth_of_a_mixed_input(root: str) -> None:
    store = Store(root)
    store.write(
        "1.tar",
        tar(
            *images(["a.jpg"]),
            sidecar("a", camera="c", domain="fog", label="car"),
            *images(["b.jpg"]),
        ),
    )
    store.write("2.parquet", parquet({"image": [b"x"], "label": ["bus"]}))
    store.write("label=cat/3.jpg", b"x")
    store.write("4.tar", b"")
    table = read_truth(root)
    assert table.column_names == ["frame", "camera", "timestamp", "domain", "label"]
    assert table.column("frame").to_pylist() == [
        store.uri("1.tar") + "#a.jpg",
        store.uri("1.tar") + "#b.jpg",
        store.uri("2.parquet") + "#0",
        store.uri("label=cat/3.jpg"),
    ]
    assert table.column("label").to_pylist() == ["car", None, "bus", "cat"]
    assert table.column("camera").to_pylist() == ["c", None, None, None]
    assert table.column("domain").to_pylist() == ["fog", None, None, None]
