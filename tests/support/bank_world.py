"""Labelers, a bank server and a commit stage in one process, every one of which may die anywhere.

The bank server, the clients and the checkpoints are the real ones; only the processes are played.
`World.actions` lists what may happen next, so that a test can draw any interleaving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bank_work import ENTRIES, PROMPT_ROWS, START, WIDTH, Shelf, work, write_labels, write_log

from mint_stream.bank import checkpoint
from mint_stream.bank.client import BankClient, MergeReceipt
from mint_stream.bank.exchange import banks_digest, differing_entries
from mint_stream.bank.files import LogName
from mint_stream.bank.server import BankConfig, BankServer
from mint_stream.method.bank_state import Banks, BankState, Update, replay

Action = Callable[[], None]


class Door:
    """The way to the bank server: it outlives the server, and may lose an answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lose_answer: str | None = None
        """"server": the server dies before it answers; "network": only the answer is lost."""

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            lost, self.lose_answer = self.lose_answer, None
            if lost:
                getattr(self.world.server, method)(*arguments)
            if lost == "server":
                self.world.kill_server()
            return getattr(self.world.server, method)(*arguments)

        return call


@dataclass(eq=False)
class Output:
    """What a labeler handed to the commit stage."""

    unit: str
    receipt: MergeReceipt
    update: Update
    content: str
    server: int
    """Which of the servers was there when it was merged."""
    labels_down: bool = False


@dataclass(eq=False)
class Labeler:
    """One labeler; `unit` is what it is working on."""

    client: BankClient
    unit: str | None = None
    update: Update = field(default_factory=dict)
    content: str = ""
    begun: bool = False


