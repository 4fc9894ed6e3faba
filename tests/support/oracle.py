"""What must hold of an output, whatever happened to the runs that wrote it.

Written against the objects on the store alone. The replay uses the product's pure merge (which has
tests of its own), and nothing of how the product decides what to replay. Every output is held
against the product's `verify` as well.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.bank.files import LOG_FOLDER, LogName, read_bank, read_delta, write_bank
from mint_stream.config import MethodConfig
from mint_stream.method.bank_state import Banks, BankState, Update, effective, initial_state, replay
from mint_stream.store.store import Store
from mint_stream.upkeep.verify.verify import verify

CHECKPOINTS = "bank/checkpoints/"


@dataclass
class Output:
    """Everything that lies below an output's root, read once."""

    url: str
    labels: dict[str, pa.Table] = field(default_factory=dict)
    """By unit."""
    rejects: dict[str, pa.Table] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    checkpoints: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, url: str) -> Output:
        store = Store(url)
        output = cls(url)
        for info in store.list():
            folder = info.name.rpartition("/")[0] + "/"
            unit = info.name.rpartition("/")[2].removesuffix(".parquet")
            if folder == "labels/":
                output.labels[unit] = _table(store.read(info.name))
            elif folder == "rejects/":
                output.rejects[unit] = _table(store.read(info.name))
            elif folder == LOG_FOLDER:
                output.logs[info.name] = store.read(info.name)
            elif folder == CHECKPOINTS:
                output.checkpoints[info.name] = store.read(info.name)
        return output

    @property
    def frames(self) -> list[str]:
        """Frame ids in labels and rejects, as often as they occur."""
        tables = [*self.labels.values(), *self.rejects.values()]
        return [f for table in tables for f in table["frame"].to_pylist() if f is not None]

    @property
    def label_rows(self) -> list[dict[str, Any]]:
        """Rows of all labels without the time at which they were made, by unit and position."""
        rows = []
        for unit in sorted(self.labels):
            rows += self.labels[unit].drop_columns(["labelled_at"]).to_pylist()
        return rows

    @property
    def reject_rows(self) -> list[dict[str, Any]]:
        """Rows of all rejects without the time, by unit and position."""
        rows = []
        for unit in sorted(self.rejects):
            rows += self.rejects[unit].drop_columns(["rejected_at"]).to_pylist()
        return rows

    def newest_checkpoint(self) -> tuple[str, bytes]:
        """Name and Parquet bytes of the checkpoint with the highest number."""
        facts = {
            name: json.loads(data)
            for name, data in self.checkpoints.items()
            if name.endswith(".json")
        }
        assert facts, f"no checkpoint in {self.url}"
        name = max(facts, key=lambda name: facts[name]["number"]).removesuffix(".json")
        return name, self.checkpoints[f"{name}.parquet"]


def check_frames(output: Output, expected: Iterable[str]) -> None:
    """Every frame id exactly once, in labels or in rejects: by set and by count."""
    wanted, found = list(expected), Counter(output.frames)
    assert set(found) == set(wanted), _differences(set(wanted), set(found))
    assert found.total() == len(wanted), [f for f, n in found.items() if n > 1]
    for unit, table in (*output.labels.items(), *output.rejects.items()):
        assert set(table["unit"].to_pylist()) <= {unit}
    assert set(output.rejects) <= set(output.labels), "rejects of a unit that is not committed"
    check_verified(output.url)


def check_verified(url: str) -> None:
    """The product's own `verify` finds nothing wrong with the output."""
    verdict = verify(url)
    assert verdict.clean, "\n".join(str(finding) for finding in verdict.findings)


def check_bank(
    output: Output,
    method: MethodConfig,
    *,
    width: int = 32,
    seed: int = 0,
    removed: Mapping[str, bytes] | None = None,
) -> Banks:
    """The newest checkpoint is the replay of what the labels refer to: bit for bit, each once.

    removed: contents of log objects that are no longer on the store, kept aside by the test.
    """
    merges = _merges(output, removed or {})
    replayed = replay(Banks(_initial(method, width, seed)), merges)
    name, data = output.newest_checkpoint()
    assert write_bank(replayed) == data, f"{name} is not the replay of {len(merges)} merges"
    return check_usage(output, method, width=width, seed=seed)


