"""What a model is made of, known before one is loaded: names of open_clip, or files in a folder.

A folder is read without torch, which takes seconds to import: a driver does not need it. open_clip,
which does, is imported where it is asked for its names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mint_stream.config import ConfigError, ModelConfig

RANDOM_WEIGHTS = "random"
"""In place of weights: an untrained model, for measuring cost."""

_DEFAULT_WIDTH, _DEFAULT_SIZE = 768, 224
"""Of open_clip's image towers, where a configuration does not say."""


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
        content, _ = read_config(folder)
    else:
        check_name(config.model, config.weights)
        content = _named_config(config.model)
    check_vit(config.model, content)
    vision = content["vision_cfg"]
    size = vision.get("image_size", _DEFAULT_SIZE)
    side = size if isinstance(size, int) else max(size)
    return int(vision.get("width", _DEFAULT_WIDTH)), int(side)


def check_vit(name: str, content: Mapping[str, Any]) -> None:
    """Refuse a model without a Vision Transformer of open_clip, by its configuration."""
    vision = content.get("vision_cfg", {})
    if "timm_model_name" in vision or isinstance(vision.get("layers"), list):
        raise ConfigError(
            f"model {name!r} has no Vision Transformer of open_clip; the method injects prompts "
            "into one: choose a ViT, such as ViT-B-16"
        )


def _identity_parts(config: ModelConfig) -> Sequence[str | bytes]:
    folder = Path(config.model)
    if folder.is_dir():
        paths = [_config_file(folder), weights_file(folder, config.weights)]
        return [_file_hash(path) for path in paths]
    check_name(config.model, config.weights)
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


def weights_file(folder: Path, weights: str | None) -> Path:
    """`weights` if given, else the file in a model folder. Raises `ConfigError`."""
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


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
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


def check_name(name: str, weights: str | None) -> None:
    """Refuse a model or weights that open_clip does not know, and those that do not fit."""
    open_clip = _open_clip()
    if name not in open_clip.list_models():
        raise ConfigError(
            f"model is {name!r}; it must be a folder with a config.json, or one of open_clip's "
            "models such as ViT-B-16 or ViT-L-14 (`open_clip.list_models()`)"
        )
    check_vit(name, _named_config(name))
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
    if has_quick_gelu(name) and weights in tags and not wants_quick_gelu(name, weights):
        raise ConfigError(
            f"weights {weights!r} were trained without QuickGELU, model {name} is with it: use "
            f"--model {name.removesuffix('-quickgelu')}"
        )


def has_quick_gelu(name: str) -> bool:
    """Whether open_clip's model of that name is one with QuickGELU."""
    return bool(_named_config(name).get("quick_gelu", False))


def wants_quick_gelu(name: str, weights: str | None) -> bool:
    """Whether weights of open_clip were trained with QuickGELU, by its own configuration."""
    pretrained = _open_clip().get_pretrained_cfg(name, weights or "") or {}
    return bool(pretrained.get("quick_gelu", False))


def _named_config(name: str) -> dict[str, Any]:
    return _open_clip().get_model_config(name) or {}


def _open_clip() -> Any:
    """Not at the top: it brings torch along."""
    import open_clip

    return open_clip
