"""Shards, frames and their ids, on a local disk, in memory and on a real S3 server."""

from __future__ import annotations

import io
import random
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tar_files import header, images, offset_of, sidecar, tar

from mint_stream.config import ConfigError
from mint_stream.shards import (
    Frame,
    Reject,
    Shard,
    count_frames,
    discover,
    read_frames,
    read_truth,
)
from mint_stream.storage import Store

TEN = [f"{number:02}.jpg" for number in range(10)]


def read_all(url: str, **columns: str | None) -> list[Frame | Reject]:
    """Everything in the one shard at `url`, with what holds for every shard asserted."""
    (shard,) = discover(url, unit_size=100)
    items = list(read_frames(shard, **columns))
    assert [item.index for item in items] == list(range(len(items)))
    assert {item.shard for item in items} <= {shard.uri}
    assert count_frames(shard, **columns) == len(items)
    ids = [item.frame for item in items if item.frame is not None]
    assert len(set(ids)) == len(ids)
    for start, stop in ((0, 2), (1, None), (3, 5), (len(items), None)):
        again = list(read_frames(shard, start=start, stop=stop, **columns))
        assert again == items[start:stop]
    for item in items:  # valid UTF-8 throughout: Parquet takes nothing else
        for text in (item.frame, item.shard, item.member):
            assert text is None or text.encode("utf-8")
    return items


