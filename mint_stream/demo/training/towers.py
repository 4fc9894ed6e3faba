"""Both towers with the places where test-time tuning enters, for training and measuring.

The image tower takes one more key and value in block 0 (METHOD.md, step 5), the text tower takes
embeddings instead of words. The demonstration's CLIP learns to read the image tower's place: there
it is told how a picture was taken. A tower that has never had a use for one more key ignores it,
and prompt tuning does nothing.

Shapes: B images or texts, L tokens, D width, E embedding, H heads.
"""

from __future__ import annotations

import math

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor


def _attend(
    block: ResidualAttentionBlock, x_BLD: Tensor, prefix_B2D: Tensor, told_B: Tensor
) -> Tensor:
    """Self-attention with a prefix: row 0 is the key, row 1 the value, both before projection."""
    attention = block.attn
    batch, length, width = x_BLD.shape
    heads = attention.num_heads
    bias = attention.in_proj_bias
    qkv_BL3D = F.linear(x_BLD, attention.in_proj_weight, bias)
    q_BLD, k_BLD, v_BLD = qkv_BL3D.chunk(3, dim=-1)
    weight_k, weight_v = (
        attention.in_proj_weight[width : 2 * width],
        attention.in_proj_weight[2 * width :],
    )
    key_BD = F.linear(prefix_B2D[:, 0], weight_k, bias[width : 2 * width])
    value_BD = F.linear(prefix_B2D[:, 1], weight_v, bias[2 * width :])
    k_BLD = torch.cat([k_BLD, key_BD[:, None].to(k_BLD.dtype)], dim=1)
    v_BLD = torch.cat([v_BLD, value_BD[:, None].to(v_BLD.dtype)], dim=1)
    seen_BL = torch.ones(batch, length + 1, dtype=torch.bool, device=x_BLD.device)
    seen_BL[:, -1] = told_B

    def split(t: Tensor) -> Tensor:
        return t.view(batch, -1, heads, width // heads).transpose(1, 2)

    out_BHLD = F.scaled_dot_product_attention(
        split(q_BLD), split(k_BLD), split(v_BLD), attn_mask=seen_BL[:, None, None, :]
    )
    merged_BLD = out_BHLD.transpose(1, 2).reshape(batch, length, width)
    return F.linear(merged_BLD, attention.out_proj.weight, attention.out_proj.bias)


def encode_image(
    visual: VisionTransformer, images: Tensor, prefix_B2D: Tensor, told_B: Tensor
) -> Tensor:
    """Image features (B, E), not normalised, of images (B, 3, H, W).

    `prefix_B2D` (B, 2, D) holds the additional key and value of block 0; `told_B` (bool) says for
    which images it is there. Where it is not, the result is the tower's own.
    """
    x_BLD = visual._embeds(images)
    block = visual.transformer.resblocks[0]
    x_BLD = x_BLD + block.ls_1(_attend(block, block.ln_1(x_BLD), prefix_B2D, told_B))
    x_BLD = x_BLD + block.ls_2(block.mlp(block.ln_2(x_BLD)))
    for later in visual.transformer.resblocks[1:]:
        x_BLD = later(x_BLD)
    pooled, _ = visual._pool(x_BLD)
    features: Tensor = pooled @ visual.proj
    return features


def encode_text(model: open_clip.CLIP, embedded_BLD: Tensor, ends_B: Tensor) -> Tensor:
    """Text features (B, E), not normalised, of embedded tokens, read at the positions `ends_B`.

    The tower is causal, so L may be cut after the last end of text.
    """
    length = embedded_BLD.shape[1]
    x_BLD = embedded_BLD + model.positional_embedding[:length]
    x_BLD = model.transformer(x_BLD, attn_mask=model.attn_mask[:length, :length])
    x_BLD = model.ln_final(x_BLD)
    rows = torch.arange(len(ends_B), device=ends_B.device)
    features: Tensor = x_BLD[rows, ends_B] @ model.text_projection
    return features


@torch.no_grad()
def open_ear(visual: VisionTransformer, *, share: float = 0.35, offset: float = 4.0) -> None:
    """Start an untrained tower so that block 0 gives about `share` of its attention to a prefix.

    One key among dozens gets so little attention that training never finds a use for it. Here all
    tokens, but no prefix, get a common offset of length `offset` from the layer norm's bias; keys
    see it as a lower score. Without a prefix the softmax cancels it.
    """
    block = visual.transformer.resblocks[0]
    attention = block.attn
    width, heads = attention.embed_dim, attention.num_heads
    tokens = len(visual.positional_embedding)
    head = width // heads
    score = math.log(share * tokens / (1 - share))
    mark_D = F.normalize(torch.randn(width), dim=0)
    lure_HD = F.normalize(torch.randn(heads, head), dim=1)
    block.ln_1.bias.copy_(offset * mark_D)
    attention.in_proj_bias[:width] = (lure_HD * math.sqrt(score) * head**0.25).flatten()
    pushed_D = (lure_HD * math.sqrt(score) * head**0.25).flatten()
    keys_DD = attention.in_proj_weight[width : 2 * width]
    keys_DD -= torch.outer(keys_DD @ mark_D, mark_D)
    keys_DD -= torch.outer(pushed_D, mark_D) / offset
    # The offset must not pass as a query or a value.
    for rows in (slice(0, width), slice(2 * width, None)):
        weight_DD = attention.in_proj_weight[rows]
        weight_DD -= torch.outer(weight_DD @ mark_D, mark_D)
