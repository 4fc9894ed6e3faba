"""Units of work on small banks, without a model: what a labeler would change, and its commit."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.bank.files import write_delta
from mint_stream.bank.log import BANK_LOG_KEY
from mint_stream.method.bank_state import BankState, Delta, Update, delta, effective, initial_state
from mint_stream.output.names import labels_name
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import Store
from mint_stream.store.types import ObjectInfo

ENTRIES, PROMPT_ROWS, WIDTH = 6, 2, 3
START = initial_state(entries=ENTRIES, prompt_rows=PROMPT_ROWS, width=WIDTH, seed=7)


class Shelf(Store):
    """A store in a dict: what thousands of short plays need."""

    def __init__(self) -> None:
        super().__init__("memory://shelf")
        self.objects: dict[str, bytes] = {}

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        names = sorted(name for name in list(self.objects) if name.startswith(prefix))
        return [ObjectInfo(name, len(self.objects[name]), "", None) for name in names]

    def read(self, name: str) -> bytes:
        try:
            return self.objects[name]
        except KeyError:
            raise ObjectMissing(f"there is no {name}") from None

    def write(self, name: str, data: bytes) -> None:
        self.objects[name] = data

    def create(self, name: str, data: bytes) -> bool:
        return self.objects.setdefault(name, data) == data

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)


def work(before: BankState, unit: str, decay: float = 0.998) -> Delta:
    """What labelling `unit` changes: a pure function of the unit and the bank as it was."""
    keys_KD, prompts_KPD = effective(before)
    seen = hashlib.sha256(unit.encode() + keys_KD.tobytes() + prompts_KPD.tobytes()).digest()
    random = np.random.default_rng(int.from_bytes(seen, "big"))
    rows = random.choice(len(keys_KD), size=min(3, len(keys_KD)), replace=False)
    keys_KD *= np.float32(decay)
    prompts_KPD *= np.float32(decay)
    keys_KD[rows] += random.normal(size=keys_KD[rows].shape).astype(np.float32)
    prompts_KPD[rows] += random.normal(size=prompts_KPD[rows].shape).astype(np.float32)
    usage_K = before.usage_K.copy()
    usage_K[rows] += random.integers(1, 5, size=len(rows))
    return delta(before, keys_KD, prompts_KPD, usage_K, decay)


def labels_file(log_name: str, content: str = "") -> bytes:
    """A labels object that says which log object belongs to it."""
    table = pa.table({"content": [content]}).replace_schema_metadata({BANK_LOG_KEY: log_name})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def write_log(store: Store, log_name: str, update: Update, unit: str, seq: int) -> None:
    if log_name:
        assert store.create(log_name, write_delta(update, unit=unit, seq=seq))


def write_labels(store: Store, unit: str, log_name: str, content: str = "") -> bool:
    return store.create(labels_name(unit), labels_file(log_name, content))
