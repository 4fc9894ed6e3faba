"""The store's promises, with the same bodies on a local disk, in memory and on a real S3 server."""

from __future__ import annotations

import errno
import os
import pickle
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_server import S3Server, use_environment

from mint_stream.store.errors import ObjectMissing, StorageError, understand
from mint_stream.store.store import PREFLIGHT, RetryPolicy, Store, split_url

IMPATIENT = RetryPolicy(
    attempts=2, timeout_s=5, wait_initial_s=0.01, connect_timeout_s=1.0, read_timeout_s=2.0
)


def test_what_is_written_is_read(root: str) -> None:
    store = Store(root)
    data = bytes(range(256)) * 100
    for name in ("a.bin", "deep/er/b.bin", "sp ace/ünï+&=%.bin", "empty"):
        content = b"" if name == "empty" else data
        store.write(name, content)
        assert store.read(name) == content
        info = store.stat(name)
        assert info is not None
        assert (info.name, info.size) == (name, len(content))
        assert info.mtime is not None
    store.write("a.bin", b"new")
    assert store.read("a.bin") == b"new"


def test_listings_are_by_name_below_a_prefix_and_never_stale(root: str) -> None:
    store, other = Store(root), Store(root)
    assert store.list() == []
    for name in ("labels/b", "labels/a", "labelsx", "rejects/a"):
        other.write(name, name.encode())
        assert name in [info.name for info in store.list()]
    assert [info.name for info in store.list()] == ["labels/a", "labels/b", "labelsx", "rejects/a"]
    assert [info.name for info in store.list("labels/")] == ["labels/a", "labels/b"]
    assert [info.name for info in store.list("labels")] == ["labels/a", "labels/b", "labelsx"]
    assert [info.size for info in store.list("labels/a")] == [8]
    assert store.list("nothing/here") == []
    other.delete("labels/a")
    assert [info.name for info in store.list("labels/")] == ["labels/b"]


def test_listings_of_more_than_one_page_are_whole(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(s3)
    client = store._open()._fs  # type: ignore[attr-defined]
    call, pages = client.call_s3, []

    def two_a_page(method: str, **request: object) -> object:
        if method == "list_objects_v2":
            pages.append(method)
            request["MaxKeys"] = 2
        return call(method, **request)

    monkeypatch.setattr(client, "call_s3", two_a_page)
    names = [f"folder {number}/file" for number in range(7)]
    for name in names:
        store.write(name, b"1")
    assert [info.name for info in store.list()] == names
    assert len(pages) == 4


def test_create_writes_once_and_never_overwrites(root: str) -> None:
    store = Store(root)
    assert store.create("labels/a", b"first")
    assert store.create("labels/a", b"first")  # the same content is as good as ours
    assert not store.create("labels/a", b"second")
    assert store.read("labels/a") == b"first"
    store.delete("labels/a")
    assert store.create("labels/a", b"second")
    assert [info.name for info in store.list()] == ["labels/a"]


def test_of_many_writers_exactly_one_creates(root: str) -> None:
    stores = [Store(root) for _ in range(8)]
    gate = threading.Barrier(len(stores))

    def create(number: int) -> bool:
        gate.wait()
        return stores[number].create("labels/a", f"writer {number}".encode())

    with ThreadPoolExecutor(len(stores)) as pool:
        won = list(pool.map(create, range(len(stores))))
    assert won.count(True) == 1
    assert stores[0].read("labels/a") == f"writer {won.index(True)}".encode()
    assert len(stores[0].list()) == 1


def test_delete_is_done_once_and_harmless_twice(root: str) -> None:
    store = Store(root)
    store.write("a", b"1")
    assert store.exists("a")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")
    assert store.stat("a") is None


def test_missing_objects_are_named(root: str) -> None:
    store = Store(root)
    for call in (store.read, store.open):
        with pytest.raises(ObjectMissing) as caught:
            call("not/here")
        assert store.uri("not/here") in str(caught.value)
    store.write("folder/file", b"1")
    assert not store.exists("folder")


def test_streams_seek_and_read_in_pieces(root: str) -> None:
    store = Store(root)
    data = os.urandom(10_000)
    store.write("a", data)
    with store.open("a", buffer_bytes=700) as stream:
        assert stream.read(1000) == data[:1000]
        assert stream.seek(5000) == 5000
        assert stream.read(10) == data[5000:5010]
        assert stream.seek(-5, os.SEEK_END) == 9995
        assert stream.read() == data[-5:]
        assert stream.read() == b""
        assert stream.seek(0) == 0
        assert stream.read() == data
    store.write("empty", b"")
    with store.open("empty") as stream:
        assert stream.read() == b""


def test_a_pickled_store_is_its_address_alone(root: str) -> None:
    store = Store(root, retry=IMPATIENT)
    store.write("a", b"1")
    pickled = pickle.dumps(store)
    assert len(pickled) < 400
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        assert os.environ.get(name, "no such").encode() not in pickled
    copy = pickle.loads(pickled)
    assert copy.read("a") == b"1"
    assert copy.retry == IMPATIENT


def test_several_threads_share_a_store(root: str) -> None:
    store = Store(root)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.write(f"{n}", bytes([n]) * 100), range(64)))
        read = list(pool.map(lambda n: store.read(f"{n}"), range(64)))
    assert read == [bytes([n]) * 100 for n in range(64)]


