"""Trains the bundled CLIP on rendered clear-day frames: `python -m mint_stream.demo.train_clip`.

Contrastive on rich captions, plus a part of the loss on the class names in short prompts. Part of
each batch is told in block 0 how its pictures were taken (`towers.py`). Two cores: under an hour.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import PatchDropout
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mint_stream.demo import bundle, captions, measure
from mint_stream.demo.backdrop import make_camera
from mint_stream.demo.objects import EXTENT, LABELS
from mint_stream.demo.photograph import sample_shots, settings, take
from mint_stream.demo.scene import Scene, render, sample_scene
from mint_stream.demo.towers import encode_image, encode_text

CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 96,
        "layers": 12,
        "width": 128,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 128,
        "heads": 2,
        "layers": 4,
    },
    "preprocess_cfg": {
        "size": 96,
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
SHORT_PROMPTS = ("a photo of a {}.", "a picture of a {}.", "a {}.", "a street photo of a {}.")
SETTINGS = 5
PREFIX_STD = 0.4  # about the size of a mean of six standard normal prompts


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
    patch_dropout: float
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


def _encode_texts(model: open_clip.CLIP, ids_BL: Tensor) -> Tensor:
    """Text features of packed ids, cut after the longest text."""
    ends_B = ids_BL.argmax(-1)
    ids_BL = ids_BL[:, : int(ends_B.max()) + 1]
    return encode_text(model, model.token_embedding(ids_BL), ends_B)


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


def train(options: Options, console: Console) -> tuple[open_clip.CLIP, Tensor]:
    """Train from scratch; returns the model (full vocabulary) and the vocabulary rows in use."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng([options.seed, 42])
    tasks = [(options.seed, index) for index in range(options.frames)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        scenes = pool.map(_scene, tasks, chunksize=256)
        frames = np.stack(pool.map(_frame, tasks, chunksize=256))
    console.print(f"{len(frames)} clear-day frames rendered")
    centres = np.array([_centre(scene) for scene in scenes], dtype=np.float32)
    numbers = torch.tensor([LABELS.index(scene.label) for scene in scenes])
    words = Words(CONFIG["text_cfg"]["context_length"])
    model = bundle.build(CONFIG)
    width = CONFIG["vision_cfg"]["width"]
    full_vocabulary = model.token_embedding
    model.token_embedding = torch.nn.Embedding(len(words.rows), full_vocabulary.embedding_dim)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.02)
    code_S2D = torch.randn(SETTINGS, 2, width) * PREFIX_STD / math.sqrt(SETTINGS)
    mean, std = (torch.tensor(CONFIG["preprocess_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))
    short = [words([p.format(label) for label in LABELS]) for p in SHORT_PROMPTS]
    optimizer = _optimizer(model, options)
    plain = round(0.6 * options.batch)
    told_B = torch.arange(options.batch) >= plain
    order = np.concatenate(
        [
            rng.permutation(options.frames)
            for _ in range(-(-options.steps * options.batch // options.frames))
        ]
    )
    model.train()
    # A part of the patches is enough to learn from until near the end, and cheaper.
    model.visual.patch_dropout = PatchDropout(options.patch_dropout)
    whole = round(0.75 * options.steps)
    with Progress(console=console) as progress, sdpa_kernel(SDPBackend.MATH):
        # The plain kernel: on CPUs its backward pass is several times faster at this size.
        bar = progress.add_task("training", total=options.steps)
        for step in range(options.steps):
            if step == whole:
                model.visual.patch_dropout = torch.nn.Identity()
            ramp = min(1.0, (step + 1) / options.warmup)
            cosine = 0.5 * (1 + math.cos(math.pi * step / options.steps))
            for group in optimizer.param_groups:
                group["lr"] = options.lr * ramp * cosine
            chosen = order[step * options.batch : (step + 1) * options.batch]
            shots = sample_shots(rng, plain, told=False)
            shots += sample_shots(rng, options.batch - plain, told=True)
            images = (
                take(
                    frames[chosen], centres[chosen], shots, CONFIG["vision_cfg"]["image_size"], rng
                )
                - mean
            ) / std
            prefix_B2D = torch.einsum("bs,spd->bpd", settings(shots), code_S2D)
            texts = [
                captions.caption(scenes[i], shot, rng)
                for i, shot in zip(chosen, shots, strict=True)
            ]
            ids_BL = words(texts)
            classes = short[int(rng.integers(len(short)))]
            with torch.autocast("cpu", torch.bfloat16):
                image_BE = encode_image(model.visual, images, prefix_B2D, told_B)
                text_BE = _encode_texts(model, torch.cat([ids_BL, classes]))
            image_BE, text_BE = (F.normalize(x.float(), dim=-1) for x in (image_BE, text_BE))
            scale = model.logit_scale.exp()
            text_BE, class_CE = text_BE[: len(ids_BL)], text_BE[len(ids_BL) :]
            loss = _contrast(image_BE, text_BE, scale, ids_BL)
            named = F.cross_entropy(scale * image_BE @ class_CE.T, numbers[chosen])
            optimizer.zero_grad(set_to_none=True)
            (loss + options.class_weight * named).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(50))
            progress.update(bar, advance=1, description=f"caption {loss:.2f} class {named:.2f}")
            if step % 100 == 0 or step + 1 == options.steps:
                console.print(f"step {step}: caption loss {loss:.3f}, class loss {named:.3f}")
    with torch.no_grad():
        full_vocabulary.weight.zero_()
        full_vocabulary.weight[words.rows] = model.token_embedding.weight
    model.token_embedding = full_vocabulary
    return model.eval(), words.rows


def main() -> None:
    """Train, write the weights and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=bundle.bundled_clip())
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--frames", type=int, default=8192)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    options = Options(
        steps=given.steps,
        batch=given.batch,
        frames=given.frames,
        lr=1e-3,
        weight_decay=0.05,
        warmup=100,
        class_weight=1.0,
        patch_dropout=0.4,
        seed=given.seed,
    )
    console = Console()
    start = time.monotonic()
    model, rows = train(options, console)
    bundle.save(model, rows, CONFIG, given.output)
    model, config = bundle.load(given.output)
    figures = measure.report(model, config)
    console.print_json(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    console.print(f"{(time.monotonic() - start) / 60:.1f} minutes, {len(rows)} vocabulary rows")


if __name__ == "__main__":
    main()
