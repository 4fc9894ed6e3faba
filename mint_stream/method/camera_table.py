"""The table of cameras in the Memory Prompt Bank's arrays, and the method that answers by it.

Entry 0 of the bank holds the sums of all cameras (`camera_state`), each other entry one camera's
row (`camera_rows`): its key is the camera's recent early query, its prompt rows are the rest of the
row, packed. So merge, log, checkpoint, replay and rollback are those of any bank. A row says which
camera it belongs to by a hash of the name, with a check: a slot that two labelers took for two
cameras at the same time fails it, counts as free, and both take another.

Shapes: B frames, D width, C classes, X dimensions in which they differ, K entries, P prompt rows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mint_stream.method import bank_state, cameras
from mint_stream.method.bank_state import BankState
from mint_stream.method.camera_rows import CameraRow
from mint_stream.method.camera_state import HALF_LIVES, CameraState, empty_state, merge
from mint_stream.method.class_axes import ClassAxes, class_axes
from mint_stream.method.frozen import FrozenClip, Seen
from mint_stream.method.prediction import ONE_PASS, Answers, Standing

Array = NDArray[np.float64]

STEP = 16
"""Frames of one camera that are answered together and taken in together, at most."""

_SPLIT = ("time_s", "at", "frames")
"""Numbers that float32 is too coarse for: each is kept as the sum of two."""
_HASH = 3
_BITS = 24


def camera_key(camera: Hashable) -> str:
    """How the table names a camera: 12 hex digits, never all 0."""
    digest = hashlib.sha256(repr(camera).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return digest if int(digest, 16) else "000000000001"


class CameraTable:
    """A bank in use. `arrays` is what a labeler measures its update by.

    keys_KD (K, D), prompts_KPD (K, P, D), usage_K (K,): as a checkpoint holds them. labelers: how
    many share the bank. Sums fade by the frames of all cameras; labelers that measure updates on
    the same sums have them fade by a part each, so that together it is right.
    """

    decay = 1.0

    def __init__(
        self,
        keys_KD: NDArray[np.float32],
        prompts_KPD: NDArray[np.float32],
        usage_K: NDArray[np.int64],
        axes: ClassAxes,
        labelers: int = 1,
    ) -> None:
        self._keys_KD, self._usage_K = keys_KD, usage_K.copy()
        self._shape, self._labelers = prompts_KPD.shape, labelers
        self._cells_KN = prompts_KPD.reshape(len(prompts_KPD), -1).copy()
        rank = axes.anchors_CX.shape[1]
        self._sizes = {"C": axes.classes, "X": rank, "D": keys_KD.shape[1]}
        self._slots: dict[str, int] = {}
        frames, rows = int(usage_K[0]), {}
        for slot in range(1, len(usage_K)):
            key = self._camera_in(slot)
            if key is not None:
                self._slots[key], rows[key] = slot, self._row(slot)
        sums = empty_state(axes.classes).sums
        if frames:
            sums = _unpacked(self._cells_KN[0], {name: len(sums[name]) for name in _SUMS})
        sums = {**sums, "frames": np.array([float(frames)])}
        self.state = CameraState(sums, rows, epoch=frames)
        self._before = self.state

    @property
    def slots(self) -> int:
        """Cameras that there is room for."""
        return len(self._usage_K) - 1

    def take(self, state: CameraState, camera: str, frames: int) -> None:
        """Have the table be `state`, which so many frames of `camera` led to."""
        self.state = state
        slot = self._slot_for(camera)
        self._slots = {c: s for c, s in self._slots.items() if c in state.rows and s != slot}
        self._slots[camera] = slot
        self._usage_K[slot] += frames
        self._usage_K[0] += frames

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys (K, D), prompts (K, P, D) and usage (K,) as a checkpoint holds them."""
        keys_KD, cells_KN = self._keys_KD.copy(), self._cells_KN.copy()
        sums, labelers = self.state.now(), self._labelers
        seen = int(self._usage_K[0]) - self._before.epoch
        for name, before in self._before.sums.items():
            alone, all_of_them = (2.0 ** (-n / HALF_LIVES[name]) for n in (seen, seen * labelers))
            sums[name] = sums[name] + before * (1 - (1 - all_of_them) / labelers - alone)
        cells_KN[0] = _packed({name: sums[name] for name in _SUMS}, cells_KN.shape[1])
        for camera, slot in self._slots.items():
            row = self.state.rows[camera]
            if row is not self._before.rows.get(camera):
                keys_KD[slot] = row.recent_D
                cells_KN[slot] = self._cells(camera, row)
        return keys_KD, cells_KN.reshape(self._shape), self._usage_K.copy()

    def _slot_for(self, camera: str) -> int:
        """The camera's slot; else a free one; else that of the camera not seen for longest."""
        if camera in self._slots:
            return self._slots[camera]
        slots, taken = self.slots, set(self._slots.values())
        first = int(camera, 16) % slots
        for step in range(slots):
            slot = 1 + (first + step) % slots
            if slot not in taken:
                return slot
        rows = self.state.rows
        return self._slots[min(self._slots, key=lambda c: (rows[c].at if c in rows else -1.0, c))]

    def _camera_in(self, slot: int) -> str | None:
        """Which camera's row is in a slot; None for a free one, or where two were added."""
        high, low, check = (int(number) for number in self._cells_KN[slot, :_HASH])
        key = f"{high:06x}{low:06x}"
        valid = 0 <= high < 2**_BITS and 0 <= low < 2**_BITS and int(key, 16)
        return key if valid and check == _check(key) else None

    def _row(self, slot: int) -> CameraRow:
        values = _unpacked(self._cells_KN[slot, _HASH:], self._parts())
        numbers = {name: float(values[name][0]) for name in _NUMBERS}
        numbers |= {name: float(values[name].sum()) for name in _SPLIT}
        numbers["time_s"] = numbers["time_s"] or math.nan
        arrays = {name: values[name] for name in _ARRAYS if name != "recent_D"}
        recent_D = self._keys_KD[slot].astype(np.float64)
        parts: dict[str, Any] = {"recent_D": recent_D, **arrays, **numbers}
        return CameraRow(**parts)

    def _cells(self, camera: str, row: CameraRow) -> NDArray[np.float32]:
        parts: dict[str, Array] = {}
        for name in self._parts():
            value = getattr(row, name)
            if name in _SPLIT:
                value = 0.0 if math.isnan(value) else value
                coarse = float(np.float32(value))
                parts[name] = np.array([coarse, value - coarse])
            else:
                parts[name] = np.atleast_1d(value)
        names = [int(camera[:6], 16), int(camera[6:], 16), _check(camera)]
        cells_N = _packed(parts, self._cells_KN.shape[1] - _HASH)
        return np.concatenate([np.array(names, np.float32), cells_N])

    def _parts(self) -> dict[str, int]:
        """The fields of a row in the order in which they are packed, with their lengths."""
        arrays = {name: self._sizes[name[-1]] for name in _ARRAYS if name != "recent_D"}
        return {**dict.fromkeys(_NUMBERS, 1), **dict.fromkeys(_SPLIT, 2), **arrays}


