"""How much arithmetic one image needs: the floor under the paper preset, and the published loop.

Counted in floating-point operations of matrix products (a multiplication and an addition are
two); what is left out (softmax, norms, AdamW) is far below one percent.

The floor, for V views, S steps and n confident views, with every exact saving:

    V        passes without prompts: they give the queries and the frozen answer
    V        passes with prompts, without gradient: they choose the confident views
    S * n    passes with prompts, forward and backward
    1        pass with prompts: the prediction
    S + 1    passes of the text tower at the true prompt length, S of them with a backward

The published loop runs both image passes for all views in every step, gradients for all of them,
and the text tower at its full length:

    S * 2V + 2   forwards, S * V backwards, S + 1 passes of the text tower, S backwards

A backward costs as much as its forward: weights are frozen, so only the gradients of activations
are made.

Shapes: T tokens, D width, L blocks, C classes, H head positions (start of text and context).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mint_stream.clip.text_prompt import TextPrompt
from mint_stream.config import MethodConfig


@dataclass(frozen=True)
class Flops:
    """Operations for one image."""

    floor: float
    published: float

    @property
    def ratio(self) -> float:
        """How many times less work the floor is."""
        return self.published / self.floor


def count_flops(clip_model: Any, text: TextPrompt, method: MethodConfig) -> Flops:
    """Operations that one image needs and that the published loop spends on it."""
    visual = clip_model.visual
    blocks = visual.transformer.resblocks
    image = _blocks(len(blocks), visual.positional_embedding.shape[0], blocks[0])
    image += 2 * visual.conv1.weight.numel() * (visual.positional_embedding.shape[0] - 1)

    text_blocks = clip_model.transformer.resblocks
    classes, tail = text.tail_FLW.shape[:2]
    head = 1 + len(text.context_NW)
    full = classes * _blocks(len(text_blocks), clip_model.context_length, text_blocks[0])
    short = _text_floor(len(text_blocks), classes, head, tail, text_blocks[0])

    views, steps, chosen = method.views, method.steps, method.confident_views
    return Flops(
        floor=image * (2 * views + 1 + 2 * steps * chosen) + short * (2 * steps + 1),
        published=image * (steps * 3 * views + 2) + full * (2 * steps + 1),
    )


def _row(block: Any) -> int:
    """Operations of a block's linear layers for one token: projections and MLP."""
    width = block.attn.embed_dim
    hidden = block.mlp[0].weight.shape[0]
    return 8 * width * width + 4 * width * hidden


def _blocks(layers: int, tokens: int, block: Any) -> float:
    """Operations of a whole tower for one sequence."""
    return layers * tokens * (_row(block) + 4 * tokens * block.attn.embed_dim)


def _text_floor(layers: int, classes: int, head: int, tail: int, block: Any) -> float:
    """The text tower with the head shared by all classes."""
    width = block.attn.embed_dim
    rows = head + classes * tail
    attention = 4 * width * (head * head + classes * tail * (head + tail))
    return layers * (rows * _row(block) + attention)
