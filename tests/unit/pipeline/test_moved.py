"""An input that was moved is told from one that is new."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mint_stream.input.discovery import discover
from mint_stream.input.grid import unit_id
from mint_stream.input.shard import Shard
from mint_stream.output.done import Done
from mint_stream.output.names import labels_name
from mint_stream.pipeline.moved import warn_if_moved
from mint_stream.store.store import Store


def done_with(shards: Sequence[Shard]) -> Done:
    return Done(16, labels=[labels_name(unit_id(shard.id, 0)) for shard in shards])


def warned(url: str, done: Done, caplog: pytest.LogCaptureFixture) -> bool:
    caplog.clear()
    warn_if_moved(discover(url, unit_size=16), done, url, "out")
    return "a second time" in caplog.text


def test_a_folder_that_was_moved_or_mounted_elsewhere_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.tar", "b.tar", "c.tar", "images/1.jpg", "images/2.jpg"):
        Store(tmp_path / "in").write(name, name.encode())
    before = discover(str(tmp_path / "in"), unit_size=16)
    done = done_with(before)
    assert not warned(str(tmp_path / "in"), done, caplog)
    (tmp_path / "in").rename(tmp_path / "moved")
    assert warned(str(tmp_path / "moved"), done, caplog)
    assert "4 of the 4 shards" in caplog.text
    assert f"{tmp_path}/moved/a.tar" in caplog.text
    shutil.copytree(tmp_path / "moved", tmp_path / "copied")  # with the times
    assert warned(str(tmp_path / "copied"), done, caplog)
    for name in ("d.tar", "e.tar", "f.tar", "g.tar"):  # half of them and no more
        Store(tmp_path / "copied").write(name, name.encode())
    assert not warned(str(tmp_path / "copied"), done, caplog)


def test_another_day_with_the_same_names_is_new(
    root: str, caplog: pytest.LogCaptureFixture
) -> None:
    for day, time in (("monday", 1), ("tuesday", 2)):
        for name in ("0.tar", "1.tar"):
            Store(f"{root}/{day}").write(name, f"{day} {name}".encode())
            if root.startswith("/"):
                os.utime(f"{root}/{day}/{name}", (time, time))
    done = done_with(discover(f"{root}/monday", unit_size=16))
    assert not warned(f"{root}/tuesday", done, caplog)


def test_a_bucket_that_was_renamed_is_warned_about(
    s3: str, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("old", "new"):
        Store(f"{s3}/{place}").write("0.tar", b"the same")
    done = done_with(discover(f"{s3}/old", unit_size=16))
    assert warned(f"{s3}/new", done, caplog)
    assert not warned(f"{s3}/old", done, caplog)
