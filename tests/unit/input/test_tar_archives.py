"""Tars of several archives, compressed ones, links, and what is left out of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from shard_reading import TEN, frames, read_all, rejects
from tar_files import header, images, offset_of, sidecar, tar

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Left
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shards import read_frames
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": lambda data: data,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.zst": zstd,
    ".tar.bz2": bz2.compress,
    ".tbz2": bz2.compress,
    ".tar.xz": lzma.compress,
    ".txz": lzma.compress,
}
KINDS = [".tar", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz"]


class TestArchivesInARow:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_second_of_two_concatenated_archives_is_read(
        self, tmp_path: Path, kind: str
    ) -> None:
        """Once compressed as a whole, once each for itself (several gzip members and the like)."""
        first = tar(*images(TEN[:4]), sidecar("03", camera="c"))
        second = tar(sidecar("04", camera="d"), *images(TEN[4:]), *images(["00.jpg"]))
        for name, data in (
            ("whole", COMPRESS[kind](first + second)),
            ("parts", COMPRESS[kind](first) + COMPRESS[kind](second)),
        ):
            (tmp_path / f"{name}{kind}").write_bytes(data)
            items = frames(read_all(f"{tmp_path}/{name}{kind}"))
            uri = f"{tmp_path}/{name}{kind}"
            assert [item.frame for item in items] == [
                *(f"{uri}#{member}" for member in TEN),
                f"{uri}#00.jpg~1",
            ]
            assert [item.data for item in items] == [name.encode() for name in [*TEN, "00.jpg"]]
            assert [item.camera for item in items[3:6]] == ["c", "d", None]

    def test_an_archive_that_is_not_padded_to_a_record_is_followed_too(
        self, tmp_path: Path
    ) -> None:
        parts = [tar(*images([name])) for name in TEN]
        short = b"".join(part[:1024] + b"\0" * 1024 for part in parts)
        (tmp_path / "s.tar").write_bytes(short)
        assert [item.member for item in read_all(str(tmp_path))] == TEN

    def test_an_empty_archive_in_between_ends_nothing(self, tmp_path: Path) -> None:
        data = tar() + tar(*images(TEN[:2])) + tar() + b"\0" * 512 * 999 + tar(*images(TEN[2:]))
        (tmp_path / "s.tar").write_bytes(data)
        assert [item.member for item in read_all(str(tmp_path))] == TEN

    def test_damage_in_the_second_archive_is_said(self, tmp_path: Path) -> None:
        first, second = tar(*images(TEN[:5])), bytearray(tar(*images(TEN[5:])))
        second[:512] = b"\xff" * 512
        for data in (first + bytes(second), first + bytes(second[: len(second) // 2])):
            (tmp_path / "s.tar").write_bytes(data)
            items = read_all(str(tmp_path))
            assert [item.member for item in frames(items)] == TEN[:5]
            assert "what follows its end" in rejects(items)[0].message

    def test_a_header_that_was_zeroed_is_not_taken_for_the_end(self, tmp_path: Path) -> None:
        data = bytearray(tar(*images(TEN)))
        at = offset_of(bytes(data), "05.jpg")
        data[at : at + 512] = bytes(512)
        (tmp_path / "s.tar").write_bytes(bytes(data))
        items = read_all(str(tmp_path))
        assert [item.member for item in frames(items)] == TEN[:5]
        assert "no tar" in rejects(items)[0].message

    def test_whatever_fills_the_last_record_is_no_damage(self, tmp_path: Path) -> None:
        data = tar(*images(TEN[:1]))  # a header, a block, the mark of the end
        filled = data[:2048] + b"\xaa" * (len(data) - 2048)
        (tmp_path / "s.tar").write_bytes(filled + tar(*images(TEN[1:])))
        assert [item.member for item in frames(read_all(str(tmp_path)))] == TEN


class TestCompression:
    @pytest.mark.parametrize("kind", COMPRESS)
    def test_every_suffix_is_read(self, root: str, kind: str) -> None:
        noise = [(name, random.Random(name).randbytes(70_000)) for name in TEN]
        Store(root).write(f"a{kind}", COMPRESS[kind](tar(*noise)))
        (shard,) = discover(root, unit_size=16)
        assert shard.kind == "tar"
        items = frames(read_all(root))
        assert [(item.member, item.data) for item in items] == noise

    @pytest.mark.parametrize("kind", KINDS[1:])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_what_comes_before_a_cut_is_kept(self, tmp_path: Path, kind: str, share: float) -> None:
        noise = [(name, random.Random(name).randbytes(300_000)) for name in TEN]
        data = COMPRESS[kind](tar(*noise))
        (tmp_path / f"s{kind}").write_bytes(data[: int(len(data) * share)])
        items = read_all(str(tmp_path))
        # bzip2 has blocks of 900 kB, of which all or nothing can be had.
        lost = 3 if kind == ".tar.bz2" else 1
        assert int(10 * share) - lost <= len(frames(items)) <= int(10 * share)
        assert [item.data for item in frames(items)] == [c for _, c in noise[: len(items) - 1]]
        assert len(rejects(items)) == 1

    @pytest.mark.parametrize("kind", KINDS[1:])
    def test_a_damaged_middle_costs_what_comes_after_it(self, tmp_path: Path, kind: str) -> None:
        data = bytearray(COMPRESS[kind](tar(*[(name, name.encode() * 999) for name in TEN])))
        data[len(data) // 2] ^= 0xFF
        (tmp_path / f"s{kind}").write_bytes(bytes(data))
        items = read_all(str(tmp_path))
        assert len(rejects(items)) <= 1
        assert len(items) <= 11

    def test_a_tar_whose_first_member_is_called_like_a_compressed_one_is_plain(
        self, tmp_path: Path
    ) -> None:
        names = ["BZh9 of the sea.jpg", "x.jpg"]
        (tmp_path / "s.tar").write_bytes(tar(*images(names)))
        assert [item.member for item in read_all(str(tmp_path))] == names

    def test_an_xz_file_that_asks_for_gigabytes_is_refused(self, tmp_path: Path) -> None:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**20}]
        data = bytearray(lzma.compress(tar(*images(TEN)), filters=filters))
        at = 12 + 4  # behind the stream's header: that of the block, its size, flags, filter, size
        assert data[at - 2 : at] == b"\x21\x01"
        data[at] = 39  # a dictionary of 3 GiB
        size = (data[12] + 1) * 4
        data[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(data[12 : 12 + size - 4]))
        (tmp_path / "s.tar.xz").write_bytes(bytes(data))
        (reject,) = rejects(read_all(str(tmp_path)))
        assert "emory usage limit" in reject.message

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_store_that_fails_stays_a_failing_store(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Through whatever decompresses: a passing failure must not become a reject."""
        noise = [(name, random.Random(name).randbytes(900_000)) for name in TEN]
        (tmp_path / f"s{kind}").write_bytes(COMPRESS[kind](tar(*noise)))
        (shard,) = discover(str(tmp_path), unit_size=16)
        store = Store(shard.root)
        whole = store._try

        def fail(doing: str, name: str, call: object) -> object:
            if doing == "read":
                raise StorageError("the store is away")
            return whole(doing, name, call)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "_try", fail)
        (left,) = read_frames(shard, store=store)
        assert isinstance(left, Left)
        assert str(left.error) == "the store is away"


