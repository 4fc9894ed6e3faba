"""Every state that a small `World` can reach: copies of worlds, and what tells two apart."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from bank_work import ENTRIES, START, Shelf
from bank_world import Action, Door, Labeler, World

from mint_stream.bank import log as bank_log
from mint_stream.bank.client import BankClient
from mint_stream.bank.exchange import banks_digest, update_digest
from mint_stream.bank.ledger import BankLedger
from mint_stream.bank.server import BankServer
from mint_stream.method.bank_state import Banks, BankState


def explore(first: World, check: Callable[[World], None], *, states: int) -> int:
    """Breadth first through up to `states` states, `check` on a copy of each; gives how many.

    An `AssertionError` from an action or a check says by which actions it came to that.
    """
    seen = {fingerprint(first)}
    frontier: deque[tuple[World, tuple[int, ...]]] = deque([(first, ())])
    while frontier and len(seen) < states:
        world, path = frontier.popleft()
        actions = world.actions()
        for number, action in enumerate(actions):
            if number and _same(action, actions[number - 1]):
                continue
            after = cloned(world)
            try:
                after.actions()[number]()
                if (found := fingerprint(after)) in seen:
                    continue
                check(cloned(after))
            except AssertionError as error:
                raise AssertionError(f"after actions {(*path, number)}: {error}") from error
            seen.add(found)
            frontier.append((after, (*path, number)))
    return len(seen)


def cloned(world: World) -> World:
    """A world of its own in the same state. Arrays are shared: nobody writes to them."""
    twin = copy.copy(world)
    twin.store = Shelf()
    twin.store.objects = dict(world.store.objects)
    twin.config = replace(world.config, store=twin.store)
    twin.door = Door(twin)
    twin.door.lose_answer = world.door.lose_answer
    twin.server = _server(world.server, twin)
    twin.labelers = [_labeler(labeler, twin) for labeler in world.labelers]
    twin.outputs = [copy.copy(output) for output in world.outputs]
    for name in ("todo", "handed_out", "logs", "committed", "labels"):
        setattr(twin, name, copy.copy(getattr(world, name)))
    return twin


def fingerprint(world: World) -> Hashable:
    """Equal for two worlds from which the same can happen."""
    server, ledger = world.server, world.server._ledger
    outputs = [
        (o.unit, o.receipt.log_name, o.content, o.server < world.servers, o.labels_down)
        for o in world.outputs
    ]
    return (
        None if ledger is None else _of_ledger(ledger, server),
        server._restarted,
        tuple(_of_labeler(labeler, ledger) for labeler in world.labelers),
        tuple(outputs),
        tuple(sorted((name, hash(data)) for name, data in world.store.objects.items())),
        tuple(world.todo),
        tuple(world.handed_out[-1:]),
        tuple(sorted(world.labels.items())),
        world.door.lose_answer,
    )


def _same(action: Action, other: Action) -> bool:
    """Likely actions stand in the list several times."""
    if not (isinstance(action, partial) and isinstance(other, partial)):
        return False
    return (action.func, action.args, action.keywords) == (other.func, other.args, other.keywords)


def _server(server: BankServer, twin: World) -> BankServer:
    other = copy.copy(server)
    other._config, other._store = twin.config, twin.store
    other._lock, other._checkpointing = threading.Lock(), threading.Lock()
    other._stop = threading.Event()
    if server._ledger is not None:
        other._ledger = _ledger(server._ledger, twin.store)
    return other


def _ledger(ledger: BankLedger, store: Shelf) -> BankLedger:
    other = copy.copy(ledger)
    other._read_log = lambda name: bank_log.read_log(store, name)
    other._covered, other._done = set(ledger._covered), set(ledger._done)
    other._orphans = {unit: set(names) for unit, names in ledger._orphans.items()}
    other._changed = {scope: versions.copy() for scope, versions in ledger._changed.items()}
    other._merges = [copy.copy(merge) for merge in ledger._merges]
    other._of_unit = {merge.name.unit: merge for merge in other._merges}
    return other


def _labeler(labeler: Labeler, twin: World) -> Labeler:
    client = copy.copy(labeler.client)
    client.bank = twin.door
    for name in ("_scopes", "_unit_states", "_replicas", "_versions", "_held", "_taken_over"):
        setattr(client, name, copy.copy(getattr(client, name)))
    return replace(labeler, client=client, update=dict(labeler.update))


def _of_ledger(ledger: BankLedger, server: BankServer) -> Hashable:
    merges = ((str(m.name), m.committed, m.update is None) for m in ledger._merges)
    orphans = ((unit, frozenset(names)) for unit, names in sorted(ledger._orphans.items()))
    return (
        banks_digest(ledger.durable),
        banks_digest(ledger.live),
        tuple(merges),
        tuple(orphans),
        frozenset(ledger._covered),
        frozenset(ledger._done),
        str(ledger._folded_to),
        ledger._settled,
        server._saved is ledger.durable,
    )


def _of_labeler(labeler: Labeler, ledger: BankLedger | None) -> Hashable:
    client: BankClient = labeler.client
    known = ledger is not None and client._incarnation == ledger.incarnation
    stale: list[Any] = []
    if ledger is not None and known:
        never = np.full(ENTRIES, -1)
        stale = [
            (scope, tuple(np.flatnonzero(ledger._changed.get(scope, never) > version).tolist()))
            for scope, version in sorted(client._versions.items())
        ]
    return (
        (labeler.unit, labeler.begun, labeler.content, update_digest(labeler.update)),
        (client._incarnation is None, known, client.seq, tuple(stale)),
        _of_states(client._replicas),
        _of_states(client._unit_states),
        tuple(client._held),
        frozenset(client._taken_over),
        tuple(sorted(client._scopes)),
    )


def _of_states(states: dict[str, BankState]) -> str:
    return banks_digest(Banks(START, states))
