"""The `realtime` preset: frames by the domains of their cameras, watched by the guard.

Shapes: B frames, D width, C classes, E dimension of the joint space.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from mint_stream.method import bank_state
from mint_stream.method.bank_state import BankState
from mint_stream.method.domains import ClassSpace, DomainBank, answer
from mint_stream.method.frozen import FrozenClip, Seen
from mint_stream.method.prediction import ONE_PASS, Answers


class Domains:
    """A bank of domains (see `domains`): one pass, no gradient, many frames at once."""

    one_pass = True
    keeps_state = True
    cost = ONE_PASS

    def __init__(self, clip: FrozenClip) -> None:
        self._clip = clip
        self.space = ClassSpace(
            projection_DE=_doubles(clip.clip.model.visual.proj),
            text_CE=_doubles(clip.source_text_CE),
            scale=float(clip.logit_scale),
        )

    def bank(self, state: BankState, labelers: int = 1) -> DomainBank:
        """See `Method`."""
        effective = bank_state.effective(state)
        return DomainBank(*effective, state.usage_K, self._clip.method, labelers)

    @torch.no_grad()
    def answer(
        self,
        seen: Seen,
        banks: Sequence[DomainBank | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
        learn: bool = True,
    ) -> Answers:
        """See `Method`. The frames of one camera are taken together, in time order: the more there
        are, the sooner a new domain is known."""
        clip = self._clip
        frozen_BC = clip.logits(seen.source_VE, clip.source_text_CE)
        with clip.stopwatch("domains"):
            logits_BC, standings = answer(
                _doubles(frozen_BC),
                _doubles(seen.query_VQD[:, 0]),
                _doubles(clip.encoder.activation(seen.query_VQD[:, -1])),
                banks,
                cameras,
                self.space,
                learn=learn,
            )
        p_BC = torch.from_numpy(logits_BC).float().softmax(-1).numpy()
        return Answers(p_BC=p_BC, standings=standings)

    def read(
        self,
        seen: Seen,
        banks: Sequence[DomainBank | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
    ) -> Answers:
        """See `Method`: each frame by the domain that it shows itself."""
        return self.answer(seen, banks, range(len(banks)), learn=False)


def _doubles(tensor: Tensor) -> np.ndarray:
    """float64, on the CPU."""
    array: np.ndarray = tensor.detach().double().cpu().numpy()
    return array
