"""Measures a CLIP on held-out scenes: accuracy in each condition, and whether it listens at all.

Prompt tuning can change an answer only if the text tower reacts to its context tokens and the
image tower to one more key and value in block 0. Both are numbers here.

Shapes: B images, C classes, E embedding, D width, N context tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mint_stream.demo.feed import SEGMENTS
from mint_stream.demo.street.backdrop import make_camera
from mint_stream.demo.street.drift import apply
from mint_stream.demo.street.objects import LABELS
from mint_stream.demo.street.scene import Frame, render, sample_scene
from mint_stream.demo.training.captions import CONTEXT
from mint_stream.demo.training.towers import encode_image, encode_text

HELD_OUT = 2**40  # seeds from here on never occur in training


def held_out_frames(
    condition: str, severity: float, count: int, *, seed: int = 0
) -> tuple[list[Frame], list[int]]:
    """Frames of a condition, each from a camera of its own, and their class numbers."""
    frames, truth = [], []
    for index in range(count):
        rng = np.random.default_rng([HELD_OUT, seed, index])
        camera = make_camera("held-out", int(rng.integers(HELD_OUT, 2 * HELD_OUT)))
        number = index % len(LABELS)
        frame = render(sample_scene(rng, camera, label=LABELS[number]))
        frames.append(apply(condition, frame, severity=severity, rng=rng))
        truth.append(number)
    return frames, truth


def preprocess(frames: Sequence[Frame], config: dict[str, Any]) -> Tensor:
    """Resize and normalise frames as the model's `preprocess_cfg` says: float32 (B, 3, H, W)."""
    settings = config["preprocess_cfg"]
    size = settings["size"]
    resized = [Image.fromarray(f).resize((size, size), Image.Resampling.BICUBIC) for f in frames]
    images = torch.from_numpy(np.stack([np.asarray(image) for image in resized]))
    mean, std = (torch.tensor(settings[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (images.permute(0, 3, 1, 2).float() / 255 - mean) / std


def class_features(
    model: open_clip.CLIP, labels: Sequence[str], *, shift_ND: Tensor | None = None
) -> Tensor:
    """Text features (C, E), L2-normalised, of `a photo of a {}.`; `shift_ND` moves the context."""
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    ids_CL = tokenizer([f"{CONTEXT} {label}." for label in labels])
    x_CLD = model.token_embedding(ids_CL)
    if shift_ND is not None:
        x_CLD = x_CLD.clone()
        x_CLD[:, 1 : 1 + len(shift_ND)] += shift_ND
    return F.normalize(encode_text(model, x_CLD, ids_CL.argmax(-1)), dim=-1)


def image_features(model: open_clip.CLIP, images: Tensor, prompt_B2D: Tensor | None) -> Tensor:
    """Image features (B, E), L2-normalised, without or with one more key and value in block 0."""
    told = torch.full((len(images),), prompt_B2D is not None)
    if prompt_B2D is None:
        prompt_B2D = torch.zeros(len(images), 2, model.visual.conv1.out_channels)
    return F.normalize(encode_image(model.visual, images, prompt_B2D, told), dim=-1)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Mean cosine between features before and after a change, and the share of answers changed."""

    cosine: float
    changed: float


def text_sensitivity(
    model: open_clip.CLIP, images: Tensor, *, shift: float = 0.05, draws: int = 8, seed: int = 0
) -> Sensitivity:
    """How far class features move when every context number moves by plus or minus `shift`."""
    generator = torch.Generator().manual_seed(seed)
    words = len(CONTEXT.split())
    image_BE = image_features(model, images, None)
    before_CE = class_features(model, LABELS)
    answer_B = (image_BE @ before_CE.T).argmax(-1)
    cosines, changed = [], []
    for _ in range(draws):
        width = model.token_embedding.embedding_dim
        signs = torch.randint(0, 2, (words, width), generator=generator) * 2.0 - 1.0
        after_CE = class_features(model, LABELS, shift_ND=shift * signs)
        cosines.append((before_CE * after_CE).sum(-1).mean())
        changed.append(((image_BE @ after_CE.T).argmax(-1) != answer_B).float().mean())
    return Sensitivity(
        cosine=float(torch.stack(cosines).mean()), changed=float(torch.stack(changed).mean())
    )


def image_sensitivity(
    model: open_clip.CLIP, images: Tensor, *, entries: int = 1, seed: int = 0
) -> Sensitivity:
    """How far image features move with a prefix: the mean of `entries` standard normal prompts."""
    generator = torch.Generator().manual_seed(seed)
    width = model.visual.conv1.out_channels
    prompts = torch.randn(len(images), entries, 2, width, generator=generator).mean(1)
    text_CE = class_features(model, LABELS)
    before_BE, after_BE = (
        image_features(model, images, None),
        image_features(model, images, prompts),
    )
    changed = (before_BE @ text_CE.T).argmax(-1) != (after_BE @ text_CE.T).argmax(-1)
    return Sensitivity(
        cosine=float((before_BE * after_BE).sum(-1).mean()), changed=float(changed.float().mean())
    )


@torch.no_grad()
def report(model: open_clip.CLIP, config: dict[str, Any], *, count: int = 300) -> dict[str, float]:
    """Held-out accuracy at each of the feed's conditions, and both sensitivities.

    The sensitivities are measured over all conditions together; a name says which number it is.
    """
    text_CE = class_features(model, LABELS)
    figures: dict[str, float] = {}
    everything = []
    for segment in SEGMENTS[:-1]:
        frames, truth = held_out_frames(segment.condition, segment.severity, count)
        images = preprocess(frames, config)
        answers = (image_features(model, images, None) @ text_CE.T).argmax(-1)
        figures[f"accuracy {segment.name}"] = float((answers == torch.tensor(truth)).float().mean())
        everything.append(images)
    images = torch.cat(everything)
    for name, found in (
        ("text, context moved by 0.05", text_sensitivity(model, images)),
        ("text, context moved by 0.015", text_sensitivity(model, images, shift=0.015)),
        ("image, one standard normal prompt", image_sensitivity(model, images)),
        ("image, mean of six prompts", image_sensitivity(model, images, entries=6)),
    ):
        figures[f"cosine {name}"] = found.cosine
        figures[f"changed {name}"] = found.changed
    return figures
