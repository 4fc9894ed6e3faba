"""`realtime`: adapts where cameras live, without labels, gradients or a second encoder pass.

Three things are told from the stream itself:

- how long a camera shows the same thing (sticky_chain): its frames are then answered together;
- what the light, the weather and the lens do to the features: the mean of what all cameras show
  now that changed as this one did. That is the class where every camera shows the same thing, so
  it is taken away only while cameras differ from each other, and while the answers without it
  stick about as much as those with it;
- whether a camera whose frames do not stick shows a mixture of classes: then the mean is the
  light's doing as well.

A step is the frames of one camera in time order: 16 for the pipeline, one for Serve. `answer` reads
the bank, gives the answers and what the step changes; `merge` (camera_state) adds that. A frame is
answered by the bank as it was before its step, and by the step. With `smooth` the frames after it
in the step count as well, without it only those before: both are the same at the last frame.

Shapes: B frames of a step, C classes, X dimensions in which classes differ, D width, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mint_stream.method.camera_rows import CameraRow, empty_row, look, shows_mixture
from mint_stream.method.camera_settings import Settings
from mint_stream.method.camera_state import CameraState, CameraUpdate, update
from mint_stream.method.class_axes import ClassAxes, softmax, unit
from mint_stream.method.sticky_chain import (
    STICKINESS_S,
    backward,
    chance,
    confidence,
    forward,
    ratios,
    stay,
    together,
)

Array = NDArray[np.float64]

HELD, SMOOTHED, POOLED, SHIFTED = "held", "smoothed", "pooled", "shifted"
"""Verdicts. Held: nothing is known of the light; the frozen answers, drawn together by the little
that they stick. Smoothed: frames are answered together. Pooled: the same after what the cameras
share was taken away. Shifted: each frame for itself after that was taken away."""

_FRAMES_FOR_MEAN = 4
"""Frames of a step from which its own mean is a measure of its spread."""
_CROSSING = 16
"""Frames of a step that count as one crossing."""
_PRIOR_PAIRS, _PRIOR_CROSSINGS, _PRIOR_FRAMES = 16, 4, 4
"""By so much is evidence drawn towards none, and a row of few frames counts less."""
_OWN = 0.5
"""Weight of a camera's own row among those that it is shifted by."""
_SETTINGS = Settings()


class Answer(NamedTuple):
    """Of one step."""

    p_BC: Array
    """Probabilities."""
    verdict: str
    update: CameraUpdate


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What a step shows, before anything is answered."""

    row: CameraRow
    """The camera's, after the step."""
    p_BC: Array
    """Frozen predictions."""
    logits: Mapping[str, Array]
    """(B, C) of each chain: `smooth`, `alone`, `pooled`."""
    filtered: Mapping[str, Array]
    """(B, C): its posteriors by the past."""
    priors: Mapping[str, Array]
    """(C,): what the camera shows when it changes."""
    stickiness: float
    others: int
    """Other cameras that the shift was made of."""
    added: Mapping[str, Array]
    """What the step adds to the bank's sums, and ..."""
    sums: Mapping[str, Array]
    """those sums with it, as of now."""


def answer(
    state: CameraState,
    axes: ClassAxes,
    query_BD: Array,
    activation_BD: Array,
    frozen_BC: Array,
    camera: str,
    time_s: float = math.nan,
    *,
    smooth: bool = True,
    settings: Settings = _SETTINGS,
) -> Answer:
    """Answer a step of one camera, and say what it changes in the bank.

    query_BD: at the first query level; activation_BD: the last, before the projection; frozen_BC:
    the frozen logits; all finite. time_s: of the step's last frame, NaN where frames have no time.
    The update does not depend on `smooth`.
    """
    feature_BX, query_BD = activation_BD @ axes.basis_DX, unit(query_BD)
    old = state.rows.get(camera) or empty_row(axes.classes, feature_BX.shape[1], query_BD.shape[1])
    step = _see(state, axes, feature_BX, query_BD, frozen_BC, camera, time_s, old, settings)
    verdict = _verdict(step, settings)
    change = update(state, step.added, camera, step.row)
    return Answer(_answered(verdict, step, smooth, settings), verdict, change)


