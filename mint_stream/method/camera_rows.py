"""What one camera showed lately: its row in the bank.

A row is written by whoever labels that camera, and read by all: so a merge takes it over whole.
Its sums fade with the camera's own frames.

Shapes: B frames of a step, C classes, X dimensions in which they differ (class_axes), D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from mint_stream.method.camera_settings import Settings
from mint_stream.method.class_axes import ClassAxes

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class CameraRow:
    """Sums with their weights (`n_`), half-lives of `Settings`; and the last frame."""

    recent_X: Array
    """Features, half-life `fresh`."""
    recent_D: Array
    """Unit early queries, the same."""
    n_recent: float
    all_D: Array
    """Unit early queries since the camera is known; does not fade. Of `frames` frames."""
    own_X: Array
    """Features without what their classes explain, half-life `own`."""
    steps: float
    """Half the squared distances of neighbours, the same."""
    spread: float
    """Squared distances from the camera's mean, the same."""
    n_own: float
    middle_X: Array
    """Features, half-life `middle`."""
    n_middle: float
    answers_C: Array
    """How often the frozen model answered each class, half-life `mixed`."""
    agreed: float
    """How often that answer stood after the camera's mean was taken away, the same."""
    n_answers: float
    last_X: Array
    """Feature of the last frame, ..."""
    frozen_C: Array
    """its frozen prediction, ..."""
    shifted_C: Array
    """that without what the cameras share, ..."""
    smooth_C: Array
    """and the chains' posteriors: on the frozen logits, ..."""
    alone_C: Array
    """on those without the camera's own mean, ..."""
    pooled_C: Array
    """on those without what the cameras share."""
    mean_C: Array
    """Mean frozen prediction of the last step, for other cameras to compare with."""
    time_s: float
    """Of the last frame; NaN where frames have no time."""
    at: float
    """The bank's count of frames then."""
    frames: float
    """Of this camera so far."""

    @property
    def change_D(self) -> Array:
        """How the camera's early queries differ lately from what they are on the whole."""
        change_D: Array = self.recent_D / self.n_recent - self.all_D / self.frames
        return change_D

    @property
    def apart(self) -> float:
        """Distance of neighbours over that of any frames: 1 if independent, 0 if one picture."""
        return self.steps / max(self.spread, 1e-12)


def empty_row(classes: int, rank: int, width: int) -> CameraRow:
    """Of a camera that was never seen. `rank` is X, `width` is D."""
    sizes = {"C": classes, "X": rank, "D": width}
    arrays = {f.name: np.zeros(sizes[f.name[-1]]) for f in fields(CameraRow) if f.name[-1] in sizes}
    numbers = {f.name: 0.0 for f in fields(CameraRow) if f.name not in arrays}
    even = {name: np.full(classes, 1 / classes) for name in ("smooth_C", "alone_C", "pooled_C")}
    return CameraRow(**arrays | numbers | even | {"time_s": math.nan})  # type: ignore[arg-type]


def look(
    row: CameraRow,
    feature_BX: Array,
    query_BD: Array,
    along_BC: Array,
    labels_B: NDArray[np.int64],
    class_BX: Array,
    axes: ClassAxes,
    s: Settings,
) -> CameraRow:
    """The row after a step, but for predictions and time.

    along_BC: the features along the classes' directions; labels_B: the frozen answers; class_BX:
    what their classes explain of the features.
    """
    n = len(feature_BX)
    fresh, own, middle, mixed = (0.5 ** (n / h) for h in (s.fresh, s.own, s.middle, s.mixed))
    middle_X, n_middle = row.middle_X * middle + feature_BX.sum(0), row.n_middle * middle + n
    off_BX = feature_BX - middle_X / n_middle
    stands_B = (along_BC - axes.directions_CX @ (middle_X / n_middle)).argmax(-1) == labels_B
    walk_BX = feature_BX if row.frames == 0 else np.concatenate([row.last_X[None], feature_BX])
    steps = (np.diff(walk_BX, axis=0) ** 2).sum() / 2 * n / max(len(walk_BX) - 1, 1)
    return replace(
        row,
        recent_X=row.recent_X * fresh + feature_BX.sum(0),
        recent_D=row.recent_D * fresh + query_BD.sum(0),
        n_recent=row.n_recent * fresh + n,
        all_D=row.all_D + query_BD.sum(0),
        own_X=row.own_X * own + (feature_BX - class_BX).sum(0),
        steps=row.steps * own + float(steps),
        spread=row.spread * own + float((off_BX**2).sum()),
        n_own=row.n_own * own + n,
        middle_X=middle_X,
        n_middle=n_middle,
        answers_C=row.answers_C * mixed + np.bincount(labels_B, minlength=axes.classes),
        agreed=row.agreed * mixed + float(stands_B.sum()),
        n_answers=row.n_answers * mixed + n,
        last_X=feature_BX[-1],
        frames=row.frames + n,
    )


def shows_mixture(row: CameraRow, s: Settings) -> bool:
    """Whether a camera whose frames do not stick shows a mixture of classes.

    Then its mean is the light's doing. Where it shows one class, the mean is the class: few
    different answers, and few of them stand without the mean.
    """
    share_C = row.answers_C / row.n_answers
    return bool(
        row.n_answers > s.frames_for_mixture
        and row.agreed >= s.agree * row.n_answers
        and 1 / (share_C**2).sum() >= s.diverse * len(share_C)
    )
