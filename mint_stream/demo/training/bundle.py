"""Reads and writes the bundled CLIP: open_clip's names, float16, and only the words it knows."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_EMBEDDING = "token_embedding.weight"


def bundled_clip() -> Path:
    """The folder of the CLIP that comes with the package."""
    return Path(str(resources.files("mint_stream.demo") / "clip"))


def build(config: dict[str, Any]) -> open_clip.CLIP:
    """An untrained open_clip CLIP from a configuration in open_clip's form."""
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    return open_clip.CLIP(**{key: config[key] for key in keys})


def save(model: open_clip.CLIP, rows: Tensor, config: dict[str, Any], folder: Path) -> None:
    """Write `config.json` and `model.safetensors` (float16).

    `rows` (int) are the vocabulary rows of `token_embedding` to keep; all others are zero when the
    model is read again. A model in training may hold those rows alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if name != _EMBEDDING
    }
    tensors["token_embedding.rows"] = rows.to(torch.int32)
    table = model.state_dict()[_EMBEDDING]
    values = table if len(table) == len(rows) else table[rows]
    tensors["token_embedding.values"] = values.to(torch.float16)
    save_file(tensors, folder / "model.safetensors")
    text = json.dumps(config, indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def load(folder: Path | None = None) -> tuple[open_clip.CLIP, dict[str, Any]]:
    """Read a CLIP from a folder (the bundled one by default): float32, in evaluation mode.

    Raises FileNotFoundError for a missing file and RuntimeError where names or shapes differ from
    the configuration's model.
    """
    folder = folder or bundled_clip()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = build(config)
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items()}
    rows, values = tensors.pop("token_embedding.rows"), tensors.pop("token_embedding.values")
    embedding = torch.zeros(model.vocab_size, values.shape[1])
    embedding[rows.long()] = values.float()
    tensors[_EMBEDDING] = embedding
    model.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=True)
    return model.eval(), config