def _see(
    state: CameraState,
    axes: ClassAxes,
    feature_BX: Array,
    query_BD: Array,
    frozen_BC: Array,
    camera: str,
    time_s: float,
    old: CameraRow,
    s: Settings,
) -> _Step:
    n, known, p_BC = len(frozen_BC), old.frames > 0, softmax(frozen_BC)
    now, added = state.now(n), {"frames": np.array([float(n)])}
    sticks_S, pairs = together(p_BC, old.frozen_C if known else None, now["marginal_C"])
    stickiness, prior_C = stay(now["together_S"] + sticks_S), _prior(old, p_BC, s)
    smooth_BC = forward(frozen_BC, stickiness, old.smooth_C, prior_C)

    class_BX = s.anchor * _size(now, feature_BX, axes) * (smooth_BC @ axes.anchors_CX)
    along_BC = feature_BX @ axes.directions_CX.T
    row = look(old, feature_BX, query_BD, along_BC, frozen_BC.argmax(-1), class_BX, axes, s)
    row = replace(row, time_s=time_s, at=float(state.sums["frames"][0]) + n)
    others = _fresh(state, row, camera, s)
    added["query_spread"] = np.array([_query_spread(query_BD, old), n])
    within, frames = now["query_spread"] + added["query_spread"]
    shift_X = _shared(row, others, within / frames, s)
    shifted_BC = _without(shift_X, feature_BX, along_BC, frozen_BC, axes, s)
    alone_BC = _without(row.own_X / row.n_own, feature_BX, along_BC, frozen_BC, axes, s)
    q_BC = softmax(shifted_BC)
    left_S, _ = together(q_BC, old.shifted_C if known else None, now["shifted_marginal_C"])

    logits = {
        "smooth": frozen_BC,
        "alone": alone_BC / s.temperature,
        "pooled": shifted_BC / s.temperature,
    }
    even_C = np.full(axes.classes, 1 / axes.classes)
    filtered = {
        "smooth": smooth_BC,
        "alone": forward(logits["alone"], stickiness, old.alone_C, prior_C),
        "pooled": forward(logits["pooled"], stickiness, old.pooled_C, even_C),
    }
    row = replace(
        row,
        frozen_C=p_BC[-1],
        shifted_C=q_BC[-1],
        mean_C=p_BC.mean(0),
        **{f"{name}_C": posterior_BC[-1] for name, posterior_BC in filtered.items()},
    )
    across_S, crossings = _across(row, [other for other, _ in others], now, n)
    dt_s = time_s - old.time_s
    added |= {
        "interval": np.array([dt_s, n]) if math.isfinite(dt_s) and dt_s > 0 else np.zeros(2),
        "marginal_C": p_BC.sum(0),
        "slow_marginal_C": p_BC.sum(0),
        "shifted_marginal_C": q_BC.sum(0),
        "together_S": sticks_S,
        "shifted_together_S": left_S,
        "pairs": np.array([pairs]),
        "across_S": across_S,
        "crossings": np.array([crossings]),
        "spread": np.array([((feature_BX - shift_X) ** 2).sum(), n]),
    }
    return _Step(
        row=row,
        p_BC=p_BC,
        logits=logits,
        filtered=filtered,
        priors={"smooth": prior_C, "alone": prior_C, "pooled": even_C},
        stickiness=stickiness,
        others=len(others),
        added=added,
        sums={name: value + added[name] for name, value in now.items()},
    )


def _verdict(step: _Step, s: Settings) -> str:
    """How the step is answered; see the verdicts."""
    sums, row = step.sums, step.row
    evidence, pairs = sums["together_S"].max(), sums["pairs"][0]
    if step.stickiness < s.sticks or evidence < s.coherent * (pairs + _PRIOR_PAIRS):
        return SHIFTED if shows_mixture(row, s) else HELD
    kind = 0 if row.apart < s.repeats else 1
    crossings, across = sums["crossings"][0], sums["across_S"].max()
    differ = across < s.alike_cameras[kind] * (crossings + _PRIOR_CROSSINGS)
    earned = sums["shifted_together_S"].max() >= s.earned * evidence
    if step.others and crossings > s.crossings[kind] and differ and earned:
        return POOLED
    return SMOOTHED


def _answered(verdict: str, step: _Step, smooth: bool, s: Settings) -> Array:
    """The step's probabilities (B, C)."""
    if verdict == SHIFTED:
        return _reported(step, s)

    def posterior(name: str) -> Array:
        filtered_BC = step.filtered[name]
        if not smooth:
            return filtered_BC
        return backward(filtered_BC, step.logits[name], step.stickiness, step.priors[name])

    far = (step.row.apart - s.trust_from) / (1 - s.trust_from)
    trust = s.trust * min(max(2 * far, 0.0), 1.0)
    if verdict == POOLED:
        return confidence(posterior("pooled"), _reported(step, s), trust)
    if verdict == SMOOTHED:
        return confidence((posterior("smooth") + posterior("alone")) / 2, step.p_BC, trust)
    return confidence(posterior("smooth"), step.p_BC, trust)


