"""Web servers as inputs: plain ones without parts of files, and presigned addresses."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from tar_files import images, tar
from web_server import Plain, Signed, web_server

from mint_stream.clip.class_list import load_class_list
from mint_stream.config import ConfigError
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame
from mint_stream.input.shards import count_frames, read_frames
from mint_stream.store.errors import ObjectChanged, ObjectMissing, StorageError
from mint_stream.store.store import PREFLIGHT, Store, split_url

SIGNATURE = "X-Amz-Credential=AK%2F2026&X-Amz-Signature=5ec2e7%2Bf"
SECRETS = ("X-Amz", "5ec2e7", "AK%2F2026", "AK/2026")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tar, a folder with an image in it, and a class list."""
    (tmp_path / "a.tar").write_bytes(tar(*images(["1.jpg", "2.jpg"])))
    (tmp_path / "my photos").mkdir()
    (tmp_path / "my photos" / "b.jpg").write_bytes(b"image")
    (tmp_path / "labels.txt").write_text("car\nbus\n")
    (tmp_path / "empty").write_bytes(b"")
    return tmp_path


@pytest.fixture(params=[Plain, Signed])
def web(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The address of that folder."""
    with web_server(folder, request.param) as address:
        yield address


def test_an_http_address_keeps_its_scheme_once(web: str) -> None:
    store = Store(f"{web}/my%20photos/")
    assert store.uri("b.jpg") == f"{web}/my%20photos/b.jpg"
    assert store.read("b.jpg") == b"image"
    info = store.stat("b.jpg")
    assert info is not None
    assert (info.name, info.size) == ("b.jpg", 5)
    assert info.mtime is not None or info.etag is not None
    assert store.stat("nothing.jpg") is None
    with pytest.raises(ObjectMissing, match=r"/my%20photos/nothing\.jpg"):
        store.read("nothing.jpg")


def test_spaces_in_a_web_address_are_escaped(web: str) -> None:
    assert Store(f"{web}/my photos").read("b.jpg") == b"image"


def test_a_tar_is_read_from_a_server_with_and_without_ranges(web: str) -> None:
    for url in (f"{web}/a.tar", f"{web}/a.tar?x=1#top"):
        (shard,) = discover(url, unit_size=16)
        assert shard.uri == f"{web}/a.tar"
        assert count_frames(shard) == 2
        frames = list(read_frames(shard))
        assert [f.frame for f in frames] == [f"{web}/a.tar#1.jpg", f"{web}/a.tar#2.jpg"]
        assert all(isinstance(frame, Frame) and frame.data for frame in frames)


def test_streams_from_a_server_seek(web: str, folder: Path) -> None:
    data = os.urandom(100_000)
    (folder / "data").write_bytes(data)
    with Store(web).open("data", buffer_bytes=700) as stream:
        assert stream.seek(50_000) == 50_000
        assert stream.read(10) == data[50_000:50_010]
        assert stream.seek(-5, os.SEEK_END) == 99_995
        assert stream.read() == data[-5:]
        stream.seek(0)
        assert stream.read() == data
    with Store(web).open("empty") as stream:
        assert stream.read() == b""


def test_an_object_that_changes_while_it_is_read_is_noticed(folder: Path) -> None:
    (folder / "data").write_bytes(b"1" * 10_000)
    with web_server(folder, Signed) as web, Store(web).open("data", buffer_bytes=700) as stream:
        stream.read(10)
        (folder / "data").write_bytes(b"2" * 10_000)
        os.utime(folder / "data", (1, 1))
        with pytest.raises(ObjectChanged):
            stream.read(5_000)


def test_a_page_that_shows_a_folder_is_listed_and_its_parents_are_not(folder: Path) -> None:
    (folder / "beside").mkdir()
    (folder / "beside" / "c.jpg").write_bytes(b"other")
    (folder / "my photos" / "page").mkdir()
    (folder / "my photos" / "page" / "index.html").write_text(
        '<a href="/">up</a><a href="../">up</a><a href="?C=M;O=A">by time</a>'
        '<a href="/beside/c.jpg">other</a><a href="http://elsewhere.invalid/d.jpg">far</a>'
        '<a href="e.jpg">here</a><a href="gone.jpg">gone</a>'
    )
    (folder / "my photos" / "page" / "e.jpg").write_bytes(b"deep")
    with web_server(folder) as web:
        for url in (f"{web}/my%20photos", f"{web}/my%20photos/"):
            (first, second) = discover(url, unit_size=16)
            assert first.uri == f"{web}/my%20photos#b.jpg"
            assert second.uri == f"{web}/my%20photos/page#e.jpg"
            assert [m.size_bytes for m in (*first.members, *second.members)] == [5, 4]
        found = discover(f"{web}/*.tar", unit_size=16)
        assert [shard.uri for shard in found] == [f"{web}/a.tar"]
        assert discover(f"{web}/nothing", unit_size=16) == []


def test_a_range_of_shards_needs_no_page(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 1, 3):
        (folder / f"s-{number:05d}.tar").write_bytes(tar())
    with web_server(folder, Signed) as web:
        found = discover(f"{web}/s-{{00000..00003}}.tar", unit_size=16)
        assert [shard.uri for shard in found] == [f"{web}/s-0000{n}.tar" for n in (0, 1, 3)]
    assert "1 of the 4 names" in caplog.text
    assert "s-00002.tar" in caplog.text


class TestPresigned:
    """A signature is as good as a key: it goes along with requests, and appears nowhere."""

    def test_the_signature_is_sent_as_it_was_signed_and_stands_in_no_id(self, folder: Path) -> None:
        with web_server(folder, Signed, SIGNATURE) as web:
            (shard,) = discover(f"{web}/a.tar?{SIGNATURE}", unit_size=16)
            frames = list(read_frames(shard))
            assert [f.frame for f in frames] == [f"{web}/a.tar#1.jpg", f"{web}/a.tar#2.jpg"]
            renewed = shard.id
            labels = load_class_list(f"{web}/labels.txt?{SIGNATURE}")
            assert labels.names == ("car", "bus")
            for seen in (repr(shard), shard.uri, repr(Store(f"{web}/?{SIGNATURE}"))):
                assert not any(secret in seen for secret in SECRETS)
            (again,) = discover(f"{web}/a.tar?{SIGNATURE}", unit_size=16)
            assert again.id == renewed

    def test_a_new_signature_is_the_same_shard(self, folder: Path) -> None:
        with web_server(folder, Signed) as web:
            first, second = (
                discover(f"{web}/a.tar?sig={sig}", unit_size=16)[0] for sig in ("1", "2")
            )
            assert first.id == second.id
            assert first.uri == second.uri

    def test_a_failure_shows_no_signature_in_message_log_or_traceback(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        with web_server(folder, Signed, "another") as web:
            refused = [f"{web}/a.tar?{SIGNATURE}", f"{web}/labels.txt?{SIGNATURE}"]
        closed = [f"http://127.0.0.1:9/a.tar?{SIGNATURE}"]
        with web_server(folder, Signed, "another") as web:
            refused = [f"{web}/a.tar?{SIGNATURE}", f"{web}/nothing.txt?{SIGNATURE}"]
            for url in (*refused, *closed, f"zip://a.jpg::{refused[0]}"):
                self._fails_quietly(url, caplog)

    def _fails_quietly(self, url: str, caplog: pytest.LogCaptureFixture) -> None:
        for call in (
            lambda: discover(url, unit_size=16, retry=PREFLIGHT),
            lambda: load_class_list(url, retry=PREFLIGHT),
            lambda: Store(split_url(url)[0], retry=PREFLIGHT).create("x", b"1"),
        ):
            with pytest.raises((StorageError, ConfigError)) as caught:
                call()
            seen = "".join(traceback.format_exception(caught.value)) + caplog.text
            assert not any(secret in seen for secret in SECRETS), seen

    def test_the_kind_is_told_without_the_query(self, folder: Path) -> None:
        with web_server(folder, Signed) as web:
            (shard,) = discover(f"{web}/a.tar?name=b.jpg", unit_size=16)
            assert shard.kind == "tar"

    def test_no_access_is_no_missing_file(self, folder: Path) -> None:
        with web_server(folder, Signed, SIGNATURE) as web:
            with pytest.raises(StorageError, match="403") as caught:
                discover(f"{web}/a.tar", unit_size=16, retry=PREFLIGHT)
            assert not isinstance(caught.value, ObjectMissing)


def test_a_web_server_is_no_output(web: str) -> None:
    store = Store(web, retry=PREFLIGHT)
    for call in (store.check_writable, lambda: store.write("a", b"1"), lambda: store.delete("a")):
        with pytest.raises(StorageError, match="has no exclusive create"):
            call()