class TestLinks:
    LINKS = (
        *images(["d/real.jpg"]),
        header("d/hard.jpg", tarfile.LNKTYPE, "d/real.jpg"),
        header("d/soft.jpg", tarfile.SYMTYPE, "real.jpg"),
        header("d/chain.jpg", tarfile.SYMTYPE, "../d/hard.jpg"),
        header("d/out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        header("d/early.jpg", tarfile.LNKTYPE, "d/late.jpg"),
        *images(["d/late.jpg"]),
        header("d/pipe.jpg", tarfile.FIFOTYPE),
        header("d/device.jpg", tarfile.CHRTYPE),
        header("d/folder.jpg", tarfile.DIRTYPE),
    )

    def test_links_in_a_plain_tar_are_read_and_others_are_said(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(tar(*self.LINKS))
        items = read_all(str(tmp_path))
        assert [(item.member, item.data) for item in frames(items)] == [
            *((f"d/{name}.jpg", b"d/real.jpg") for name in ("real", "hard", "soft", "chain")),
            ("d/late.jpg", b"d/late.jpg"),
        ]
        said = {item.member: item.message for item in rejects(items)}
        assert list(said) == ["d/out.jpg", "d/early.jpg", "d/pipe.jpg", "d/device.jpg"]
        assert "symbolic link to '/etc/passwd'" in said["d/out.jpg"]
        assert "--hard-dereference" in said["d/early.jpg"]
        assert "holds no image" in said["d/pipe.jpg"]

    @pytest.mark.parametrize("kind", KINDS[1:])
    def test_links_in_a_compressed_tar_are_said(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / f"s{kind}").write_bytes(COMPRESS[kind](tar(*self.LINKS)))
        items = read_all(str(tmp_path))
        assert [item.member for item in frames(items)] == ["d/real.jpg", "d/late.jpg"]
        assert len(rejects(items)) == 7
        assert all(item.frame and "#d/" in item.frame for item in rejects(items))

    def test_a_linked_sidecar_is_read(self, tmp_path: Path) -> None:
        data = tar(
            sidecar("1", camera="c"),
            *images(["1.jpg"]),
            header("2.json", tarfile.LNKTYPE, "1.json"),
            *images(["2.jpg"]),
        )
        (tmp_path / "s.tar").write_bytes(data)
        assert [item.camera for item in frames(read_all(str(tmp_path)))] == ["c", "c"]

    def test_sparse_members_are_read_with_their_holes(self, tmp_path: Path) -> None:
        """An old GNU sparse header: 512 bytes at 512 of a file of 1,536."""
        info = tarfile.TarInfo("hole.jpg")
        info.size, info.type = 512, tarfile.GNUTYPE_SPARSE
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        block[386:410] = b"%011o\0%011o\0" % (512, 512)
        block[483:495] = b"%011o\0" % 1536
        block[148:156] = b"        "
        block[148:156] = b"%06o\0 " % sum(block)
        data = bytes(block) + b"\x01" * 512 + tar(*images(["2.jpg"]))
        (tmp_path / "s.tar").write_bytes(data)
        items = frames(read_all(str(tmp_path)))
        assert [item.member for item in items] == ["hole.jpg", "2.jpg"]
        assert items[0].data == bytes(512) + b"\x01" * 512 + bytes(512)


class TestLeftOut:
    def test_members_of_other_kinds_are_counted_with_an_example(self, tmp_path: Path) -> None:
        data = tar(
            header("d", tarfile.DIRTYPE),
            *images(["a.jpg", "a.cls", "b.jpg", "b.cls", "b.txt", "b.depth.npy", "c"]),
            *images([".hidden", "@eaDir/a.txt"]),
            sidecar("a", camera="c"),
        )
        (tmp_path / "s.tar").write_bytes(data)
        (shard,) = discover(str(tmp_path), unit_size=16)
        left_out = LeftOut()
        assert len(list(read_frames(shard, left_out=left_out))) == 2
        assert str(left_out) == (
            "2 .cls (such as a.cls), 1 .npy (b.depth.npy), 1 .txt (b.txt), 1 without a suffix (c)"
        )
        again = LeftOut.from_json(left_out.to_json())
        assert (str(again), len(again)) == (str(left_out), 5)

    def test_a_hostile_suffix_is_no_kind_of_its_own(self) -> None:
        left_out = LeftOut()
        for number in range(500):
            left_out.add(f"a.{number}")
            left_out.add("b.\x1b[31m")
            left_out.add("c." + "x" * 5000)
        assert len(left_out) == 1500
        assert len(str(left_out)) < 5000
        assert str(left_out).isprintable()

    @pytest.mark.parametrize(
        "text", ["", "[]", "nonsense", '{"a": 1}', '{".zip": ["x", 1]}', "[" * 9999]
    )
    def test_what_cannot_be_made_out_is_nothing(self, text: str) -> None:
        assert not LeftOut.from_json(text)


class TestBombs:
    @pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
    def test_a_long_name_takes_no_memory(self, tmp_path: Path, kind: bytes) -> None:
        self.check(tmp_path, [(b"././@LongLink", kind, 2**28, b"a" * 2**20)])

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE])
    def test_a_pax_header_takes_no_memory(self, tmp_path: Path, kind: bytes) -> None:
        record = b"%d comment=" % 2**28
        self.check(tmp_path, [(b"pax", kind, 2**28, record + b"a" * 2**20)])

    def test_many_global_headers_take_no_memory(self, tmp_path: Path) -> None:
        def record(number: int) -> bytes:
            text = b" key%05d=" % number + b"v" * 99_000 + b"\n"
            return b"%d" % (len(text) + 5) + text

        records = [record(number) for number in range(10_000, 10_300)]
        self.check(tmp_path, [(b"g", tarfile.XGLTYPE, len(text), text) for text in records])

    def test_a_chain_of_long_names_takes_no_memory(self, tmp_path: Path) -> None:
        name = b"a" * 300_000
        self.check(tmp_path, [(b"l", tarfile.GNUTYPE_LONGNAME, len(name), name)] * 200)

    def test_the_map_of_a_sparse_file_takes_no_memory(self, tmp_path: Path) -> None:
        block = _raw_header(b"s.jpg", tarfile.GNUTYPE_SPARSE, 0, extended=True)
        extended = (b"%011o\0%011o\0" % (0, 0)) * 21 + b"\x01" + bytes(7)
        (tmp_path / "s.tar.gz").write_bytes(gzip.compress(block + extended * 60_000, 1))
        self.refused(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [
            "%04d" + "n" * 4000 + ".jpg",
            "one-key." + "n" * 4000 + "%04d.json",
            "%04d" + "n" * 40_000 + ".json",
            "%04d" + "n" * 40_000,
        ],
        ids=["images", "sidecars", "longer sidecars", "others"],
    )
    def test_long_names_of_many_members_are_not_all_kept(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mint_stream.input.tar._MAX_EARLY_SIDECARS", 500)
        count = 32_000_000 // len(name)
        with tarfile.open(tmp_path / "s.tar", mode="w", format=tarfile.GNU_FORMAT) as archive:
            for number in range(count):
                info = tarfile.TarInfo(name % number)
                info.size = 16
                archive.addfile(info, io.BytesIO(b'{"camera": "c1"}'))
        (shard,) = discover(str(tmp_path), unit_size=16)
        tracemalloc.start()
        try:
            items = sum(1 for _ in read_frames(shard))
            assert items == (count if name.endswith(".jpg") else 0)
            assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        finally:
            tracemalloc.stop()

    def test_a_name_longer_than_any_path_is_one_reject(self, tmp_path: Path) -> None:
        name = "n" * 5000 + ".jpg"
        (tmp_path / "s.tar").write_bytes(tar(*images(["1.jpg", name, name, "2.jpg"])))
        items = read_all(str(tmp_path))
        assert [item.member for item in frames(items)] == ["1.jpg", "2.jpg"]
        assert all("4,096 characters" in item.message for item in rejects(items))
        assert len(rejects(items)) == 2

    @pytest.mark.timeout(60)
    def test_a_number_of_a_hundred_thousand_digits_takes_no_time(self, tmp_path: Path) -> None:
        text = b"9" * 500_000
        self.check(tmp_path, [(b"pax", tarfile.XHDTYPE, len(text), text)])

    def check(self, tmp_path: Path, headers: list[tuple[bytes, bytes, int, bytes]]) -> None:
        """Members before them are kept; they themselves end the shard without taking memory."""
        data = tar(*images(["1.jpg"]))[:1024]
        for name, kind, size, content in headers:
            padded = content + bytes(-len(content) % 512)
            data += _raw_header(name, kind, size) + padded
        data += tar(*images(["2.jpg"]))
        (tmp_path / "s.tar.gz").write_bytes(gzip.compress(data, 1))
        items = self.refused(tmp_path)
        assert items == ["1.jpg"]

    def refused(self, tmp_path: Path) -> list[str]:
        (shard,) = discover(str(tmp_path), unit_size=16)
        tracemalloc.start()
        try:
            items = list(read_frames(shard))
            assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
        finally:
            tracemalloc.stop()
        (reject,) = rejects(items)
        assert reject.error_type == "ShardError"
        assert len(reject.message) < 500
        return [item.member for item in frames(items)]


def _raw_header(name: bytes, kind: bytes, size: int, *, extended: bool = False) -> bytes:
    info = tarfile.TarInfo(name.decode())
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[482] = extended
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
