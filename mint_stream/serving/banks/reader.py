"""Answers by a bank that is only read: no optimisation step, nothing learned, many images at once.

What a bank learned from a stream is used for images that cannot wait for it: queries, retrieval by
plain distances, associative prompt, prediction with the initial context (METHOD.md, "One forward
pass"). A camera whose bank holds no merge yet gets the frozen answer.

Shapes: B images, C classes, D width, K entries, P prompt rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mint_stream.clip.views import first_views
from mint_stream.config import BankScope
from mint_stream.labeler.labeler import SHARED
from mint_stream.method import bank_state
from mint_stream.method.adapter import BankTensors, MintAdapter, Seen
from mint_stream.method.bank_state import Banks
from mint_stream.method.domains import DomainBank
from mint_stream.method.guard import ADAPTING
from mint_stream.method.losses import entropy
from mint_stream.method.prediction import Cost, Prediction
from mint_stream.method.retrieval import assemble, retrieval_counts, retrieve

Topk = tuple[tuple[str, float], ...]
"""Labels and probabilities, best first."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read for one image."""

    prediction: Prediction
    source_topk: Topk
    """The frozen model's answer, as long as the prediction's own `topk`."""
    scope: str
    """Which bank answered, or would have."""
    seq: int
    """Merges that the banks had seen; 0 without any."""


@dataclass(frozen=True, kw_only=True)
class LoadedBanks:
    """Banks on the adapter's device."""

    tensors: Mapping[str, BankTensors | DomainBank]
    seq: int
    scope: BankScope

    def scope_of(self, camera: str | None) -> str:
        """The bank that belongs to `camera`."""
        return (camera or SHARED) if self.scope == "camera" else SHARED


