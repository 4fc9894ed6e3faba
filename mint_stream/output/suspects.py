"""Rows that the guard would not stand by, knowing what came next.

The guard judges a domain by sums with a half-life: where something begins to fill the view, some
frames are adapted to before it shows. Such rows are suspect: adapted, and the guard refused their
domain within the next frames of it. `label_stream.py --relabel-suspect` labels their units again,
by the bank as it is then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mint_stream.method.guard import REFUSALS
from mint_stream.output.read import read_labels, strings
from mint_stream.store.store import Store

HALF_LIVES = 2.0
"""Half-lives of the guard's sums after which a refusal says nothing of a row any more."""


def suspect(labels: pa.Table, half_life: float) -> NDArray[np.bool_]:
    """Of each row whether it is suspect: (rows,).

    labels: as they were first written (`read_labels(..., relabelled=False)`); half_life: of the
    preset that wrote them, frames.
    """
    found = np.zeros(labels.num_rows, bool)
    if not labels.num_rows:
        return found
    # Time as the bank saw it. Stable: within a unit and between labelers as `read_labels` has them.
    order = np.argsort(labels["bank_seq"].to_numpy(zero_copy_only=False), kind="stable")
    refused = np.isin(strings(labels, "guard"), REFUSALS)
    adapted = labels["adapted"].to_numpy(zero_copy_only=False).astype(bool)
    domains: defaultdict[tuple[str, int | None], list[int]] = defaultdict(list)
    scopes, entries = (labels[name].to_pylist() for name in ("bank_scope", "bank_domain"))
    for row in order.tolist():
        domains[scopes[row], entries[row]].append(row)
    window = int(HALF_LIVES * half_life)
    for rows in domains.values():
        place = np.arange(len(rows))
        # Place of the next refusal at or after each row.
        ahead = np.where(refused[rows], place, len(rows) + window)
        following = np.minimum.accumulate(ahead[::-1])[::-1]
        found[rows] = adapted[rows] & (following - place <= window)
    return found


def suspect_units(output: str, half_life: float) -> Counter[str]:
    """Units with suspect rows that were not labelled again, and how many. Raises `StorageError`."""
    labels = read_labels(output, relabelled=False)
    names = (PurePosixPath(info.name) for info in Store(output).list("relabelled/"))
    again = {name.stem for name in names}
    marked = labels["unit"].filter(pa.array(suspect(labels, half_life))).to_pylist()
    return Counter(unit for unit in marked if unit not in again)