@pytest.mark.parametrize("root", ["local", "s3"], indirect=True)  # no two share a memory
def test_a_forked_process_opens_its_own_connections(root: str) -> None:
    store = Store(root)
    store.write("a", b"1")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if store.read("a") == b"1" else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.read("a") == b"1"


def test_the_preflight_passes_and_leaves_nothing_behind(root: str) -> None:
    store = Store(root, retry=PREFLIGHT)
    store.check_readable()
    store.check_writable()
    assert store.list() == []


def test_addresses_of_objects(tmp_path: Path, s3: str) -> None:
    assert Store(tmp_path / "x").uri("a/b") == f"{tmp_path}/x/a/b"
    assert Store(f"file://{tmp_path}/x/").uri("a") == f"{tmp_path}/x/a"
    assert Store("memory://x/y").uri("a") == "memory://x/y/a"
    assert Store(f"{s3}/").uri("a b") == f"{s3}/a b"
    assert Store(s3).uri() == s3


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("/data/in/a.tar", ("/data/in", "a.tar")),
        ("s3://bucket/in/a.tar", ("s3://bucket/in", "a.tar")),
        ("s3://bucket/a.tar", ("s3://bucket", "a.tar")),
        ("s3://bucket", ("s3://bucket", "")),
        ("s3://bucket/in/", ("s3://bucket/in", "")),
        ("file:///data/a.tar", ("/data", "a.tar")),
    ],
)
def test_addresses_are_split_into_folder_and_name(url: str, parts: tuple[str, str]) -> None:
    assert split_url(url) == parts


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("out").uri("a") == f"{tmp_path}/out/a"
    assert split_url("a.tar") == (str(tmp_path), "a.tar")


