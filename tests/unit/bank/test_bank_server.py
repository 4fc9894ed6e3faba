"""The bank server without Ray: its clock, its failures, and what it looks up on the store."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest
from bank_work import ENTRIES, PROMPT_ROWS, WIDTH, Shelf, work, write_labels, write_log

from mint_stream.bank.checkpoint import FOLDER
from mint_stream.bank.client import BankClient
from mint_stream.bank.exchange import banks_digest
from mint_stream.bank.files import read_delta
from mint_stream.bank.log import RestoreError
from mint_stream.bank.server import BankConfig, BankServer
from mint_stream.store.errors import StorageError


class Watched(Shelf):
    """A store that says when a checkpoint is written, and can refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = threading.Event()
        self.refused = threading.Event()
        self.written = threading.Event()
        self.during_write = lambda: None

    def write(self, name: str, data: bytes) -> None:
        if self.refuses.is_set():
            self.refused.set()
            raise StorageError(f"cannot write {name}: the store is full")
        self.during_write()
        super().write(name, data)
        if name.endswith(".json"):
            self.written.set()


@pytest.fixture
def store() -> Watched:
    return Watched()


def config(store: Shelf, **settings: object) -> BankConfig:
    return BankConfig(
        store=store,
        entries=ENTRIES,
        prompt_rows=PROMPT_ROWS,
        width=WIDTH,
        seed=7,
        **settings,  # type: ignore[arg-type]
    )


def label(client: BankClient, unit: str, store: Shelf, *, labels: bool = True) -> str:
    """Everything that happens to a unit but for telling the server."""
    client.begin(unit)
    update = {"a": work(client.state("a"), unit)}
    receipt = client.merge(unit, update)
    write_log(store, receipt.log_name, update, unit, receipt.seq)
    if labels:
        write_labels(store, unit, receipt.log_name)
    return receipt.log_name


def test_the_clock_writes_checkpoints_and_finish_ends_it(store):
    server = BankServer(config(store, checkpoint_every_s=0.01))
    server.start_clock()
    client = BankClient(server)
    server.committed("u1", label(client, "u1", store))
    assert store.written.wait(20)
    server.committed("u2", label(client, "u2", store))
    status = server.finish()
    assert (status.durable_seq, status.checkpoint_seq, status.pending) == (2, 2, 0)


def test_a_server_that_was_started_again_checkpoints_before_anybody_calls(store):
    """What was committed before it died must not wait for the next unit, which may never come."""
    first = BankServer(config(store))
    label(BankClient(first), "u1", store)
    again = BankServer(config(store, checkpoint_every_s=0.01, settle_s=0.0), restarted=True)
    again.start_clock()
    assert store.written.wait(20)
    assert again.finish().checkpoint_seq == 1


def test_a_checkpoint_that_fails_is_said_and_labelling_goes_on(store, caplog):
    server = BankServer(config(store, checkpoint_every_s=0.01))
    store.refuses.set()
    with caplog.at_level(logging.ERROR):
        server.start_clock()
        client = BankClient(server)
        server.committed("u1", label(client, "u1", store))
        assert store.refused.wait(20)
        # When it is tried again the first failure has been said.
        store.refused.clear()
        assert store.refused.wait(20)
        server.committed("u2", label(client, "u2", store))
    assert "the store is full" in (server.status().checkpoint_error or "")
    assert "will be tried again" in caplog.text
    with pytest.raises(StorageError, match="the store is full"):
        server.finish()
    store.refuses.clear()
    status = server.finish()
    assert (status.checkpoint_seq, status.checkpoint_error) == (2, None)


def test_a_checkpoint_without_news_writes_nothing(store):
    server = BankServer(config(store))
    assert server.checkpoint() == 0
    server.committed("u1", label(BankClient(server), "u1", store))
    assert server.checkpoint() == 1
    store.written.clear()
    assert server.checkpoint() == 1
    assert BankServer(config(store)).checkpoint() == 1
    assert not store.written.is_set()


def test_merges_go_on_while_a_checkpoint_is_written(store):
    server = BankServer(config(store))
    client = BankClient(server)
    server.committed("u1", label(client, "u1", store))
    seen: list[int] = []
    store.during_write = lambda: seen.append(client.merge("u2", {}).seq)
    assert server.checkpoint() == 1
    assert seen == [1, 1]


