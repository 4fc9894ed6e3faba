"""The bank under any interleaving of labelers, commits and crashes (played, see `bank_world`)."""

from __future__ import annotations

import functools
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from bank_work import ENTRIES, PROMPT_ROWS, START, WIDTH, Shelf, work
from bank_world import World, assert_same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mint_stream.bank.client import BankClient, LocalBank
from mint_stream.bank.exchange import Fetched, HeldMerge, MergeAnswer, Restarted, banks_digest
from mint_stream.bank.files import LogName
from mint_stream.bank.ledger import BankError, BankLedger
from mint_stream.bank.server import BankConfig, BankServer
from mint_stream.method.bank_state import Banks, BankUpdateError, Update, merge, replay

FATE = st.lists(st.integers(0, 2**16), max_size=80)
DECAY = st.sampled_from([0.998, 0.02])
PLAYED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def play(world: World, fate: list[int], *, reckless: bool = False) -> World:
    for number in fate:
        actions = world.actions(reckless=reckless)
        actions[number % len(actions)]()
    world.run_to_the_end()
    return world


def a_world(labelers: int, decay: float, *, in_order: bool = False) -> World:
    return World([f"u{n:03d}" for n in range(12)], labelers, in_order=in_order, decay=decay)


@functools.cache
def undisturbed(decay: float) -> World:
    return play(a_world(1, decay, in_order=True), [])


@PLAYED
@given(FATE, DECAY)
def test_one_labeler_with_crashes_is_one_without(fate, decay):
    world = play(a_world(1, decay, in_order=True), fate)
    assert world.labels == undisturbed(decay).labels
    assert world.committed == undisturbed(decay).committed
    assert banks_digest(world.durable()) == banks_digest(undisturbed(decay).durable())


@PLAYED
@given(FATE, st.integers(2, 4), DECAY)
def test_the_bank_is_the_replay_of_the_committed_log(fate, labelers, decay):
    world = play(a_world(labelers, decay), fate)
    assert banks_digest(world.durable()) == banks_digest(world.replayed())
    world.check_usage()
    world.check_every_checkpoint()


@PLAYED
@given(FATE, st.integers(2, 4), DECAY)
def test_commits_that_come_later_than_promised_cost_order_and_nothing_else(fate, labelers, decay):
    world = play(a_world(labelers, decay), fate, reckless=True)
    world.check_usage()
    world.check_store()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_plays(seed):
    random = Random(seed)
    for _ in range(1000):
        fate = [random.randrange(2**16) for _ in range(random.randrange(120))]
        decay, labelers = random.choice([0.998, 0.02]), random.randint(2, 5)
        alone = play(a_world(1, decay, in_order=True), fate)
        assert alone.labels == undisturbed(decay).labels
        assert banks_digest(alone.durable()) == banks_digest(undisturbed(decay).durable())
        several = play(a_world(labelers, decay), fate)
        assert banks_digest(several.durable()) == banks_digest(several.replayed())
        several.check_every_checkpoint()
        play(a_world(labelers, decay), fate, reckless=True).check_usage()


def test_one_labeler_is_bit_identical_to_no_server_at_all():
    """Against merging by hand: no ledger, no client."""
    client = BankClient(LocalBank(START))
    state = START
    for seq in range(1, 30):
        unit = f"u{seq}"
        assert client.begin(unit) == seq - 1
        assert_same(client.state("shared"), state)
        change = work(state, unit, 0.4)
        assert client.merge(unit, {"shared": change}).seq == seq
        state = merge(state, change, seq)
    assert_same(client.state("shared"), state)
    assert state.rescales > 0


