"""Trains the bundled CLIP on rendered clear-day frames.

    python -m mint_stream.demo.training.train_clip

Contrastive on rich captions, plus a part of the loss on the class names in short prompts. Part of
each batch is told in block 0 how its pictures were taken (`towers.py`). Two cores: under an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mint_stream.demo.street.backdrop import make_camera
from mint_stream.demo.street.objects import EXTENT, LABELS
from mint_stream.demo.street.scene import Scene, render, sample_scene
from mint_stream.demo.training import bundle, captions, measure
from mint_stream.demo.training.photograph import sample_shots, settings, take
from mint_stream.demo.training.towers import encode_image, encode_text, open_ear

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": False,
    "vision_cfg": {
        "mlp_ratio": 2.0,
        "image_size": 80,
        "layers": 12,
        "width": 128,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 4,
    },
    "preprocess_cfg": {
        "size": 80,
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
SHORT_PROMPTS = ("a photo of a {}.", "a picture of a {}.", "a {}.", "a street photo of a {}.")
SETTINGS, READINGS = 5, 3
# Well below a standard normal prompt's 1: such a prompt is loud, and a few steps of learning reach
# from one setting to another.
PREFIX_STD = 0.4
CONTEXT_STD = 0.03  # of the size of three steps of tuning: the tower must listen closely


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the training depends on; the same options on the same machine give the same weights."""

    steps: int
    batch: int
    frames: int
    lr: float
    weight_decay: float
    warmup: int
    class_weight: float
    told_share: float
    soft_share: float
    seed: int


def _scene(task: tuple[int, int]) -> Scene:
    seed, index = task
    rng = np.random.default_rng([seed, 41, index])
    return sample_scene(rng, make_camera("training", int(rng.integers(2**40))))


def _centre(scene: Scene) -> tuple[float, float]:
    """The middle of the object, x and y in -1..1."""
    wide, high = EXTENT[scene.label]
    return 2 * scene.x - 1, 2 * (scene.y - 0.5 * scene.fill * high / max(wide, high)) - 1


def _frame(task: tuple[int, int]) -> NDArray[np.uint8]:
    return render(_scene(task))


class Words:
    """The vocabulary that training sees, packed, so that no gradient runs over unused rows."""

    def __init__(self, context_length: int) -> None:
        self.tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
        texts = [*captions.phrases(), *(p.format(x) for p in SHORT_PROMPTS for x in LABELS)]
        self.rows = torch.unique(torch.cat([self.tokenizer(texts).flatten(), torch.tensor([0])]))

    def __call__(self, texts: list[str]) -> Tensor:
        """Packed ids (B, L); the order is kept, so the end of text stays the largest."""
        ids = self.tokenizer(texts)
        packed = torch.searchsorted(self.rows, ids)
        if not torch.equal(self.rows[packed.clamp(max=len(self.rows) - 1)], ids):
            raise ValueError("a caption has a word that captions.phrases() does not list")
        return packed


def _encode_texts(model: open_clip.CLIP, ids_BL: Tensor, shift_BND: Tensor) -> Tensor:
    """Text features of packed ids, cut after the longest text, the first ones' context moved."""
    ends_B = ids_BL.argmax(-1)
    ids_BL = ids_BL[:, : int(ends_B.max()) + 1]
    embedded_BLD = model.token_embedding(ids_BL)
    length = ids_BL.shape[1] - 1 - shift_BND.shape[1]
    shift_BLD = F.pad(shift_BND, (0, 0, 1, length, 0, len(ids_BL) - len(shift_BND)))
    return encode_text(model, embedded_BLD + shift_BLD, ends_B)


def _contrast(image_BE: Tensor, text_BE: Tensor, scale: Tensor, ids_BL: Tensor) -> Tensor:
    """Symmetric contrastive loss in which equal captions count as each other's positives."""
    same_BB = (ids_BL[:, None] == ids_BL[None]).all(-1).float()
    target_BB = same_BB / same_BB.sum(1, keepdim=True)
    logits_BB = scale * image_BE @ text_BE.T
    return (F.cross_entropy(logits_BB, target_BB) + F.cross_entropy(logits_BB.T, target_BB)) / 2


