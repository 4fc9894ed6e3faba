"""Methods of others that `realtime` and `paper` are compared with, from the same parts.

Shapes: B confident views, V views, N context tokens, W text width, C classes, E dimension of the
joint space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from mint_stream.method import bank_state
from mint_stream.method.bank_state import BankState
from mint_stream.method.frozen import FrozenClip, Seen, array
from mint_stream.method.losses import marginal_entropy, most_confident, votes
from mint_stream.method.mint import BankTensors
from mint_stream.method.prediction import UNWATCHED, Answers, Cost


class FromViews(ABC):
    """A method that goes by the views of one image and remembers nothing."""

    one_pass = False
    keeps_state = False

    def __init__(self, clip: FrozenClip) -> None:
        self._clip = clip

    def bank(self, state: BankState, labelers: int = 1) -> BankTensors:
        """See `Method`: the bank stays as it is."""
        return BankTensors.of(*bank_state.effective(state), state.usage_K, self._clip)

    def answer(
        self,
        seen: Seen,
        banks: Sequence[BankTensors | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
        learn: bool = True,
    ) -> Answers:
        """See `Method`: of one image, whose V views are `seen`."""
        p_1C = array(self._probabilities(seen))[None]
        return Answers(p_BC=p_1C, standings=[UNWATCHED], cost=self.cost)

    def read(
        self,
        seen: Seen,
        banks: Sequence[BankTensors | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
    ) -> Answers:
        """See `Method`: one view has no answer."""
        p_BC = np.full((len(banks), len(self._clip.labels)), np.nan)
        return Answers(p_BC=p_BC, standings=[UNWATCHED] * len(banks))

    @property
    def cost(self) -> Cost:
        """See `Method`."""
        return Cost(forwards=self._clip.method.views, backwards=0)

    @abstractmethod
    def _probabilities(self, seen: Seen) -> Tensor:
        """Of the classes: (C,)."""


class Tpt(FromViews):
    """TPT (Shu et al. 2022): S steps of the text context alone. `context_NW`: the last one."""

    def _probabilities(self, seen: Seen) -> Tensor:
        """Without prompts the image features do not change: one pass serves all steps."""
        clip, method = self._clip, self._clip.method
        context_NW = clip.context_init_NW.clone().requires_grad_()
        optimizer = torch.optim.AdamW(
            [context_NW], lr=method.learning_rate, weight_decay=method.weight_decay, fused=True
        )
        with torch.no_grad():
            logits_VC = clip.logits(seen.source_VE, clip.text.features(context_NW))
            confident_BE = seen.source_VE[most_confident(logits_VC, method.confident_views)]
        with clip.stopwatch("step"):
            for _ in range(method.steps):
                optimizer.zero_grad()
                logits_BC = clip.logits(confident_BE, clip.text.features(context_NW))
                marginal_entropy(logits_BC).backward()
                optimizer.step()
        self.context_NW = context_NW.detach()
        with torch.no_grad(), clip.stopwatch("text"):
            text_CE = clip.text.features(self.context_NW)
            return clip.logits(seen.source_VE[:1], text_CE)[0].softmax(-1)


class Zero(FromViews):
    """ZERO (Farina et al. 2024): the votes of the confident views, and no step."""

    @torch.no_grad()
    def _probabilities(self, seen: Seen) -> Tensor:
        clip = self._clip
        logits_VC = clip.logits(seen.source_VE, clip.source_text_CE)
        return votes(logits_VC[most_confident(logits_VC, clip.method.confident_views)])