class Bench:
    """A ledger with its log objects in a dict, spoken to without a client."""

    def __init__(self, **settings: object) -> None:
        self.logs: dict[str, Update] = {}
        self.reads = 0
        self.ledger = BankLedger(Banks(START), self.read, **settings)  # type: ignore[arg-type]

    def read(self, name: str) -> Update | None:
        self.reads += 1
        return self.logs.get(name)

    def merge(self, unit: str, *, commit: bool = False, like: str | None = None) -> MergeAnswer:
        update = {"a": work(START, like or unit)}
        answer = self.ledger.merge(self.ledger.incarnation, unit, update, {"a": 0})
        assert isinstance(answer, MergeAnswer)
        self.logs[answer.name] = update
        if commit:
            assert self.ledger.committed(unit, answer.name)
        return answer

    def replayed(self, *units: str) -> Banks:
        names = sorted(n for n in map(LogName.parse, self.logs) if n.unit in units)
        return replay(Banks(START), ((n.seq, self.logs[str(n)]) for n in names))


def test_twice_is_once():
    bench = Bench()
    first, again = bench.merge("u1"), bench.merge("u1")
    assert (first.outcome, again.outcome) == ("merged", "repeated")
    assert first.name == again.name
    assert banks_digest(bench.ledger.live) == banks_digest(bench.replayed("u1"))
    # The labeler that asks again has not added its own delta: it gets those rows whole.
    assert len(first.patches["a"].entries_E) == 0
    assert again.patches["a"].entries_E.tolist() == bench.logs[first.name]["a"].entries_E.tolist()
    bench.ledger.committed("u1", first.name)
    bench.ledger.committed("u1", first.name)
    assert bench.merge("u1").outcome == "committed"
    assert banks_digest(bench.ledger.durable) == banks_digest(bench.ledger.live)


def test_the_commit_says_which_attempt_counts():
    bench = Bench()
    first, second = bench.merge("u1"), bench.merge("u1", like="other")
    bench.merge("u2", commit=True)
    assert (second.outcome, LogName.parse(second.name).seq) == ("kept", 1)
    bench.ledger.committed("u1", second.name)
    expected = replay(Banks(START), [(1, bench.logs[second.name]), (2, {"a": work(START, "u2")})])
    assert banks_digest(bench.ledger.durable) == banks_digest(expected)
    assert first.name in bench.ledger.snapshot()[1]


def test_only_a_prefix_of_committed_merges_is_durable():
    bench = Bench()
    names = [bench.merge(f"u{n}").name for n in range(1, 5)]
    for n in (2, 3):
        bench.ledger.committed(f"u{n}", names[n - 1])
    assert bench.ledger.durable.seq == 0
    assert (len(bench.ledger.pending), bench.ledger.waiting) == (2, 2)
    bench.ledger.committed("u1", names[0])
    assert bench.ledger.durable.seq == 3
    assert banks_digest(bench.ledger.durable) == banks_digest(bench.replayed("u1", "u2", "u3"))
    bench.ledger.drop_pending()
    assert banks_digest(bench.ledger.live) == banks_digest(bench.ledger.durable)


def test_a_pull_takes_the_last_attempt_back_bit_for_bit():
    bench = Bench()
    bench.merge("u1", commit=True)
    before = banks_digest(bench.ledger.live)
    first = bench.merge("u2")
    assert bench.ledger.pull("u2").seq == 1
    assert banks_digest(bench.ledger.live) == before
    assert bench.merge("u2").name == first.name


def test_in_order_a_pull_takes_back_what_came_after_as_well():
    """Two units died with their labeler: the first is to be labelled without the second."""
    bench = Bench(in_order=True)
    names = [bench.merge(f"u{n}").name for n in (1, 2, 3)]
    assert bench.ledger.pull("u2").seq == 1
    assert [name.unit for name in bench.ledger.pending] == ["u1"]
    # The third was committed after all: it comes back with its commit, in its place.
    bench.merge("u2")
    bench.ledger.committed("u3", names[2])
    for n in (1, 2):
        bench.ledger.committed(f"u{n}", names[n - 1])
    expected = bench.replayed("u1", "u2", "u3")
    assert banks_digest(bench.ledger.durable) == banks_digest(expected)


def test_a_labeler_that_starts_takes_over_what_is_under_way():
    bench = Bench()
    name = bench.merge("u1").name
    assert [merge.name for merge in bench.ledger.pull("u2").held] == [name]
    assert bench.ledger.pull("u1").held == ()


