"""Retrieval from the Memory Prompt Bank and assembly of associative prompts (METHOD.md, 2 to 4).

Shapes: B images or views, Q query levels, D width, K entries, R retrieved, P prompt rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Retrieval(NamedTuple):
    """What one pass retrieved, nearest first within each level."""

    indices_BQR: Tensor
    """int64, entries in [0, K)."""
    distances_BQR: Tensor
    """The (weighted) distances that the choice was made by; they carry gradient to the keys."""


def retrieve(
    query_BQD: Tensor, keys_KD: Tensor, retrieved: int, usage_K: Tensor | None = None
) -> Retrieval:
    """The `retrieved` nearest entries for each query level, by one minus cosine.

    With `usage_K` (int64 counts; given while adapting) distances are weighted by usage / T as
    long as 0 < T <= K * B, T being the sum of all counts: entries that were never used then have
    distance 0 and come first, the nearest of them before the others.
    """
    cosine_BQK = F.normalize(query_BQD, dim=-1) @ F.normalize(keys_KD, dim=-1).T
    distance_BQK = 1 - cosine_BQK
    if usage_K is None:
        order_BQK = distance_BQK
    else:
        total = usage_K.sum()
        weighting = (total > 0) & (total <= len(keys_KD) * len(query_BQD))
        share_K = usage_K.to(distance_BQK.dtype) / total.clamp(min=1)
        plain_BQK = distance_BQK.detach().double()
        distance_BQK = distance_BQK * torch.where(weighting, share_K, torch.ones_like(share_K))
        # Ties are at weighted distance 0. A plain distance is at most 2: minus 3 it orders the
        # tied entries among themselves and puts them before all others.
        order_BQK = distance_BQK.detach().double()
        order_BQK = torch.where(order_BQK > 0, order_BQK, plain_BQK - 3)
    indices_BQR = order_BQK.topk(retrieved, dim=-1, largest=False).indices
    return Retrieval(indices_BQR, distance_BQK.gather(-1, indices_BQR))


def retrieval_counts(indices_BQR: Tensor, entries: int) -> Tensor:
    """How often each image retrieved each entry: (B, K) int64."""
    flat_BX = indices_BQR.flatten(1)
    counts_BK = flat_BX.new_zeros(len(flat_BX), entries)
    return counts_BK.scatter_add_(1, flat_BX, torch.ones_like(flat_BX))


def assemble(counts_BK: Tensor, prompts_KPD: Tensor) -> Tensor:
    """Associative prompts, the mean prompt of the retrieved entries, repeats counted: (B, P, D).

    A product with the counts instead of a gather: its gradient is a product too, which adds in
    the same order in every run (a gather's scattered additions do not, on a GPU).
    """
    counts_BK = counts_BK.to(prompts_KPD.dtype)
    prompt_BX = counts_BK / counts_BK.sum(-1, keepdim=True) @ prompts_KPD.flatten(1)
    return prompt_BX.unflatten(-1, prompts_KPD.shape[1:])
