"""Adapt to an image, then label it: METHOD.md as three verbs, `reset`, `adapt`, `predict`.

    adapter = MintAdapter.build(["car", "bus", "bicycle"], model="ViT-B-16", weights="openai")
    prediction = adapter.label(Image.open("frame.jpg"))
    print(prediction.label, prediction.confidence, prediction.source_label)

Shapes: B images, V views, Q query levels, D width, K entries, R retrieved, P prompt rows,
N context tokens, W text width, C classes, E dimension of the joint space.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from mint_stream.clip.encoder import ImageEncoder, Stem, query_blocks
from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.clip.text_prompt import TextPrompt
from mint_stream.clip.views import first_views, make_views
from mint_stream.config import BUNDLED, PRESETS, Dtype, MethodConfig, ModelConfig
from mint_stream.config import preset as find_preset
from mint_stream.method import bank_state, baselines
from mint_stream.method.domains import ClassSpace, DomainBank, Standing, answer
from mint_stream.method.guard import ADAPTING, NO_GUARD
from mint_stream.method.losses import entropy, marginal_entropy, most_confident
from mint_stream.method.prediction import ONE_PASS, Cost, Prediction
from mint_stream.method.retrieval import Retrieval, assemble, retrieval_counts, retrieve
from mint_stream.method.stopwatch import Stopwatch

_UNWATCHED = Standing(verdict=NO_GUARD)


@dataclass
class BankTensors:
    """The Memory Prompt Bank in use: effective values, on the adapter's device."""

    keys_KD: Tensor
    prompts_KPD: Tensor
    usage_K: Tensor
    """int64: how often each entry was retrieved while adapting."""
    decay: float = 1.0
    """AdamW's weight decay since the bank was loaded: what untouched rows were scaled by."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys (K, D), prompts (K, P, D) and usage (K,) as arrays of their own."""
        tensors = (self.keys_KD, self.prompts_KPD, self.usage_K)
        keys_KD, prompts_KPD, usage_K = (t.cpu().numpy().copy() for t in tensors)
        return keys_KD, prompts_KPD, usage_K


class Seen(NamedTuple):
    """What a pass without prompts shows of V views; it depends on nothing that is learned."""

    stem: Stem
    query_VQD: Tensor
    source_VE: Tensor


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


