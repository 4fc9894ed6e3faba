"""Methods of others that `realtime` and `paper` are compared with, from the adapter's own parts.

Shapes: B confident views, V views, N context tokens, W text width, C classes, E dimension of the
joint space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mint_stream.method.losses import marginal_entropy, most_confident, votes

if TYPE_CHECKING:
    from mint_stream.method.adapter import MintAdapter, Seen


def adapt_text(adapter: MintAdapter, seen: Seen) -> Tensor:
    """TPT (Shu et al. 2022): S steps of the context alone, then the logits of view 0: (1, C).

    Without prompts the image features do not change: the pass that is there serves all steps.
    """
    method = adapter.method
    context_NW = adapter.context_NW.clone().requires_grad_()
    optimizer = torch.optim.AdamW(
        [context_NW], lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
    )
    with torch.no_grad():
        logits_VC = adapter.logits(seen.source_VE, adapter.text.features(context_NW))
        confident_BE = seen.source_VE[most_confident(logits_VC, method.confident_views)]
    with adapter.stopwatch("step"):
        for _ in range(method.steps):
            optimizer.zero_grad()
            logits_BC = adapter.logits(confident_BE, adapter.text.features(context_NW))
            marginal_entropy(logits_BC).backward()
            optimizer.step()
    adapter.context_NW = context_NW.detach()
    with torch.no_grad(), adapter.stopwatch("text"):
        return adapter.logits(seen.source_VE[:1], adapter.text.features(adapter.context_NW))


def vote(adapter: MintAdapter, seen: Seen) -> Tensor:
    """ZERO (Farina et al. 2024): the votes of the confident views as probabilities: (C,)."""
    logits_VC = adapter.logits(seen.source_VE, adapter.source_text_CE)
    return votes(logits_VC[most_confident(logits_VC, adapter.method.confident_views)])