def test_of_two_attempts_the_first_counts_after_a_restart_as_before():
    """A labeler was handed a unit twice: the sequence of its digests says nothing."""
    for second in ("x", "y", "z"):
        old = Bench(in_order=True)
        names = [old.merge("u1").name, old.merge("u1", like=second).name]
        new = Bench(in_order=True, settled=False)
        new.ledger.rejoin([HeldMerge(name, old.logs[name]) for name in names])
        assert banks_digest(new.ledger.live) == banks_digest(old.ledger.live)
        assert [str(name) for name in new.ledger.pending] == names[:1]


@pytest.mark.parametrize("restart", [False, True])
def test_a_labeler_that_is_handed_what_it_took_over_takes_it_back(restart):
    """Two units died with their labeler, and the first of them had changed nothing."""
    server = BankServer(bank_config(in_order=True))
    first = BankClient(server)
    first.begin("u0")
    first.merge("u0", {"a": work(first.state("a"), "u0")})
    before = first.state("a")
    for unit, update in (("u1", {}), ("u2", {"a": work(before, "u2")})):
        first.begin(unit)
        receipt = first.merge(unit, update)
    second = BankClient(server)
    second.begin("u1")
    second.merge("u1", {})
    if restart:
        second.bank = BankServer(bank_config(in_order=True), restarted=True)
    assert second.begin("u2") == 1
    assert_same(second.state("a"), before)
    again = second.merge("u2", {"a": work(before, "u2")})
    assert (again.outcome, again.log_name) == ("merged", receipt.log_name)


def bank_config(**settings: object) -> BankConfig:
    shape = {"entries": ENTRIES, "prompt_rows": PROMPT_ROWS, "width": WIDTH, "seed": 7}
    return BankConfig(store=Shelf(), **shape, **settings)  # type: ignore[arg-type]


def test_a_refused_update_leaves_the_ledger_as_it_was():
    bench = Bench()
    bench.merge("u1")
    before = banks_digest(bench.ledger.live)
    change = work(START, "u2")
    bad = replace(change, keys_ED=change.keys_ED * np.float32(np.nan))
    with pytest.raises(BankUpdateError, match="not a number"):
        bench.ledger.merge(bench.ledger.incarnation, "u2", {"a": change, "b": bad}, {})
    assert banks_digest(bench.ledger.live) == before
    assert [name.unit for name in bench.ledger.pending] == ["u1"]
    assert bench.merge("u2").outcome == "merged"


def test_a_refused_update_leaves_the_client_as_it_was():
    client = BankClient(LocalBank(START))
    client.begin("u1")
    change = work(client.state("a"), "u1")
    bad = replace(change, prompts_EPD=change.prompts_EPD * np.float32(np.inf))
    with pytest.raises(BankUpdateError):
        client.merge("u1", {"a": bad})
    assert client.merge("u1", {}).outcome == "empty"
    assert_same(client.state("a"), START)


def test_an_empty_update_takes_no_seq_and_brings_what_others_changed():
    bench = Bench()
    bench.merge("u1")
    change = work(START, "u2")
    nothing = replace(
        change,
        entries_E=change.entries_E[:0],
        keys_ED=change.keys_ED[:0],
        prompts_EPD=change.prompts_EPD[:0],
        usage_E=change.usage_E[:0],
        decay=1.0,
    )
    for update in ({}, {"a": nothing}):
        answer = bench.ledger.merge(bench.ledger.incarnation, "u2", update, {"a": 0})
        assert isinstance(answer, MergeAnswer)
        assert (answer.outcome, answer.name, answer.seq) == ("empty", "", 1)
        assert len(answer.patches["a"].entries_E) == 3


def test_a_labeler_that_speaks_to_a_ledger_that_is_gone_is_told_so():
    bench = Bench()
    assert isinstance(bench.ledger.fetch("other", "a"), Restarted)
    assert isinstance(bench.ledger.merge("other", "u1", {}, {}), Restarted)
    assert isinstance(bench.ledger.fetch(bench.ledger.incarnation, "a"), Fetched)


