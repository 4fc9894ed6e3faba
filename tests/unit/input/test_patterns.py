"""Braces and wildcards in addresses, and names that only look like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mint_stream.config import ConfigError
from mint_stream.input.discovery import discover
from mint_stream.input.patterns import expand_braces
from mint_stream.store.store import Store


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("s-{00008..00011}.tar", ["s-00008.tar", "s-00009.tar", "s-00010.tar", "s-00011.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..10..5}", ["0", "5", "10"]),
        ("{a..c}", ["a", "b", "c"]),
        ("{north,south}/{1,2}", ["north/1", "north/2", "south/1", "south/2"]),
        ("{a,b{1..2}}", ["a", "b1", "b2"]),
        ("x{,y}", ["x", "xy"]),
        ("{abc}", ["{abc}"]),
        ("{}", ["{}"]),
        ("{a..3}", ["{a..3}"]),
        ("{{0..1}}", ["{0}", "{1}"]),
        ("open{0..1", ["open{0..1"]),
        ("plain", ["plain"]),
    ],
)
def test_braces_stand_for_what_a_shell_makes_of_them(text: str, names: list[str]) -> None:
    assert expand_braces(text) == names


def test_a_range_without_end_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="stands for more than 100,000 names"):
        expand_braces("{0..999999999}{0..999999999}")


def found(root: str, pattern: str) -> list[str]:
    """The names below `root` of the shards that `pattern` stands for."""
    store = Store(root)
    shards = discover(f"{root}/{pattern}", unit_size=1)
    return [shard.uri.removeprefix(f"{store.uri()}/") for shard in shards]


def test_ranges_of_shards_as_webdataset_users_write_them(
    root: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(root)
    for name in ("s-00000.tar", "s-00001.tar", "s-00002.tar", "north/1.tar", "south/1.tar"):
        store.write(name, b"x")
    assert found(root, "s-{00000..00001}.tar") == ["s-00000.tar", "s-00001.tar"]
    assert found(root, "{north,south}/1.tar") == ["north/1.tar", "south/1.tar"]
    assert found(root, "{north,south}") == ["north/1.tar", "south/1.tar"]
    assert found(root, "{n,s}o*/{1,2}.tar") == ["north/1.tar", "south/1.tar"]
    assert found(root, "{north/1,s-0000{0..0}}.tar") == ["north/1.tar", "s-00000.tar"]
    assert found(root, "n*/") == ["north/1.tar"]
    assert not caplog.text
    assert found(root, "s-{00001..00003}.tar") == ["s-00001.tar", "s-00002.tar"]
    assert "1 of the 3 names" in caplog.text
    assert "s-00003.tar" in caplog.text


@pytest.mark.parametrize("folder", ["[2026] gate", "a*b", "why?", "{old,new}", "{0..1}", "[ ]"])
def test_a_folder_whose_name_looks_like_a_pattern(root: str, folder: str) -> None:
    store = Store(root)
    for name in (f"{folder}/1.tar", f"{folder}/deep/2.tar", "old/3.tar", "a1b/3.tar", "2/3.tar"):
        store.write(name, b"x")
    assert found(root, folder) == found(root, f"{folder}/")
    assert found(root, folder) == [f"{folder}/1.tar", f"{folder}/deep/2.tar"]
    assert found(root, f"{folder}/*.tar") == [f"{folder}/1.tar"]
    assert found(root, f"{folder}/deep/2.tar") == [f"{folder}/deep/2.tar"]
    assert found(root, f"{folder}/{{deep,flat}}/2.tar") == [f"{folder}/deep/2.tar"]


def test_a_pattern_beside_a_folder_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "1.tar").write_bytes(b"x")
    (tmp_path / "a1").mkdir()
    (tmp_path / "a1" / "2.tar").write_bytes(b"x")
    assert found(str(tmp_path), "a[1]/*.tar") == ["a[1]/1.tar"]
    assert found(str(tmp_path), "a[1-2]/*.tar") == ["a1/2.tar"]
