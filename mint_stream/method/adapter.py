"""Adapt to an image, then label it: the three-line face of all methods.

    adapter = MintAdapter.build(["car", "bus", "bicycle"], model="ViT-B-16",
                                weights="laion2b_s34b_b88k")
    prediction = adapter.label(Image.open("frame.jpg"))
    print(prediction.label, prediction.confidence, prediction.source_label)

Shapes: B frames, V views, D width, K entries, P prompt rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from PIL.Image import Image
from torch import Tensor

from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.config import PRESETS, Dtype, MethodConfig, ModelConfig
from mint_stream.config import preset as find_preset
from mint_stream.method import bank_state
from mint_stream.method.frozen import FrozenClip, Seen
from mint_stream.method.guard import NO_GUARD
from mint_stream.method.methods import build_method
from mint_stream.method.mint import BankTensors, Step
from mint_stream.method.prediction import Prediction, Predictions
from mint_stream.method.retrieval import Retrieval


class MintAdapter(FrozenClip):
    """A frozen CLIP with a Memory Prompt Bank that adapts at test time, by the method of a preset.

    The bank lasts (`bank`, may be exchanged between images). Arguments as of `FrozenClip`, and:

    Args:
        seed: of the views and of the bank's start.
        shadow: the frozen answer stands; what adapting would say is given beside it.
    """

    def __init__(
        self,
        clip: LoadedClip,
        phrases: Sequence[Sequence[str]],
        method: MethodConfig = PRESETS["paper"],
        *,
        templates: Sequence[str] = (),
        seed: int = 0,
        shadow: bool = False,
    ) -> None:
        method = method.fitted(len(phrases), clip.model.visual.transformer.width)
        super().__init__(clip, phrases, method, templates=templates, seed=seed)
        self.shadow = shadow
        self.algorithm: Any = build_method(self, method)
        """The `Method`; None for a preset that does not adapt."""
        self.bank: Any = None
        """The bank that `label` goes by."""
        if self.algorithm is not None:
            self.bank = self.algorithm.bank(
                bank_state.initial_state(
                    entries=method.bank_size,
                    width=self.encoder.width,
                    prompt_rows=method.prompt_rows,
                    seed=method.bank_seed(seed),
                )
            )

    @classmethod
    def build(
        cls,
        classes: Sequence[str],
        *,
        model: str,
        weights: str | None = None,
        preset: str = "paper",
        device: str = "auto",
        dtype: Dtype = "auto",
        seed: int = 0,
    ) -> MintAdapter:
        """An adapter from names alone. `ConfigError` says what does not exist or cannot work."""
        config = ModelConfig(model=model, weights=weights, device=device, dtype=dtype)
        phrases = [(name,) for name in classes]
        return cls(load_clip(config), phrases, find_preset(preset), seed=seed)

    def label(self, image: Image | np.ndarray, frame: str = "", top_k: int = 5) -> Prediction:
        """Adapt to one image (PIL, or uint8 RGB (H, W, 3)) and label it.

        `frame` names the image; with the seed it fixes the random views.
        """
        if isinstance(image, Image):
            image = np.array(image.convert("RGB"))
        return self.label_views(self.views(image, frame), top_k)

    def label_views(self, views_VCHW: Tensor, top_k: int = 5) -> Prediction:
        """Adapt to one image given as its V normalised views, and label it."""
        if self.algorithm is None or self.algorithm.one_pass:
            views_VCHW = views_VCHW[:1]
        seen = self.look(views_VCHW)
        if self.algorithm is None:
            return self.label_frozen(seen, top_k)[0]
        return self.label_frames(seen, [self.bank], [None], top_k)[0]

    def label_frames(
        self,
        seen: Seen,
        banks: Sequence[Any],
        cameras: Sequence[Hashable],
        top_k: int = 5,
        *,
        times_s: Sequence[float] | None = None,
        learn: bool = True,
    ) -> Predictions:
        """Label frames by their banks, which change with `learn`: see `Method.answer`."""
        source_BC = self.source(seen.take(slice(len(banks))))
        answers = self.algorithm.answer(seen, banks, cameras, times_s=times_s, learn=learn)
        return Predictions.of(self.labels, source_BC, answers, top_k=top_k, shadow=self.shadow)

    def read_frames(
        self, seen: Seen, banks: Sequence[Any], cameras: Sequence[Hashable], top_k: int = 5
    ) -> Predictions:
        """Label B frames by banks that stay as they are: see `Method.read`."""
        if self.algorithm is None:
            return self.label_frozen(seen, top_k)
        answers = self.algorithm.read(seen, banks, cameras)
        return Predictions.of(self.labels, self.source(seen), answers, top_k=top_k)

    def label_frozen(self, seen: Seen, top_k: int = 5, *, guard: str = NO_GUARD) -> Predictions:
        """The frozen model's answers for B images.

        guard: why there are no others, where there might be.
        """
        return Predictions.of(self.labels, self.source(seen), None, top_k=top_k, verdict=guard)

    def load_bank(self, keys_KD: np.ndarray, prompts_KPD: np.ndarray, usage_K: np.ndarray) -> None:
        """Take over a bank of `Mint`: effective keys and prompts, and retrievals of each entry."""
        self.bank = BankTensors.of(keys_KD, prompts_KPD, usage_K, self)

    @property
    def context_NW(self) -> Tensor:
        """The text context that `Mint` adapts."""
        context_NW: Tensor = self.algorithm.context_NW
        return context_NW

    def reset(self) -> None:
        """See `Mint.reset`."""
        self.algorithm.reset()

    def adapt(self, seen: Seen, observe: Callable[[Step], None] | None = None) -> None:
        """See `Mint.adapt`; the bank is then that which it gives."""
        self.bank = self.algorithm.adapt(seen, self.bank, observe)

    def predict(self, seen: Seen, observe: Callable[[Retrieval], None] | None = None) -> Tensor:
        """See `Mint.predict`: (1, C)."""
        logits_1C: Tensor = self.algorithm.predict(seen, self.bank, observe)
        return logits_1C
