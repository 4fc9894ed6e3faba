"""The text side: learnable context in front of every class name (METHOD.md, "One forward pass", 6).

Prompts are `[SOS][ctx_1..ctx_N][class name].[EOS]`. Attention is causal, so [SOS] and the context
are the same for all classes and run once; positions after the longest [EOS] are cut; and of the
last block only the [EOS] rows are computed. All three are exact.

Shapes: F phrases (class names and their synonyms), C classes, N context tokens, H = 1 + N head
positions, L positions after the context, W text width, E dimension of the joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mint_stream.clip.attention import finish, project, project_key, project_query, project_value
from mint_stream.config import ConfigError

Tokenizer = Callable[[Sequence[str]], Tensor]


class TextPrompt:
    """Class features as a function of the context tokens.

    Args:
        clip: an `open_clip.CLIP` with a causal text tower.
        tokenizer: open_clip's tokenizer for that model.
        phrases: for each class the names that stand for it; a class's feature is the normalised
            mean of its phrases' features.
        context: the words whose token embeddings are the initial context.
        ending: what follows the class name.

    Raises:
        ConfigError: a prompt is longer than the text tower's context length.
    """

    def __init__(
        self,
        clip: Any,
        tokenizer: Tokenizer,
        phrases: Sequence[Sequence[str]],
        context: str = "a photo of a",
        ending: str = ".",
    ) -> None:
        self.clip = clip
        self.blocks = clip.transformer.resblocks
        self.phrases_in_class = [len(names) for names in phrases]
        names = [name.replace("_", " ") + ending for group in phrases for name in group]
        embedding: Tensor = clip.token_embedding.weight.detach()
        device, self.dtype = embedding.device, embedding.dtype

        context_ids = _ids(tokenizer, context)[1:-1]
        rows = [_ids(tokenizer, name) for name in names]
        longest = max(rows, key=len)
        needed = len(context_ids) + len(longest)
        if needed > clip.context_length:
            name = names[rows.index(longest)]
            raise ConfigError(
                f"class name {name!r} needs {needed} text positions with the context "
                f"{context!r}; the model has {clip.context_length}: shorten the name"
            )
        tail = torch.zeros(len(rows), len(longest) - 1, dtype=torch.long)
        for i, ids in enumerate(rows):
            tail[i, : len(ids) - 1] = torch.tensor(ids[1:])
        self.sos_W = embedding[rows[0][0]]
        self.context_NW = embedding[torch.tensor(context_ids, dtype=torch.long)]
        """Initial context tokens: the embeddings of the phrase, not trained on any label."""
        self.tail_FLW = embedding[tail.to(device)]
        self.eos_F = torch.tensor([len(ids) - 2 for ids in rows], device=device)

    def features(self, context_NW: Tensor) -> Tensor:
        """Unit text features of the classes with this context: (C, E)."""
        head = 1 + len(context_NW)
        length = self.tail_FLW.shape[1]
        position = self.clip.positional_embedding.to(self.dtype)
        head_1HW = torch.cat([self.sos_W[None], context_NW])[None] + position[:head]
        tail_FLW = self.tail_FLW + position[head : head + length]
        device = context_NW.device
        causal = torch.ones(length, head + length, dtype=torch.bool, device=device).tril(head)
        causal_head = torch.ones(head, head, dtype=torch.bool, device=device).tril()
        for block in self.blocks[:-1]:
            qh, kh, vh = project(block, block.ln_1(head_1HW))
            qt, kt, vt = project(block, block.ln_1(tail_FLW))
            tail_FLW = finish(block, tail_FLW, qt, _joined(kh, kt), _joined(vh, vt), causal)
            head_1HW = finish(block, head_1HW, qh, kh, vh, causal_head)
        return self._last_block(head_1HW, tail_FLW, causal)

    def _last_block(self, head_1HW: Tensor, tail_FLW: Tensor, causal: Tensor) -> Tensor:
        block = self.blocks[-1]
        head_n, tail_n = block.ln_1(head_1HW), block.ln_1(tail_FLW)
        k = _joined(project_key(block, head_n), project_key(block, tail_n))
        v = _joined(project_value(block, head_n), project_value(block, tail_n))
        every = torch.arange(len(tail_FLW), device=tail_FLW.device)
        q_F1W = project_query(block, tail_n[every, self.eos_F][:, None])
        x_F1W = tail_FLW[every, self.eos_F][:, None]
        visible_F11T = causal[self.eos_F][:, None, None]
        eos_FW = self.clip.ln_final(finish(block, x_F1W, q_F1W, k, v, visible_F11T)[:, 0])
        features_FE = F.normalize(eos_FW @ self.clip.text_projection.to(eos_FW.dtype), dim=-1)
        if max(self.phrases_in_class) == 1:
            return features_FE
        groups = features_FE.split(self.phrases_in_class)
        return F.normalize(torch.stack([group.mean(0) for group in groups]), dim=-1)


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """[SOS] ... [EOS] without padding. [EOS] is the largest id of CLIP's vocabulary."""
    row = tokenizer([text])[0]
    return row[: int(row.argmax()) + 1].tolist()


def _joined(head_1HW: Tensor, tail_FLW: Tensor) -> Tensor:
    """Keys (or values) of the shared head in front of each phrase's own."""
    return torch.cat([head_1HW.expand(len(tail_FLW), -1, -1), tail_FLW], dim=1)
