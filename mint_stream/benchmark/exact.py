"""The paper preset beside a faithful port of the published loop, on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mint_stream.benchmark.clock import Clock, pick_clock, timed, where
from mint_stream.benchmark.floor import count_flops
from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.clip.model_files import RANDOM_WEIGHTS
from mint_stream.config import PRESETS, Dtype, ModelConfig
from mint_stream.method.adapter import MintAdapter


class Loop(Protocol):
    """The published loop: adapts to one image's views and answers with view 0's logits."""

    def __call__(self, views_VCHW: Tensor) -> Tensor: ...


MakeLoop = Callable[[LoadedClip, list[str], MintAdapter], Loop]


@dataclass(frozen=True, kw_only=True)
class ExactOptions:
    """What is measured."""

    model: str = "ViT-B-16"
    """An open_clip model; its weights are random, which changes neither cost nor equality."""
    classes: int = 10
    device: str = "auto"
    dtype: tuple[Dtype, ...] = ("float32",)
    """Precisions of the product's encoder; the published loop runs in float32."""
    same_dtype: bool = False
    """Run the published loop under autocast in the (first) precision of the product instead."""
    images: int = 2
    seed: int = 0
    busy: bool = False
    """Others use this machine, too: take the CPU time of this process for its time. With
    OMP_NUM_THREADS=1 only."""


@dataclass(frozen=True)
class Side:
    """One of those that are compared, and what came out so far."""

    name: str
    label: Loop
    seconds: list[float] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Seconds an image."""
        return statistics.median(self.seconds)


def compare(options: ExactOptions, make_loop: MakeLoop, console: Console) -> bool:
    """Run all on the same images, in turn, and print ratios and differences.

    Returns whether they agree on the most probable class of every image.
    """
    clock = pick_clock(options.busy)
    method = PRESETS["paper"]
    names = [f"class number {n}" for n in range(options.classes)]

    def build(dtype: Dtype) -> MintAdapter:
        torch.manual_seed(options.seed)
        clip = load_clip(
            ModelConfig(
                model=options.model, weights=RANDOM_WEIGHTS, device=options.device, dtype=dtype
            )
        )
        return MintAdapter(clip, [(name,) for name in names], method, seed=options.seed)

    adapters = {dtype: build(dtype) for dtype in options.dtype}
    first, plain = adapters[options.dtype[0]], build("float32")
    device = first.clip.device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.same_dtype)
    theirs = Side(
        f"published loop, {'the same' if options.same_dtype else 'float32'}",
        make_loop(plain.clip, names, plain),
    )
    sides = [Side(_precision(a.clip), partial(_adapt, a)) for a in adapters.values()]
    views = list(_views(options, first))
    flops = count_flops(first.clip.model, first.text, method)
    done = {}
    for side, adapter in zip(sides, adapters.values(), strict=True):
        before = adapter.bank
        with FlopCounterMode(display=False) as counter:
            side.label(views[0])  # also warms up: lazy initialisation
        done[side.name] = float(counter.get_total_flops())
        adapter.bank = before
    for image in track(views, "images", console=console, transient=True):
        for side in sides:
            _run(side, image, device, clock)
        with autocast:
            _run(theirs, image, device, clock)
    peaks = [attainable_flops(adapter.clip, clock) for adapter in adapters.values()]

    table = Table(title=f"{options.model}, {options.classes} classes, {where(device)}")
    table.add_column("", no_wrap=True)
    for column in ("s an image", "ratio", "TFLOP", "of the floor", "GFLOP/s", "of attainable"):
        table.add_column(column, justify="right")
    speed = flops.published / theirs.median_s / 1e9
    count, more = f"{flops.published / 1e12:.3f}", f"{flops.ratio:.2f}"
    table.add_row(theirs.name, f"{theirs.median_s:.3f}", "1.00", count, more, f"{speed:.0f}", "")
    for side, peak in zip(sides, peaks, strict=True):
        speed = done[side.name] / side.median_s
        table.add_row(
            side.name,
            f"{side.median_s:.3f}",
            f"{_ratio(theirs, side):.2f}",
            f"{done[side.name] / 1e12:.3f}",
            f"{done[side.name] / flops.floor:.3f}",
            f"{speed / 1e9:.0f}",
            f"{speed / peak:.2f}",
        )
    console.print(table)
    return all([_agree(theirs, side, flops.ratio, console) for side in sides])


def _run(side: Side, views_VCHW: Tensor, device: torch.device, clock: Clock) -> None:
    seconds, logits_C = timed(device, partial(side.label, views_VCHW), clock)
    side.seconds.append(seconds)
    side.logits.append(logits_C.detach().float().cpu())


def _ratio(theirs: Side, ours: Side) -> float:
    return statistics.median(t / o for t, o in zip(theirs.seconds, ours.seconds, strict=True))


def _agree(theirs: Side, ours: Side, flops_ratio: float, console: Console) -> bool:
    """Print how far the answers are apart; whether every image has the same top-1."""
    pairs = list(zip(ours.logits, theirs.logits, strict=True))
    same = sum(int(a.argmax() == b.argmax()) for a, b in pairs)
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    spread = max(float(b.max() - b.min()) for _, b in pairs)
    console.print(
        f"{ours.name}: largest difference of the logits {difference:.2e} (they span {spread:.2f}); "
        f"the same top-1 for {same} of {len(pairs)} images; speed-up is "
        f"{_ratio(theirs, ours) / flops_ratio:.0%} of the ratio of the operation counts"
    )
    return same == len(pairs)


def attainable_flops(clip: LoadedClip, clock: Clock = time.perf_counter) -> float:
    """Operations a second of a large matrix product in the encoder's precision, here and now."""
    weight = clip.model.visual.transformer.resblocks[0].mlp[0].weight
    tokens = 4096 if clip.device.type == "cpu" else 65536
    x = torch.randn(tokens, weight.shape[1], device=clip.device, dtype=weight.dtype)

    def products() -> Tensor:
        for _ in range(4):
            y = x @ weight.T
        return y

    best = min(timed(clip.device, products, clock)[0] for _ in range(4))
    return 8 * tokens * weight.numel() / best


def _adapt(adapter: MintAdapter, views_VCHW: Tensor) -> Tensor:
    adapter.reset()
    seen = adapter.look(views_VCHW)
    adapter.adapt(seen)
    return adapter.predict(seen)[0]


def _views(options: ExactOptions, adapter: MintAdapter) -> Iterator[Tensor]:
    """Smooth random pictures: views of one image resemble each other, as real ones do."""
    size = adapter.clip.preprocess.size
    rng = torch.Generator().manual_seed(options.seed)
    for n in range(options.images):
        coarse = torch.rand(1, 3, 12, 12, generator=rng)
        picture = torch.nn.functional.interpolate(coarse, size=(size + 32, size + 32))
        pixels = (picture[0].permute(1, 2, 0) * 255).byte().numpy()
        yield adapter.views(pixels, f"picture {n}")


def _precision(clip: LoadedClip) -> str:
    return f"mint_stream, {str(clip.model.visual.conv1.weight.dtype).removeprefix('torch.')}"
