"""The frozen image encoder: query features without prompts, image features with them.

Shapes: B images or views, T tokens (CLS first), D width, Q query levels, P prompt rows,
E dimension of the joint space. METHOD.md, "One forward pass", 1, 5 and 6.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mint_stream.clip.attention import finish, project, project_key, project_query, project_value


class Stem(NamedTuple):
    """Everything of a pass that comes before block 0's attention; the same with any prompt."""

    x_BTD: Tensor
    q_BTD: Tensor
    k_BTD: Tensor
    v_BTD: Tensor

    def take(self, rows: Tensor | slice) -> Stem:
        """The stem of some of the images."""
        return Stem(*(part[rows] for part in self))


def query_blocks(layers: int, levels: int) -> tuple[int, ...]:
    """0-based blocks whose CLS token is a query: evenly spaced, the last block included."""
    return tuple(round(layers * (level + 1) / levels) - 1 for level in range(levels))


class ImageEncoder:
    """open_clip's VisionTransformer, read in three parts: `stem`, then `plain` or `prompted`.

    Linear layers run in the weights' own dtype (bfloat16 where the model was loaded so); the
    residual stream, the layer norms and what is returned stay in `x`'s dtype.
    """

    def __init__(self, visual: Any, query_blocks: tuple[int, ...]) -> None:
        self.visual = visual
        self.query_blocks = query_blocks
        self.blocks = visual.transformer.resblocks
        self.width: int = visual.transformer.width
        self.at_once: int | None = None
        """Most images in a pass without gradients; None for as many as there are."""

    def stem(self, images_BCHW: Tensor) -> Stem:
        """Tokens and block 0's projections of normalised images, in the images' dtype."""
        parts = [self._stem(images_BCHW[rows]) for rows in self._parts(len(images_BCHW))]
        return parts[0] if len(parts) == 1 else Stem(*map(torch.cat, zip(*parts, strict=True)))

    def _parts(self, images: int) -> list[slice]:
        size = images if self.at_once is None or torch.is_grad_enabled() else self.at_once
        return [slice(first, first + size) for first in range(0, images, max(1, size))] or [
            slice(0, 0)
        ]

    def _stem(self, images_BCHW: Tensor) -> Stem:
        v = self.visual
        dtype = images_BCHW.dtype
        patches_BDN = v.conv1(images_BCHW.to(v.conv1.weight.dtype)).flatten(2).to(dtype)
        cls_B1D = v.class_embedding.to(dtype).expand(len(images_BCHW), 1, -1)
        x_BTD = torch.cat([cls_B1D, patches_BDN.transpose(1, 2)], dim=1)
        x_BTD = v.ln_pre(x_BTD + v.positional_embedding.to(dtype))
        return Stem(x_BTD, *project(self.blocks[0], self.blocks[0].ln_1(x_BTD)))

    def plain(self, stem: Stem) -> tuple[Tensor, Tensor]:
        """A pass without prompts: query features (B, Q, D), unit image features (B, E)."""
        return self._pass(stem, stem.k_BTD, stem.v_BTD)

    def prompted(self, stem: Stem, prompt_BPD: Tensor) -> Tensor:
        """A pass with each image's associative prompt as a prefix in block 0: unit (B, E)."""
        half = prompt_BPD.shape[1] // 2
        key_BHD = project_key(self.blocks[0], prompt_BPD[:, :half])
        value_BHD = project_value(self.blocks[0], prompt_BPD[:, half:])
        k_BTD = torch.cat([stem.k_BTD[:, :1], key_BHD, stem.k_BTD[:, 1:]], dim=1)
        v_BTD = torch.cat([stem.v_BTD[:, :1], value_BHD, stem.v_BTD[:, 1:]], dim=1)
        return self._pass(stem, k_BTD, v_BTD)[1]

    def activation(self, query_BD: Tensor) -> Tensor:
        """The last activation, from the last level's query: what is projected, (B, D)."""
        activation_BD: Tensor = self.visual.ln_post(query_BD)
        return activation_BD

    def _pass(self, stem: Stem, k_BTD: Tensor, v_BTD: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            self._blocks(stem.take(rows), k_BTD[rows], v_BTD[rows])
            for rows in self._parts(len(k_BTD))
        ]
        if len(parts) == 1:
            return parts[0]
        queries, features = zip(*parts, strict=True)
        return torch.cat(queries), torch.cat(features)

    def _blocks(self, stem: Stem, k_BTD: Tensor, v_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """All blocks from block 0's keys and values on; of the last block only the CLS row."""
        x_BTD, q_BTD = stem.x_BTD, stem.q_BTD
        last = len(self.blocks) - 1
        queries: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            if index > 0:
                normed_BTD = block.ln_1(x_BTD)
                if index < last:
                    q_BTD, k_BTD, v_BTD = project(block, normed_BTD)
                else:
                    q_BTD = project_query(block, normed_BTD[:, :1])
                    k_BTD = project_key(block, normed_BTD)
                    v_BTD = project_value(block, normed_BTD)
            if index == last:
                x_BTD, q_BTD = x_BTD[:, :1], q_BTD[:, :1]
            x_BTD = finish(block, x_BTD, q_BTD, k_BTD, v_BTD)
            if index in self.query_blocks:
                queries.append(x_BTD[:, 0])
        cls_BD = self.activation(x_BTD[:, 0])
        features_BE = cls_BD @ self.visual.proj.to(cls_BD.dtype)
        return torch.stack(queries, dim=1), F.normalize(features_BE, dim=-1)