def test_a_restore_while_a_checkpoint_is_written_starts_from_that_checkpoint(store):
    """A commit from before a restart arrives late, right then: order changes, once and for all."""
    first = BankServer(config(store))
    client = BankClient(first)
    early = label(client, "u1", store, labels=False)
    late = label(client, "u2", store)
    server = BankServer(config(store))
    server.committed("u2", late)

    def arrive() -> None:
        store.during_write = lambda: None
        write_labels(store, "u1", early)
        server.committed("u1", early)

    store.during_write = arrive
    server.checkpoint()
    status = server.finish()
    assert (status.durable_seq, status.waiting) == (2, 0)
    durable = server._opened().durable
    again = BankServer(config(store))
    again.status()
    assert banks_digest(again._opened().durable) == banks_digest(durable)
    assert int(durable.state("a").usage_K.sum()) == _usage(store)


def test_who_finds_other_labels_there_lets_the_server_look(store):
    server = BankServer(config(store))
    one, other = BankClient(server), BankClient(server)
    other.begin("u0")
    other.merge("u0", {"a": work(other.state("a"), "u0")})
    winner = label(one, "u1", store)
    other.begin("u1")
    assert other.merge("u1", {"a": work(other.state("a"), "x")}).outcome == "kept"
    server.committed("u1", None)
    assert server.status().waiting == 1
    assert winner in store.objects
    server.committed("unknown", None)


def test_finish_looks_up_commits_that_nobody_told_of(store):
    server = BankServer(config(store))
    client = BankClient(server)
    label(client, "u1", store)
    label(client, "u2", store, labels=False)
    status = server.finish()
    assert (status.durable_seq, status.pending) == (1, 0)


def test_a_rejoining_labeler_does_not_bring_back_what_is_committed_and_long_gone(store):
    """Its log object was removed: only the labels say that the update is in the checkpoint."""
    server = BankServer(config(store))
    client, slow = BankClient(server), BankClient(server)
    name = label(slow, "slow", store)
    server.committed("slow", name)
    for n in range(5):
        server.committed(f"u{n}", label(client, f"u{n}", store))
        server.checkpoint()
    assert name not in store.objects
    restarted = BankServer(config(store), restarted=True)
    slow.bank = restarted
    slow.merge("slow2", {})
    assert restarted.status().pending == 0
    assert int(restarted._opened().live.state("a").usage_K.sum()) == int(
        server._opened().live.state("a").usage_K.sum()
    )


def test_a_bank_of_another_run_is_refused_by_every_call(store):
    server = BankServer(config(store, identity={"model": "abc"}))
    server.committed("u1", label(BankClient(server), "u1", store))
    server.checkpoint()
    other = BankServer(config(store, identity={"model": "xyz"}))
    for _ in range(2):
        with pytest.raises(RestoreError, match="model: 'abc' there, 'xyz' now"):
            other.status()


def test_what_a_restore_found_damaged_is_in_the_status(store):
    server = BankServer(config(store))
    server.committed("u1", label(BankClient(server), "u1", store))
    server.checkpoint()
    name = next(name for name in store.objects if name.startswith(FOLDER))
    store.objects[name] = b"damaged"
    status = BankServer(config(store)).status()
    assert status.seq == 1
    assert "damaged" in status.notes[0]


def test_a_store_that_cannot_be_read_is_tried_again_on_the_next_call(store):
    server = BankServer(config(store))
    read, store.list = store.list, _refuse
    with pytest.raises(StorageError, match="no answer"):
        server.status()
    store.list = read
    assert server.status().seq == 0


def test_a_config_is_small_and_changeable():
    assert replace(config(Shelf()), settle_s=1.0).checkpoint_every_s == 60.0


def _refuse(prefix: str = "") -> list:
    raise StorageError("no answer")


def _usage(store: Shelf) -> int:
    logs = [read_delta(data) for name, data in store.objects.items() if name.startswith("bank/log")]
    return sum(int(change["a"].usage_E.sum()) for change in logs)
