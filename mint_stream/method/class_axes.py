"""Where the classes differ: the part of the joint space that tells one class from another.

A picture's activation has hundreds of dimensions; the classes span at most C - 1 of them. What a
camera, a night or a fog does to the features matters only there, so all of `cameras` is computed
in these coordinates: at ten classes nine numbers a frame.

Shapes: B frames, D width, E dimension of the joint space, C classes, X rank of the centred texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClassAxes:
    """Made once for a model and a class list by `class_axes`."""

    basis_DX: Array
    """From activations to the subspace in which the classes differ."""
    anchors_CX: Array
    """The classes' text features there, without their mean."""
    directions_CX: Array
    """The same, of unit length."""
    scale: float
    """CLIP's logit scale."""

    @property
    def classes(self) -> int:
        """C."""
        return len(self.anchors_CX)

    @cached_property
    def length(self) -> float:
        """Root mean square length of the anchors."""
        return float(np.sqrt((self.anchors_CX**2).sum(-1).mean()))


def class_axes(projection_DE: Array, text_CE: Array, scale: float) -> ClassAxes:
    """From the image tower's last projection, the unit text features and the logit scale.

    Raises ValueError for fewer than two classes, or texts that are all the same.
    """
    if len(text_CE) < 2:
        raise ValueError(f"text features of {len(text_CE)} classes; adapting needs at least 2")
    centred_CE = text_CE - text_CE.mean(0)
    u_EX, s_X, _ = np.linalg.svd(centred_CE.T, full_matrices=False)
    if s_X[0] < 1e-12:
        raise ValueError("the text features of all classes are the same")
    u_EX = u_EX[:, s_X > 1e-6 * s_X[0]]
    anchors_CX = centred_CE @ u_EX
    return ClassAxes(projection_DE @ u_EX, anchors_CX, unit(anchors_CX), float(scale))


def unit(x_XD: Array) -> Array:
    """Rows of unit length; a row of zeros stays."""
    length_X1 = np.linalg.norm(x_XD, axis=-1, keepdims=True)
    unit_XD: Array = x_XD / np.maximum(length_X1, 1e-12)
    return unit_XD


def softmax(logits_BC: Array) -> Array:
    """Along the last axis."""
    e_BC = np.exp(logits_BC - logits_BC.max(-1, keepdims=True))
    p_BC: Array = e_BC / e_BC.sum(-1, keepdims=True)
    return p_BC
