"""Loose images, damage of every kind, and the truth that an input holds."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shard_reading import TEN, frames, parquet, read_all, rejects
from tar_files import images, sidecar, tar

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Left
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shard import Shard
from mint_stream.input.shards import read_frames, read_ids
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


class TestSidecarsOfLooseImages:
    NAMES = (
        *("a/1.jpg", "a/1.json", "a/2.jpg", "a/2.jpg.json", "a/3.1717243200.5-ab.jpg"),
        *("a/3.1717243200.5-ab.json", "a/4.jpg", "b/4.json", "a/5.x.jpg", "a/5.json", "a/6.jpg"),
        "a/other.json",
    )
    CAMERAS = ("a/1", "a/2.jpg", "a/3.1717243200.5-ab", None, "a/5", None)

    def put(self, root: str) -> Store:
        store = Store(root)
        for name in self.NAMES:
            camera = name.removesuffix(".json")
            is_sidecar = name.endswith(".json")
            store.write(name, json.dumps({"camera": camera}).encode() if is_sidecar else b"x")
        return store

    def test_they_are_found_beside_them(self, root: str) -> None:
        store = self.put(root)
        for url in (root, f"{root}/a/*.jpg", f"{root}/**"):
            left_out = LeftOut()
            (shard,) = discover(url, unit_size=9, left_out=left_out)
            items = frames(list(read_frames(Shard.from_json(shard.to_json()))))
            assert [item.frame for item in items] == [
                store.uri(name) for name in self.NAMES if name.endswith(".jpg")
            ]
            assert tuple(item.camera for item in items) == self.CAMERAS
            told = str(left_out)
            assert told == ("" if "*.jpg" in url else "2 .json (such as a/other.json)")
        (shard,) = discover(f"{root}/a/3.1717243200.5-ab.jpg", unit_size=9)
        (item,) = frames(list(read_frames(shard)))
        assert item.camera == "a/3.1717243200.5-ab"
        assert read_truth(root)["camera"].to_pylist() == list(self.CAMERAS)

    def test_they_change_no_id(self, root: str) -> None:
        store = Store(root)
        for name in self.NAMES:
            if name.endswith(".jpg"):
                store.write(name, b"x")
        (before,) = discover(root, unit_size=9)
        for name in self.NAMES:
            if name.endswith(".json"):
                store.write(name, b"{}")
        (after,) = discover(root, unit_size=9)
        assert (after.id, after.uri) == (before.id, before.uri)

    def test_one_that_is_broken_or_gone_costs_only_itself(self, root: str) -> None:
        store = self.put(root)
        (shard,) = discover(root, unit_size=9)
        store.write("a/1.json", b"{broken")
        store.delete("a/2.jpg.json")
        items = frames(list(read_frames(shard)))
        assert tuple(item.camera for item in items) == (None, None, *self.CAMERAS[2:])
        store.write("a/1.json", b'{"camera": "' + b"x" * 2**20 + b'"}')
        assert discover(root, unit_size=9)[0].members[0].sidecar is None

    def test_they_are_not_read_where_only_ids_are_asked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put(str(tmp_path))
        (shard,) = discover(str(tmp_path), unit_size=9)
        opened: list[str] = []
        whole = Store.open
        monkeypatch.setattr(
            Store, "open", lambda store, name: (opened.append(name), whole(store, name))[1]
        )
        assert len(list(read_ids(shard))) == 6
        assert opened == []
        assert len(list(read_frames(shard, start=4))) == 2
        assert opened == ["a/5.json"]


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
