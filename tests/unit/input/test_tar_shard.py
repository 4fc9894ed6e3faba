"""Frames of tars: exact ids, sidecars, and damage that costs what it damages."""

from __future__ import annotations

import random
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shard_reading import TEN, frames, read_all, rejects
from tar_files import header, images, offset_of, sidecar, tar

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame, Reject
from mint_stream.input.shards import read_frames
from mint_stream.store.store import Store


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

    def test_sidecars_of_dotted_names_belong_to_their_own_image(self, tmp_path: Path) -> None:
        """All of one key as WebDataset has it; before, behind, and between their images."""
        stems = [f"d.1/front-1717243200.{number:06}-ab" for number in range(200)]
        pairs = [(*images([f"{stem}.jpg"]), sidecar(stem, camera=stem[-9:])) for stem in stems]
        orders = {
            "behind": [member for pair in pairs for member in pair],
            "before": [member for pair in pairs for member in reversed(pair)],
            "all-before": [pair[1] for pair in pairs] + [pair[0] for pair in pairs],
            "far-before": [*(p[1] for p in pairs), *images(["x.jpg"]), *(p[0] for p in pairs)],
        }
        for order, data in orders.items():
            (tmp_path / f"{order}.tar").write_bytes(tar(*data))
            items = frames(read_all(f"{tmp_path}/{order}.tar"))
            found = {item.member: item.camera for item in items if item.member != "x.jpg"}
            assert found == {f"{stem}.jpg": stem[-9:] for stem in stems}, order
            uri = f"{tmp_path}/{order}.tar"
            assert [i.frame for i in items if i.member != "x.jpg"] == [
                f"{uri}#{stem}.jpg" for stem in stems
            ]

    def test_a_sidecar_may_be_called_as_its_image(self, tmp_path: Path) -> None:
        data = tar(
            *images(["IMG_1.jpg"]),
            sidecar("IMG_1.jpg", camera="one"),
            sidecar("IMG_2.jpg", camera="two"),
            *images(["IMG_2.jpg", "IMG_2.png", "IMG_3.JPG"]),
            ("IMG_3.JPG.JSON", b'{"camera": "three"}'),
        )
        (tmp_path / "s.tar").write_bytes(data)
        cameras = [item.camera for item in frames(read_all(str(tmp_path)))]
        assert cameras == ["one", "two", None, "three"]

    def test_the_surest_sidecar_counts_and_the_others_fill_its_gaps(self, tmp_path: Path) -> None:
        time = "2026-01-01T08:00:30Z"
        data = tar(
            sidecar("a", camera="key", label="key", timestamp=time),
            sidecar("a.b", camera="stem", label="stem"),
            sidecar("a.b.jpg", camera="own"),
            *images(["a.b.jpg", "a.c.jpg"]),
        )
        (tmp_path / "s.tar").write_bytes(data)
        first, second = frames(read_all(str(tmp_path)))
        assert (first.camera, first.facts.label) == ("own", "stem")
        assert (second.camera, second.facts.label) == ("key", "key")
        assert first.timestamp == second.timestamp == datetime(2026, 1, 1, 8, 0, 30, tzinfo=UTC)

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
        monkeypatch.setattr("mint_stream.input.tar_members.MAX_IMAGE_BYTES", 100)
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
