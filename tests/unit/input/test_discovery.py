"""What is found at an address, in which order and under which ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from tar_files import images, tar

from mint_stream.config import ConfigError
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shard import Shard
from mint_stream.input.shards import count_frames, read_frames
from mint_stream.store.store import Store


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


SYSTEM = [
    *("@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.jpg", "$RECYCLE.BIN/$R1.jpg"),
    *("lost+found/1.jpg", ".Trash/1.jpg", ".Trash-1000/files/1.jpg", ".Trashes/501/1.jpg"),
    *("System Volume Information/1.tar", "__MACOSX/._1.jpg", "__MACOSX/1.jpg", "a/@EADIR/2.jpg"),
    *(".AppleDouble/1.jpg", "@Recycle/1.jpg", ".@__thumb/s1001.jpg", "#snapshot/h/1.jpg"),
    *("FOUND.000/1.jpg", "LOST.DIR/1.jpg", ".zfs/snapshot/1.jpg", "a/.snapshot/1.jpg"),
    *("Network Trash Folder/1.jpg", ".Spotlight-V100/1.jpg", ".thumbnails/1.jpg"),
    *("Thumbs.db", "a/desktop.ini", ".DS_Store"),
]
LOOKS_ALIKE = [
    *("recycled/1.jpg", "eaDir/1.jpg", "lost and found/1.jpg", "trash/1.jpg", "snapshot/1.jpg"),
    *("lost+found.jpg", "#1/recycle.jpg", "found.jpg", "system/1.jpg", "temporary items.jpg"),
]


class TestSystemFolders:
    """What disks and desktops keep for themselves is no frame, and nothing to tell of either."""

    def test_they_are_no_frames_in_folders_and_globs(self, root: str) -> None:
        store = Store(root)
        for name in [*SYSTEM, *LOOKS_ALIKE]:
            store.write(f"in/{name}", b"x")
        expected = {store.uri(f"in/{name}") for name in LOOKS_ALIKE}
        for url in (f"{root}/in", f"{root}/in/**", f"{root}/i*/**/*.*"):
            left_out = LeftOut()
            shards = discover(url, unit_size=1, left_out=left_out)
            found = {item.frame for shard in shards for item in read_frames(shard)}
            assert found == expected
            assert not left_out

    def test_they_are_no_frames_inside_tars(self, root: str) -> None:
        Store(root).write("s.tar", tar(*images([*SYSTEM, *LOOKS_ALIKE])))
        (shard,) = discover(root, unit_size=99)
        left_out = LeftOut()
        items = list(read_frames(shard, left_out=left_out))
        assert [item.member for item in items] == LOOKS_ALIKE
        assert not left_out
        assert count_frames(shard) == len(items)

    def test_a_folder_that_is_named_itself_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "@eaDir").mkdir()
        (tmp_path / "@eaDir" / "1.jpg").write_bytes(b"x")
        for url in ("@eaDir", "@eaDir/*.jpg", "@eaDir/1.jpg"):
            assert len(discover(f"{tmp_path}/{url}", unit_size=1)) == 1


class TestLeftOut:
    def test_files_of_kinds_that_are_not_read_are_counted_with_an_example(self, root: str) -> None:
        store = Store(root)
        for name in (
            *("a.jpg", "b.tar", "c.parquet", "1.zip", "d/2.zip", "x.arrow", "y.parquet.gzip"),
            *("z.tar.lz4", "notes.txt", "README", ".hidden.zip", "_SUCCESS", "_metadata"),
            *("a.tar.part", "_delta_log/0.checkpoint.parquet"),
        ):
            store.write(name, b"x")
        left_out = LeftOut()
        assert len(discover(root, unit_size=1, left_out=left_out)) == 3
        assert str(left_out) == (
            "2 .zip (such as 1.zip), 1 .arrow (x.arrow), 1 .parquet.gzip (y.parquet.gzip), "
            "1 .part (a.tar.part), 1 .tar.lz4 (z.tar.lz4), 1 .txt (notes.txt), "
            "1 without a suffix (README)"
        )

    def test_of_a_glob_only_what_it_names(self, root: str) -> None:
        store = Store(root)
        for name in ("a.jpg", "b.zip", "c.arrow"):
            store.write(name, b"x")
        left_out = LeftOut()
        discover(f"{root}/*.[jz]*", unit_size=1, left_out=left_out)
        assert str(left_out) == "1 .zip (b.zip)"
