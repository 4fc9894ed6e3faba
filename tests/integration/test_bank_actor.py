"""The bank server as a Ray actor, killed with SIGKILL between and during calls."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from bank_work import ENTRIES, PROMPT_ROWS, START, WIDTH, work, write_labels, write_log
from bank_world import assert_same

from mint_stream.bank import checkpoint
from mint_stream.bank.client import BankClient, LocalBank
from mint_stream.bank.exchange import Fetched, banks_digest
from mint_stream.bank.files import LogName, read_delta
from mint_stream.bank.ledger import BankError
from mint_stream.bank.server import BankConfig
from mint_stream.method.bank_state import Banks, BankState, BankUpdateError, replay
from mint_stream.pipeline.bank_actor import RemoteBank, start_bank_server
from mint_stream.store.store import Store

pytestmark = pytest.mark.usefixtures("cluster")

Start = Callable[..., RemoteBank]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """Start bank servers over `store`; they end with the test."""
    started: list[RemoteBank] = []

    def run(**settings: object) -> RemoteBank:
        config = BankConfig(
            store=store,
            entries=ENTRIES,
            prompt_rows=PROMPT_ROWS,
            width=WIDTH,
            seed=7,
            **settings,  # type: ignore[arg-type]
        )
        started.append(
            start_bank_server(config, namespace="tests", name=f"bank-{secrets.token_hex(4)}")
        )
        return started[-1]

    yield run
    for bank in started:
        bank.stop()


def kill(bank: RemoteBank) -> None:
    """Kill the server's process; returns when another one is there."""
    before = bank.status()
    process = psutil.Process(before.pid)
    process.kill()
    gone, _ = psutil.wait_procs([process], timeout=30)
    assert gone
    after = bank.status()
    assert after.pid != before.pid
    assert after.incarnation != before.incarnation


def label(client: BankClient, unit: str) -> tuple[str, dict]:
    client.begin(unit)
    update = {"a": work(client.state("a"), unit)}
    return client.merge(unit, update).log_name, update


def commit(bank: RemoteBank, store: Store, unit: str, name: str, update: dict) -> None:
    write_log(store, name, update, unit, LogName.parse(name).seq)
    assert write_labels(store, unit, name)
    bank.committed(unit, name)


def live(bank: RemoteBank) -> BankState:
    fetched = bank.fetch(bank.status().incarnation, "a")
    assert isinstance(fetched, Fetched)
    return fetched.state


def replayed(store: Store) -> Banks:
    """Every log object on the store, in order, on an empty bank."""
    names = sorted(LogName.parse(info.name) for info in store.list("bank/log/"))
    return replay(Banks(START), ((n.seq, read_delta(store.read(str(n)))) for n in names))


def test_two_labelers_get_the_servers_bits_and_each_others_rows(start, store):
    bank = start()
    one, other = BankClient(bank), BankClient(bank)
    both_have_begun = threading.Barrier(2, timeout=60)

    def run(client: BankClient, units: list[str]) -> None:
        for unit in units:
            client.begin(unit)
            before = client.state("a")
            both_have_begun.wait()
            update = {"a": work(before, unit)}
            commit(bank, store, unit, client.merge(unit, update).log_name, update)

    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(run, one, [f"a{n}" for n in range(6)]),
            pool.submit(run, other, [f"b{n}" for n in range(6)]),
        ]
        for running in runs:
            running.result(120)
    for client in (one, other):
        client.merge("nothing", {})
        assert_same(client.state("a"), live(bank))
    assert bank.finish().durable_seq == 12
    found = checkpoint.restore(store, START, {}).banks()
    assert banks_digest(found) == banks_digest(replayed(store))


def test_killed_between_merges_nothing_is_lost_and_nothing_comes_twice(start, store):
    bank = start()
    one, other = BankClient(bank), BankClient(bank)
    first, second = label(one, "u1"), label(other, "u2")
    commit(bank, store, "u1", *first)
    assert bank.status().durable_seq == 1
    kill(bank)
    # u2 is merged, not committed: the server knows it again when its labeler calls.
    assert (bank.status().seq, bank.status().pending) == (1, 0)
    fourth = label(other, "u4")
    assert (bank.status().seq, bank.status().pending) == (3, 2)
    third = label(one, "u3")
    kill(bank)
    for unit, done in (("u3", third), ("u4", fourth), ("u2", second)):
        commit(bank, store, unit, *done)
    # Until it has settled, a restarted server leaves room for commits from before.
    assert (bank.status().durable_seq, bank.status().waiting) == (0, 4)
    status = bank.finish()
    assert (status.durable_seq, status.pending, status.waiting) == (4, 0, 0)
    found = checkpoint.restore(store, START, {})
    assert (found.merges, found.checkpoint.seq) == ([], 4)
    assert banks_digest(found.checkpoint) == banks_digest(replayed(store))


def test_one_labeler_over_killed_servers_is_one_without_a_server(start, store):
    bank = start()
    client, alone = BankClient(bank), BankClient(LocalBank(START))
    held: list[tuple[str, tuple[str, dict]]] = []
    for n in range(8):
        unit = f"u{n}"
        held.append((unit, label(client, unit)))
        assert label(alone, unit)[0] == held[-1][1][0]
        assert_same(client.state("a"), alone.state("a"))
        if n == 1:
            kill(bank)
        if n % 3 == 2:
            while held:
                unit, done = held.pop(0)
                commit(bank, store, unit, *done)
        if n == 6:
            kill(bank)
    assert_same(live(bank), alone.state("a"))


def test_killed_during_a_call_the_call_is_repeated(start, store):
    """The kill falls between the request and the answer: the server is held in that call."""
    bank = start()
    client = BankClient(bank)
    commit(bank, store, "u1", *label(client, "u1"))
    pid = bank.status().pid
    update = {"a": work(client.state("a"), "u2")}
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        merging = pool.submit(client.merge, "u2", update)
        os.kill(pid, signal.SIGKILL)
        receipt = merging.result(120)
    assert bank.status().pid != pid
    assert (receipt.outcome, receipt.seq) == ("merged", 2)
    commit(bank, store, "u2", receipt.log_name, update)
    assert banks_digest(replayed(store)) == banks_digest(
        checkpoint.restore(store, START, {}).banks()
    )


def test_a_refused_update_reaches_the_labeler_as_it_is(start):
    bank = start()
    client = BankClient(bank)
    client.begin("u1")
    change = work(client.state("a"), "u1")
    bad = replace(change, keys_ED=change.keys_ED * np.float32(np.nan))
    with pytest.raises(BankUpdateError, match="not a number"):
        client.merge("u1", {"a": bad})
    assert (bank.status().seq, bank.status().pending) == (0, 0)


def test_a_bank_that_cannot_be_restored_is_said_at_the_start(start, store):
    bank = start(identity={"model": "abc"})
    commit(bank, store, "u1", *label(BankClient(bank), "u1"))
    bank.finish()
    with pytest.raises(checkpoint.RestoreError, match="model: 'abc' there, 'xyz' now"):
        start(identity={"model": "xyz"})


def test_a_server_that_is_gone_for_good_is_said(start):
    bank = start()
    bank.stop()
    with pytest.raises(BankError, match="the bank server cannot be reached"):
        bank.pull("u1")