class World:
    """A run over `units`.

    in_order: one labeler whose units are committed in the order of their merges. decay: of each
    unit; a strong one makes the banks rescale on the way.
    """

    def __init__(
        self, units: list[str], labelers: int, *, in_order: bool = False, decay: float = 0.998
    ) -> None:
        self.store = Shelf()
        self.config = BankConfig(
            store=self.store,
            entries=ENTRIES,
            prompt_rows=PROMPT_ROWS,
            width=WIDTH,
            seed=7,
            settle_s=1e9,
            in_order=in_order,
        )
        self.in_order, self.decay = in_order, decay
        self.servers = 0
        self.door = Door(self)
        self.server = BankServer(self.config)
        self.todo = list(units)
        self.handed_out: list[str] = []
        self.labelers = [Labeler(BankClient(self.door)) for _ in range(labelers)]
        self.outputs: list[Output] = []
        self.logs: dict[str, Update] = {}
        self.committed: dict[str, str] = {}
        """Unit to its log object."""
        self.labels: dict[str, str] = {}
        """Unit to what stands in its labels: the seq and the bank that they were made with."""

    def begin(self, labeler: Labeler, unit: str) -> None:
        """Label `unit`, up to its merge."""
        seq = labeler.client.begin(unit)
        scopes = ("a", "b") if int(unit[-3:]) % 3 == 0 else ("a",)
        states = {scope: labeler.client.state(scope) for scope in scopes}
        # Every fifth unit has no frame that could be adapted to.
        empty = int(unit[-3:]) % 5 == 4
        labeler.unit, labeler.begun = unit, True
        labeler.update = {
            scope: work(state, unit, self.decay) for scope, state in states.items() if not empty
        }
        # Without such a frame there is no row that could say which bank it was labelled with.
        labeler.content = "" if empty else f"{seq} {banks_digest(Banks(START, states))}"

    def merge(self, labeler: Labeler) -> None:
        assert labeler.unit is not None
        receipt = labeler.client.merge(labeler.unit, labeler.update)
        self.check_replicas(labeler)
        output = Output(labeler.unit, receipt, dict(labeler.update), labeler.content, self.servers)
        self.outputs.append(output)
        labeler.unit = None

    def commit(self, output: Output, until: str = "told") -> None:
        """The commit stage on one output, cut off after `until`."""
        name = output.receipt.log_name
        write_log(self.store, name, output.update, output.unit, output.receipt.seq)
        if name:
            self.logs[name] = output.update
        if until == "log":
            return
        won = write_labels(self.store, output.unit, name, output.content)
        if won:
            self.committed[output.unit] = name
            self.labels[output.unit] = output.content
        output.labels_down = True
        if until == "labels":
            return
        self.door.committed(output.unit, name if won else None)
        self.outputs.remove(output)

    def kill_labeler(self, labeler: Labeler, *, lose: Output | None = None) -> None:
        """With it may go an output that was not handed over yet."""
        if labeler.unit is not None:
            self.hand_back(labeler.unit)
        if lose is not None:
            self.lose(lose)
        labeler.client, labeler.unit, labeler.begun = BankClient(self.door), None, False

    def lose(self, output: Output) -> None:
        """The output is gone before its commit was through: the unit is labelled again."""
        self.outputs.remove(output)
        self.hand_back(output.unit)

    def hand_back(self, unit: str) -> None:
        """Have `unit` labelled again, unless another attempt at it is on its way."""
        under_way = {output.unit for output in self.outputs}
        if unit not in {*self.committed, *self.todo, *under_way}:
            self.todo.insert(0, unit)
            self.todo.sort()

    def kill_server(self) -> None:
        self.servers += 1
        self.server = BankServer(self.config, restarted=True)

    def kill_everything(self) -> None:
        """The driver dies, and another run continues from the store."""
        outputs, self.outputs = self.outputs, []
        for output in outputs:
            self.hand_back(output.unit)
        for labeler in self.labelers:
            self.kill_labeler(labeler)
        self.servers += 1
        self.server = BankServer(self.config)

    def settle(self) -> None:
        with self.server._lock:
            self.server._opened().settle()

    def actions(self, *, reckless: bool = False) -> list[Action]:
        """What may happen next. `reckless`: commits may come later than a settled order allows."""
        old = [o for o in self.outputs if o.server < self.servers]
        found: list[Action] = [
            self.kill_server,
            self.kill_everything,
            lambda: setattr(self.door, "lose_answer", "server"),
            lambda: setattr(self.door, "lose_answer", "network"),
            lambda: self.server.checkpoint() and None,
            self.check_store,
        ]
        if reckless or not old:
            found.append(self.settle)
        for labeler in self.labelers:
            found.append(partial(self.kill_labeler, labeler))
            if labeler.unit is not None:
                found += [partial(self.merge, labeler)] * 4
                continue
            if self.todo and (labeler.begun or not self.in_order or not self.orphaned()):
                found += [partial(self.start, labeler, self.todo[0])] * 4
            if self.handed_out and (labeler.begun or reckless):
                # A read task that is run again hands its units out again.
                found.append(partial(self.begin, labeler, self.handed_out[-1]))
        for output in self.outputs[: 1 if self.in_order else None]:
            found += [partial(self.commit, output)] * 4
            found += [partial(self.commit, output, "log"), partial(self.commit, output, "labels")]
        if self.outputs and not self.outputs[-1].labels_down:
            last = self.outputs[-1]
            found.append(partial(self.kill_labeler, self.labelers[0], lose=last))
            if not self.in_order:
                found.append(partial(self.lose, last))
        return found

    def orphaned(self) -> list[Output]:
        """Outputs that neither a labeler nor the server knows: both died since they were merged.

        They come back with their commits, which are through before a new labeler has started.
        """
        ledger = self.server._opened()
        dying = self.door.lose_answer == "server"
        known = set() if dying else {*ledger._of_unit, *ledger._done}
        return [o for o in self.outputs if o.receipt.log_name and o.unit not in known]

    def start(self, labeler: Labeler, unit: str) -> None:
        self.todo.remove(unit)
        self.handed_out.append(unit)
        self.begin(labeler, unit)

    def run_to_the_end(self) -> None:
        """No more accidents: everything is labelled and committed."""
        self.door.lose_answer = None
        while self.todo or self.outputs or any(labeler.unit for labeler in self.labelers):
            for labeler in self.labelers:
                if labeler.unit is not None:
                    self.merge(labeler)
            while self.outputs:
                self.commit(self.outputs[0])
            for labeler in self.labelers:
                if self.todo:
                    self.start(labeler, self.todo[0])
        self.server.finish()

    def check_replicas(self, labeler: Labeler) -> None:
        """After its merge a labeler has the bits of the server's live banks."""
        live = self.server._opened().live
        for scope, replica in labeler.client._replicas.items():
            assert_same(replica, live.state(scope))
        assert labeler.client.seq == live.seq

    def check_store(self) -> None:
        """A crash at this moment would bring back what the server knows as committed."""
        if any(output.labels_down for output in self.outputs):
            return
        ledger = self.server._opened()
        told = [(m.name.seq, ledger._update(m)) for m in ledger._merges if m.committed]
        found = checkpoint.restore(self.store, START, {})
        assert banks_digest(found.banks()) == banks_digest(replay(ledger.durable, told))

    def durable(self) -> Banks:
        return self.server._opened().durable

    def replayed(self) -> Banks:
        """The log objects that labels refer to, in order, from an empty bank."""
        names = sorted(LogName.parse(name) for name in self.committed.values() if name)
        return replay(Banks(START), ((name.seq, self.logs[str(name)]) for name in names))

    def check_usage(self) -> None:
        """No update lost, none applied twice."""
        for scope in ("a", "b"):
            changes = [self.logs[n].get(scope) for n in self.committed.values() if n]
            expected = sum(int(change.usage_E.sum()) for change in changes if change is not None)
            assert int(self.durable().state(scope).usage_K.sum()) == expected

    def check_every_checkpoint(self) -> None:
        """Each checkpoint that is kept leads to the same bank, with what is in the log."""
        expected = banks_digest(self.durable())
        for newest in checkpoint.find(self.store).sound:
            assert banks_digest(checkpoint.restore(self.store, START, {}).banks()) == expected
            self.store.write(f"{newest.name}.parquet", b"damaged")


def assert_same(a: BankState, b: BankState) -> None:
    assert differing_entries(a, b).tolist() == []
    assert (a.decay, a.rescales) == (b.decay, b.rescales)