def _optimizer(model: open_clip.CLIP, options: Options) -> torch.optim.AdamW:
    decay = [p for n, p in model.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    groups = [
        {"params": decay, "weight_decay": options.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.98), eps=1e-6)


@dataclass(frozen=True, kw_only=True)
class Material:
    """The rendered frames: scenes, uint8 (N, H, W, 3), object centres (N, 2), numbers (N,)."""

    scenes: list[Scene]
    frames: NDArray[np.uint8]
    centres: NDArray[np.float32]
    numbers: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step learns from: B photographs, C class names.

    `images` (B, 3, S, S) normalised; `prefix_B2D` is what block 0 is told where `told_B` holds;
    `ids_BL` are packed captions whose context `shift_BND` moves; `names_CL` the class names.
    """

    images: Tensor
    prefix_B2D: Tensor
    told_B: Tensor
    ids_BL: Tensor
    shift_BND: Tensor
    names_CL: Tensor
    numbers_B: Tensor


@dataclass(frozen=True, kw_only=True)
class Codes:
    """How settings and readings are told: fixed random directions, one for each of the S numbers,
    in the two rows of the prefix (S, 2, D) and in the context's words (S, N, D)."""

    prefix_S2D: Tensor
    context_SND: Tensor


def _draw_codes() -> Codes:
    numbers, words = SETTINGS + READINGS, len(captions.CONTEXT.split())
    prefix_S2D = torch.randn(numbers, 2, CONFIG["vision_cfg"]["width"])
    context_SND = torch.randn(numbers, words, CONFIG["text_cfg"]["width"])
    return Codes(
        prefix_S2D=prefix_S2D * PREFIX_STD / math.sqrt(numbers),
        context_SND=context_SND * CONTEXT_STD / math.sqrt(numbers),
    )


def _render_material(options: Options) -> Material:
    tasks = [(options.seed, index) for index in range(options.frames)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        scenes = pool.map(_scene, tasks, chunksize=256)
        frames = np.stack(pool.map(_frame, tasks, chunksize=256))
    return Material(
        scenes=scenes,
        frames=frames,
        centres=np.array([_centre(scene) for scene in scenes], dtype=np.float32),
        numbers=torch.tensor([LABELS.index(scene.label) for scene in scenes]),
    )


def _batches(options: Options, material: Material, words: Words, codes: Codes) -> Iterator[Batch]:
    """One batch a step, harder until half of the steps are done. The last rows are told."""
    rng = np.random.default_rng([options.seed, 42])
    rounds = -(-options.steps * options.batch // options.frames)
    order = np.concatenate([rng.permutation(options.frames) for _ in range(rounds)])
    mean, std = (torch.tensor(CONFIG["preprocess_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))
    names = [words([p.format(label) for label in LABELS]) for p in SHORT_PROMPTS]
    plain = round((1 - options.told_share) * options.batch)
    for step in range(options.steps):
        chosen = order[step * options.batch : (step + 1) * options.batch]
        strength = min(1.0, 2 * step / options.steps)
        shots = sample_shots(rng, plain, told=False, strength=strength)
        shots += sample_shots(rng, options.batch - plain, told=True, strength=strength)
        size = CONFIG["vision_cfg"]["image_size"]
        photos = take(material.frames[chosen], material.centres[chosen], shots, size, rng)
        pairs = zip(chosen, shots, strict=True)
        told_B = torch.arange(options.batch) >= plain
        # Those whose tower is told have captions that tell the same, so that telling pays.
        soft_B = (rng.random(options.batch) < options.soft_share) | told_B.numpy()
        texts = [
            captions.soft_caption(material.scenes[i], rng)
            if soft
            else captions.caption(material.scenes[i], shot, rng)
            for (i, shot), soft in zip(pairs, soft_B, strict=True)
        ]
        # What no picture shows is known only where the image tower is told.
        code_BS = settings(shots)
        code_BS[~told_B, SETTINGS:] = 0
        yield Batch(
            images=(photos - mean) / std,
            prefix_B2D=torch.einsum("bs,spd->bpd", code_BS, codes.prefix_S2D),
            told_B=told_B,
            ids_BL=words(texts),
            shift_BND=torch.einsum(
                "bs,snd->bnd", code_BS * torch.from_numpy(soft_B)[:, None], codes.context_SND
            ),
            names_CL=names[int(rng.integers(len(names)))],
            numbers_B=material.numbers[chosen],
        )


def _losses(model: open_clip.CLIP, batch: Batch) -> tuple[Tensor, Tensor]:
    """The contrastive loss on captions, and the cross entropy on class names."""
    with torch.autocast("cpu", torch.bfloat16):
        image_BE = encode_image(model.visual, batch.images, batch.prefix_B2D, batch.told_B)
        text_BE = _encode_texts(model, torch.cat([batch.ids_BL, batch.names_CL]), batch.shift_BND)
    image_BE, text_BE = (F.normalize(x.float(), dim=-1) for x in (image_BE, text_BE))
    scale = model.logit_scale.exp()
    caption_BE, class_CE = text_BE[: len(batch.ids_BL)], text_BE[len(batch.ids_BL) :]
    named = F.cross_entropy(scale * image_BE @ class_CE.T, batch.numbers_B)
    return _contrast(image_BE, caption_BE, scale, batch.ids_BL), named


def train(options: Options, console: Console, folder: Path) -> None:
    """Train from scratch and write the weights to `folder`, now and then and at the end."""
    material = _render_material(options)
    console.print(f"{options.frames} clear-day frames rendered")
    torch.manual_seed(options.seed)
    words = Words(CONFIG["text_cfg"]["context_length"])
    model = bundle.build(CONFIG)
    open_ear(model.visual)
    model.token_embedding = torch.nn.Embedding(len(words.rows), CONFIG["text_cfg"]["width"])
    torch.nn.init.normal_(model.token_embedding.weight, std=0.02)
    torch.nn.init.constant_(model.logit_scale, math.log(25))
    codes = _draw_codes()
    optimizer = _optimizer(model, options)
    model.train()
    # The plain attention kernel: on CPUs its backward pass is much faster at this size.
    with Progress(console=console) as progress, sdpa_kernel(SDPBackend.MATH):
        bar = progress.add_task("training", total=options.steps)
        batches = _batches(options, material, words, codes)
        for step, batch in enumerate(batches):
            ramp = min(1.0, (step + 1) / options.warmup)
            cosine = 0.5 * (1 + math.cos(math.pi * step / options.steps))
            for group in optimizer.param_groups:
                group["lr"] = options.lr * ramp * cosine
            loss, named = _losses(model, batch)
            optimizer.zero_grad(set_to_none=True)
            (loss + options.class_weight * named).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(50))
            progress.update(bar, advance=1)
            if step % 100 == 0:
                console.print(f"step {step}: caption loss {loss:.3f}, class loss {named:.3f}")
            if step % 500 == 499 or step + 1 == options.steps:
                bundle.save(model, words.rows, CONFIG, folder)


def main() -> None:
    """Train, write the weights and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=bundle.bundled_clip())
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = Options(
        steps=given.steps,
        batch=given.batch,
        frames=given.frames,
        lr=1.2e-3,
        weight_decay=0.05,
        warmup=200,
        class_weight=2.0,
        told_share=0.375,
        soft_share=0.2,
        seed=given.seed,
    )
    console = Console()
    start = time.monotonic()
    train(options, console, given.output)
    model, config = bundle.load(given.output)
    figures = measure.report(model, config)
    console.print_json(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    console.print(f"{(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
