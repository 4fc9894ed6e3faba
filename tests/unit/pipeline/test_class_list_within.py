"""A class list that lies within the input is no file that was left out."""

from __future__ import annotations

import secrets

import pytest
from tiny import Assets, put, put_tars, write_assets

from mint_stream.input.left_out import LeftOut
from mint_stream.pipeline.preflight import _within, prepare
from mint_stream.store.store import Store


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


def test_only_other_files_are_told(assets: Assets, root: str) -> None:
    put_tars(f"{root}/in", shards=1, frames=2)
    names = assets.labels.read_bytes()
    put(f"{root}/in", {"labels.txt": names, "notes.txt": b"x", "deep/labels.txt": names})
    config = assets.config(f"{root}/in", f"{root}/out")
    inside = Store(f"{root}/in").uri("labels.txt")
    prepared = prepare(type(config)(**{**vars(config), "labels": inside}))
    assert str(prepared.left_out) == "2 .txt (such as notes.txt)"
    assert isinstance(prepared.left_out, LeftOut)


@pytest.mark.parametrize(
    ("file", "folder", "name"),
    [
        ("/feed/labels.txt", "/feed", "labels.txt"),
        ("/feed/a/labels.txt", "/feed/", "a/labels.txt"),
        ("/feeds/labels.txt", "/feed", None),
        ("labels.txt", "/feed", None),
        ("s3://b/feed/labels.txt", "s3://b/feed", "labels.txt"),
        ("s3://b/labels.txt", "s3://b/feed/{00..09}.tar", None),
        ("/feed/labels.txt", "/feed/*.tar", None),
        ("/labels.txt", f"memory://{secrets.token_hex(2)}", None),
    ],
)
def test_where_a_class_list_lies(file: str, folder: str, name: str | None) -> None:
    assert _within(file, folder) == name
