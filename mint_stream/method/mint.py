"""The published algorithm: METHOD.md as three verbs, `reset`, `adapt`, `predict`.

Shapes: B images, V views, Q query levels, D width, K entries, R retrieved, P prompt rows,
N context tokens, W text width, C classes, E dimension of the joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mint_stream.method import bank_state
from mint_stream.method.bank_state import BankState
from mint_stream.method.frozen import FrozenClip, Seen, array
from mint_stream.method.losses import marginal_entropy, most_confident
from mint_stream.method.prediction import UNWATCHED, Answers, Cost
from mint_stream.method.retrieval import Retrieval, assemble, retrieval_counts, retrieve


@dataclass
class BankTensors:
    """The Memory Prompt Bank in use: effective values, on the model's device."""

    keys_KD: Tensor
    prompts_KPD: Tensor
    usage_K: Tensor
    """int64: how often each entry was retrieved while adapting."""
    decay: float = 1.0
    """AdamW's weight decay since the bank was loaded: what untouched rows were scaled by."""

    @classmethod
    def of(
        cls, keys_KD: np.ndarray, prompts_KPD: np.ndarray, usage_K: np.ndarray, clip: FrozenClip
    ) -> BankTensors:
        """Effective keys and prompts, and how often each entry was retrieved."""
        device, dtype = clip.clip.device, clip.clip.dtype
        return cls(
            torch.tensor(keys_KD, device=device, dtype=dtype),
            torch.tensor(prompts_KPD, device=device, dtype=dtype),
            torch.tensor(usage_K, device=device, dtype=torch.int64),
        )

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys (K, D), prompts (K, P, D) and usage (K,) as arrays of their own."""
        tensors = (self.keys_KD, self.prompts_KPD, self.usage_K)
        keys_KD, prompts_KPD, usage_K = (t.cpu().numpy().copy() for t in tensors)
        return keys_KD, prompts_KPD, usage_K

    def become(self, other: BankTensors) -> None:
        """Take over another one's numbers."""
        self.keys_KD, self.prompts_KPD = other.keys_KD, other.prompts_KPD
        self.usage_K, self.decay = other.usage_K, other.decay


class Step(NamedTuple):
    """One optimisation step, for whoever watches (`adapt`'s `observe`)."""

    retrieval: Retrieval
    logits_VC: Tensor
    """Of all views, before the update."""
    chosen: Tensor
    """Indices of the confident views."""
    loss: Tensor
    context_NW: Tensor
    """After the update."""