def _fresh(
    state: CameraState, row: CameraRow, camera: str, s: Settings
) -> list[tuple[CameraRow, float]]:
    """The freshest other rows with their ages, in frames of one camera.

    By the stream's own time where frames have times, else by the bank's count.
    """
    seconds, frames = state.sums["interval"]
    others = [other for name, other in state.rows.items() if name != camera]
    fresh = []
    for other in others:
        apart_s = abs(row.time_s - other.time_s)
        timed = frames > 0 and math.isfinite(apart_s)
        age = apart_s / (seconds / frames) if timed else (row.at - other.at) / (len(others) + 1)
        if age <= s.row_limit:
            fresh.append((other, float(age)))
    return sorted(fresh, key=lambda pair: pair[1])[: s.rows]


def _shared(
    row: CameraRow, others: list[tuple[CameraRow, float]], query_spread: float, s: Settings
) -> Array:
    """The shift (X,): the mean of what cameras show now that changed as this one did."""
    rows = [row, *(other for other, _ in others)]
    age_R = np.array([0.0, *(age for _, age in others)])
    n_R = np.array([r.n_recent for r in rows])
    change_RD = np.stack([r.change_D for r in rows])
    apart_R, size_R = ((change_RD - change_RD[0]) ** 2).sum(-1), (change_RD**2).sum(-1)
    weight_R = n_R / (n_R + _PRIOR_FRAMES) * 0.5 ** (age_R / s.row_age)
    weight_R *= np.exp(-s.alike * apart_R / (size_R + size_R[0] + query_spread + 1e-12))
    weight_R[0] *= _OWN
    mean_RX = np.stack([r.recent_X for r in rows]) / n_R[:, None]
    shift_X: Array = weight_R @ mean_RX / weight_R.sum()
    return shift_X


def _across(
    row: CameraRow, others: Sequence[CameraRow], now: Mapping[str, Array], frames: int
) -> tuple[Array, float]:
    """How much more than by chance a step agrees with other cameras, (S,); crossings."""
    if not others:
        return np.zeros(len(STICKINESS_S)), 0.0
    others_C = np.mean([other.mean_C for other in others], axis=0)
    crossings = frames / _CROSSING
    return crossings * ratios(chance(others_C[None], row.mean_C[None], now["slow_marginal_C"]))[
        0
    ], crossings


def _prior(old: CameraRow, p_BC: Array, s: Settings) -> Array:
    """What a camera shows when it changes: what it showed lately, or anything (C,)."""
    lately_C = old.answers_C * 0.5 ** (len(p_BC) / s.mixed) + p_BC.sum(0)
    prior_C: Array = s.local * lately_C / lately_C.sum() + (1 - s.local) / len(lately_C)
    return prior_C


def _size(now: Mapping[str, Array], feature_BX: Array, axes: ClassAxes) -> float:
    """How large features are about the shift, over how large the anchors are."""
    total, frames = now["spread"]
    if not frames:
        total, frames = ((feature_BX - feature_BX.mean(0)) ** 2).sum(), len(feature_BX)
    return math.sqrt(total / frames) / axes.length


def _without(
    shift_X: Array,
    feature_BX: Array,
    along_BC: Array,
    frozen_BC: Array,
    axes: ClassAxes,
    s: Settings,
) -> Array:
    """Logits without a shift, by the classes' own directions, and some of the frozen ones.

    along_BC: the features along those directions.
    """
    length_B1 = np.linalg.norm(feature_BX - shift_X, axis=-1, keepdims=True)
    scale_B1 = (1 - s.frozen_share) * axes.scale / np.maximum(length_B1, 1e-12)
    along_BC = along_BC - axes.directions_CX @ shift_X
    logits_BC: Array = s.frozen_share * frozen_BC + scale_B1 * along_BC
    return logits_BC


def _reported(step: _Step, s: Settings) -> Array:
    """Predictions without the shift, no surer than they are right."""
    return softmax(step.logits["pooled"] * (s.temperature / s.report_temperature))


def _query_spread(query_BD: Array, old: CameraRow) -> float:
    """Squared distances of early queries from the mean of those about them."""
    if len(query_BD) >= _FRAMES_FOR_MEAN or not old.n_recent:
        return float(((query_BD - query_BD.mean(0)) ** 2).sum())
    return float(((query_BD - old.recent_D / old.n_recent) ** 2).sum())
