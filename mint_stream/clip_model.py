"""Loading a CLIP through open_clip, and refusing those on which the method cannot work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from safetensors.torch import load_file
from torch import Tensor, nn

from mint_stream.config import BUNDLED as BUNDLED
from mint_stream.config import ConfigError, ModelConfig
from mint_stream.text_prompt import Tokenizer

RANDOM_WEIGHTS = "random"
"""In place of weights: an untrained model, for measuring cost."""


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
        ConfigError: unknown model or weights, weights that do not fit, or a model on which the
            method cannot work (see `check_model`).
    """
    device, dtype = pick_device(config.device), pick_dtype(config)
    model, tokenizer = (
        _load_folder(Path(config.model), config.weights)
        if Path(config.model).is_dir()
        else _load_named(config.model, config.weights)
    )
    check_model(model, config.model)
    model.eval().requires_grad_(False)
    model.to(device=device, dtype=torch.float64 if dtype is torch.float64 else torch.float32)
    if dtype is torch.bfloat16:
        _linear_layers_to(model, dtype)
    return LoadedClip(
        model=model,
        tokenizer=tokenizer,
        preprocess=_preprocess(model, config.model),
        device=device,
        dtype=torch.float64 if dtype is torch.float64 else torch.float32,
    )


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


def model_identity(config: ModelConfig) -> str:
    """What says that two runs used the same model, cheap to know before one is loaded.

    The names for open_clip's own weights, a hash of contents for local files. 16 hex digits.

    Raises:
        ConfigError: a model or weights that do not exist.
    """
    digest = hashlib.sha256()
    for part in _identity_parts(config):
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def vision_shape(config: ModelConfig) -> tuple[int, int]:
    """D, the width of the image tower, and its input's side in pixels.

    Read from the model's configuration alone, without weights.

    Raises:
        ConfigError: a model that does not exist, or one without a Vision Transformer.
    """
    folder = Path(config.model)
    if folder.is_dir():
        content, _ = _read_config(folder)
    else:
        _check_name(config.model, config.weights)
        content = open_clip.get_model_config(config.model) or {}
    _check_vit(config.model, content)
    vision = content["vision_cfg"]
    size = vision.get("image_size", open_clip.CLIPVisionCfg.image_size)
    side = size if isinstance(size, int) else max(size)
    return int(vision.get("width", open_clip.CLIPVisionCfg.width)), int(side)


