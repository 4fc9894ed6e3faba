"""The frozen CLIP that every method starts from, and the method that leaves it as it is.

Shapes: B images, V views, Q query levels, D width, N context tokens, W text width, C classes,
E dimension of the joint space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mint_stream.clip.class_check import warn_about_classes
from mint_stream.clip.encoder import ImageEncoder, Stem, query_blocks
from mint_stream.clip.model import LoadedClip
from mint_stream.clip.text_prompt import TextPrompt
from mint_stream.clip.views import first_views, make_views
from mint_stream.config import MethodConfig
from mint_stream.method.prediction import Floats
from mint_stream.method.stopwatch import Stopwatch


class Seen(NamedTuple):
    """What a pass without prompts shows of B frames, or of V views of one; nothing in it is
    learned."""

    stem: Stem
    query_VQD: Tensor
    source_VE: Tensor

    def take(self, rows: slice) -> Seen:
        """Of some of them."""
        return Seen(self.stem.take(rows), self.query_VQD[rows], self.source_VE[rows])


class FrozenClip:
    """CLIP as it was loaded, with a class list: views, the pass without prompts, logits.

    Args:
        clip: from `load_clip`.
        phrases: for each class its name and synonyms, the name first.
        method: the preset.
        templates: sentences with `{}` for the name. The frozen answer uses the mean over all;
            the learned context starts from the words in front of the first one's `{}`. A preset
            with templates of its own uses those.
        seed: of the views.
    """

    def __init__(
        self,
        clip: LoadedClip,
        phrases: Sequence[Sequence[str]],
        method: MethodConfig,
        *,
        templates: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.clip, self.method, self.seed = clip, method, seed
        self.labels = [names[0] for names in phrases]
        templates = method.templates or templates or (f"{method.context} {{}}.",)
        prompts = [
            TextPrompt(clip.model, clip.tokenizer, phrases, *_split_template(template))
            for template in templates
        ]
        self.text = prompts[0]
        layers = len(clip.model.visual.transformer.resblocks)
        self.encoder = ImageEncoder(clip.model.visual, query_blocks(layers, method.query_levels))
        with torch.no_grad():
            features_TCE = torch.stack([p.features(p.context_NW.to(clip.dtype)) for p in prompts])
            self.source_text_CE = torch.nn.functional.normalize(features_TCE.mean(0), dim=-1)
            self.logit_scale = clip.model.logit_scale.exp().to(clip.dtype).reshape(())
        warn_about_classes(clip, phrases, self.source_text_CE, float(self.logit_scale))
        self.context_init_NW = self.text.context_NW.to(clip.dtype)
        self.stopwatch = Stopwatch()

    def views(
        self, image_HW3: np.ndarray, frame: str, count: int | None = None, *, on_cpu: bool = False
    ) -> Tensor:
        """The image's V views, or the first `count`: (V, 3, H, W), on the model's device."""
        with self.stopwatch("views"):
            return make_views(
                image_HW3,
                self.clip.preprocess,
                count=count or self.method.views,
                min_crop_area=self.method.min_crop_area,
                seed=self.seed,
                frame=frame,
                device=None if on_cpu else self.clip.device,
            ).to(self.clip.dtype)

    def first_views(self, images: Sequence[np.ndarray]) -> Tensor:
        """View 0 of B images on the model's device: (B, 3, H, W)."""
        with self.stopwatch("views"):
            clip = self.clip
            return first_views(images, clip.preprocess, device=clip.device).to(clip.dtype)

    @torch.no_grad()
    def look(self, views_VCHW: Tensor) -> Seen:
        """The pass without prompts: queries, and the frozen model's image features."""
        with self.stopwatch("encoder"):
            stem = self.encoder.stem(views_VCHW.to(self.clip.dtype))
            return Seen(stem, *self.encoder.plain(stem))

    def logits(self, image_BE: Tensor, text_CE: Tensor) -> Tensor:
        """exp(logit_scale) * image @ text.T: (B, C)."""
        return self.logit_scale * image_BE @ text_CE.T

    @torch.no_grad()
    def source(self, seen: Seen) -> Floats:
        """The frozen model's probabilities: (B, C), on the CPU."""
        return array(self.logits(seen.source_VE, self.source_text_CE).softmax(-1))


def array(tensor: Tensor) -> Floats:
    """On the CPU, in float32 or, where it is that, float64."""
    values = tensor.detach().cpu()
    numbers: Floats = (values if values.dtype == torch.float64 else values.float()).numpy()
    return numbers


def _split_template(template: str) -> tuple[str, str]:
    """The words in front of `{}`, and what follows it."""
    before, _, after = template.partition("{}")
    return before.strip(), after
