"""The paper preset beside a faithful port of the published loop, on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mint_stream.adapter import MintAdapter
from mint_stream.benchmark.floor import count_flops
from mint_stream.clip_model import LoadedClip, load_clip
from mint_stream.config import PRESETS, Dtype, ModelConfig
from mint_stream.model_files import RANDOM_WEIGHTS


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
    dtype: Dtype = "float32"
    """Precision of the product's encoder; the published loop runs in float32."""
    same_dtype: bool = False
    """Run the published loop under autocast in the same precision instead."""
    images: int = 2
    seed: int = 0


def compare(options: ExactOptions, make_loop: MakeLoop, console: Console) -> bool:
    """Run both on the same images, in turn, and print ratio and differences.

    Returns whether the two agree on the most probable class of every image.
    """
    method = PRESETS["paper"]
    names = [f"class number {n}" for n in range(options.classes)]
    config = ModelConfig(
        model=options.model, weights=RANDOM_WEIGHTS, device=options.device, dtype=options.dtype
    )
    torch.manual_seed(options.seed)
    plain = load_clip(
        ModelConfig(
            model=options.model, weights=RANDOM_WEIGHTS, device=options.device, dtype="float32"
        )
    )
    torch.manual_seed(options.seed)
    clip = load_clip(config)
    adapter = MintAdapter(clip, [(name,) for name in names], method, seed=options.seed)
    published = make_loop(plain, names, adapter)
    autocast = torch.autocast(
        clip.device.type, torch.bfloat16, enabled=options.same_dtype and _is_bf16(clip)
    )
    views = list(_views(options, adapter))
    ours, theirs, logits = [], [], []
    with FlopCounterMode(display=False) as counter:
        _adapt(adapter, views[0])  # also warms up: lazy initialisation
    done = float(counter.get_total_flops())
    fresh = MintAdapter(clip, [(name,) for name in names], method, seed=options.seed)
    for image in track(views, "images", console=console, transient=True):
        seconds, a = _timed(clip.device, partial(_adapt, fresh, image))
        ours.append(seconds)
        with autocast:
            seconds, b = _timed(clip.device, partial(published, image))
        theirs.append(seconds)
        logits.append((a.float().cpu(), b.float().cpu()))
    flops = count_flops(clip.model, adapter.text, method)
    peak = attainable_flops(clip)
    agree = [bool(a.argmax() == b.argmax()) for a, b in logits]

    table = Table(title=f"{options.model}, {options.classes} classes, {_what(clip, options)}")
    for column in ("", "published loop", "mint_stream", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    ratios = [t / o for t, o in zip(theirs, ours, strict=True)]
    table.add_row(
        "seconds an image (median)",
        f"{statistics.median(theirs):.3f}",
        f"{statistics.median(ours):.3f}",
        f"{statistics.median(ratios):.2f}",
    )
    table.add_row(
        "needed TFLOP an image",
        f"{flops.published / 1e12:.3f}",
        f"{flops.floor / 1e12:.3f}",
        f"{flops.ratio:.2f}",
    )
    table.add_row("done TFLOP an image", "", f"{done / 1e12:.3f}", f"{done / flops.floor:.3f}")
    table.add_row(
        "achieved GFLOP/s",
        f"{flops.published / statistics.median(theirs) / 1e9:.0f}",
        f"{done / statistics.median(ours) / 1e9:.0f}",
        f"{done / statistics.median(ours) / peak:.2f} of attainable",
    )
    console.print(table)
    difference = max(float((a - b).abs().max()) for a, b in logits)
    spread = max(float(b.max() - b.min()) for _, b in logits)
    console.print(
        f"largest difference of the logits {difference:.2e} (they span {spread:.2f}); the same "
        f"top-1 for {sum(agree)} of {len(agree)} images; speed-up is "
        f"{statistics.median(ratios) / flops.ratio:.0%} of the ratio of the operation counts"
    )
    return all(agree)


def attainable_flops(clip: LoadedClip) -> float:
    """Operations a second of a large matrix product in the encoder's precision, here and now."""
    weight = clip.model.visual.transformer.resblocks[0].mlp[0].weight
    tokens = 4096 if clip.device.type == "cpu" else 65536
    x = torch.randn(tokens, weight.shape[1], device=clip.device, dtype=weight.dtype)

    def products() -> Tensor:
        for _ in range(4):
            y = x @ weight.T
        return y

    best = min(_timed(clip.device, products)[0] for _ in range(4))
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


def _timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def _is_bf16(clip: LoadedClip) -> bool:
    return bool(clip.model.visual.conv1.weight.dtype is torch.bfloat16)


def _what(clip: LoadedClip, options: ExactOptions) -> str:
    where = (
        torch.cuda.get_device_name(clip.device)
        if clip.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    ours = str(clip.model.visual.conv1.weight.dtype).removeprefix("torch.")
    theirs = ours if options.same_dtype else "float32"
    return f"{where}, {ours} against {theirs}"