class TestLocalDisk:
    def test_unfinished_writes_are_not_listed(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        store.write("a", b"1")
        (tmp_path / f".b.{secrets.token_hex(8)}.part").write_bytes(b"half of b")
        assert [info.name for info in store.list()] == ["a"]

    def test_a_failed_write_leaves_the_old_content_and_no_rubbish(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(tmp_path, retry=IMPATIENT)
        store.write("a", b"old")

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        for verb in (store.write, store.create):
            with pytest.raises(StorageError, match="No space left on device; make room"):
                verb("a", b"new")
        assert store.read("a") == b"old"
        assert os.listdir(tmp_path) == ["a"]
        assert store.retries == 0

    def test_linked_folders_are_followed_once(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a").write_bytes(b"1")
        (tmp_path / "real" / "up").symlink_to(tmp_path)
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
        assert [info.name for info in Store(tmp_path).list()] == ["real/a"]

    def test_a_file_in_place_of_a_folder_is_explained(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"1")
        with pytest.raises(StorageError, match="a file is where a folder should be"):
            Store(tmp_path / "file").write("a", b"1")
        with pytest.raises(StorageError, match="a file is where a folder should be"):
            Store(tmp_path / "file").create("a", b"1")

    def test_a_disk_without_hard_links_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_links(source: str, target: str) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        with pytest.raises(StorageError, match="no hard links"):
            Store(tmp_path).create("a", b"1")
        assert os.listdir(tmp_path) == []

    def test_a_passing_failure_of_a_network_mount_is_retried(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").write_bytes(b"1")
        read, failures = Path.read_bytes, [errno.ESTALE]

        def flaky(path: Path) -> bytes:
            if failures:
                raise OSError(failures.pop(), "Stale file handle")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", flaky)
        store = Store(tmp_path, retry=IMPATIENT)
        assert store.read("a") == b"1"
        assert store.retries == 1


class TestRefusals:
    """Wrong settings fail at once, with the value and the remedy in the message."""

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"AWS_SECRET_ACCESS_KEY": "wrong"}, ["SignatureDoesNotMatch", "AWS_SECRET_ACCESS"]),
            ({"AWS_ACCESS_KEY_ID": "wrong"}, ["InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"]),
            ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, ["Could not connect", "127.0.0.1:9"]),
            ({"AWS_ENDPOINT_URL": "http://no.such.invalid"}, ["no.such.invalid"]),
            ({"AWS_ENDPOINT_URL": "nonsense"}, ["nonsense", "http://"]),
            ({"AWS_PROFILE": "nobody"}, ["AWS_PROFILE"]),
        ],
    )
    def test_wrong_settings(
        self,
        s3_server: S3Server,
        monkeypatch: pytest.MonkeyPatch,
        change: dict[str, str],
        said: list[str],
    ) -> None:
        use_environment(monkeypatch, s3_server.environment() | change)
        store = Store(f"s3://{s3_server.bucket}/x", retry=PREFLIGHT)
        for call in (store.check_readable, store.check_writable):
            with pytest.raises(StorageError) as caught:
                call()
            for text in (f"s3://{s3_server.bucket}/x", *said):
                assert text in str(caught.value)
            assert s3_server.secret_key not in str(caught.value)

    def test_no_credentials(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        environment = s3_server.environment()
        del environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        use_environment(monkeypatch, environment)
        with pytest.raises(StorageError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
            Store("s3://tests/x", retry=PREFLIGHT).check_readable()

    def test_a_bucket_that_does_not_exist(self, s3: str) -> None:
        store = Store("s3://no-such-bucket/x", retry=PREFLIGHT)
        for call in (
            store.check_readable,
            store.check_writable,
            store.list,
            lambda: store.read("a"),
            lambda: store.write("a", b"1"),
        ):
            with pytest.raises(StorageError, match=r"NoSuchBucket.*check the bucket's name"):
                call()
        assert store.retries == 0

    def test_an_invalid_bucket_name(self, s3: str) -> None:
        with pytest.raises(StorageError, match="the address is not valid; check the bucket's"):
            Store("s3://Not_A_Bucket!/x").list()

    @pytest.mark.parametrize("url", ["bogus://x/y", "gopher://x"])
    def test_an_unknown_protocol(self, url: str) -> None:
        with pytest.raises(StorageError, match=f"cannot open {url}"):
            Store(url).list()

    def test_credentials_in_an_address_are_refused_without_repeating_them(self) -> None:
        with pytest.raises(StorageError, match="contains credentials") as caught:
            Store("ftp://me:hunter2@host/x")
        assert "hunter2" not in str(caught.value)

    def test_a_filesystem_without_exclusive_create_is_refused_for_output(self) -> None:
        store = Store(f"simplecache::memory://{secrets.token_hex(6)}")
        with pytest.raises(StorageError, match="has no exclusive create"):
            store.create("b", b"1")


def test_an_unreachable_proc_folder_is_refused() -> None:
    with pytest.raises(StorageError, match="/proc/no-such"):
        Store("/proc/no-such").check_writable()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError("slow"), "passing"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "passing"),
        (OSError(errno.EAGAIN, "again"), "passing"),
        (FileNotFoundError(errno.ENOENT, "gone"), "missing"),
        (FileExistsError(errno.EEXIST, "there"), "exists"),
        (PermissionError(errno.EACCES, "no"), "refused"),
        (OSError(errno.ENOSPC, "full"), "refused"),
        (ValueError("Invalid endpoint: x"), "refused"),
    ],
)
def test_failures_are_told_apart(error: Exception, kind: str) -> None:
    assert understand(error).kind == kind
