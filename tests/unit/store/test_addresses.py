"""Addresses of every kind: what of them names an object, what is refused, and what is shown."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from s3_server import S3Server, use_environment
from tar_files import images, tar

from mint_stream.cli.label import Options
from mint_stream.config import ConfigError, without_queries
from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame
from mint_stream.input.shards import read_frames
from mint_stream.store.address import anonymous, parse, refuse_credentials
from mint_stream.store.errors import StorageError
from mint_stream.store.store import PREFLIGHT, Store, split_url

AZURE = "abfs://container@account.dfs.core.windows.net"


@pytest.mark.parametrize(
    ("url", "folder", "name"),
    [
        ("https://host/in/a.tar?sig=1&x=a/b", "https://host/in?sig=1&x=a/b", "a.tar"),
        ("https://host:8080/a.tar#top", "https://host:8080", "a.tar"),
        ("https://host", "https://host", ""),
        ("https://host/in/", "https://host/in", ""),
        ("hf://datasets/org/name", "hf://datasets/org/name", ""),
        ("hf://datasets/org/name@main/a.tar", "hf://datasets/org/name@main", "a.tar"),
        ("hf://org/model", "hf://org/model", ""),
        ("hf://buckets/org/name/in/a.tar", "hf://buckets/org/name/in", "a.tar"),
        (AZURE, AZURE, ""),
        (f"{AZURE}/in/a.tar", f"{AZURE}/in", "a.tar"),
        ("sftp://user@host/data/a.tar", "sftp://user@host/data", "a.tar"),
        ("sftp://user@host:2222", "sftp://user@host:2222", ""),
        ("github://org:repo@branch", "github://org:repo@branch", ""),
        ("github://org:repo@branch/in/a.tar", "github://org:repo@branch/in", "a.tar"),
        ("s3://anonymous@bucket/a.tar", "s3://anonymous@bucket", "a.tar"),
        ("zip://in/a.jpg::s3://bucket/a.zip", "zip://in::s3://bucket/a.zip", "a.jpg"),
        ("zip://a.jpg::/data/a.zip", "zip://::/data/a.zip", "a.jpg"),
        ("simplecache::s3://bucket/in/a.tar", "simplecache::s3://bucket/in", "a.tar"),
        ("simplecache::zip://a.jpg::s3://b/z.zip", "simplecache::zip://::s3://b/z.zip", "a.jpg"),
        ("memory://a.tar", "memory://", "a.tar"),
        ("/data/a::b/c.tar", "/data/a::b", "c.tar"),
    ],
)
def test_an_address_is_split_where_its_store_can_be_opened(
    url: str, folder: str, name: str
) -> None:
    assert split_url(url) == (folder, name)
    address = parse(url)
    assert parse(address.at(address.path)) == address


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        (f"{AZURE}/in", f"{AZURE}/in/a.tar"),
        (f"{AZURE.replace('abfs', 'abfss')}/in/", f"{AZURE}/in/a.tar"),
        ("hf://datasets/org/name", "hf://datasets/org/name/a.tar"),
        ("gcs://anonymous@bucket/in", "gs://bucket/in/a.tar"),
        ("gs://anonymous@bucket/in", "gs://bucket/in/a.tar"),
        ("s3://anonymous@bucket/in", "s3://bucket/in/a.tar"),
        ("simplecache::s3://anonymous@bucket/in", "s3://bucket/in/a.tar"),
        ("memory://x", "memory://x/a.tar"),
        ("memory://", "memory://a.tar"),
    ],
)
def test_the_id_of_an_object_keeps_its_host_and_account(url: str, uri: str) -> None:
    store = Store(url)
    assert store.uri("a.tar") == uri
    assert store.address == url
    assert pickle.loads(pickle.dumps(store)).uri("a.tar") == uri


@pytest.mark.parametrize(
    ("url", "host", "root"),
    [
        ("sftp://user@host:2222/data", {"host": "host", "username": "user", "port": 2222}, "/data"),
        ("ftp://host/data", {"host": "host"}, "/data"),
    ],
)
def test_drivers_that_connect_at_once_get_host_and_path(
    url: str, host: dict[str, Any], root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = fsspec.get_filesystem_class(url.partition(":")[0])
    monkeypatch.setattr(kind, "_connect", lambda self: None)
    asked: list[str] = []
    monkeypatch.setattr(kind, "find", lambda self, path, **_: asked.append(path) or {})
    store = Store(url)
    assert store.list("in/") == []
    assert store.uri("a.tar") == f"{url}/a.tar"
    assert asked == [f"{root}/in"]
    found = store._open()._fs  # type: ignore[attr-defined]
    assert {key: found.storage_options[key] for key in host} == host


def test_a_branch_on_github_is_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.github import GithubFileSystem

    monkeypatch.setattr(GithubFileSystem, "ls", lambda self, path, **_: [])
    store = Store("github://org:repo@branch/data")
    assert store.uri("a.tar") == "github://org:repo@branch/data/a.tar"
    found = store._open()._fs  # type: ignore[attr-defined]
    assert (found.org, found.repo, found.root) == ("org", "repo", "branch")
    assert store.list() == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://me:hunter2@host/x",
        "s3://AKIA:hun/ter2@bucket/x",
        "sftp://me:hunter2/x@host",
        "https://hunter2@host/x",
        "https://me:hunter2@host/x.tar?y",
        "zip://a.jpg::ftp://me:hunter2@host/x.zip",
        "simplecache::https://hunter2@host/x",
        "smb://host:hunter2/x",
    ],
)
def test_passwords_and_tokens_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StorageError, match="contains credentials") as caught:
        Store(url)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["sftp://user@host/x", "ftp://[::1]:21/x", "http://host:80/x", "s3://b/a:b@c", "/a:b@c"]
)
def test_names_of_users_and_ports_are_no_credentials(url: str) -> None:
    refuse_credentials(url)


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        (f"{AZURE}/in", "adlfs", "adlfs"),
        ("gs://bucket/in", "gcsfs", "gcsfs"),
        ("sftp://user@host/in", "paramiko", "paramiko"),
        ("zip://::hf://datasets/a/b/c.zip", "huggingface_hub", "huggingface_hub"),
    ],
)
def test_a_driver_that_is_missing_is_named(
    url: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver(*_: Any, **__: Any) -> None:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", no_driver)
    with pytest.raises(StorageError, match=f"pip install {package}, on every node"):
        Store(url).list()


def test_an_archive_behind_an_address_is_an_input(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/1.jpg", b"one")
        archive.writestr("in/2.jpg", b"two")
        archive.writestr("a.tar", tar(*images(["x.jpg"])))
    of = f"{tmp_path}/a.zip"
    (shard,) = discover(f"zip://in/*.jpg::{of}", unit_size=16)
    frames = [item for item in read_frames(shard) if isinstance(item, Frame)]
    assert [frame.frame for frame in frames] == [f"zip://in/{n}.jpg::{of}" for n in (1, 2)]
    assert [frame.data for frame in frames] == [b"one", b"two"]
    (one,) = discover(f"zip://in/1.jpg::{of}", unit_size=16)
    assert one.members[0].size_bytes == 3
    (packed,) = discover(f"zip://a.tar::{of}", unit_size=16)
    assert packed.uri == f"zip://a.tar::{of}"
    (frame,) = read_frames(packed)
    assert frame.frame == f"zip://a.tar::{of}#x.jpg"
    assert len(discover(f"zip://::{of}", unit_size=16)) == 2
    assert discover(f"zip://::{tmp_path}/nothing.zip", unit_size=16) == []


def test_a_cache_in_front_changes_no_id(s3: str) -> None:
    Store(s3).write("a.tar", tar(*images(["1.jpg"])))
    (plain,) = discover(f"{s3}/a.tar", unit_size=16)
    (cached,) = discover(f"simplecache::{s3}/*.tar", unit_size=16)
    assert (cached.uri, cached.id) == (plain.uri, plain.id)
    assert [f.frame for f in read_frames(cached)] == [f.frame for f in read_frames(plain)]


class TestLocalNames:
    """What lies on the disk under exactly this name counts, whatever else it could mean."""

    def test_escapes_in_a_file_address(self, tmp_path: Path) -> None:
        (tmp_path / "my photos").mkdir()
        (tmp_path / "my photos" / "a.tar").write_bytes(tar())
        (tmp_path / "100%25").mkdir()
        (tmp_path / "100%25" / "b.tar").write_bytes(tar())
        for url in (
            f"file://{tmp_path}/my%20photos",
            f"file://localhost{tmp_path}/my%20photos/a.tar",
            f"file://{tmp_path}/my%20photos/*.tar",
        ):
            (shard,) = discover(url, unit_size=1)
            assert shard.uri == f"{tmp_path}/my photos/a.tar"
        for url in (f"file://{tmp_path}/100%25", f"file://{tmp_path}/100%25/*.tar"):
            (shard,) = discover(url, unit_size=1)
            assert shard.uri == f"{tmp_path}/100%25/b.tar"
        Store(f"file://{tmp_path}/new%20folder").write("x", b"1")
        assert (tmp_path / "new folder" / "x").read_bytes() == b"1"
        # Elsewhere a percent sign is itself.
        assert Store(f"{tmp_path}/my%20photos").list() == []


class TestPublicBuckets:
    @pytest.fixture
    def public(self, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
        """A bucket that needs no keys, and an environment without any."""
        client = s3_server.client()
        client.put_object(Bucket=s3_server.public, Key="in/a.tar", Body=tar(*images(["1.jpg"])))
        environment = s3_server.environment()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            del environment[name]
            monkeypatch.delenv(name, raising=False)
        use_environment(monkeypatch, environment)
        return f"s3://{s3_server.public}/in"

    def test_a_public_bucket_is_read_without_keys(self, public: str) -> None:
        with pytest.raises(StorageError, match=r"no credentials were found; .*--anonymous"):
            discover(public, unit_size=16, retry=PREFLIGHT)
        options = Options(
            input=public, output="out", labels="labels.txt", model="bundled", anonymous=True
        )
        address = options.run_config().input
        (shard,) = discover(address, unit_size=16, retry=PREFLIGHT)
        assert shard.uri == f"{public}/a.tar"
        (frame,) = read_frames(shard)
        assert frame.frame == f"{public}/a.tar#1.jpg"

    def test_the_same_bucket_with_keys_has_the_same_ids(
        self, public: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (without,) = discover(anonymous(public), unit_size=16)
        use_environment(monkeypatch, s3_server.environment())
        (with_keys,) = discover(public, unit_size=16)
        assert without.id == with_keys.id

    def test_other_stores_are_refused_with_what_to_do(self) -> None:
        assert anonymous("zip://::s3://b/a.zip") == "zip://::s3://anonymous@b/a.zip"
        assert anonymous("gs://anonymous@b/x") == "gs://anonymous@b/x"
        with pytest.raises(StorageError, match="AZURE_STORAGE_ANON=true"):
            anonymous(f"{AZURE}/x")
        with pytest.raises(StorageError, match="cannot be asked without keys"):
            anonymous("/data")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("labels is 'https://h/a?sig=1'; no", "labels is 'https://h/a'; no"),
        ("cannot read http://h/a.tar?x=1&y=2: gone", "cannot read http://h/a.tar: gone"),
        ("zip://a::https://h/z.zip?sig=1, why?", "zip://a::https://h/z.zip, why?"),
        ("is it? see https://h/a", "is it? see https://h/a"),
    ],
)
def test_queries_are_cut_from_what_people_read(text: str, shown: str) -> None:
    assert without_queries(text) == shown
    assert str(ConfigError(text)) == str(StorageError(text)) == shown
    assert str(pickle.loads(pickle.dumps(StorageError(text)))) == shown
