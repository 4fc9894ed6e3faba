"""How many labelers one bank server carries: simulated labelers against the real actor."""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from mint_stream.bank.exchange import MergeAnswer
from mint_stream.bank.server import BankConfig
from mint_stream.method.bank_state import Delta
from mint_stream.pipeline.bank_actor import RemoteBank, start_bank_server
from mint_stream.pipeline.cluster import start_ray
from mint_stream.store.store import Store

_DECAY = (1 - 5e-3 * 0.01) ** 16
"""The factor of a unit of 16 images at one step each."""


@dataclass(frozen=True, kw_only=True)
class BankLoad:
    """What the simulated labelers send."""

    labelers: int = 64
    unit_s: float = 1.0
    """Time that a labeler takes for a unit; the merges of all labelers are spread over it."""
    rows: int = 64
    """Entries that a unit changes."""
    merges: int = 640
    entries: int = 512
    prompt_rows: int = 2
    width: int = 768
    feeders: int = 4
    """Threads that play the labelers."""


@dataclass(frozen=True, kw_only=True)
class BankFigures:
    """What was measured."""

    merges_per_s: float
    """Reached; at most labelers / unit_s."""
    server_cpu_s: float
    """CPU time of the server's process for one merge and its commit."""
    sent_bytes: float
    """Keys and prompts of one delta."""
    answered_bytes: float
    """Keys and prompts of the rows in one answer."""
    call_median_s: float
    call_p99_s: float

    @property
    def saturates_at(self) -> float:
        """Merges a second that take one core whole."""
        return 1 / self.server_cpu_s


class _Simulated:
    """A labeler that only merges: it keeps no replica, and discards what it is answered."""

    def __init__(self, number: int, bank: RemoteBank, load: BankLoad) -> None:
        self.number, self.bank, self.load = number, bank, load
        self.random = np.random.default_rng(number)
        self.incarnation = bank.pull(f"{number}-start").incarnation
        fetched = bank.fetch(self.incarnation, "shared")
        self.version = getattr(fetched, "version", 0)
        self.delta = self._delta()
        self.merged = 0

    def merge(self) -> tuple[float, int]:
        """One unit: seconds that the call took, bytes of the rows in its answer."""
        self.merged += 1
        unit = f"{self.number}-{self.merged}"
        rows_E = self.random.choice(self.load.entries, self.load.rows, replace=False)
        update = {"shared": replace(self.delta, entries_E=np.sort(rows_E).astype(np.int32))}
        started = time.perf_counter()
        answer = self.bank.merge(self.incarnation, unit, update, {"shared": self.version}, ())
        ended = time.perf_counter()
        assert isinstance(answer, MergeAnswer)
        self.version = answer.version
        self.bank.committed(unit, answer.name)
        others = answer.patches["shared"]
        return ended - started, others.keys_ED.nbytes + others.prompts_EPD.nbytes

    def _delta(self) -> Delta:
        load, random = self.load, self.random
        shape = (load.rows, load.prompt_rows, load.width)
        return Delta(
            entries_E=np.arange(load.rows, dtype=np.int32),
            keys_ED=random.normal(0, 0.005, (load.rows, load.width)).astype(np.float32),
            prompts_EPD=random.normal(0, 0.005, shape).astype(np.float32),
            usage_E=np.ones(load.rows, np.int64),
            decay=_DECAY,
            scale=_DECAY,
        )


def simulate(load: BankLoad) -> BankFigures:
    """Run `load` against a bank server of its own, on this machine, and measure it."""
    start_ray()
    with tempfile.TemporaryDirectory() as folder:
        config = BankConfig(
            store=Store(folder),
            entries=load.entries,
            prompt_rows=load.prompt_rows,
            width=load.width,
            seed=0,
            checkpoint_every_s=3600.0,
        )
        name = f"benchmark-{secrets.token_hex(4)}"
        bank = start_bank_server(config, namespace="mint-benchmark", name=name)
        try:
            return _measure(bank, load)
        finally:
            bank.stop()


def _measure(bank: RemoteBank, load: BankLoad) -> BankFigures:
    labelers = [_Simulated(number, bank, load) for number in range(load.labelers)]
    process = psutil.Process(bank.status().pid)
    before = process.cpu_times()
    started = time.perf_counter()
    with ThreadPoolExecutor(load.feeders) as feeders:
        shares = [labelers[n :: load.feeders] for n in range(load.feeders)]
        done = [
            pair for part in feeders.map(lambda s: list(_feed(s, load)), shares) for pair in part
        ]
    elapsed_s = time.perf_counter() - started
    after = process.cpu_times()
    calls_s, answered = (list(column) for column in zip(*done, strict=True))
    row_bytes = 4 * load.width * (1 + load.prompt_rows)
    return BankFigures(
        merges_per_s=len(done) / elapsed_s,
        server_cpu_s=(after.user + after.system - before.user - before.system) / len(done),
        sent_bytes=load.rows * row_bytes,
        answered_bytes=statistics.fmean(answered),
        call_median_s=statistics.median(calls_s),
        call_p99_s=statistics.quantiles(calls_s, n=100)[-1],
    )


def _feed(labelers: list[_Simulated], load: BankLoad) -> Iterator[tuple[float, int]]:
    """Let `labelers` take turns at the rate of `load`, or as fast as the server lets them."""
    started = time.perf_counter()
    between_s = load.unit_s / len(labelers)
    for turn in count():
        if turn >= load.merges // load.feeders:
            return
        # Pacing is the point here, not synchronisation.
        time.sleep(max(0.0, started + turn * between_s - time.perf_counter()))
        yield labelers[turn % len(labelers)].merge()


def print_figures(load: BankLoad, console: Console) -> None:
    """Simulate `load` and print a table."""
    figures = simulate(load)
    wanted = load.labelers / load.unit_s
    table = Table(title=f"{load.labelers} labelers, a unit every {load.unit_s:g} s each")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in (
        ("merges a second, wanted", f"{wanted:.0f}"),
        ("merges a second, reached here", f"{figures.merges_per_s:.0f}"),
        ("server CPU for a merge", f"{figures.server_cpu_s * 1e3:.1f} ms"),
        ("share of one core at the wanted rate", f"{wanted * figures.server_cpu_s:.0%}"),
        ("one core is full at", f"{figures.saturates_at:.0f} merges/s"),
        ("delta", f"{figures.sent_bytes / 1e6:.2f} MB"),
        ("answer", f"{figures.answered_bytes / 1e6:.2f} MB"),
        ("call, median", f"{figures.call_median_s * 1e3:.0f} ms"),
        ("call, 99th percentile", f"{figures.call_p99_s * 1e3:.0f} ms"),
    ):
        table.add_row(name, value)
    console.print(table)
