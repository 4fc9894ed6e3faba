"""The presets beside plain zero-shot CLIP, on the same pictures in one process."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mint_stream.benchmark.clock import Clock, pick_clock, timed, where
from mint_stream.clip.model import LoadedClip, load_clip, pick_dtype
from mint_stream.config import BUNDLED, PRESETS, Dtype, ModelConfig
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.stopwatch import Stopwatch

LEAST_SHARE = 1 / 3
"""Of zero-shot CLIP's throughput, for `realtime`."""

Pictures = Sequence[np.ndarray]


@dataclass(frozen=True, kw_only=True)
class PresetsOptions:
    """What is measured."""

    model: str = BUNDLED
    weights: str | None = None
    """`random` will do: cost does not depend on them."""
    classes: int = 10
    device: str = "auto"
    dtype: Dtype = "auto"
    batch: int = 16
    """Pictures that are labelled together; `paper` takes one at a time."""
    paper_images: int = 1
    """Of each batch, those that `paper` labels; 0 leaves it out."""
    rounds: int = 3
    """All take turns this often, after one turn to warm up; medians are compared."""
    busy: bool = False
    """Others use this machine, too: take the CPU time of this process for its time. With
    OMP_NUM_THREADS=1 only."""


@dataclass(frozen=True)
class Side:
    """One of those that are compared."""

    name: str
    label: Callable[[Pictures], object]
    images: int
    adapter: MintAdapter | None = None
    seconds: list[float] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)

    @property
    def image_s(self) -> float:
        """Seconds an image."""
        return statistics.median(self.seconds) / self.images


def compare(options: PresetsOptions, console: Console) -> bool:
    """Measure all in turn and print them; whether `realtime` is fast enough."""
    clock = pick_clock(options.busy)
    clip = load_clip(_model(options))
    sides = _sides(options, clip, clock)
    pictures = _pictures(options.batch, clip.preprocess.size)
    for turn in range(options.rounds + 1):
        for side in sides:
            seconds, _ = timed(clip.device, partial(side.label, pictures[: side.images]), clock)
            spent = {} if side.adapter is None else side.adapter.stopwatch.take()
            if turn:
                side.seconds.append(seconds)
                side.stages.update(spent)

    stages = sorted({stage for side in sides for stage in side.stages})
    dtype = str(pick_dtype(_model(options))).removeprefix("torch.")
    table = Table(
        title=f"{options.classes} classes, {where(clip.device)}, {dtype}, batches of "
        f"{options.batch}; stages in ms an image"
    )
    table.add_column("", no_wrap=True)
    for column in ("images/s", "ms an image", "of zero-shot", *stages):
        table.add_column(column, justify="right")
    zero_shot = sides[0]
    for side in sides:
        each = 1e3 / (side.images * options.rounds)
        table.add_row(
            side.name,
            f"{1 / side.image_s:.3g}",
            f"{1e3 * side.image_s:.1f}",
            f"{_share(side, zero_shot):.2f}" if side is not zero_shot else "",
            *(f"{side.stages[s] * each:.1f}" if side.stages[s] else "" for s in stages),
        )
    console.print(table)
    realtime = next(side for side in sides if side.name == "realtime")
    shares = [_share(realtime, side) for side in sides[:2]]
    console.print(
        f"realtime reaches {shares[0]:.2f} of zero-shot as open_clip does it, {shares[1]:.2f} of "
        f"frozen, which is the same answer (at least {LEAST_SHARE:.2f} of both)"
    )
    return min(shares) >= LEAST_SHARE


def _share(side: Side, of: Side) -> float:
    """Of another side's images a second, by turns: what the machine does in one of them cancels."""
    return statistics.median(
        (o / of.images) / (s / side.images) for o, s in zip(of.seconds, side.seconds, strict=True)
    )


def _model(options: PresetsOptions) -> ModelConfig:
    return ModelConfig(
        model=options.model, weights=options.weights, device=options.device, dtype=options.dtype
    )


def _sides(options: PresetsOptions, clip: LoadedClip, clock: Clock) -> list[Side]:
    config = _model(options)
    phrases = [(f"class number {n}",) for n in range(options.classes)]
    frozen, realtime, paper = (
        MintAdapter(clip, phrases, PRESETS[name]) for name in ("frozen", "realtime", "paper")
    )
    for adapter in (frozen, realtime, paper):
        adapter.stopwatch = Stopwatch(clock)
    plain = load_clip(ModelConfig(**{**vars(config), "dtype": "float32"}))

    def label_frozen(pictures: Pictures) -> object:
        return frozen.label_frozen(frozen.look(frozen.first_views(pictures)))

    def label_stream(pictures: Pictures) -> object:
        seen = realtime.look(realtime.first_views(pictures))
        banks, cameras = [realtime.bank] * len(pictures), [None] * len(pictures)
        return realtime.label_frames(seen, banks, cameras)

    def adapt(pictures: Pictures) -> object:
        return [paper.label(picture, f"{n}") for n, picture in enumerate(pictures)]

    return [
        Side(
            "zero-shot (open_clip)",
            partial(_zero_shot, plain, frozen, pick_dtype(config) is torch.bfloat16),
            options.batch,
        ),
        Side("frozen", label_frozen, options.batch, frozen),
        Side("realtime", label_stream, options.batch, realtime),
        *([Side("paper", adapt, options.paper_images, paper)] if options.paper_images else []),
    ]


@torch.no_grad()
def _zero_shot(clip: LoadedClip, adapter: MintAdapter, bf16: bool, pictures: Pictures) -> Tensor:
    """open_clip's own pass over the same pictures, in the same precision."""
    images_B3HW = adapter.first_views(pictures)
    adapter.stopwatch.take()
    with torch.autocast(clip.device.type, torch.bfloat16, enabled=bf16):
        features_BE = clip.model.encode_image(images_B3HW, normalize=True)
    logits_BC = adapter.logits(features_BE.to(clip.dtype), adapter.source_text_CE)
    return logits_BC.softmax(-1).cpu()


def _pictures(count: int, size: int) -> list[np.ndarray]:
    rng = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 12, 12, generator=rng)
    images = torch.nn.functional.interpolate(coarse, size=(size + 32, size + 32))
    return list((images.permute(0, 2, 3, 1) * 255).byte().numpy())
