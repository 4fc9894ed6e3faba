"""The loss of the adaptation step (METHOD.md, "Adapting to one image", 2), and what views vote.

Shapes: B images or views, C classes.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import one_hot


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


def votes(logits_BC: Tensor) -> Tensor:
    """Each row's vote for its most probable class, as shares: (C,).

    The marginal at temperature zero (ZERO, Farina et al. 2024). Of classes with equal votes the
    one with the largest mean probability wins: it enters with a weight that decides nothing else.
    """
    p_BC = logits_BC.softmax(-1)
    votes_BC = one_hot(p_BC.argmax(-1), p_BC.shape[-1]).to(p_BC.dtype)
    tie_break = 0.1 / len(p_BC)
    return ((1 - tie_break) * votes_BC + tie_break * p_BC).mean(0)