def _check_vit(name: str, content: Mapping[str, Any]) -> None:
    vision = content.get("vision_cfg", {})
    if "timm_model_name" in vision or isinstance(vision.get("layers"), list):
        raise ConfigError(
            f"model {name!r} has no Vision Transformer of open_clip; the method injects prompts "
            "into one: choose a ViT, such as ViT-B-16"
        )


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda`, `cuda:N`. Raises `ConfigError` if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device is {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices: "
            "use --device cpu, or check the driver with nvidia-smi"
        )
    return device


def pick_dtype(config: ModelConfig) -> torch.dtype:
    """Precision of the linear layers. `auto`: bfloat16 where the hardware computes in it."""
    if config.dtype != "auto":
        dtype: torch.dtype = getattr(torch, config.dtype)
        return dtype
    if pick_device(config.device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def _identity_parts(config: ModelConfig) -> Sequence[str | bytes]:
    folder = Path(config.model)
    if folder.is_dir():
        paths = [_config_file(folder), _weights_file(folder, config.weights)]
        return [_file_hash(path) for path in paths]
    _check_name(config.model, config.weights)
    weights = Path(config.weights or "")
    return [config.model, _file_hash(weights) if weights.is_file() else str(config.weights)]


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _config_file(folder: Path) -> Path:
    for name in ("open_clip_config.json", "config.json"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"model folder {str(folder)!r} has no config.json (open_clip's model configuration: "
        "embed_dim, vision_cfg, text_cfg)"
    )


def _weights_file(folder: Path, weights: str | None) -> Path:
    if weights is not None:
        if Path(weights).is_file():
            return Path(weights)
        raise ConfigError(f"weights file {weights!r} does not exist")
    names = (
        *("model.safetensors", "open_clip_model.safetensors"),
        *("open_clip_pytorch_model.bin", "model.pt"),
    )
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"model folder {str(folder)!r} has no weights (one of {', '.join(names)}): "
        "name the file with --weights"
    )


def _read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model and preprocessing configuration in a model folder. Raises `ConfigError`."""
    path = _config_file(folder)
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        model = content.get("model_cfg", content)
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(model):
            raise ValueError("it lacks embed_dim, vision_cfg or text_cfg")
        return model, content.get("preprocess_cfg", {})
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no model configuration of open_clip: {error}") from error


def _load_folder(folder: Path, weights: str | None) -> tuple[Any, Tokenizer]:
    config, preprocess = _read_config(folder)
    known = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale"}
    if "timm_model_name" in config["vision_cfg"] or isinstance(
        config["vision_cfg"].get("layers"), list
    ):
        raise ConfigError(
            f"model folder {str(folder)!r} describes no Vision Transformer of open_clip; "
            "the method injects prompts into one: choose a plain ViT"
        )
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
    _load_weights(model, _weights_file(folder, weights))
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return model, tokenizer


def _load_weights(model: Any, path: Path) -> None:
    if path.suffix != ".safetensors":
        open_clip.load_checkpoint(model, str(path))
        return
    state: dict[str, Tensor] = load_file(path)
    if "token_embedding.rows" in state:
        # A small model stores only the vocabulary rows that its training captions used.
        table = torch.zeros_like(model.token_embedding.weight)
        values = state.pop("token_embedding.values").to(table.dtype)
        table[state.pop("token_embedding.rows").long()] = values
        state["token_embedding.weight"] = table
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        details = " ".join(str(error).split())
        shown = details if len(details) < 300 else f"{details[:300]} ..."
        raise ConfigError(f"weights {str(path)!r} do not fit the model: {shown}") from None


def _check_name(name: str, weights: str | None) -> None:
    if name not in open_clip.list_models():
        raise ConfigError(
            f"model is {name!r}; it must be a folder with a config.json, or one of open_clip's "
            "models such as ViT-B-16 or ViT-L-14 (`open_clip.list_models()`)"
        )
    _check_vit(name, open_clip.get_model_config(name) or {})
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is None:
        raise ConfigError(
            f"model {name} needs weights: one of {', '.join(tags)}, or the path of a file"
        )
    if weights not in (RANDOM_WEIGHTS, *tags) and not Path(weights).is_file():
        raise ConfigError(
            f"weights are {weights!r}; for {name} they must be one of {', '.join(tags)}, "
            "or the path of a file that exists"
        )
    if _has_quick_gelu(name) and weights in tags and not _wants_quick_gelu(name, weights):
        raise ConfigError(
            f"weights {weights!r} were trained without QuickGELU, model {name} is with it: use "
            f"--model {name.removesuffix('-quickgelu')}"
        )


def _has_quick_gelu(name: str) -> bool:
    return bool((open_clip.get_model_config(name) or {}).get("quick_gelu", False))


def _wants_quick_gelu(name: str, weights: str | None) -> bool:
    """Whether weights of open_clip were trained with QuickGELU, by its own configuration."""
    return bool((open_clip.get_pretrained_cfg(name, weights or "") or {}).get("quick_gelu", False))


def _load_named(name: str, weights: str | None) -> tuple[Any, Tokenizer]:
    _check_name(name, weights)
    pretrained = None if weights == RANDOM_WEIGHTS else weights
    model = open_clip.create_model(
        name,
        pretrained=pretrained,
        device="cpu",
        # OpenAI's weights want the activation that they were trained with under every name.
        force_quick_gelu=_has_quick_gelu(name) or _wants_quick_gelu(name, pretrained),
    )
    return model, open_clip.get_tokenizer(name)


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
