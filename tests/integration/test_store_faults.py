"""The store behind a proxy that throttles, refuses, drops and delays: retried, bounded, told."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator

import pytest
from fault_proxy import FaultProxy
from s3_server import S3Server, use_environment

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame, Left
from mint_stream.input.shards import read_frames
from mint_stream.store.errors import ObjectChanged, ObjectMissing, StorageError, StoreUnreachable
from mint_stream.store.store import RetryPolicy, Store

QUICK = RetryPolicy(
    attempts=4, timeout_s=20, wait_initial_s=0.01, wait_max_s=0.02, read_timeout_s=1.0
)


@pytest.fixture(scope="module")
def running_proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.port) as proxy:
        yield proxy


@pytest.fixture
def proxy(
    s3: str, s3_server: S3Server, running_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    use_environment(monkeypatch, s3_server.environment(running_proxy.endpoint))
    running_proxy.clear()
    yield running_proxy
    running_proxy.clear()


@pytest.fixture
def store(s3: str, proxy: FaultProxy) -> Store:
    return Store(s3, retry=QUICK)


def test_without_faults_every_operation_passes_through(store: Store, proxy: FaultProxy) -> None:
    assert store.create("a b/ü+&.bin", b"\0" * 10_000)
    assert store.read("a b/ü+&.bin") == b"\0" * 10_000
    assert [info.name for info in store.list()] == ["a b/ü+&.bin"]
    assert store.exists("a b/ü+&.bin")
    store.delete("a b/ü+&.bin")
    assert store.list() == []
    assert store.retries == 0
    assert {item.status for item in proxy.requests} <= {200, 204, 206}


def test_throttling_is_retried(
    store: Store, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    fault = proxy.inject("slow_down", times=3)
    assert store.create("labels/a", b"rows")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("mint")]
    assert (
        said == [f"cannot create {store.uri('labels/a')} yet: SlowDown: injected by the test"] * 3
    )
    assert fault.hit == 3
    assert store.retries == 3
    assert store.read("labels/a") == b"rows"


@pytest.mark.parametrize("kind", ["slow_down", "drop_before", "drop_after"])
@pytest.mark.parametrize("verb", ["list", "read", "stat", "write", "create", "delete"])
def test_one_failure_of_each_kind_is_invisible_to_each_verb(
    store: Store, proxy: FaultProxy, kind: str, verb: str
) -> None:
    store.write("here", b"one")
    fault = proxy.inject(kind)  # type: ignore[arg-type]
    if verb == "list":
        assert [info.name for info in store.list()] == ["here"]
    elif verb == "read":
        assert store.read("here") == b"one"
    elif verb == "stat":
        info = store.stat("here")
        assert info is not None
        assert info.size == 3
    elif verb == "write":
        store.write("here", b"two")
        assert store.read("here") == b"two"
    elif verb == "create":
        assert store.create("new", b"three")
        assert store.read("new") == b"three"
    else:
        store.delete("here")
        assert not store.exists("here")
    assert fault.hit == 1
    # A dropped connection that had been used before may be replaced below, in the HTTP client.
    assert store.retries in ((1,) if kind == "slow_down" else (0, 1))


def test_create_whose_answer_was_lost_is_recognised_as_our_own(
    store: Store, proxy: FaultProxy
) -> None:
    proxy.inject("drop_after", method="PUT")
    assert store.create("labels/a", b"rows")
    assert [item.status for item in proxy.passed("PUT", "labels/a")] == [None, 412]
    assert store.create("labels/a", b"rows")
    assert not store.create("labels/a", b"other rows")
    assert store.read("labels/a") == b"rows"


def test_create_whose_answer_was_lost_to_another_writer_is_told_apart(
    store: Store, proxy: FaultProxy, s3: str
) -> None:
    """The connection drops before our PUT arrives; by the time we retry, another one was faster."""
    Store(s3, retry=QUICK).write("labels/a", b"theirs")
    proxy.inject("drop_before", method="PUT")
    assert not store.create("labels/a", b"ours")
    assert store.read("labels/a") == b"theirs"


def test_an_answer_that_breaks_off_is_read_again(store: Store, proxy: FaultProxy) -> None:
    data = os.urandom(300_000)
    store.write("big", data)
    proxy.inject("cut_body", method="GET", path="big", times=2)
    assert store.read("big") == data
    assert store.retries == 2


def test_a_stream_survives_faults_between_its_pieces(store: Store, proxy: FaultProxy) -> None:
    data = os.urandom(500_000)
    store.write("big", data)
    with store.open("big", buffer_bytes=100_000) as stream:
        pieces = [stream.read(100_000)]
        for kind in ("slow_down", "drop_before", "cut_body", "drop_after"):
            fault = proxy.inject(kind, method="GET")  # type: ignore[arg-type]
            pieces.append(stream.read(100_000))
            assert fault.hit == 1
    assert b"".join(pieces) == data


def test_a_silent_connection_times_out_and_is_retried(store: Store, proxy: FaultProxy) -> None:
    store.write("slow", b"data")
    fault = proxy.inject("hold_before", method="GET", path="slow")
    assert store.read("slow") == b"data"
    assert fault.reached.is_set()
    assert store.retries == 1


def test_throttling_without_end_stops_at_the_bound_and_names_the_object(
    store: Store, proxy: FaultProxy, s3: str
) -> None:
    fault = proxy.inject("slow_down", times=1000)
    with pytest.raises(StorageError) as caught:
        store.create("labels/a", b"rows")
    assert fault.hit == QUICK.attempts
    message = str(caught.value)
    assert f"{s3}/labels/a" in message
    assert "SlowDown" in message
    assert "4 attempts" in message
    assert "committed is intact" in message


def test_access_denied_in_the_middle_of_a_run_stops_at_once(
    store: Store, proxy: FaultProxy, s3: str
) -> None:
    assert store.create("labels/a", b"rows")
    fault = proxy.inject("forbidden", times=1000)
    for call in (
        lambda: store.create("labels/b", b"rows"),
        lambda: store.read("labels/b"),
        lambda: store.stat("labels/b"),
        lambda: store.open("labels/b"),
        lambda: store.list("labels/b"),
    ):
        before = fault.hit
        with pytest.raises(StorageError) as caught:
            call()
        assert fault.hit == before + 1
        assert not isinstance(caught.value, ObjectMissing)
        assert f"{s3}/labels/b" in str(caught.value)
        assert "AWS_ACCESS_KEY_ID" in str(caught.value)
    assert store.retries == 0


def test_a_store_that_ignores_create_only_writes_is_found_out(
    store: Store, proxy: FaultProxy
) -> None:
    store.check_writable()
    proxy.inject("hide_conflict", method="PUT", times=1000)
    with pytest.raises(StorageError, match="overwrites an object in spite of If-None-Match"):
        store.check_writable()
    assert store.list() == []


def test_parts_of_a_large_object_are_retried_and_stay_create_only(
    store: Store, proxy: FaultProxy
) -> None:
    data, other = os.urandom(11 * 2**20), bytes(11 * 2**20)
    store._open().part_bytes = 5 * 2**20  # type: ignore[attr-defined]
    proxy.inject("slow_down", method="PUT", path="partNumber=2")
    proxy.inject("drop_after", method="POST", path="uploadId=")
    assert store.create("large", data)
    assert store.retries >= 1
    assert store.read("large") == data
    assert not store.create("large", other)
    assert store.read("large") == data


def test_a_shard_is_read_through_faults(store: Store, proxy: FaultProxy, s3: str) -> None:
    store.write("in/a.tar", _tar(40))
    (shard,) = discover(f"{s3}/in", unit_size=16)
    proxy.inject("slow_down", method="GET", times=2)
    proxy.inject("cut_body", method="GET")
    items = list(read_frames(shard, store=Store(f"{s3}/in", retry=QUICK)))
    assert [item.frame for item in items] == [f"{s3}/in/a.tar#{n:03}.jpg" for n in range(40)]
    assert all(isinstance(item, Frame) and len(item.data) == 1000 for item in items)


def test_a_shard_without_access_is_left_instead_of_being_rejected(
    store: Store, proxy: FaultProxy, s3: str
) -> None:
    store.write("in/a.tar", _tar(4))
    (shard,) = discover(f"{s3}/in", unit_size=16)
    proxy.inject("forbidden", method="GET", times=1000)
    (item,) = read_frames(shard)
    assert isinstance(item, Left)
    assert type(item.error) is StorageError
    assert "in/a.tar" in str(item.error)
    assert "AccessDenied" in str(item.error)


def test_a_shard_out_of_reach_in_its_middle_is_left_from_there_on(
    store: Store, proxy: FaultProxy, s3: str
) -> None:
    store.write("in/a.tar", _tar(9000))
    (shard,) = discover(f"{s3}/in", unit_size=16)
    items = read_frames(shard, store=Store(f"{s3}/in", retry=QUICK))
    first = [next(items) for _ in range(100)]
    proxy.inject("slow_down", method="GET", times=1000)
    rest = list(items)
    assert all(isinstance(item, Frame) for item in [*first, *rest[:-1]])
    assert isinstance(rest[-1], Left)
    assert isinstance(rest[-1].error, StoreUnreachable)
    assert 99 < rest[-1].index < 9000
    proxy.clear()
    again = list(read_frames(shard, start=rest[-1].index))
    assert len(again) == 9000 - rest[-1].index


def test_what_a_listing_says_of_a_large_object_is_what_reading_it_says(
    store: Store, proxy: FaultProxy
) -> None:
    """An object written in parts has an ETag of its own kind."""
    store._open().part_bytes = 5 * 2**20  # type: ignore[attr-defined]
    store.write("large", os.urandom(11 * 2**20))
    (listed,) = store.list()
    assert listed.etag is not None
    assert len(store.read("large", listed=listed)) == 11 * 2**20
    with store.open("large", listed=listed) as stream:
        assert len(stream.read()) == 11 * 2**20
    store.write("large", os.urandom(11 * 2**20))
    with pytest.raises(ObjectChanged):
        store.read("large", listed=listed)
    with pytest.raises(ObjectChanged):
        store.open("large", listed=listed)


def test_an_object_overwritten_while_it_is_read_is_noticed(store: Store) -> None:
    store.write("a", b"1" * 200_000)
    with store.open("a", buffer_bytes=1000) as stream:
        assert stream.read(1) == b"1"
        store.write("a", b"2" * 200_000)
        with pytest.raises(ObjectChanged, match="overwritten while it was read"):
            stream.read(100_000)
    assert store.retries == 0


def _tar(count: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"{number:03}.jpg")
            info.size = 1000
            tar.addfile(info, io.BytesIO(bytes([number % 256]) * 1000))
    return file.getvalue()
