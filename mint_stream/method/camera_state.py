"""The bank of the `realtime` preset: a table of cameras, and sums of them all that fade.

What a camera showed lately is a row of its own, written by whoever labels that camera; what all
cameras together say is in sums, to which every labeler adds. So a merge is an addition and a union:
replayed in the same order it gives the same bits, and an update that was measured on an older bank
counts for what it saw, whatever was merged in between.

Sums that fade and yet only add (forward decay: Cormode et al. 2009): a frame counts 2**(t / h),
where t is the bank's count of frames since its epoch and h the half-life, and whoever reads a sum
divides by that factor as of now (`now`). Every `_SPAN` frames the epoch moves on; half-lives are
powers of two that divide it, so that this rounds nothing.

The state is bounded: so many rows (`merge`), and sums of 3 C + 33 numbers. All is float64.

Shapes: C classes, S grid of stickiness; rows: camera_rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mint_stream.method.camera_rows import CameraRow
from mint_stream.method.sticky_chain import STICKINESS_S

Array = NDArray[np.float64]

CAMERAS = 256
"""Rows that a bank keeps at most."""


HALF_LIVES: Mapping[str, float] = {
    "frames": np.inf,
    "interval": 512,  # seconds between frames of one camera; their number
    "marginal_C": 256,  # frozen predictions
    "slow_marginal_C": 1024,  # the same over a longer time
    "shifted_marginal_C": 256,  # without what the cameras share
    "together_S": 256,  # how much neighbours stick by the frozen predictions
    "shifted_together_S": 256,  # and without what the cameras share
    "pairs": 256,
    "across_S": 2048,  # how much cameras show the same at the same time
    "crossings": 2048,
    "query_spread": 512,  # of early queries in a step; frames
    "spread": 512,  # of features about the shift; frames
}
"""Of each sum, in frames of all cameras."""
_SPAN = 16384


@dataclass(frozen=True)
class CameraState:
    """A bank: `sums` by name (`HALF_LIVES`) and the `rows` of its cameras."""

    sums: Mapping[str, Array]
    rows: Mapping[str, CameraRow] = field(default_factory=dict)
    epoch: int = 0
    """Count of frames that the sums' factors start from."""

    def now(self, frames: int = 0) -> dict[str, Array]:
        """The sums as they have faded; after so many more frames."""
        t = float(self.sums["frames"][0]) + frames - self.epoch
        return {name: value * 2.0 ** (-t / HALF_LIVES[name]) for name, value in self.sums.items()}


@dataclass(frozen=True)
class CameraUpdate:
    """What a step adds to the sums, as of an epoch, and the camera's new row."""

    sums: Mapping[str, Array]
    camera: str
    row: CameraRow
    epoch: int = 0


def empty_state(classes: int) -> CameraState:
    """A bank that has seen nothing."""
    sizes = {"C": classes, "S": len(STICKINESS_S)}
    sums = {name: np.zeros(sizes.get(name[-1], 1)) for name in HALF_LIVES}
    pairs = {name: np.zeros(2) for name in ("interval", "query_spread", "spread")}
    even = {name: np.ones(classes) for name in HALF_LIVES if name.endswith("marginal_C")}
    return CameraState(sums | pairs | even)


def update(
    state: CameraState, added: Mapping[str, Array], camera: str, row: CameraRow
) -> CameraUpdate:
    """What a step of `camera` adds, measured on `state`; `added`: the step's own sums."""
    t = float(state.sums["frames"][0]) + float(added["frames"][0]) - state.epoch
    sums = {name: value * 2.0 ** (t / HALF_LIVES[name]) for name, value in added.items()}
    return CameraUpdate(sums, camera, row, state.epoch)


def merge(state: CameraState, change: CameraUpdate, *, cameras: int = CAMERAS) -> CameraState:
    """The bank after a step. Sums are added; the row replaces the camera's, unless it is older.

    Beyond `cameras` rows those that were not seen for longest are let go. Raises ValueError for an
    update that does not fit or that is not finite; the bank is as it was before.
    """
    if change.sums.keys() != state.sums.keys():
        raise ValueError(f"the update has sums {sorted(change.sums)}, not {sorted(state.sums)}")
    sums = {}
    for name, before in state.sums.items():
        added = change.sums[name]
        if added.shape != before.shape or not np.isfinite(added).all():
            raise ValueError(f"the update of {name} does not fit the bank, or is not finite")
        sums[name] = before + _moved(added, change.epoch - state.epoch, name)
    epoch = state.epoch
    while sums["frames"][0] - epoch > _SPAN:
        epoch += _SPAN
        sums = {name: _moved(value, -_SPAN, name) for name, value in sums.items()}
    rows = dict(state.rows)
    known = rows.get(change.camera)
    if known is None or change.row.frames > known.frames:
        rows[change.camera] = change.row
    oldest = sorted(rows, key=lambda camera: (rows[camera].at, camera))
    for camera in oldest[: max(0, len(rows) - cameras)]:
        del rows[camera]
    return CameraState(sums, rows, epoch)


def _moved(value: Array, frames: int, name: str) -> Array:
    """A sum as of an epoch that is so many frames earlier; a power of two, so exact."""
    moved: Array = value * 2.0 ** (frames / HALF_LIVES[name])
    return moved