def test_a_rejoining_labeler_brings_only_what_is_not_known():
    old = Bench()
    names = [old.merge(f"u{n}").name for n in (1, 2, 3)]
    new = Bench(settled=False)
    new.logs = old.logs
    new.ledger.committed("u1", names[0])
    held = [HeldMerge(name, old.logs[name]) for name in names]
    assert new.ledger.rejoin(held).seq == 3
    assert new.ledger.rejoin(held).seq == 3
    assert [name.unit for name in new.ledger.pending] == ["u2", "u3"]
    assert banks_digest(new.ledger.live) == banks_digest(old.ledger.live)


def test_nothing_is_folded_before_the_ledger_has_settled():
    """So that a commit from before the restart still finds its place."""
    old = Bench()
    first, second = old.merge("u1").name, old.merge("u2").name
    new = Bench(settled=False)
    new.logs = old.logs
    assert new.ledger.committed("u2", second)
    assert new.ledger.durable.seq == 0
    assert new.ledger.committed("u1", first)
    new.ledger.settle()
    assert banks_digest(new.ledger.durable) == banks_digest(old.replayed("u1", "u2"))


def test_a_commit_that_comes_after_settling_asks_for_a_restore():
    old = Bench()
    first, second = old.merge("u1").name, old.merge("u2").name
    new = Bench(settled=True)
    new.logs = old.logs
    assert new.ledger.committed("u2", second)
    before = banks_digest(new.ledger.live)
    assert not new.ledger.committed("u1", first)
    assert banks_digest(new.ledger.live) == before


def test_a_commit_whose_log_object_is_missing_is_an_error():
    bench = Bench()
    name = str(LogName.of(1, "u1", {"a": work(START, "u1")}))
    with pytest.raises(BankError, match=r"u1 are committed, but bank/log/0+1-u1-.* is not on"):
        bench.ledger.committed("u1", name)
    assert banks_digest(bench.ledger.live) == banks_digest(Banks(START))


def test_committed_updates_beyond_the_memory_limit_are_read_again():
    """One unit that is never committed must not make the ledger grow without bound."""
    bench = Bench(hold_bytes=1)
    bench.merge("u0")
    for n in range(1, 6):
        bench.merge(f"u{n}", commit=True)
    assert (bench.reads, bench.ledger.durable.seq) == (0, 0)
    bench.ledger.pull("u0")
    assert bench.reads > 0
    assert banks_digest(bench.ledger.durable) == banks_digest(
        bench.replayed("u1", "u2", "u3", "u4", "u5")
    )


def test_the_ledger_keeps_its_own_copy_of_what_it_is_given():
    ledger = BankLedger(Banks(START), lambda name: None)
    update = {"a": work(START, "u1")}
    ledger.merge(ledger.incarnation, "u1", update, {})
    ledger.merge(ledger.incarnation, "u2", {"a": work(START, "u2")}, {})
    before = banks_digest(ledger.live)
    update["a"].keys_ED[:] = 0
    ledger.pull("u2")
    ledger.merge(ledger.incarnation, "u2", {"a": work(START, "u2")}, {})
    assert banks_digest(ledger.live) == before


def test_a_unit_keeps_the_state_that_it_started_from():
    """`delta` must be measured against what the unit adapted, whatever happens meanwhile."""
    bank = LocalBank(START)
    client, other = BankClient(bank), BankClient(bank)
    client.begin("u1")
    before = client.state("a")
    other.begin("u2")
    other.merge("u2", {"a": work(other.state("a"), "u2")})
    client.state("b")
    assert client.state("a") is before
    client.merge("u1", {"a": work(before, "u1")})
    assert_same(client.state("a"), bank.live.state("a"))


def test_the_client_says_that_begin_comes_first():
    with pytest.raises(BankError, match="begin"):
        BankClient(LocalBank(START)).state("a")