class MintAdapter:
    """A frozen CLIP with a Memory Prompt Bank and text context that adapt at test time.

    The bank lasts (`bank`, may be exchanged between images); the context is reset for every image.
    With the `realtime` preset the bank is `domains`, and `label_stream` labels frames together.

    Args:
        clip: from `load_clip`.
        phrases: for each class its name and synonyms, the name first.
        method: the preset.
        templates: sentences with `{}` for the name. The frozen answer uses the mean over all;
            the learned context starts from the words in front of the first one's `{}`. A preset
            with templates of its own uses those.
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
        self.clip, self.method, self.seed, self.shadow = clip, method, seed, shadow
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
        self.context_init_NW = self.text.context_NW.to(clip.dtype)
        self.stopwatch = Stopwatch()
        start = bank_state.initial_state(
            entries=method.bank_size,
            width=self.encoder.width,
            prompt_rows=method.prompt_rows,
            seed=method.bank_seed(seed),
        )
        if method.algorithm == "domains":
            self.space = ClassSpace(
                projection_DE=_array(clip.model.visual.proj),
                text_CE=_array(self.source_text_CE),
                scale=float(self.logit_scale),
            )
            self.domains = self.domain_bank(*bank_state.effective(start), start.usage_K)
        else:
            self.load_bank(*bank_state.effective(start), start.usage_K)
        self.reset()

    @classmethod
    def build(
        cls,
        classes: Sequence[str],
        *,
        model: str = BUNDLED,
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

    def load_bank(self, keys_KD: np.ndarray, prompts_KPD: np.ndarray, usage_K: np.ndarray) -> None:
        """Take over a bank: effective keys and prompts, and how often each entry was retrieved."""
        device, dtype = self.clip.device, self.clip.dtype
        self.bank = BankTensors(
            torch.tensor(keys_KD, device=device, dtype=dtype),
            torch.tensor(prompts_KPD, device=device, dtype=dtype),
            torch.tensor(usage_K, device=device, dtype=torch.int64),
        )

    def label(self, image: Image | np.ndarray, frame: str = "", top_k: int = 5) -> Prediction:
        """Adapt to one image (PIL, or uint8 RGB (H, W, 3)) and label it.

        `frame` names the image; with the seed it fixes the random views.
        """
        if isinstance(image, Image):
            image = np.array(image.convert("RGB"))
        return self.label_views(self.views(image, frame), top_k)

    def label_views(self, views_VCHW: Tensor, top_k: int = 5) -> Prediction:
        """Adapt to one image given as its V normalised views, and label it."""
        if self.method.algorithm == "domains":
            seen = self.look(views_VCHW[:1])
            return self.label_stream(seen, [self.domains], [None], top_k)[0]
        seen = self.look(views_VCHW)
        source_C = self.logits(seen.source_VE[:1], self.source_text_CE)[0].softmax(-1)
        if not self.method.adapts:
            return self._prediction(source_C, None, top_k)
        before = self.bank
        self.reset()
        if self.method.algorithm == "zero":
            adapted_C = baselines.vote(self, seen)
        elif self.method.algorithm == "tpt":
            adapted_C = baselines.adapt_text(self, seen)[0].softmax(-1)
        else:
            self.adapt(seen)
            adapted_C = self.predict(seen)[0].softmax(-1)
        # The only number that is read back from a GPU before the answer itself.
        numbers = (adapted_C, self.bank.keys_KD, self.bank.prompts_KPD)
        finite = all(torch.stack([torch.isfinite(t).all() for t in numbers]).tolist())
        if not finite:
            self.bank = before
        answer_C = adapted_C if finite else None
        return self._prediction(source_C, answer_C, top_k, cost=self.cost(len(views_VCHW)))

    def label_frozen(
        self, seen: Seen, top_k: int = 5, *, guard: str = NO_GUARD
    ) -> list[Prediction]:
        """The frozen model's answers for B images.

        guard: why there are no others, where there might be.
        """
        source_BC = self.logits(seen.source_VE, self.source_text_CE).softmax(-1)
        standing = Standing(verdict=guard)
        return [self._prediction(source_C, None, top_k, standing) for source_C in source_BC]

    @torch.no_grad()
    def label_stream(
        self,
        seen: Seen,
        banks: Sequence[DomainBank],
        cameras: Sequence[str | None],
        top_k: int = 5,
        *,
        learn: bool = True,
    ) -> list[Prediction]:
        """Take B frames into their domains' entries, and label them.

        banks, cameras: of each frame. The frames of one camera are taken together, in time order:
        the more there are, the sooner a new domain is known. Without `learn` the banks are only
        read.
        """
        source_BC = self.logits(seen.source_VE, self.source_text_CE)
        with self.stopwatch("domains"):
            logits_BC, standings = self.domain_logits(seen, source_BC, banks, cameras, learn=learn)
        p_BC, source_BC = logits_BC.softmax(-1), source_BC.float().cpu().softmax(-1)
        finite_B = p_BC.isfinite().all(-1).tolist()
        return [
            self._prediction(source_C, p_C if finite else None, top_k, standing)
            for p_C, finite, source_C, standing in zip(
                p_BC, finite_B, source_BC, standings, strict=True
            )
        ]

    def domain_logits(
        self,
        seen: Seen,
        source_BC: Tensor,
        banks: Sequence[DomainBank | None],
        cameras: Sequence[Hashable],
        *,
        learn: bool,
    ) -> tuple[Tensor, list[Standing]]:
        """`domains.answer` for tensors: logits (B, C) on the CPU, and the standings.

        source_BC: the frozen model's logits. Without `learn` the banks are only read.
        """
        logits_BC, standings = answer(
            _array(source_BC),
            _array(seen.query_VQD[:, 0]),
            _array(self.encoder.activation(seen.query_VQD[:, -1])),
            banks,
            cameras,
            self.space,
            learn=learn,
        )
        return torch.from_numpy(logits_BC).float(), standings

    def domain_bank(
        self,
        keys_KD: np.ndarray,
        prompts_KPD: np.ndarray,
        usage_K: np.ndarray,
        labelers: int = 1,
    ) -> DomainBank:
        """A bank for `label_stream`, as one of so many `labelers` that share it."""
        return DomainBank(keys_KD, prompts_KPD, usage_K, self.method, labelers)

    def views(self, image_HW3: np.ndarray, frame: str, count: int | None = None) -> Tensor:
        """The image's V views on the adapter's device, or the first `count`: (V, 3, H, W)."""
        with self.stopwatch("views"):
            return make_views(
                image_HW3,
                self.clip.preprocess,
                count=count or self.method.views,
                min_crop_area=self.method.min_crop_area,
                seed=self.seed,
                frame=frame,
                device=self.clip.device,
            ).to(self.clip.dtype)

    def first_views(self, images: Sequence[np.ndarray]) -> Tensor:
        """View 0 of B images on the adapter's device: (B, 3, H, W)."""
        with self.stopwatch("views"):
            clip = self.clip
            return first_views(images, clip.preprocess, device=clip.device).to(clip.dtype)

    @torch.no_grad()
    def look(self, views_VCHW: Tensor) -> Seen:
        """The pass without prompts: queries, and the frozen model's image features.

        Of views of one image, or of B images for `label_frozen` and `label_stream`.
        """
        with self.stopwatch("encoder"):
            stem = self.encoder.stem(views_VCHW.to(self.clip.dtype))
            return Seen(stem, *self.encoder.plain(stem))

    def reset(self) -> None:
        """Back to the initial context. The bank is not reset."""
        self.context_NW = self.context_init_NW.clone()

    def adapt(self, seen: Seen, observe: Callable[[Step], None] | None = None) -> None:
        """S optimisation steps of context, keys and prompts on the views of one image.

        Gradients are made for the confident views alone: the others enter only the distance term,
        which needs their cached queries and not the encoder.
        """
        method = self.method
        context_NW = self.context_NW.clone().requires_grad_()
        keys_KD = self.bank.keys_KD.clone().requires_grad_()
        prompts_KPD = self.bank.prompts_KPD.clone().requires_grad_()
        usage_K, decay = self.bank.usage_K.clone(), self.bank.decay
        optimizer = torch.optim.AdamW(
            [context_NW, keys_KD, prompts_KPD],
            lr=method.learning_rate,
            weight_decay=method.weight_decay,
            fused=True,
        )
        chosen = torch.empty(0)
        for step in range(method.steps):
            with self.stopwatch("retrieve"):
                retrieval = retrieve(seen.query_VQD, keys_KD, method.retrieved, usage_K)
                counts_VK = retrieval_counts(retrieval.indices_BQR, len(keys_KD))
                usage_K += counts_VK.sum(0)
            with self.stopwatch("text"):
                text_CE = self.text.features(context_NW)
            if step == 0 or observe:
                with torch.no_grad(), self.stopwatch("encoder"):
                    prompt_VPD = assemble(counts_VK, prompts_KPD)
                    logits_VC = self.logits(self.encoder.prompted(seen.stem, prompt_VPD), text_CE)
            if step == 0:
                chosen = most_confident(logits_VC, method.confident_views)
            with self.stopwatch("encoder"):
                prompt_BPD = assemble(counts_VK[chosen], prompts_KPD)
                image_BE = self.encoder.prompted(seen.stem.take(chosen), prompt_BPD)
                distance = retrieval.distances_BQR.sum((1, 2)).mean()
                loss = marginal_entropy(self.logits(image_BE, text_CE))
                loss = loss + method.distance_weight * distance
            with self.stopwatch("step"):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            decay *= 1 - method.learning_rate * method.weight_decay
            if observe:
                after = context_NW.detach().clone()
                observe(Step(retrieval, logits_VC, chosen, loss.detach(), after))
        self.context_NW = context_NW.detach()
        self.bank = BankTensors(keys_KD.detach(), prompts_KPD.detach(), usage_K, decay)

    @torch.no_grad()
    def predict(self, seen: Seen, observe: Callable[[Retrieval], None] | None = None) -> Tensor:
        """Logits of view 0 with the adapted context and bank, by plain distances: (1, C)."""
        bank = self.bank
        with self.stopwatch("retrieve"):
            retrieval = retrieve(seen.query_VQD[:1], bank.keys_KD, self.method.retrieved)
            counts_1K = retrieval_counts(retrieval.indices_BQR, len(bank.keys_KD))
            prompt_1PD = assemble(counts_1K, bank.prompts_KPD)
        with self.stopwatch("text"):
            text_CE = self.text.features(self.context_NW)
        with self.stopwatch("encoder"):
            logits_1C = self.logits(
                self.encoder.prompted(seen.stem.take(slice(1)), prompt_1PD), text_CE
            )
        if observe:
            observe(retrieval)
        return logits_1C

    def logits(self, image_BE: Tensor, text_CE: Tensor) -> Tensor:
        """exp(logit_scale) * image @ text.T: (B, C)."""
        return self.logit_scale * image_BE @ text_CE.T

    def cost(self, views: int) -> Cost:
        """What adapting to an image in so many views costs."""
        if self.method.algorithm != "mint":
            return Cost(forwards=views, backwards=0)
        trained = self.method.steps * self.method.confident_views
        return Cost(forwards=2 * views + 1 + trained, backwards=trained)

    def _prediction(
        self,
        source_C: Tensor,
        adapted_C: Tensor | None,
        top_k: int,
        standing: Standing = _UNWATCHED,
        cost: Cost = ONE_PASS,
    ) -> Prediction:
        """The answer that stands, with both beside it. adapted_C is None where there is none."""
        trusted = standing.verdict in (ADAPTING, NO_GUARD)
        stands = trusted and adapted_C is not None and not self.shadow
        p_C = adapted_C if adapted_C is not None and stands else source_C
        scores, indices = p_C.topk(min(top_k, len(self.labels)))
        best = list(zip((self.labels[i] for i in indices.tolist()), scores.tolist(), strict=True))
        source_label, source_confidence = self._best(source_C)
        adapted = (None, None) if adapted_C is None else self._best(adapted_C)
        return Prediction(
            label=best[0][0],
            confidence=best[0][1],
            entropy=float(entropy(p_C.clamp_min(1e-38).log()[None])),
            topk=tuple(best),
            source_label=source_label,
            source_confidence=source_confidence,
            adapted=stands,
            adapted_label=adapted[0],
            adapted_confidence=adapted[1],
            cost=cost,
            guard=standing.verdict,
            bank_domain=standing.entry,
            drift=standing.drift,
        )

    def _best(self, p_C: Tensor) -> tuple[str, float]:
        score, index = p_C.max(-1)
        return self.labels[int(index)], float(score)


def _array(tensor: Tensor) -> np.ndarray:
    """float64, on the CPU."""
    array: np.ndarray = tensor.detach().double().cpu().numpy()
    return array


def _split_template(template: str) -> tuple[str, str]:
    """The words in front of `{}`, and what follows it."""
    before, _, after = template.partition("{}")
    return before.strip(), after
