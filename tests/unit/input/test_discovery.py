"""What is found at an address, in which order and under which ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from tar_files import tar

from mint_stream.config import ConfigError
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame
from mint_stream.input.shard import Shard
from mint_stream.input.shards import read_frames
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