def frames(items: list[Frame | Reject]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def rejects(items: list[Frame | Reject]) -> list[Reject]:
    return [item for item in items if isinstance(item, Reject)]


class TestDiscover:
    def test_a_folder_in_natural_order_without_hidden_and_foreign_files(self, root: str) -> None:
        store = Store(root)
        for name in (
            *("b10.tar", "b9.tar", "a.parquet", "sub/c.tar.gz", "sub/d.tgz", "D.TAR", "e.pq"),
            *("labels.txt", ".hidden.tar", ".git/x.tar", "_temporary/0/x.parquet", "_SUCCESS"),
            *("__MACOSX/._a.tar", "README.md", "a.parquet.crc", "x.tar.part"),
        ):
            store.write(name, b"x")
        shards = discover(root, unit_size=16)
        expected = ["D.TAR", "a.parquet", "b9.tar", "b10.tar", "e.pq", "sub/c.tar.gz", "sub/d.tgz"]
        assert [shard.uri for shard in shards] == [store.uri(name) for name in expected]
        assert [shard.kind for shard in shards] == [
            *("tar", "parquet", "tar", "tar", "parquet", "tar", "tar")
        ]
        assert len({shard.id for shard in shards}) == 7

    def test_a_file_a_slash_and_a_glob(self, root: str) -> None:
        store = Store(root)
        for name in ("north/1.tar", "north/2.tar", "south/1.tar", "south/deep/1.tar", "x.txt"):
            store.write(name, b"x")

        def found(url: str) -> list[str]:
            return [
                shard.uri.removeprefix(f"{store.uri()}/") for shard in discover(url, unit_size=1)
            ]

        everything = ["north/1.tar", "north/2.tar", "south/1.tar", "south/deep/1.tar"]
        assert found(root) == found(f"{root}/") == everything
        assert found(f"{root}/south") == ["south/1.tar", "south/deep/1.tar"]
        assert found(f"{root}/north/2.tar") == ["north/2.tar"]
        assert found(f"{root}/*/1.tar") == ["north/1.tar", "south/1.tar"]
        assert found(f"{root}/*th/[2-9].tar") == ["north/2.tar"]
        assert found(f"{root}/n*/*") == ["north/1.tar", "north/2.tar"]
        assert found(f"{root}/**/1.tar") == ["north/1.tar", "south/1.tar", "south/deep/1.tar"]
        assert found(f"{root}/nowhere") == found(f"{root}/no*/x.tar") == []
        with pytest.raises(ConfigError, match=r"x\.txt.*must be a tar"):
            found(f"{root}/x.txt")

    def test_a_file_whose_name_looks_like_a_glob(self, tmp_path: Path) -> None:
        (tmp_path / "a[1].tar").write_bytes(tar())
        (shard,) = discover(str(tmp_path / "a[1].tar"), unit_size=1)
        assert shard.uri == f"{tmp_path}/a[1].tar"

    def test_a_relative_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.tar").write_bytes(tar())
        monkeypatch.chdir(tmp_path)
        for url in ("in", "./in/", "in/a.tar", "in/*.tar"):
            (shard,) = discover(url, unit_size=1)
            assert shard.uri == f"{tmp_path}/in/a.tar"
            monkeypatch.chdir("/")  # a worker's folder is another one
            assert list(read_frames(shard)) == []
            monkeypatch.chdir(tmp_path)

    def test_the_same_content_keeps_its_id_and_another_gets_another(self, root: str) -> None:
        store = Store(root)
        store.write("a.tar", b"one")
        (first,) = discover(root, unit_size=16)
        assert discover(root, unit_size=16) == [first]
        store.write("a.tar", b"other")
        (second,) = discover(root, unit_size=16)
        assert second.uri == first.uri
        assert second.id != first.id
        assert second.id[:12] == first.id[:12]  # the part that stands for the address

    def test_a_shard_survives_as_text(self, tmp_path: Path) -> None:
        (tmp_path / "ü\udcff.jpg").write_bytes(b"image")
        (shard,) = discover(str(tmp_path), unit_size=16)
        text = shard.to_json()
        assert text.isascii()
        assert Shard.from_json(text) == shard
        (item,) = read_frames(Shard.from_json(text))
        assert isinstance(item, Frame)
        assert item.frame == f"{tmp_path}/ü\\xff.jpg"
        assert item.data == b"image"


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

    def test_an_image_that_went_away_is_one_reject(self, root: str) -> None:
        store = Store(root)
        for name in TEN:
            store.write(name, b"x")
        (shard,) = discover(root, unit_size=100)
        store.delete("03.jpg")
        items = list(read_frames(shard))
        assert len(frames(items)) == 9
        (reject,) = rejects(items)
        assert (reject.frame, reject.member, reject.index) == (store.uri("03.jpg"), "03.jpg", 3)
        assert (reject.stage, reject.error_type, reject.size_bytes) == ("read", "ObjectMissing", 1)

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


class TestTar:
    @pytest.mark.parametrize("compress", [False, True])
    def test_frames_with_their_sidecars(self, root: str, compress: bool) -> None:
        time = "2026-01-01T08:00:30Z"
        data = tar(
            *images(["a/1.jpg"]),
            sidecar("a/1", camera="north", timestamp=time, label="car", domain="fog"),
            sidecar("a/2", camera="south"),
            *images(["a/2.png", "a/3.JPEG"]),
            compress=compress,
        )
        Store(root).write("s.tar", data)
        items = frames(read_all(f"{root}/s.tar"))
        uri = Store(root).uri("s.tar")
        assert [item.frame for item in items] == [
            *(f"{uri}#a/1.jpg", f"{uri}#a/2.png", f"{uri}#a/3.JPEG")
        ]
        assert [item.member for item in items] == ["a/1.jpg", "a/2.png", "a/3.JPEG"]
        assert [item.data for item in items] == [b"a/1.jpg", b"a/2.png", b"a/3.JPEG"]
        assert [item.camera for item in items] == ["north", "south", None]
        assert items[0].timestamp == datetime(2026, 1, 1, 8, 0, 30, tzinfo=UTC)
        assert items[1].timestamp is None

    def test_what_is_no_image_is_no_frame(self, tmp_path: Path) -> None:
        data = tar(
            header("folder", tarfile.DIRTYPE),
            header("folder.jpg", tarfile.DIRTYPE),
            *images(["real.jpg", "notes.txt", ".hidden.jpg", "a/._b.jpg", "jpg", "x.jpg.txt"]),
            header("soft.jpg", tarfile.SYMTYPE, "real.jpg"),
            header("out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            header("hard.jpg", tarfile.LNKTYPE, "real.jpg"),
            header("pipe.jpg", tarfile.FIFOTYPE),
            header("device.jpg", tarfile.CHRTYPE),
            *images(["class.cls"]),
        )
        (tmp_path / "s.tar").write_bytes(data)
        assert [item.member for item in read_all(str(tmp_path))] == ["real.jpg"]

    def test_a_file_with_an_images_suffix_is_a_frame_whatever_it_holds(
        self, tmp_path: Path
    ) -> None:
        data = tar(("text.jpg", b"no image"), ("empty.png", b""), ("phone.heic", b"x"))
        (tmp_path / "s.tar").write_bytes(data)
        items = frames(read_all(str(tmp_path)))
        assert [item.data for item in items] == [b"no image", b"", b"x"]

    def test_repeated_names_get_numbers_and_their_own_sidecars(self, tmp_path: Path) -> None:
        data = tar(
            ("a.jpg", b"first"),
            sidecar("a", camera="one"),
            ("a.jpg", b"second"),
            sidecar("a", camera="two"),
            ("b.jpg", b"b"),
            ("a.jpg", b"third"),
        )
        (tmp_path / "s.tar").write_bytes(data)
        items = frames(read_all(str(tmp_path)))
        uri = f"{tmp_path}/s.tar"
        assert [item.frame for item in items] == [
            *(f"{uri}#a.jpg", f"{uri}#a.jpg~1", f"{uri}#b.jpg", f"{uri}#a.jpg~2")
        ]
        assert [item.member for item in items] == ["a.jpg", "a.jpg", "b.jpg", "a.jpg"]
        assert [item.data for item in items] == [b"first", b"second", b"b", b"third"]
        assert [item.camera for item in items] == ["one", "two", None, None]

    def test_names_are_kept_as_they_are(self, tmp_path: Path) -> None:
        names = [
            *("/absolute.jpg", "../up.jpg", "a/../../b.jpg", "./dot.jpg", "a//b.jpg"),
            *("deep/" * 60 + "x.jpg", "ünï 火.jpg", "new\nline.jpg", "hash#~1.jpg", "back\\s.jpg"),
        ]
        (tmp_path / "s.tar").write_bytes(tar(*images(names)))
        items = frames(read_all(str(tmp_path)))
        assert [item.member for item in items] == names
        assert [item.data.decode() for item in items] == names
        assert sorted(path.name for path in tmp_path.iterdir()) == ["s.tar"]

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT])
    def test_names_that_are_not_utf_8_become_valid_and_stay_distinct(
        self, tmp_path: Path, form: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tarfile.TarFile, "format", form)
        names = ["caf\udce9.jpg", "caf\udce8.jpg", "caf\\xe9.jpg", "plain.jpg"]
        data = tar(*images(names), sidecar("caf\udce8", camera="two"))
        (tmp_path / "s.tar").write_bytes(data)
        items = frames(read_all(str(tmp_path)))
        uri = f"{tmp_path}/s.tar"
        assert [item.frame for item in items] == [
            f"{uri}#caf\\xe9.jpg",
            f"{uri}#caf\\xe8.jpg",
            f"{uri}#caf\\xe9.jpg~1",
            f"{uri}#plain.jpg",
        ]
        assert [item.data for item in items] == [
            *(b"caf\xe9.jpg", b"caf\xe8.jpg", b"caf\\xe9.jpg", b"plain.jpg")
        ]

    def test_several_images_share_a_sidecar(self, tmp_path: Path) -> None:
        data = tar(
            *images(["k.left.jpg"]), sidecar("k", camera="c"), *images(["k.right.jpg", "l.jpg"])
        )
        (tmp_path / "s.tar").write_bytes(data)
        assert [item.camera for item in frames(read_all(str(tmp_path)))] == ["c", "c", None]

    def test_sidecars_far_before_their_images_count_and_far_behind_do_not(
        self, tmp_path: Path
    ) -> None:
        data = tar(
            *(sidecar(f"{number:02}", camera=f"c{number}") for number in range(5)),
            *images(TEN),
            *(sidecar(f"{number:02}", camera=f"c{number}") for number in range(5, 10)),
        )
        (tmp_path / "s.tar").write_bytes(data)
        cameras = [item.camera for item in frames(read_all(str(tmp_path)))]
        assert cameras == ["c0", "c1", "c2", "c3", "c4", None, None, None, None, None]

    @pytest.mark.parametrize(
        "broken",
        [
            *(b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"camera": "a"'),
            *(b'{"camera": ["a"], "timestamp": {}}', b'{"camera": "", "timestamp": "soon"}'),
            *(b'{"timestamp": 1e300}', b'{"timestamp": NaN}', b'{"camera": ' + b"9" * 9999 + b"}"),
        ],
    )
    def test_a_broken_sidecar_costs_only_itself(self, tmp_path: Path, broken: bytes) -> None:
        data = tar(
            *images(["1.jpg"]), ("1.json", broken), *images(["2.jpg"]), sidecar("2", camera="c")
        )
        (tmp_path / "s.tar").write_bytes(data)
        items = frames(read_all(str(tmp_path)))
        assert [(item.camera, item.timestamp) for item in items] == [(None, None), ("c", None)]

    def test_half_of_a_broken_sidecar_still_counts(self, tmp_path: Path) -> None:
        data = tar(*images(["1.jpg"]), sidecar("1", camera="c\ud800", timestamp="soon"))
        (tmp_path / "s.tar").write_bytes(data)
        (item,) = frames(read_all(str(tmp_path)))
        assert (item.camera, item.timestamp) == ("c\\ud800", None)

    @pytest.mark.parametrize(
        "value", ["2026-03-01T06:00:10+01:00", "2026-03-01 05:00:10", 1772341210, 1772341210000]
    )
    def test_times_in_the_usual_forms(self, tmp_path: Path, value: object) -> None:
        (tmp_path / "s.tar").write_bytes(tar(*images(["1.jpg"]), sidecar("1", timestamp=value)))
        (item,) = frames(read_all(str(tmp_path)))
        assert item.timestamp == datetime(2026, 3, 1, 5, 0, 10, tzinfo=UTC)

    def test_an_oversized_member_is_one_reject(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mint_stream.tar_shard.MAX_IMAGE_BYTES", 100)
        data = tar(("1.jpg", b"x"), ("2.jpg", b"x" * 101), ("3.jpg", b"x" * 100))
        (tmp_path / "s.tar").write_bytes(data)
        items = read_all(str(tmp_path))
        assert [item.member for item in frames(items)] == ["1.jpg", "3.jpg"]
        (reject,) = rejects(items)
        assert (reject.frame, reject.size_bytes) == (f"{tmp_path}/s.tar#2.jpg", 101)
        assert "the limit is 100" in reject.message

    def test_an_empty_tar_has_no_frame(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(tar())
        assert read_all(str(tmp_path)) == []

    def test_a_shard_is_never_held_as_a_whole(self, tmp_path: Path) -> None:
        """Frames come while the rest of the tar is still unread: here it cannot even be."""
        data = tar(*images(TEN))
        (tmp_path / "s.tar").write_bytes(data)
        (shard,) = discover(str(tmp_path), unit_size=16)
        items = read_frames(shard)
        first = next(items)
        items.close()  # type: ignore[attr-defined]
        assert first.member == "00.jpg"


class TestDamagedTar:
    """The frames before the damage, then one reject; the reject has an index like any item."""

    def check(self, root: str, data: bytes, good: list[str], said: str) -> Reject:
        Store(root).write("s.tar", data)
        items = read_all(f"{root}/s.tar")
        assert [item.member for item in items[:-1]] == good
        assert all(isinstance(item, Frame) and item.data for item in items[:-1])
        reject = items[-1]
        assert isinstance(reject, Reject)
        assert (reject.frame, reject.member, reject.stage) == (None, None, "read")
        assert reject.size_bytes == len(data)
        assert said in reject.message
        return reject

    def test_zero_bytes(self, root: str) -> None:
        self.check(root, b"", [], "empty (0 bytes)")

    @pytest.mark.parametrize("data", [b"garbage", bytes(range(256)) * 64, b"\x1f\x8bnot gzip"])
    def test_garbage(self, root: str, data: bytes) -> None:
        self.check(root, data, [], "the tar")

    def test_cut_within_an_image(self, root: str) -> None:
        data = tar(*images(TEN))
        cut = data[: offset_of(data, "07.jpg") + 512 + 3]
        self.check(root, cut, TEN[:7], "ends within its member '07.jpg'")

    def test_cut_within_a_header(self, root: str) -> None:
        data = tar(*images(TEN))
        self.check(root, data[: offset_of(data, "07.jpg") + 100], TEN[:7], "truncated")

    def test_cut_between_members(self, root: str) -> None:
        data = tar(*images(TEN))
        cut = data[: offset_of(data, "07.jpg")]
        self.check(root, cut, TEN[:7], "without the mark of a tar's end")

    def test_cut_within_a_sidecar(self, tmp_path: Path) -> None:
        data = tar(*images(TEN), sidecar("09", camera="c", note="x" * 2000))
        cut = data[: offset_of(data, "09.json") + 600]
        self.check(str(tmp_path), cut, TEN, "ends within its member '09.json'")

    def test_a_damaged_header_in_the_middle(self, root: str) -> None:
        data = bytearray(tar(*images(TEN)))
        at = offset_of(bytes(data), "05.jpg")
        data[at : at + 512] = b"\xff" * 512
        self.check(root, bytes(data), TEN[:5], f"no valid header at byte {at:,}")

    @pytest.mark.parametrize("share", [0.25, 0.55, 0.85, 0.99])
    def test_a_cut_gzip(self, tmp_path: Path, share: float) -> None:
        noise = [(name, random.Random(name).randbytes(50_000)) for name in TEN]
        data = tar(*noise, compress=True)
        Store(str(tmp_path)).write("s.tar", data[: int(len(data) * share)])
        items = read_all(f"{tmp_path}/s.tar")
        # Noise does not shrink: so much of the file, so many of its images.
        assert len(items) == int(10 * share) + 1
        assert [item.member for item in items[:-1]] == TEN[: len(items) - 1]
        assert [item.data for item in frames(items)] == [c for _, c in noise[: len(items) - 1]]
        assert len(rejects(items)) == 1
        assert "end-of-stream" in rejects(items)[0].message

    def test_a_damaged_gzip(self, tmp_path: Path) -> None:
        data = bytearray(tar(*[(name, name.encode() * 999) for name in TEN], compress=True))
        data[len(data) // 2] ^= 0xFF
        Store(str(tmp_path)).write("s.tar.gz", bytes(data))
        items = read_all(f"{tmp_path}/s.tar.gz")
        assert len(rejects(items)) == 1
        assert len(items) <= 11

    def test_a_damaged_checksum_of_a_gzip(self, tmp_path: Path) -> None:
        data = bytearray(tar(*images(TEN), compress=True))
        data[-8] ^= 0xFF
        self.check(str(tmp_path), bytes(data), TEN, "CRC check failed")

    def test_a_gzip_with_many_members_is_read_once_through(self, tmp_path: Path) -> None:
        """Steps back at the edges of buffers must not start the decompression all over."""
        names = [f"{number:04}.jpg" for number in range(1500)]
        members = [(name, name.encode() * (1 + number % 97)) for number, name in enumerate(names)]
        (tmp_path / "s.tar.gz").write_bytes(tar(*members, compress=True))
        items = frames(read_all(str(tmp_path)))
        assert [(item.member, item.data) for item in items] == members

    @pytest.mark.parametrize("at", range(0, 512, 37))
    def test_any_damaged_byte_of_a_header_is_contained(self, tmp_path: Path, at: int) -> None:
        data = bytearray(tar(*images(TEN)))
        start = offset_of(bytes(data), "05.jpg")
        data[start + at] ^= 0x5A
        (tmp_path / "s.tar").write_bytes(bytes(data))
        items = read_all(str(tmp_path))
        assert [item.member for item in items[:5]] == TEN[:5]
        assert len(rejects(items)) <= 1


def parquet(columns: dict[str, object], **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


IMAGES = [f"image {number}".encode() for number in range(10)]
IMAGE_TYPES = {
    "binary": pa.array(IMAGES, pa.binary()),
    "large_binary": pa.array(IMAGES, pa.large_binary()),
    "dictionary": pa.array(IMAGES, pa.binary()).dictionary_encode(),
    "hugging_face": pa.array([{"bytes": image, "path": "x"} for image in IMAGES]),
    "uint8_list": pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8())),
    "uint8_large_list": pa.array([list(image) for image in IMAGES], pa.large_list(pa.uint8())),
    "uint8_fixed_list": pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8(), 7)),
}


class TestParquet:
    @pytest.mark.parametrize("kind", IMAGE_TYPES)
    def test_images_in_every_form(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGE_TYPES[kind]}))
        items = frames(read_all(str(tmp_path)))
        assert [item.data for item in items] == IMAGES
        assert [item.frame for item in items] == [f"{tmp_path}/s.parquet#{n}" for n in range(10)]
        assert [item.member for item in items] == [str(number) for number in range(10)]

    def test_row_numbers_run_through_row_groups(self, root: str) -> None:
        Store(root).write("s.parquet", parquet({"image": IMAGES}, row_group_size=3))
        items = frames(read_all(root))
        assert [item.member for item in items] == [str(number) for number in range(10)]
        assert [item.data for item in items] == IMAGES

    def test_camera_time_and_truth_from_columns(self, tmp_path: Path) -> None:
        times = [datetime(2026, 3, 1, 5, number, tzinfo=UTC) for number in range(10)]
        for number, column in enumerate(
            [
                pa.array(times, pa.timestamp("ns", "Europe/Berlin")),
                pa.array([time.replace(tzinfo=None) for time in times], pa.timestamp("ms")),
                pa.array([time.isoformat() for time in times]),
                pa.array([time.timestamp() for time in times]),
            ]
        ):
            name = tmp_path / f"{number}.parquet"
            cameras = ["a", None] * 5
            columns = {"image": IMAGES, "camera": cameras, "timestamp": column, "label": ["x"] * 10}
            name.write_bytes(parquet(columns))
            items = frames(read_all(str(name)))
            assert [item.timestamp for item in items] == times
            assert [item.camera for item in items] == cameras
            truth = read_truth(str(name))
            assert truth.column("label").to_pylist() == ["x"] * 10
            assert truth.column("timestamp").to_pylist() == times

    def test_the_id_column_gives_the_ids(self, tmp_path: Path) -> None:
        ids = ["a", "b", "a", None, "a~1", "ü", "c", "d", "e", "4"]
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGES, "key": ids}))
        items = frames(read_all(str(tmp_path), id_column="key"))
        expected = ["a", "b", "a~1", "3", "a~1~1", "ü", "c", "d", "e", "4"]
        assert [item.frame for item in items] == [f"{tmp_path}/s.parquet#{i}" for i in expected]
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGES, "key": list(range(5, 15))}))
        items = frames(read_all(str(tmp_path), id_column="key"))
        assert [item.member for item in items] == [str(number) for number in range(5, 15)]

    def test_null_images_are_rejects_and_empty_ones_are_frames(self, tmp_path: Path) -> None:
        for kind, empty in (("binary", b""), ("struct", {"bytes": b""}), ("list", [])):
            null = {"bytes": None} if kind == "struct" else None
            full = {"bytes": b"x"} if kind == "struct" else b"x" if kind == "binary" else [120]
            type_ = {
                "binary": pa.binary(),
                "struct": pa.struct({"bytes": pa.binary()}),
                "list": pa.list_(pa.uint8()),
            }[kind]
            values = pa.array([full, null, empty, None, full], type_)
            (tmp_path / "s.parquet").write_bytes(parquet({"image": values}))
            items = read_all(str(tmp_path))
            assert [item.data for item in frames(items)] == [b"x", b"", b"x"]
            assert [(item.member, item.error_type) for item in rejects(items)] == [
                *(("1", "NullImage"), ("3", "NullImage"))
            ]
            assert "'image' is null" in rejects(items)[0].message

    def test_which_column_holds_the_images(self, tmp_path: Path) -> None:
        name = tmp_path / "s.parquet"
        other = [b"y"] * 10
        name.write_bytes(parquet({"thumbnail": other, "image": IMAGES}))
        assert frames(read_all(str(name)))[0].data == IMAGES[0]
        assert frames(read_all(str(name), image_column="thumbnail"))[0].data == b"y"
        name.write_bytes(parquet({"only": IMAGES, "text": ["t"] * 10}))
        assert frames(read_all(str(name)))[0].data == IMAGES[0]

    @pytest.mark.parametrize(
        ("columns", "options", "said"),
        [
            ({"a": [1], "b": ["x"]}, {}, "no column of images; the columns are a (int64), b (str"),
            ({"a": [b"x"], "b": [b"y"]}, {}, "(a, b); choose one with --image-column"),
            ({"a": [b"x"]}, {"image_column": "c"}, "no column 'c'; the columns are a (binary)"),
            ({"a": [1]}, {"image_column": "a"}, "column 'a' is of type int64; images are"),
            ({"a": [b"x"]}, {"id_column": "c"}, "no column 'c'; the columns are a (binary)"),
            ({}, {}, "none at all"),
        ],
    )
    def test_a_file_without_the_columns_is_one_reject(
        self, tmp_path: Path, columns: dict[str, object], options: dict[str, str], said: str
    ) -> None:
        (tmp_path / "s.parquet").write_bytes(parquet(columns))
        (reject,) = rejects(read_all(str(tmp_path), **options))
        assert (reject.frame, reject.stage) == (None, "read")
        assert said in reject.message

    @pytest.mark.parametrize("content", ["zero", "garbage", "cut", "no footer", "bad footer"])
    def test_a_damaged_file_is_one_reject(self, root: str, content: str) -> None:
        whole = parquet({"image": IMAGES})
        data = {
            "zero": b"",
            "garbage": bytes(range(256)) * 9,
            "cut": whole[: len(whole) // 2],
            "no footer": whole[:-8],
            "bad footer": whole[:-40] + b"\xff" * 32 + whole[-8:],
        }[content]
        Store(root).write("s.parquet", data)
        (reject,) = read_all(root)
        assert isinstance(reject, Reject)
        assert (reject.frame, reject.stage, reject.size_bytes) == (None, "read", len(data))
        assert "the Parquet file" in reject.message

    def test_rows_that_go_missing_without_an_error_are_rejects(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen with damaged page headers: Arrow ends a row group early and does not fail."""
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGES}, row_group_size=5))
        whole = pq.ParquetFile.iter_batches

        def early(self: pq.ParquetFile, size: int, row_groups: list[int], columns: list[str]):  # type: ignore[no-untyped-def]
            for batch in whole(self, size, row_groups=row_groups, columns=columns):
                yield batch.slice(0, 3) if row_groups == [0] else batch

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", early)
        items = read_all(str(tmp_path))
        assert [item.member for item in rejects(items)] == ["3", "4"]
        assert "its last 2 rows are missing" in rejects(items)[0].message
        assert [item.data for item in frames(items)] == IMAGES[:3] + IMAGES[5:]

    @pytest.mark.parametrize("id_column", [None, "key"])
    def test_a_damaged_row_group_costs_its_own_rows(
        self, tmp_path: Path, id_column: str | None
    ) -> None:
        noise = [random.Random(number).randbytes(3000) for number in range(9)]
        keys = [f"k{number}" for number in range(9)]
        options = {"row_group_size": 3, "use_dictionary": False, "compression": "snappy"}
        data = bytearray(parquet({"image": noise, "key": keys}, **options))
        column = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0)
        start = column.data_page_offset
        data[start : start + 200] = b"\xff" * 200
        (tmp_path / "s.parquet").write_bytes(bytes(data))
        items = read_all(str(tmp_path), id_column=id_column)
        lost = rejects(items)
        assert [item.index for item in lost] == [3, 4, 5]
        assert [item.member for item in lost] == (
            ["k3", "k4", "k5"] if id_column else ["3", "4", "5"]
        )
        assert all("row group 1 of the Parquet file" in item.message for item in lost)
        assert [item.data for item in frames(items)] == noise[:3] + noise[6:]


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
