"""What the slow reference is given and what it records: hyper-parameters, bank, one image's run.

Shape suffixes as in `reference.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The hyper-parameters of METHOD.md, "Symbols" and "Adapting to one image" (paper preset).

    Attributes:
        query_layers: 0-based blocks after which the CLS token is a query (Q of them).
        inject_layers: 0-based blocks whose self-attention sees the associative prompt.
        top_k: R, the entries retrieved for each level.
        selection_fraction: share of the V views that are confident.
        steps: S, the optimisation steps for each image.
        distance_weight: factor of the distance term in the loss (its sign included).
    """

    query_layers: tuple[int, ...] = (3, 7, 11)
    inject_layers: tuple[int, ...] = (0,)
    top_k: int = 2
    selection_fraction: float = 0.1
    steps: int = 3
    learning_rate: float = 5e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    distance_weight: float = -0.2

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> Settings:
        """Take the fields from a trace's hyper-parameters; those not named keep their value."""
        names = {field.name for field in dataclasses.fields(cls)}
        found: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in meta.items()
            if name in names
        }
        return cls(**found)


@dataclasses.dataclass
class Bank:
    """The Memory Prompt Bank: keys (K, D), prompts (K, P, D) and usage counts (K,), int64."""

    keys_KD: Tensor
    prompts_KPD: Tensor
    usage_K: Tensor

    def copy(self, *, dtype: torch.dtype, device: torch.device) -> Bank:
        """An independent bank whose keys and prompts are leaves that collect gradients."""

        def leaf(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, dtype, copy=True).requires_grad_()

        usage_K = self.usage_K.detach().to(device, torch.int64, copy=True)
        return Bank(leaf(self.keys_KD), leaf(self.prompts_KPD), usage_K)

    def snapshot(self) -> Bank:
        """A detached copy of the bank as it is now."""
        return Bank(
            self.keys_KD.detach().clone(), self.prompts_KPD.detach().clone(), self.usage_K.clone()
        )


@dataclasses.dataclass
class Counts:
    """Encoder passes so far: images forward and backward, and text prompts forward."""

    image_forwards: int = 0
    image_backwards: int = 0
    text_forwards: int = 0


@dataclasses.dataclass(frozen=True)
class ForwardPass:
    """What one pass over B images yields: all that METHOD.md names, in its order."""

    queries_BQD: Tensor
    indices_BQR: Tensor
    distances_BQR: Tensor
    associative_BPD: Tensor
    image_BE: Tensor
    text_CE: Tensor
    logits_BC: Tensor


@dataclasses.dataclass(frozen=True)
class Prediction:
    """View 0 under the adapted context and bank: indices (QR,), distances (QR,), logits (C,)."""

    indices_QR: Tensor
    distances_QR: Tensor
    logits_C: Tensor


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """Everything that a trace records about one image; see METHOD.md, "The recordings"."""

    queries_QVD: Tensor
    indices_SVQR: Tensor
    distances_SVQR: Tensor
    logits_SVC: Tensor
    loss_S: Tensor
    context_SNT: Tensor
    confident_views: Tensor
    bank: Bank
    prediction: Prediction
