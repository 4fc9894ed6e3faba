"""The bank in every state that a small world can reach, not only in those that chance finds."""

from __future__ import annotations

import functools

import bank_work
import pytest
from bank_states import cloned, explore
from bank_work import START
from bank_world import World

from mint_stream.bank import checkpoint
from mint_stream.bank import log as bank_log
from mint_stream.bank.exchange import banks_digest
from mint_stream.bank.files import read_bank, read_delta

ONE_AND_TWO_BANKS = ["u002", "u003"]
"""What the units change, see `World.begin`."""
NOTHING_AND_ONE_BANK = ["u004", "u005"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few objects are written and read thousands of times: one at a time, and once."""
    read_start = functools.cache(lambda data: read_bank(data, START))
    monkeypatch.setattr(bank_log, "read_delta", functools.cache(read_delta))
    monkeypatch.setattr(checkpoint, "read_bank", lambda data, initial: read_start(data))
    monkeypatch.setattr(bank_work, "labels_file", functools.cache(bank_work.labels_file))
    for module in (bank_log, checkpoint):
        monkeypatch.setattr(module, "each", lambda call, items: [call(item) for item in items])


def check_one_labeler(world: World, undisturbed: World) -> None:
    """Whatever happened so far: from here on undisturbed, it ends as a run without accidents."""
    world.check_store()
    world.run_to_the_end()
    assert world.labels == undisturbed.labels
    assert world.committed == undisturbed.committed
    assert banks_digest(world.durable()) == banks_digest(undisturbed.durable())
    world.check_every_checkpoint()


def check_several(world: World) -> None:
    """The same for several labelers: each update once, and the bank is the replay of the log."""
    world.check_store()
    world.run_to_the_end()
    assert banks_digest(world.durable()) == banks_digest(world.replayed())
    world.check_usage()
    world.check_every_checkpoint()


STATES = [1_500, pytest.param(30_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("states", STATES)
@pytest.mark.parametrize("units", [ONE_AND_TWO_BANKS, NOTHING_AND_ONE_BANK])
def test_one_labeler_is_exact_from_every_state(units: list[str], states: int) -> None:
    start = World(units, 1, in_order=True, decay=0.02)
    undisturbed = cloned(start)
    undisturbed.run_to_the_end()
    check = functools.partial(check_one_labeler, undisturbed=undisturbed)
    assert explore(start, check, states=states) > 1_000


@pytest.mark.parametrize("states", STATES)
def test_several_labelers_lose_nothing_from_any_state(states: int) -> None:
    start = World(ONE_AND_TWO_BANKS, 2, decay=0.02)
    assert explore(start, check_several, states=states) > 1_000