_SUMS = tuple(name for name in HALF_LIVES if name != "frames")
_ARRAYS = tuple(f.name for f in fields(CameraRow) if f.name[-2:] in ("_C", "_X", "_D"))
_NUMBERS = tuple(f.name for f in fields(CameraRow) if f.name not in (*_ARRAYS, *_SPLIT))


class Cameras:
    """The table of cameras as a method: one pass, no gradient, the frames of a camera together."""

    one_pass = True
    keeps_state = True
    cost = ONE_PASS

    def __init__(self, clip: FrozenClip) -> None:
        self._clip = clip
        self._axes = class_axes(
            clip.clip.model.visual.proj.detach().double().cpu().numpy(),
            clip.source_text_CE.double().cpu().numpy(),
            float(clip.logit_scale),
        )

    def bank(self, state: BankState, labelers: int = 1) -> CameraTable:
        """See `Method`."""
        return CameraTable(*bank_state.effective(state), state.usage_K, self._axes, labelers)

    def answer(
        self,
        seen: Seen,
        banks: Sequence[CameraTable | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
        learn: bool = True,
    ) -> Answers:
        """See `Method`. Frames of one camera are answered in steps, each by those before and after
        in its step and by what the bank remembers of the camera."""
        return self._answer(seen, banks, cameras, times_s, learn=learn, alone=False)

    def read(
        self,
        seen: Seen,
        banks: Sequence[CameraTable | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
    ) -> Answers:
        """See `Method`: each frame by the past alone."""
        return self._answer(seen, banks, cameras, times_s, learn=False, alone=True)

    @torch.no_grad()
    def _answer(
        self,
        seen: Seen,
        banks: Sequence[CameraTable | None],
        names: Sequence[Hashable],
        times_s: Sequence[float] | None,
        *,
        learn: bool,
        alone: bool,
    ) -> Answers:
        clip = self._clip
        frozen_BC = _doubles(clip.logits(seen.source_VE, clip.source_text_CE))
        query_BD = _doubles(seen.query_VQD[:, 0])
        activation_BD = _doubles(clip.encoder.activation(seen.query_VQD[:, -1]))
        finite_B = np.isfinite(frozen_BC.sum(-1) + query_BD.sum(-1) + activation_BD.sum(-1))
        p_BC, standings = np.full_like(frozen_BC, np.nan), [Standing()] * len(banks)
        with clip.stopwatch("domains"):
            for rows in _steps(banks, names, finite_B, 1 if alone else STEP):
                table = banks[rows[0]]
                assert table is not None
                camera = camera_key(names[rows[0]])
                answered = cameras.answer(
                    table.state,
                    self._axes,
                    query_BD[rows],
                    activation_BD[rows],
                    frozen_BC[rows],
                    camera,
                    math.nan if times_s is None else times_s[rows[-1]],
                    smooth=not alone,
                )
                p_BC[rows] = answered.p_BC
                for row in rows:
                    standings[row] = Standing(answered.verdict)
                if learn:
                    state = merge(table.state, answered.update, cameras=table.slots)
                    table.take(state, camera, len(rows))
        return Answers(p_BC=p_BC, standings=standings)


def _steps(
    banks: Sequence[CameraTable | None],
    names: Sequence[Hashable],
    finite_B: NDArray[np.bool_],
    most: int,
) -> list[list[int]]:
    """Frames of one bank and camera, up to `most` in a row, in the order of their first frames."""
    open_steps: dict[tuple[int, Hashable], list[int]] = {}
    steps = []
    for row, (bank, name) in enumerate(zip(banks, names, strict=True)):
        if bank is None or not finite_B[row]:
            continue
        step = open_steps.get((id(bank), name))
        if step is None or len(step) >= most:
            step = open_steps[id(bank), name] = []
            steps.append(step)
        step.append(row)
    return steps


def _check(camera: str) -> int:
    """Of a camera's key; that of two added keys is another than the sum of theirs."""
    return int(hashlib.sha256(camera.encode()).hexdigest()[:6], 16)


def _packed(parts: Mapping[str, Array], length: int) -> NDArray[np.float32]:
    """The parts one after the other, and zeros."""
    cells_N = np.zeros(length, np.float32)
    values = np.concatenate(list(parts.values()))
    cells_N[: len(values)] = values
    return cells_N


def _unpacked(cells_N: NDArray[np.float32], lengths: Mapping[str, int]) -> dict[str, Array]:
    ends = np.cumsum(list(lengths.values()))
    parts = np.split(cells_N.astype(np.float64), ends)[:-1]
    return dict(zip(lengths, parts, strict=True))


def _doubles(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().double().cpu().numpy()
    return array
