"""The loss of the adaptation step (METHOD.md, "Adapting to one image", 2).

Shapes: B images or views, C classes.
"""

from __future__ import annotations

import math

from torch import Tensor


def entropy(logits_BC: Tensor) -> Tensor:
    """Entropy of each predicted distribution, nats: (B,)."""
    log_p_BC = logits_BC.log_softmax(-1)
    return -(log_p_BC.exp() * log_p_BC).sum(-1)


def most_confident(logits_BC: Tensor, count: int) -> Tensor:
    """Indices of the `count` rows of lowest prediction entropy: (count,) int64."""
    return entropy(logits_BC).topk(count, largest=False).indices


def marginal_entropy(logits_BC: Tensor) -> Tensor:
    """Entropy of the mean predicted distribution, nats: a scalar (MEMO, TPT)."""
    log_p_BC = logits_BC.log_softmax(-1)
    log_mean_C = log_p_BC.logsumexp(0) - math.log(len(log_p_BC))
    return -(log_mean_C.exp() * log_mean_C).sum()
