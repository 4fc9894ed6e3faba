"""Answers by a bank that is only read: no optimisation step, nothing learned, many images at once.

What a bank learned from a stream is used for images that cannot wait for it (`Method.read`). A
camera whose bank holds no merge yet gets the frozen answer.

Shapes: B images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mint_stream.clip.views import first_views
from mint_stream.config import BankScope
from mint_stream.labeler.labeler import SHARED
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.bank_state import Banks
from mint_stream.method.prediction import Prediction, Predictions, most_probable

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
    """Banks on the adapter's device, in use by its method."""

    banks: Mapping[str, Any]
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
        self.banks = LoadedBanks(banks={}, seq=0, scope=bank_scope)

    def view(self, image_HW3: np.ndarray) -> Tensor:
        """View 0 of a decoded image, on the CPU: (1, 3, size, size). Thread-safe."""
        return first_views([image_HW3], self.adapter.clip.preprocess)

    def load(self, banks: Banks, scope: BankScope) -> LoadedBanks:
        """`banks` on the adapter's device. Thread-safe."""
        algorithm = self.adapter.algorithm
        loaded = {}
        if algorithm is not None:
            loaded = {name: algorithm.bank(state) for name, state in banks.states.items()}
        return LoadedBanks(banks=loaded, seq=banks.seq, scope=scope)

    def read(self, images_B3HW: Tensor, cameras: Sequence[str | None], top_k: int) -> list[Reading]:
        """The answers for B normalised images and their cameras, in two passes at most."""
        adapter, banks = self.adapter, self.banks
        seen = adapter.look(images_B3HW.to(adapter.clip.device, adapter.clip.dtype))
        scopes = [banks.scope_of(camera) for camera in cameras]
        of_frames = [banks.banks.get(scope) for scope in scopes]
        predictions = adapter.read_frames(seen, of_frames, cameras, top_k)
        source_topk = most_probable_source(predictions, top_k)
        return [
            Reading(
                prediction=predictions[b],
                source_topk=source_topk[b],
                scope=scope,
                seq=banks.seq,
            )
            for b, scope in enumerate(scopes)
        ]


def most_probable_source(predictions: Predictions, k: int) -> list[Topk]:
    """The frozen model's k most probable labels of each frame."""
    labels = predictions.labels
    topk_BK, scores_BK = most_probable(predictions.source_BC, k)
    return [
        tuple((labels[index], float(score)) for index, score in zip(indices, scores, strict=True))
        for indices, scores in zip(topk_BK.tolist(), scores_BK.tolist(), strict=True)
    ]