class Mint:
    """MINT on one image after the other. The bank lasts; the context is reset for every image."""

    one_pass = False
    keeps_state = True

    def __init__(self, clip: FrozenClip) -> None:
        self._clip, self._method = clip, clip.method
        with torch.no_grad():
            self._text_CE = clip.text.features(clip.context_init_NW)
        self.reset()

    def bank(self, state: BankState, labelers: int = 1) -> BankTensors:
        """See `Method`."""
        return BankTensors.of(*bank_state.effective(state), state.usage_K, self._clip)

    def reset(self) -> None:
        """Back to the initial context. The bank is not reset."""
        self.context_NW = self._clip.context_init_NW.clone()

    def adapt(
        self, seen: Seen, bank: BankTensors, observe: Callable[[Step], None] | None = None
    ) -> BankTensors:
        """S optimisation steps of context, keys and prompts on the views of one image.

        Gives the bank after them. Gradients are made for the confident views alone: the others
        enter only the distance term, which needs their cached queries and not the encoder.
        """
        clip, method = self._clip, self._method
        context_NW = self.context_NW.clone().requires_grad_()
        keys_KD = bank.keys_KD.clone().requires_grad_()
        prompts_KPD = bank.prompts_KPD.clone().requires_grad_()
        usage_K, decay = bank.usage_K.clone(), bank.decay
        optimizer = torch.optim.AdamW(
            [context_NW, keys_KD, prompts_KPD],
            lr=method.learning_rate,
            weight_decay=method.weight_decay,
            fused=True,
        )
        chosen = torch.empty(0)
        for step in range(method.steps):
            with clip.stopwatch("retrieve"):
                retrieval = retrieve(seen.query_VQD, keys_KD, method.retrieved, usage_K)
                counts_VK = retrieval_counts(retrieval.indices_BQR, len(keys_KD))
                usage_K += counts_VK.sum(0)
            with clip.stopwatch("text"):
                text_CE = clip.text.features(context_NW)
            if step == 0 or observe:
                with torch.no_grad(), clip.stopwatch("encoder"):
                    prompt_VPD = assemble(counts_VK, prompts_KPD)
                    logits_VC = clip.logits(clip.encoder.prompted(seen.stem, prompt_VPD), text_CE)
            if step == 0:
                chosen = most_confident(logits_VC, method.confident_views)
            with clip.stopwatch("encoder"):
                prompt_BPD = assemble(counts_VK[chosen], prompts_KPD)
                image_BE = clip.encoder.prompted(seen.stem.take(chosen), prompt_BPD)
                distance = retrieval.distances_BQR.sum((1, 2)).mean()
                loss = marginal_entropy(clip.logits(image_BE, text_CE))
                loss = loss + method.distance_weight * distance
            with clip.stopwatch("step"):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            decay *= 1 - method.learning_rate * method.weight_decay
            if observe:
                after = context_NW.detach().clone()
                observe(Step(retrieval, logits_VC, chosen, loss.detach(), after))
        self.context_NW = context_NW.detach()
        return BankTensors(keys_KD.detach(), prompts_KPD.detach(), usage_K, decay)

    @torch.no_grad()
    def predict(
        self, seen: Seen, bank: BankTensors, observe: Callable[[Retrieval], None] | None = None
    ) -> Tensor:
        """Logits of view 0 with the adapted context and bank, by plain distances: (1, C)."""
        clip = self._clip
        with clip.stopwatch("retrieve"):
            retrieval = retrieve(seen.query_VQD[:1], bank.keys_KD, self._method.retrieved)
            counts_1K = retrieval_counts(retrieval.indices_BQR, len(bank.keys_KD))
            prompt_1PD = assemble(counts_1K, bank.prompts_KPD)
        with clip.stopwatch("text"):
            text_CE = clip.text.features(self.context_NW)
        with clip.stopwatch("encoder"):
            image_1E = clip.encoder.prompted(seen.stem.take(slice(1)), prompt_1PD)
            logits_1C = clip.logits(image_1E, text_CE)
        if observe:
            observe(retrieval)
        return logits_1C

    def answer(
        self,
        seen: Seen,
        banks: Sequence[BankTensors | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
        learn: bool = True,
    ) -> Answers:
        """See `Method`: of one image, whose V views are `seen`.

        A bank that would hold numbers that are not finite stays as it was, and there is no answer.
        """
        if not learn:
            return self.read(seen.take(slice(1)), banks, cameras)
        (bank,) = banks
        assert bank is not None
        self.reset()
        after = self.adapt(seen, bank)
        adapted_1C = self.predict(seen, after).softmax(-1)
        # The only number that is read back from a GPU before the answer itself.
        numbers = (adapted_1C, after.keys_KD, after.prompts_KPD)
        if all(torch.stack([torch.isfinite(t).all() for t in numbers]).tolist()):
            bank.become(after)
        else:
            adapted_1C = torch.full_like(adapted_1C, torch.nan)
        return Answers(p_BC=array(adapted_1C), standings=[UNWATCHED], cost=self.cost)

    @torch.no_grad()
    def read(
        self,
        seen: Seen,
        banks: Sequence[BankTensors | None],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
    ) -> Answers:
        """See `Method`: plain distances and the initial context (METHOD.md, "One forward pass")."""
        clip = self._clip
        p_BC = np.full((len(banks), len(clip.labels)), np.nan)
        rows, prompts = list[int](), []
        for bank in {id(bank): bank for bank in banks if bank is not None}.values():
            of_bank = [index for index, other in enumerate(banks) if other is bank]
            rows += of_bank
            retrieval = retrieve(seen.query_VQD[of_bank], bank.keys_KD, self._method.retrieved)
            counts_BK = retrieval_counts(retrieval.indices_BQR, len(bank.keys_KD))
            prompts.append(assemble(counts_BK, bank.prompts_KPD))
        if rows:
            index_R = torch.tensor(rows, device=seen.source_VE.device)
            image_RE = clip.encoder.prompted(seen.stem.take(index_R), torch.cat(prompts))
            p_BC[rows] = array(clip.logits(image_RE, self._text_CE).softmax(-1))
        cost = Cost(forwards=2, backwards=0)
        return Answers(p_BC=p_BC, standings=[UNWATCHED] * len(banks), cost=cost)

    @property
    def cost(self) -> Cost:
        """See `Method`."""
        views, trained = self._method.views, self._method.steps * self._method.confident_views
        return Cost(forwards=2 * views + 1 + trained, backwards=trained)
