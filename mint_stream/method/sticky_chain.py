"""A camera sees the same thing for a while: how long is measured, and used.

`together` measures without labels how much more neighbouring frames agree than chance would have
them; `stay` makes of it the probability that the next frame shows the class of this one; `forward`
and `backward` are the hidden Markov model with that probability: what a frame and its past say, and
what the frames after it say. At the last frame both are the same.

Shapes: B frames of one camera in time order, C classes, S values of the grid of stickiness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mint_stream.method.class_axes import softmax

Array = NDArray[np.float64]

STICKINESS_S = np.array([0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98])
_AGAINST = 3.0
"""Log odds against any stickiness, before there is evidence."""


_LEAST = 1e-9
"""Share of predictions below which a class counts as if it had that."""


def together(p_BC: Array, before_C: Array | None, marginal_C: Array) -> tuple[Array, float]:
    """Log likelihood ratios (S,) of neighbours that stick against neighbours by chance; pairs.

    p_BC: predictions; before_C: that of the frame before; marginal_C: mean prediction, of any
    scale. K = sum_c p_t p_(t+1) / marginal is 1 on average where frames are independent, however
    biased the model is; log(1 + s (K - 1)) is summed over the pairs.
    """
    if before_C is not None:
        p_BC = np.concatenate([before_C[None], p_BC])
    if len(p_BC) < 2:
        return np.zeros(len(STICKINESS_S)), 0.0
    chance_P = chance(p_BC[:-1], p_BC[1:], marginal_C)
    return ratios(chance_P).sum(0), float(len(chance_P))


def chance(p_PC: Array, q_PC: Array, marginal_C: Array) -> Array:
    """K = sum_c p q / marginal of P pairs of predictions: how likely they are one class, (P,)."""
    share_C = marginal_C / marginal_C.sum()
    chance_P: Array = (p_PC * q_PC) @ (1 / np.maximum(share_C, _LEAST))
    return chance_P


def ratios(chance_P: Array) -> Array:
    """log(1 + s (K - 1)) of P values of K: (P, S)."""
    grid_PS: Array = np.log1p(STICKINESS_S * (chance_P[:, None] - 1))
    return grid_PS


def stay(evidence_S: Array) -> float:
    """Posterior mean of the stickiness, from sums of `together`."""
    return float(STICKINESS_S @ softmax(evidence_S - _AGAINST * (STICKINESS_S > 0)))


def forward(logits_BC: Array, stickiness: float, before_C: Array, prior_C: Array) -> Array:
    """Posteriors (B, C) of frames by themselves and those before them: the filter.

    before_C: the posterior of the frame before. The next frame has its class with probability
    `stickiness`, and else one drawn from `prior_C`.
    """
    likely_BC = _likely(logits_BC)
    leave_C, p_C = (1 - stickiness) * prior_C, before_C
    p_BC = np.empty_like(likely_BC)
    for t in range(len(p_BC)):
        p_C = (stickiness * p_C + leave_C) * likely_BC[t]
        p_C = p_BC[t] = p_C / p_C.sum()
    return p_BC


def backward(filtered_BC: Array, logits_BC: Array, stickiness: float, prior_C: Array) -> Array:
    """Posteriors (B, C) by the frames after them as well: the smoother. From `forward`'s."""
    likely_BC = _likely(logits_BC)
    leave_C = (1 - stickiness) * prior_C
    p_BC, after_C = filtered_BC.copy(), np.ones(filtered_BC.shape[1])
    for t in range(len(p_BC) - 2, -1, -1):
        after_C = after_C * likely_BC[t + 1]
        after_C = stickiness * after_C + leave_C @ after_C
        after_C = after_C / after_C.max()
        p_C = filtered_BC[t] * after_C
        p_BC[t] = p_C / p_C.sum()
    return p_BC


def _likely(logits_BC: Array) -> Array:
    likely_BC: Array = np.exp(logits_BC - logits_BC.max(-1, keepdims=True))
    return likely_BC


def confidence(posterior_BC: Array, p_BC: Array, trust: float) -> Array:
    """The chain's posteriors, no surer than they deserve: (B, C), in the same order of classes.

    The chain takes its frames for independent, and on a camera they are not. Where neighbours are
    one picture (`trust` 0), what it says is as sure as single frames are of it: the mean of their
    predictions p, weighted by the posterior R, sum_t R_t p_t / sum_t R_t. Where neighbours are as
    far apart as any frames of the camera, the chain's own confidence counts by `trust`.
    """
    classes = posterior_BC.shape[1]
    answer_B, top_B = posterior_BC.argmax(-1), posterior_BC.max(-1)
    mean_C = (posterior_BC * p_BC).sum(0) / np.maximum(posterior_BC.sum(0), 1e-300)
    wanted_B = trust * top_B + (1 - trust) * mean_C[answer_B]
    even = 1 / classes
    share_B = np.clip((wanted_B - even) / np.maximum(top_B - even, 1e-12), 1e-6, 1)
    sure_BC: Array = even + share_B[:, None] * (posterior_BC - even)
    return sure_BC
