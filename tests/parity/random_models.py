"""Random small worlds to run the method in: a CLIP, class names, a bank and views from one seed.

Shape suffixes: V views, D vision width, K entries, P prompt rows, N context tokens, T text width,
n images.

Every weight is random, biases and layer norms too (open_clip starts them at zero and one, which
would hide code that forgets them). `worlds()` is the hypothesis strategy over all the shapes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from hypothesis import strategies as st
from open_clip import CLIP
from open_clip.tokenizer import SimpleTokenizer
from reference import PlainLoop, PublishedLoop, record_stream
from reference_records import Bank, Settings
from torch import Tensor
from trace_files import OPTIMIZER_FORM, Trace

UsageState = Literal["unused", "sparse", "weighted", "about to switch off", "unweighted"]
USAGE_STATES: tuple[UsageState, ...] = (
    "unused",
    "sparse",
    "weighted",
    "about to switch off",
    "unweighted",
)
CLASS_NAMES = (
    "cat",
    "pickup_truck",
    "bicycle",
    "pedestrian crossing the road",
    "bus",
    "stop sign",
    "Street_Sweeper",
    "7-seater",
    "naïve café",
)


@functools.cache
def tokenizer() -> SimpleTokenizer:
    """CLIP's tokenizer; reading its vocabulary takes longer than a small run."""
    return SimpleTokenizer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The architecture of a random CLIP, in open_clip's words."""

    layers: int = 3
    heads: int = 2
    head_width: int = 8
    patch_size: int = 8
    grid: int = 2
    mlp_ratio: float = 4.0
    layer_scale: bool = False
    quick_gelu: bool = True
    text_layers: int = 2
    text_heads: int = 2
    text_width: int = 16
    context_length: int = 77
    embed_dim: int = 12

    @property
    def model_cfg(self) -> dict[str, Any]:
        """The configuration in open_clip's form."""
        layer_scale = 1.0 if self.layer_scale else None
        return {
            "embed_dim": self.embed_dim,
            "quick_gelu": self.quick_gelu,
            "vision_cfg": {
                "image_size": self.grid * self.patch_size,
                "layers": self.layers,
                "width": self.heads * self.head_width,
                "head_width": self.head_width,
                "patch_size": self.patch_size,
                "mlp_ratio": self.mlp_ratio,
                "ls_init_value": layer_scale,
            },
            "text_cfg": {
                "context_length": self.context_length,
                "vocab_size": 49408,
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
                "mlp_ratio": self.mlp_ratio,
                "ls_init_value": layer_scale,
            },
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Everything that a run of the method needs, given by numbers small enough to print."""

    seed: int
    shape: Shape
    settings: Settings
    n_classes: int = 3
    n_context: int = 4
    n_entries: int = 6
    prompt_rows: int = 2
    n_views: int = 4
    n_images: int = 1
    usage_state: UsageState = "unused"

    @property
    def class_names(self) -> list[str]:
        """`n_classes` distinct names, which ones depends on the seed."""
        order = torch.randperm(len(CLASS_NAMES), generator=self._generator("names"))
        return [CLASS_NAMES[i] for i in order[: self.n_classes]]

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """All of them, under the names of a trace's `meta.json`."""
        return {
            **dataclasses.asdict(self.settings),
            "inject_layers": list(self.settings.inject_layers),
            "query_layers": list(self.settings.query_layers),
            "optimizer": OPTIMIZER_FORM,
            "n_views": self.n_views,
            "n_ctx": self.n_context,
            "n_images": self.n_images,
            "bank_size": self.n_entries,
            "prompt_length": self.prompt_rows,
        }

    def clip(self, dtype: torch.dtype = torch.float64) -> CLIP:
        """The random CLIP, in eval mode. It is drawn in float64 and rounded to `dtype`."""
        model = CLIP(**self.shape.model_cfg).to(torch.float64)
        generator = self._generator("clip")
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            is_norm = ".ln_" in f".{name}" and name.endswith("weight")
            if name == "logit_scale":
                parameter.data.fill_(math.log(10.0)).add_(0.3 * noise)
            elif is_norm or name.endswith("gamma"):
                parameter.data.copy_(1 + 0.2 * noise)
            elif parameter.ndim >= 2 and "embedding" not in name:
                parameter.data.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.data.copy_(0.3 * noise)
        return model.to(dtype).eval()

    def bank(self, dtype: torch.dtype = torch.float64) -> Bank:
        """Standard normal keys (K, D) and prompts (K, P, D); counts (K,) as `usage_state` says."""
        generator = self._generator("bank")
        width = self.shape.heads * self.shape.head_width
        keys_KD = torch.randn(self.n_entries, width, generator=generator, dtype=torch.float64)
        prompts_KPD = torch.randn(
            self.n_entries, self.prompt_rows, width, generator=generator, dtype=torch.float64
        )
        return Bank(keys_KD.to(dtype), prompts_KPD.to(dtype), self._usage())

    def _usage(self) -> Tensor:
        """Counts (K,), int64, whose sum T puts the first steps into the wanted state.

        Usage weighting is on while 0 < T <= K * V.
        """
        limit = self.n_entries * self.n_views
        usage_K = torch.zeros(self.n_entries, dtype=torch.int64)
        if self.usage_state == "unused":
            return usage_K
        if self.usage_state == "sparse":
            usage_K[0] = 1
            return usage_K
        if self.usage_state == "about to switch off":
            total = limit  # still weighted: the rule includes equality
        elif self.usage_state == "weighted":
            total = max(1, limit // 2)
        else:
            total = limit + 1
        owners = torch.randint(self.n_entries, (total,), generator=self._generator("usage"))
        return owners.bincount(minlength=self.n_entries)

    def context(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Initial context tokens (N, T)."""
        shape = (self.n_context, self.shape.text_width)
        generator = self._generator("context")
        return (0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    def views(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Normalised views (n, V, 3, H, W); those of one image resemble each other."""
        generator = self._generator("views")
        size = self.shape.grid * self.shape.patch_size
        image = torch.randn(
            (self.n_images, 1, 3, size, size), generator=generator, dtype=torch.float64
        )
        own = torch.randn(
            (self.n_images, self.n_views, 3, size, size), generator=generator, dtype=torch.float64
        )
        return (image + 0.5 * own).to(dtype)

    def loop(
        self,
        loop_class: type[PlainLoop] = PublishedLoop,
        dtype: torch.dtype = torch.float64,
    ) -> PlainLoop:
        """The slow reference at the start of this world."""
        return loop_class(
            self.clip(dtype),
            self.class_names,
            self.settings,
            context_NT=self.context(dtype),
            bank=self.bank(dtype),
            dtype=dtype,
            tokenizer=tokenizer(),
        )

    def trace(self) -> Trace:
        """What the slow reference does in this world, as a recording."""
        bank, views_nVCHW = self.bank(), self.views()
        meta = {
            **self.hyper_parameters,
            "model_cfg": self.shape.model_cfg,
            "classnames": self.class_names,
        }
        weights = dict(self.clip().state_dict())
        embedding = weights.pop("token_embedding.weight")
        weights["token_embedding.rows"] = torch.arange(len(embedding))
        weights["token_embedding.values"] = embedding
        start = {
            "views": views_nVCHW,
            "bank.keys.init": bank.keys_KD,
            "bank.prompts.init": bank.prompts_KPD,
            "bank.usage.init": bank.usage_K,
            "ctx.init": self.context(),
        }
        return Trace(meta, weights, {**start, **record_stream(self.loop(), views_nVCHW)})

    def _generator(self, purpose: str) -> torch.Generator:
        """A generator of its own for each purpose, so that one size never moves other numbers."""
        return torch.Generator().manual_seed(self.seed * 1009 + sum(purpose.encode()))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Random architectures, from 3 to 12 vision blocks."""
    text_heads = draw(st.integers(1, 2))
    return Shape(
        layers=draw(st.sampled_from([3, 3, 4, 5, 6, 8, 12])),
        heads=draw(st.integers(1, 3)),
        head_width=draw(st.sampled_from([4, 8, 16])),
        patch_size=draw(st.sampled_from([4, 8])),
        grid=draw(st.integers(1, 3)),
        mlp_ratio=draw(st.sampled_from([2.0, 4.0])),
        layer_scale=draw(st.booleans()),
        quick_gelu=draw(st.booleans()),
        text_layers=draw(st.integers(1, 3)),
        text_heads=text_heads,
        text_width=text_heads * draw(st.sampled_from([4, 8])),
        context_length=draw(st.sampled_from([20, 32, 77])),
        embed_dim=draw(st.sampled_from([5, 12, 16])),
    )


@st.composite
def worlds(
    draw: st.DrawFn, *, query_layers: Callable[[int, int], tuple[int, ...]] | None = None
) -> World:
    """Random worlds over shapes, class counts, bank sizes, R, P, V, S, fraction and usage.

    Args:
        query_layers: the Q query blocks for (layers, Q), where code cannot choose them freely;
            by default any Q of the blocks.
    """
    shape = draw(shapes())
    n_levels = draw(st.integers(1, 3))
    if query_layers is None:
        blocks = st.integers(0, shape.layers - 1)
        chosen = draw(st.lists(blocks, min_size=n_levels, max_size=n_levels, unique=True))
        levels = tuple(sorted(chosen))
    else:
        levels = query_layers(shape.layers, n_levels)
    n_entries = draw(st.integers(1, 20))
    n_views = draw(st.integers(1, 7))
    n_confident = draw(st.integers(1, n_views))
    settings = Settings(
        query_layers=levels,
        top_k=draw(st.integers(1, min(4, n_entries))),
        # In the middle between two whole numbers of views: int() must round it down.
        selection_fraction=min(1.0, (n_confident + 0.5) / n_views),
        steps=draw(st.integers(1, 3)),
        learning_rate=draw(st.sampled_from([1e-3, 5e-3, 2e-2])),
        weight_decay=draw(st.sampled_from([0.0, 0.01, 0.5])),
        distance_weight=draw(st.sampled_from([-0.2, 0.0, 0.3])),
    )
    return World(
        seed=draw(st.integers(0, 2**20)),
        shape=shape,
        settings=settings,
        n_classes=draw(st.integers(2, len(CLASS_NAMES))),
        n_context=draw(st.integers(1, 6)),
        n_entries=n_entries,
        prompt_rows=draw(st.sampled_from([2, 4, 6])),
        n_views=n_views,
        n_images=draw(st.integers(1, 2)),
        usage_state=draw(st.sampled_from(USAGE_STATES)),
    )
