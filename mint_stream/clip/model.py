"""Loading a CLIP through open_clip, and refusing those on which the method cannot work."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file
from torch import nn

from mint_stream.clip.device import check_count, computes_bfloat16, exact_float32
from mint_stream.clip.encoder import ImageEncoder
from mint_stream.clip.model_files import (
    RANDOM_WEIGHTS,
    check_name,
    check_vit,
    has_quick_gelu,
    named_weights_file,
    read_config,
    wants_quick_gelu,
    weights_file,
)
from mint_stream.clip.text_prompt import TextPrompt, Tokenizer
from mint_stream.clip.weights import (
    PART_OF_VOCABULARY,
    load_pytorch,
    named_tensors,
    weights_form,
)
from mint_stream.config import ConfigError, ModelConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the encoder's input; from open_clip's configuration of the model."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


@dataclass(frozen=True, kw_only=True)
class LoadedClip:
    """A frozen CLIP, ready for the method."""

    model: Any
    tokenizer: Tokenizer
    preprocess: Preprocess
    device: torch.device
    dtype: torch.dtype
    """Of activations outside linear layers, of the bank and of the context."""


def load_clip(config: ModelConfig) -> LoadedClip:
    """Load, check and freeze the model that `config` names.

    Raises:
        ConfigError: unknown model or weights, weights that do not fit or compute nothing, or a
            model on which the method cannot work (see `check_model`).
    """
    device, dtype = pick_device(config.device), pick_dtype(config)
    exact_float32()
    model, tokenizer = (
        _load_folder(config.folder, config.weights)
        if config.folder is not None
        else _load_named(config.model, config.weights)
    )
    check_model(model, config.model)
    model.eval().requires_grad_(False)
    model.to(device=device, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    if dtype is torch.bfloat16:
        _linear_layers_to(model, dtype)
    clip = LoadedClip(
        model=model,
        tokenizer=tokenizer,
        preprocess=_preprocess(model, config.model),
        device=device,
        dtype=torch.float64 if dtype is torch.float64 else torch.float32,
    )
    _check_computes(clip, config.model)
    return clip


def check_model(model: Any, name: str) -> None:
    """Refuse a model without what the method reaches into: CLS, plain blocks, causal text.

    Raises:
        ConfigError: naming the model and the first thing that is missing.
    """
    visual = getattr(model, "visual", None)
    if not isinstance(visual, VisionTransformer):
        kind = type(visual).__name__ if visual is not None else type(model).__name__
        raise ConfigError(
            f"model {name!r} has the image tower {kind}; prompts are injected into the attention "
            "of a Vision Transformer: choose a ViT of open_clip, such as ViT-B-16"
        )
    missing = None
    if visual.pool_type != "tok" or visual.attn_pool is not None:
        missing = "a CLS token that becomes the image feature (it pools patches)"
    elif not all(isinstance(b, ResidualAttentionBlock) for b in visual.transformer.resblocks):
        missing = "standard attention blocks in the image tower"
    elif not all(hasattr(model, part) for part in ("token_embedding", "transformer")):
        missing = "open_clip's own text tower (it has a text tower of another library)"
    elif model.text_pool_type != "argmax" or model.attn_mask is None:
        missing = "a causal text tower that is read at the end-of-text token"
    elif not isinstance(model.text_projection, nn.Parameter):
        missing = "a plain text projection"
    if missing:
        raise ConfigError(f"model {name!r} lacks {missing}; choose a plain CLIP such as ViT-B-16")


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda`, `cuda:N`. Raises `ConfigError` if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_count(name, torch.cuda.device_count())
    return torch.device(name)


def pick_dtype(config: ModelConfig) -> torch.dtype:
    """Precision of the linear layers. `auto`: bfloat16 where the hardware computes in it."""
    device = pick_device(config.device)
    if device.type == "cuda":
        native = computes_bfloat16(
            torch.cuda.get_device_capability(device), rocm=torch.version.hip is not None
        )
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if config.dtype == "auto":
        return torch.bfloat16 if native else torch.float32
    if config.dtype == "bfloat16" and device.type == "cuda" and not native:
        log.warning(
            "%s does not compute in bfloat16 but emulates it, slower than float32: use --dtype "
            "auto",
            torch.cuda.get_device_name(device),
        )
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def _load_folder(folder: Path, weights: str | None) -> tuple[Any, Tokenizer]:
    config, preprocess = read_config(folder)
    known = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale"}
    check_vit(str(folder), config)
    model: Any = open_clip.CLIP(**{k: v for k, v in config.items() if k in known})
    size = model.visual.image_size
    open_clip.model.set_model_preprocess_cfg(
        model,
        {
            "size": size,
            "mean": open_clip.OPENAI_DATASET_MEAN,
            "std": open_clip.OPENAI_DATASET_STD,
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            **preprocess,
        },
    )
    _load_weights(model, weights_file(folder, weights))
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return model, tokenizer


def _load_weights(model: Any, path: Path) -> None:
    form = weights_form(path)
    state = named_tensors(load_file(path) if form == "safetensors" else load_pytorch(path), path)
    if PART_OF_VOCABULARY in state:
        # A small model stores only the vocabulary rows that its training captions used.
        table = torch.zeros_like(model.token_embedding.weight)
        values = state.pop("token_embedding.values").to(table.dtype)
        table[state.pop(PART_OF_VOCABULARY).long()] = values
        state["token_embedding.weight"] = table
    if "logit_scale" in state:
        # A number, or a list of one, by the version of open_clip that saved it.
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        details = " ".join(str(error).split())
        shown = details if len(details) < 300 else f"{details[:300]} ..."
        raise ConfigError(f"weights {str(path)!r} do not fit the model: {shown}") from None


def _load_named(name: str, weights: str | None) -> tuple[Any, Tokenizer]:
    check_name(name, weights)
    file = named_weights_file(name, weights)
    pretrained = None if weights == RANDOM_WEIGHTS or file is not None else weights
    model = open_clip.create_model(
        name,
        pretrained=pretrained,
        device="cpu",
        # OpenAI's weights want the activation that they were trained with under every name.
        force_quick_gelu=has_quick_gelu(name) or wants_quick_gelu(name, pretrained),
    )
    if file is not None:
        _load_weights(model, file)
    return model, open_clip.get_tokenizer(name)


def _check_computes(clip: LoadedClip, name: str) -> None:
    """Refuse weights that compute nothing: a grey image and two words through both towers."""
    size = clip.preprocess.size
    layers = len(clip.model.visual.transformer.resblocks)
    encoder = ImageEncoder(clip.model.visual, (layers - 1,))
    grey_1CHW = torch.zeros(1, 3, size, size, device=clip.device, dtype=clip.dtype)
    prompt = TextPrompt(clip.model, clip.tokenizer, [("picture",)], "a")
    with torch.no_grad():
        image_1E = encoder.plain(encoder.stem(grey_1CHW))[1]
        text_1E = prompt.features(prompt.context_NW.to(clip.dtype))
        scale = clip.model.logit_scale.exp()
    for what, values in (("image tower", image_1E), ("text tower", text_1E), ("scale", scale)):
        if not (values.isfinite().all() and values.abs().max() > 0):
            raise ConfigError(
                f"the weights of model {name!r} compute nothing: the {what} gives "
                f"{float(values.flatten()[0])} for a grey image and a word; the file is damaged or "
                "its training diverged: get the weights again, or others"
            )


def _linear_layers_to(model: Any, dtype: torch.dtype) -> None:
    """Cast what multiplies matrices; layer norms, embeddings and projections stay float32."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)
        elif isinstance(module, nn.MultiheadAttention):
            module.in_proj_weight.data = module.in_proj_weight.data.to(dtype)
            module.in_proj_bias.data = module.in_proj_bias.data.to(dtype)


def _preprocess(model: Any, name: str) -> Preprocess:
    config = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ConfigError(f"model {name!r} takes {width} x {height} images; it must be a square")
    if config.get("resize_mode", "shortest") != "shortest":
        raise ConfigError(
            f"model {name!r} wants resize_mode {config['resize_mode']!r}; views are made by "
            "resizing the short side ('shortest')"
        )
    return Preprocess(
        size=height,
        mean=tuple(config.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        std=tuple(config.get("std", open_clip.OPENAI_DATASET_STD)),
        interpolation=config.get("interpolation", "bicubic"),
    )
