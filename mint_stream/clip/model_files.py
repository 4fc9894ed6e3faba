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

from mint_stream.clip.weights import check_weights, is_of_transformers, tensor_shapes, tower
from mint_stream.config import BUNDLED, ConfigError, ModelConfig

RANDOM_WEIGHTS = "random"
"""In place of weights: an untrained model, for measuring cost."""

_OPEN_CLIP_CONFIG = "open_clip_config.json"
_OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_OWN_WEIGHTS = ("model.safetensors", "model.pt")
"""Names of open_clip's on the hub, and of a folder of one's own. On the hub `config.json`,
`model.safetensors` and `pytorch_model.bin` beside the former are the library Transformers'."""


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
    if config.folder is not None:
        content, _ = read_config(config.folder)
    else:
        check_name(config.model, config.weights)
        content = _named_config(config.model)
    check_vit(config.model, content)
    vision = tower(content, "vision_cfg")
    size = vision["image_size"]
    side = size if isinstance(size, int) else max(size)
    return int(vision["width"]), int(side)


def check_vit(name: str, content: Mapping[str, Any]) -> None:
    """Refuse a model without a Vision Transformer of open_clip, by its configuration."""
    vision = content.get("vision_cfg", {})
    if "timm_model_name" in vision or isinstance(vision.get("layers"), list):
        raise ConfigError(
            f"model {name!r} has no Vision Transformer of open_clip; the method injects prompts "
            "into one: choose a ViT, such as ViT-B-16"
        )


def _identity_parts(config: ModelConfig) -> Sequence[str | bytes]:
    if config.folder is not None:
        paths = [_config_file(config.folder), weights_file(config.folder, config.weights)]
        return [_file_hash(path) for path in paths]
    check_name(config.model, config.weights)
    file = named_weights_file(config.model, config.weights)
    return [config.model, str(config.weights) if file is None else _file_hash(file)]


def _file_hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _config_file(folder: Path) -> Path:
    for name in (_OPEN_CLIP_CONFIG, "config.json"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"model folder {str(folder)!r} has no {_OPEN_CLIP_CONFIG} and no config.json (open_clip's "
        "model configuration: embed_dim, vision_cfg, text_cfg)"
    )


def weights_file(folder: Path, weights: str | None) -> Path:
    """`weights` if given, else the file that belongs to the configuration in a model folder.

    Raises `ConfigError` for one that does not exist, or that cannot hold the weights of this model.
    """
    content, _ = read_config(folder)
    check_vit(str(folder), content)
    path = Path(weights) if weights is not None else _own_weights(folder)
    if not path.is_file():
        raise ConfigError(f"weights file {weights!r} does not exist")
    check_weights(path, content, str(folder))
    return path


def _own_weights(folder: Path) -> Path:
    from_hub = _config_file(folder).name == _OPEN_CLIP_CONFIG
    names = _OPEN_CLIP_WEIGHTS + _OWN_WEIGHTS if from_hub else _OWN_WEIGHTS + _OPEN_CLIP_WEIGHTS
    there = [folder / name for name in names if (folder / name).is_file()]
    for path in there:
        doubtful = from_hub and path.name in _OWN_WEIGHTS
        if not (doubtful and is_of_transformers(tensor_shapes(path))):
            return path
    if there:
        raise ConfigError(
            f"model folder {str(folder)!r} has Transformers' weights alone: get "
            f"{' or '.join(_OPEN_CLIP_WEIGHTS)} from where it came, or name the file with --weights"
        )
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
        if not (isinstance(model["vision_cfg"], dict) and isinstance(model["text_cfg"], dict)):
            raise ValueError("vision_cfg and text_cfg must be objects")
        return model, content.get("preprocess_cfg", {})
    except (ValueError, TypeError, AttributeError) as error:
        if _is_transformers_config(path):
            raise ConfigError(
                f"{path} is the configuration of a model of the library Transformers: get "
                f"{_OPEN_CLIP_CONFIG} and {_OPEN_CLIP_WEIGHTS[0]} from where it came, or use a "
                "model name of open_clip"
            ) from error
        raise ConfigError(f"{path} is no model configuration of open_clip: {error}") from error


def _is_transformers_config(path: Path) -> bool:
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return False
    return isinstance(content, dict) and bool({"architectures", "model_type"} & set(content))


def check_name(name: str, weights: str | None) -> None:
    """Refuse a model or weights that open_clip does not know, and those that do not fit."""
    open_clip = _open_clip()
    if name not in open_clip.list_models():
        raise ConfigError(
            f"model is {name!r}; it must be a folder with a config.json, or one of open_clip's "
            "models such as ViT-B-16 or ViT-L-14 (`open_clip.list_models()`), or "
            f"{BUNDLED}"
        )
    check_vit(name, _named_config(name))
    tags = open_clip.list_pretrained_tags_by_model(name)
    if weights is None:
        raise ConfigError(
            f"model {name} needs weights: one of {', '.join(tags)}, or the path of a file"
        )
    file = named_weights_file(name, weights)
    if file is not None:
        if not file.is_file():
            raise ConfigError(
                f"weights are {weights!r}; for {name} they must be one of {', '.join(tags)}, "
                "or the path of a file that exists"
            )
        check_weights(file, _named_config(name), name)
    if has_quick_gelu(name) and weights in tags and not wants_quick_gelu(name, weights):
        raise ConfigError(
            f"weights {weights!r} were trained without QuickGELU, model {name} is with it: use "
            f"--model {name.removesuffix('-quickgelu')}"
        )


def named_weights_file(name: str, weights: str | None) -> Path | None:
    """The file that `weights` names for a model of open_clip's; None for a tag, or none at all."""
    tags = _open_clip().list_pretrained_tags_by_model(name)
    return None if weights in (None, RANDOM_WEIGHTS, *tags) else Path(weights or "")


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
