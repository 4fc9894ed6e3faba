"""One driver at a time on an output; and where the lease lies, every frame once all the same."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drivers import REPOSITORY, wait_until
from oracle import Output, check_frames, check_usage
from places import Place
from tiny import METHOD, put_tars

from mint_stream.output.lease import NAME, Holder, Lease, LeaseHeld
from mint_stream.store.store import Store

BEAT_S = 0.1
HOLDER = """
import sys
from mint_stream.output.lease import Lease
from mint_stream.store.store import Store
Lease(Store(sys.argv[1]), beat_s=0.1).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(place: Place) -> Store:
    return Store(place.output)


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.url],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def lease(store: Store, lost: threading.Event | None = None) -> Lease:
    return Lease(store, beat_s=BEAT_S, on_lost=lost.set if lost else None)


def pretend(store: Store, **holder: object) -> None:
    """A lease of someone on another machine."""
    store.write(NAME, json.dumps({"token": "theirs", "host": "elsewhere", **holder}).encode())


def test_a_second_driver_is_refused_while_the_first_is_alive(
    store: Store, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(LeaseHeld, match=f"process {holder.pid} on .* wait for it or stop it"):
        lease(store).acquire()
    assert holder.poll() is None


def test_a_holder_that_was_killed_here_is_succeeded_at_once(
    store: Store, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    mine = Lease(store, beat_s=60)
    started = time.monotonic()
    mine.acquire()
    assert time.monotonic() - started < 30
    mine.release()
    assert not store.exists(NAME)


def test_a_heartbeat_elsewhere_that_stopped_is_succeeded_after_three_beats(store: Store) -> None:
    pretend(store, pid=1, beat=7)
    mine = lease(store)
    mine.acquire()
    assert json.loads(store.read(NAME))["token"] != "theirs"
    mine.release()


def test_a_heartbeat_elsewhere_that_goes_on_is_respected(store: Store) -> None:
    pretend(store, pid=1, beat=0)
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_S / 4):
            pretend(store, pid=1, beat=(count := count + 1))

    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(beat)
        try:
            with pytest.raises(LeaseHeld, match="on elsewhere"):
                Lease(store, beat_s=0.5).acquire()
        finally:
            stop.set()
            beating.result()


def test_a_process_id_that_was_given_to_another_process_is_not_the_holder(store: Store) -> None:
    mine = lease(store)
    mine.acquire()
    mine.release()
    me = json.loads(mine._content())
    store.write(NAME, json.dumps({**me, "token": "old", "started": 1}).encode())
    started = time.monotonic()
    successor = Lease(store, beat_s=60)
    successor.acquire()
    assert time.monotonic() - started < 30
    successor.release()


DAMAGED = {
    "cut off": b"{",
    "empty": b"",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "nested": b"[" * 100_000,
    "no token": b'{"pid": 1, "host": "elsewhere"}',
    "a token that is none": b'{"token": {"a": 1}}',
}
FOREIGN = (
    {"pid": "many"},
    {"pid": -1},
    {"pid": 0},
    {"pid": True},
    {"pid": 1e9},
    {"pid": 2**80},
    {"pid": [1]},
    {"host": 7},
    {"machine": 7},
    {"started": "yesterday"},
    {"started": None},
    {"beat": "loud"},
)


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_lease_stops_nobody(
    damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Some raised AttributeError, TypeError or RecursionError."""
    store = Store(tmp_path)
    store.write(NAME, damage)
    mine = lease(store)
    mine.acquire()
    assert "was damaged" in caplog.text
    mine.release()
    assert not store.exists(NAME)


@pytest.mark.parametrize("fields", FOREIGN, ids=str)
def test_a_lease_with_fields_of_other_types_is_waited_for_and_taken(
    fields: dict[str, object], tmp_path: Path
) -> None:
    store = Store(tmp_path)
    me = json.loads(lease(store)._content())
    store.write(NAME, json.dumps({**me, "token": "theirs", **fields}).encode())
    mine = lease(store)
    mine.acquire()
    assert json.loads(store.read(NAME))["token"] != "theirs"
    mine.release()


def test_who_keeps_writing_what_is_no_lease_is_respected_with_a_remedy(tmp_path: Path) -> None:
    store, stop = Store(tmp_path), threading.Event()
    store.write(NAME, b"[0]")

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT_S / 4):
            store.write(NAME, f"[{(count := count + 1)}]".encode())

    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(beat)
        try:
            with pytest.raises(LeaseHeld, match=r"delete lease\.json"):
                Lease(store, beat_s=0.5).acquire()
        finally:
            stop.set()
            beating.result()


def test_damage_while_it_is_held_does_not_end_the_heartbeat(tmp_path: Path) -> None:
    store = Store(tmp_path)
    mine = lease(store)
    mine.acquire()
    for damage in (b"[]", b"7", b"[" * 100_000):
        store.write(NAME, damage)
        wait_until(lambda damage=damage: store.read(NAME) != damage, "the lease is written again")
    mine.release()
    assert not store.exists(NAME)


def test_a_machine_of_the_same_name_is_another_one(tmp_path: Path) -> None:
    """Two clones share a name: a process that is not here may well run there."""
    store = Store(tmp_path)
    me = json.loads(lease(store)._content())
    gone = {**me, "token": "theirs", "pid": 2**22 - 3}
    assert Holder.parse(json.dumps(gone).encode()).died_here()
    for machine in ("another boot id pid:[4026531836]", None):
        there = Holder.parse(json.dumps({**gone, "machine": machine}).encode())
        assert not there.died_here()


def test_a_clock_that_was_set_does_not_make_a_holder_dead(tmp_path: Path) -> None:
    """The start of a process by the clock shifts with the clock; in ticks it does not."""
    me = Holder.parse(lease(Store(tmp_path))._content())
    assert me is not None
    assert me.started is not None
    assert me.started < 10 * 365 * 24 * 3600 * 100, "since the kernel's start, not since 1970"
    assert not me.died_here()


def test_a_process_of_another_user_is_alive(tmp_path: Path) -> None:
    me = json.loads(lease(Store(tmp_path))._content())
    first = Holder.parse(json.dumps({**me, "pid": 1, "started": None}).encode())
    assert not first.died_here()


def test_who_loses_the_lease_is_told_and_leaves_the_new_one_alone(store: Store) -> None:
    lost = threading.Event()
    mine = lease(store, lost)
    mine.acquire()
    pretend(store, pid=1)
    assert lost.wait(30)
    mine.release()
    assert json.loads(store.read(NAME))["token"] == "theirs"


def test_two_drivers_at_once_still_label_every_frame_once(
    cluster: None, local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that lies costs work, never a row or an update of the bank."""
    ids = put_tars(local.input, shards=2, frames=14)
    with monkeypatch.context() as lying:
        lying.setattr(Lease, "acquire", lambda self: None)
        lying.setattr(Lease, "release", lambda self: None)
        with ThreadPoolExecutor(2) as pool:
            summaries = list(pool.map(lambda _: local.run(alone=False), range(2)))
    assert sum(summary.frames for summary in summaries) == len(ids)
    check_frames(Output.read(local.output), ids)
    ids += put_tars(local.input, shards=1, frames=14, first=2)
    local.run()
    output = Output.read(local.output)
    check_frames(output, ids)
    check_usage(output, METHOD)
    assert not Store(local.output).exists(NAME), "nothing is left behind"