class BankReader:
    """Reads banks for images, with the adapter's model and text.

    `banks` may be replaced from another thread at any time: a batch is read from one of them.
    """

    def __init__(self, adapter: MintAdapter, bank_scope: BankScope = "shared") -> None:
        self.adapter = adapter
        self.banks = LoadedBanks(tensors={}, seq=0, scope=bank_scope)
        self._prompted = adapter.method.algorithm == "mint"
        with torch.no_grad():
            self._text_CE = adapter.text.features(adapter.context_init_NW)

    def view(self, image_HW3: np.ndarray) -> Tensor:
        """View 0 of a decoded image, on the CPU: (1, 3, size, size). Thread-safe."""
        return first_views([image_HW3], self.adapter.clip.preprocess)

    def load(self, banks: Banks, scope: BankScope) -> LoadedBanks:
        """`banks` on the adapter's device. Thread-safe."""
        device, dtype = self.adapter.clip.device, self.adapter.clip.dtype

        def on_device(array: np.ndarray, kind: torch.dtype = dtype) -> Tensor:
            return torch.tensor(array, device=device, dtype=kind)

        tensors: dict[str, BankTensors | DomainBank] = {}
        for name, state in banks.states.items():
            keys_KD, prompts_KPD = bank_state.effective(state)
            if self.adapter.method.algorithm == "domains":
                tensors[name] = self.adapter.domain_bank(keys_KD, prompts_KPD, state.usage_K)
                continue
            usage_K = on_device(state.usage_K, torch.int64)
            tensors[name] = BankTensors(on_device(keys_KD), on_device(prompts_KPD), usage_K)
        return LoadedBanks(tensors=tensors, seq=banks.seq, scope=scope)

    @torch.no_grad()
    def read(self, images_B3HW: Tensor, cameras: Sequence[str | None], top_k: int) -> list[Reading]:
        """The answers for B normalised images and their cameras, in two passes at most."""
        adapter, banks = self.adapter, self.banks
        images_B3HW = images_B3HW.to(adapter.clip.device, adapter.clip.dtype)
        seen = adapter.look(images_B3HW)
        logits_BC = adapter.logits(seen.source_VE, adapter.source_text_CE)
        source_BC = logits_BC.softmax(-1)
        scopes = [banks.scope_of(camera) for camera in cameras]
        if self._prompted:
            answer_BC, adapted = self._with_banks(seen, banks.tensors, scopes, source_BC)
        else:
            answer_BC, adapted = self._by_domain(seen, banks.tensors, scopes, logits_BC)
        k = min(top_k, len(adapter.labels))
        best, source = _best(answer_BC, k), _best(source_BC, k)
        entropy_B = entropy(answer_BC.clamp_min(1e-38).log()).tolist()
        return [
            Reading(
                prediction=self._prediction(best[i], source[i], entropy_B[i], adapted[i]),
                source_topk=self._named(source[i]),
                scope=scope,
                seq=banks.seq,
            )
            for i, scope in enumerate(scopes)
        ]

    def _by_domain(
        self,
        seen: Seen,
        banks: Mapping[str, Any],
        scopes: Sequence[str],
        logits_BC: Tensor,
    ) -> tuple[Tensor, list[bool]]:
        """As `_with_banks`, for the `realtime` preset: each frame by the domain that it shows."""
        of_frames = [banks.get(scope) for scope in scopes]
        answer_BC, standings = self.adapter.domain_logits(
            seen, logits_BC, of_frames, range(len(scopes)), learn=False
        )
        adapting = [standing.verdict == ADAPTING for standing in standings]
        stands_B1 = torch.tensor(adapting)[:, None]
        return torch.where(stands_B1, answer_BC, logits_BC.float().cpu()).softmax(-1), adapting

    def _with_banks(
        self,
        seen: Seen,
        banks: Mapping[str, Any],
        scopes: Sequence[str],
        source_BC: Tensor,
    ) -> tuple[Tensor, list[bool]]:
        """The distributions (B, C), and for which of them a bank was read."""
        adapted = [False] * len(scopes)
        rows, prompts = [], []
        for scope in dict.fromkeys(scopes):
            if scope in banks:
                of_scope = [i for i, other in enumerate(scopes) if other == scope]
                rows += of_scope
                prompts.append(self._prompts(seen.query_VQD[of_scope], banks[scope]))
        if not rows:
            return source_BC, adapted
        adapter = self.adapter
        index_R = torch.tensor(rows, device=source_BC.device)
        image_RE = adapter.encoder.prompted(seen.stem.take(index_R), torch.cat(prompts))
        answer_RC = adapter.logits(image_RE, self._text_CE).softmax(-1)
        finite_R = torch.isfinite(answer_RC).all(-1)
        answer_BC = source_BC.clone()
        answer_BC[index_R] = torch.where(finite_R[:, None], answer_RC, source_BC[index_R])
        for i, finite in zip(rows, finite_R.tolist(), strict=True):
            adapted[i] = finite
        return answer_BC, adapted

    def _prompts(self, query_BQD: Tensor, bank: BankTensors) -> Tensor:
        """The associative prompts (B, P, D), by plain distances."""
        retrieval = retrieve(query_BQD, bank.keys_KD, self.adapter.method.retrieved)
        counts_BK = retrieval_counts(retrieval.indices_BQR, len(bank.keys_KD))
        return assemble(counts_BK, bank.prompts_KPD)

    def _prediction(
        self,
        best: list[tuple[int, float]],
        source: list[tuple[int, float]],
        entropy_nats: float,
        adapted: bool,
    ) -> Prediction:
        labels = self.adapter.labels
        return Prediction(
            label=labels[best[0][0]],
            confidence=best[0][1],
            entropy=entropy_nats,
            topk=self._named(best),
            source_label=labels[source[0][0]],
            source_confidence=source[0][1],
            adapted=adapted,
            cost=Cost(forwards=2 if adapted and self._prompted else 1, backwards=0),
        )

    def _named(self, best: list[tuple[int, float]]) -> Topk:
        return tuple((self.adapter.labels[index], score) for index, score in best)


def _best(p_BC: Tensor, k: int) -> list[list[tuple[int, float]]]:
    """Indices and probabilities of the k largest of each row, read back at once."""
    scores_BK, indices_BK = p_BC.topk(k)
    pairs: Any = zip(indices_BK.tolist(), scores_BK.tolist(), strict=True)
    return [list(zip(indices, scores, strict=True)) for indices, scores in pairs]