def check_bank_but_for_order(
    output: Output,
    method: MethodConfig,
    *,
    width: int = 32,
    seed: int = 0,
    removed: Mapping[str, bytes] | None = None,
) -> Banks:
    """The newest checkpoint holds each update that labels refer to once, in whatever order.

    With several labelers a commit may come so late after a restart that later merges are durable
    already: it is merged after them. Sums in another order differ by rounding and nothing else.
    """
    merges = _merges(output, removed or {})
    replayed = replay(Banks(_initial(method, width, seed)), merges)
    banks = check_usage(output, method, width=width, seed=seed)
    assert banks.seq == replayed.seq
    assert banks.states.keys() == replayed.states.keys()
    for scope, state in banks.states.items():
        expected = replayed.states[scope]
        np.testing.assert_array_equal(state.usage_K, expected.usage_K)
        for found, wanted in zip(effective(state), effective(expected), strict=True):
            rounding = len(merges) * np.finfo(np.float32).eps * np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted, rtol=0, atol=rounding)
    return banks


def _merges(output: Output, removed: Mapping[str, bytes]) -> list[tuple[int, Update]]:
    """The update of every unit whose labels refer to one, in the order of the log's names."""
    named = {u: _metadata(t)[b"mint.bank_log"].decode() for u, t in output.labels.items()}
    merges: list[tuple[int, Update]] = []
    for unit, name in sorted(named.items(), key=lambda item: item[1]):
        if not name:
            continue
        assert LogName.parse(name).unit == unit
        data = {**removed, **output.logs}.get(name)
        assert data is not None, f"{name} is gone, which the labels of {unit} refer to"
        update = read_delta(data)
        assert str(LogName.of(LogName.parse(name).seq, unit, update)) == name
        merges.append((LogName.parse(name).seq, update))
    return merges


def check_usage(output: Output, method: MethodConfig, *, width: int = 32, seed: int = 0) -> Banks:
    """Each adapted frame retrieved S * V * Q * R entries: none lost, none counted twice.

    In a bank of domains each frame belongs to one entry, adapted or not.
    """
    banks = read_bank(output.newest_checkpoint()[1], _initial(method, width, seed))
    domains = method.algorithm == "domains"
    each = 1 if domains else method.steps * method.views * method.query_levels * method.retrieved
    adapted = Counter(row["bank_scope"] for row in output.label_rows if domains or row["adapted"])
    counted = {scope: int(state.usage_K.sum()) for scope, state in banks.states.items()}
    assert counted == {scope: frames * each for scope, frames in adapted.items()}
    return banks


def _initial(method: MethodConfig, width: int, seed: int) -> BankState:
    return initial_state(
        entries=method.bank_size,
        prompt_rows=method.prompt_rows,
        width=width,
        seed=method.bank_seed(seed),
    )


def check_same(output: Output, undisturbed: Output) -> None:
    """Labels equal but for `labelled_at`, rejects but for `rejected_at`, checkpoint bit for bit."""
    check_verified(output.url)
    assert output.label_rows == undisturbed.label_rows
    assert output.reject_rows == undisturbed.reject_rows
    if undisturbed.checkpoints:
        assert output.newest_checkpoint()[1] == undisturbed.newest_checkpoint()[1]


def _table(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


def _metadata(table: pa.Table) -> dict[bytes, bytes]:
    return dict(table.schema.metadata or {})


def _differences(wanted: set[str], found: set[str]) -> str:
    missing, surplus = sorted(wanted - found), sorted(found - wanted)
    return f"{len(missing)} missing {missing[:5]}, {len(surplus)} too many {surplus[:5]}"
