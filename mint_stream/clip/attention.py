"""One residual attention block of open_clip, split where the method reaches in.

open_clip's block computes attention and MLP in one call. The method needs the parts: prompts
enter as additional keys and values, and of the last block only one row is ever read. The modules
and their weights are open_clip's own.

Shapes: B images (or classes), T tokens, S query rows (S <= T), D width.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mint_stream.clip.device import needs_exact_attention

Block = Any
"""An `open_clip.transformer.ResidualAttentionBlock`."""


def project(block: Block, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of already normalised tokens: three (B, T, D)."""
    attn = block.attn
    qkv = F.linear(x_BTD.to(attn.in_proj_weight.dtype), attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.chunk(3, dim=-1)
    return q, k, v


def project_query(block: Block, x_BTD: Tensor) -> Tensor:
    """Queries alone: (B, T, D)."""
    return _project_part(block, x_BTD, 0)


def project_key(block: Block, x_BTD: Tensor) -> Tensor:
    """Keys alone: (B, T, D)."""
    return _project_part(block, x_BTD, 1)


def project_value(block: Block, x_BTD: Tensor) -> Tensor:
    """Values alone: (B, T, D)."""
    return _project_part(block, x_BTD, 2)


def _project_part(block: Block, x_BTD: Tensor, part: int) -> Tensor:
    attn = block.attn
    width = attn.embed_dim
    rows = slice(part * width, (part + 1) * width)
    weight_DD, bias_D = attn.in_proj_weight[rows], attn.in_proj_bias[rows]
    return F.linear(x_BTD.to(weight_DD.dtype), weight_DD, bias_D)


def finish(
    block: Block, x_BSD: Tensor, q_BSD: Tensor, k_BTD: Tensor, v_BTD: Tensor, mask_ST: Any = None
) -> Tensor:
    """The rest of the block for the S rows in `x_BSD`: attention, residuals, MLP: (B, S, D).

    `mask_ST` (bool, True where a row may look) is broadcast over images and heads.
    """
    heads = block.attn.num_heads

    def split(t: Tensor) -> Tensor:
        return t.unflatten(-1, (heads, -1)).transpose(1, 2)

    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in (q_BSD, k_BTD, v_BTD))
    exact = needs_exact_attention(q_BSD.device.type, differentiated=differentiated)
    with sdpa_kernel(SDPBackend.MATH) if exact else nullcontext():
        mixed = F.scaled_dot_product_attention(split(q_BSD), split(k_BTD), split(v_BTD), mask_ST)
    mixed_BSD = block.attn.out_proj(mixed.transpose(1, 2).flatten(2))
    x_BSD = x_BSD + block.ls_1(mixed_BSD)
    hidden = block.ln_2(x_BSD).to(mixed_BSD.dtype)
    return x_BSD + block.ls_2(block.mlp(hidden))
