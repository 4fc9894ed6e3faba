"""Real parts at the size of a test: a tiny CLIP with random weights, and small inputs for it.

The weights are drawn so that the method has something to move: adapting changes scores in the
first digits, and often the answer. Nothing here is trained.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from open_clip import CLIP
from PIL import Image
from safetensors.torch import save_file

from mint_stream.config import MethodConfig, ModelConfig, RunConfig
from mint_stream.store.store import Store

CLASSES = ("car", "truck", "bus", "bicycle", "person")
METHOD = MethodConfig(
    name="tiny", views=6, bank_size=24, steps=2, confident_share=0.34, learning_rate=0.02
)
"""Small enough for a few milliseconds a frame."""

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 16,
        "mlp_ratio": 2.0,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "mlp_ratio": 2.0,
    },
}

Members = Sequence[tuple[str, bytes]]
"""Names and contents, in the order of the tar."""


def write_clip(folder: Path, *, seed: int = 0) -> Path:
    """A model folder as `--model` takes it: config.json and model.safetensors, fixed by `seed`."""
    model = CLIP(**MODEL_CFG)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            parameter.data.fill_(3.0)
        elif ".ln_" in f".{name}" and name.endswith("weight"):
            parameter.data.copy_(1 + 0.2 * noise)
        elif parameter.ndim >= 2 and "embedding" not in name:
            # What the pixels say outweighs what all images have in common.
            share = 4.0 if name == "visual.conv1.weight" else 1.0
            parameter.data.copy_(share * noise / parameter[0].numel() ** 0.5)
        else:
            parameter.data.copy_((0.05 if name.startswith("visual") else 0.5) * noise)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_cfg": MODEL_CFG}))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def write_classes(path: Path, names: Iterable[str] = CLASSES) -> Path:
    """A class list as `--labels` takes it."""
    path.write_text("\n".join(names) + "\n")
    return path


@dataclass(frozen=True)
class Assets:
    """A tiny CLIP and a class list on disk."""

    model: Path
    labels: Path

    def config(self, input_url: str, output: str, **changes: Any) -> RunConfig:
        """A small run in float32 on the CPU, units of 4 frames."""
        settings: dict[str, Any] = {
            "method": METHOD,
            "unit_size": 4,
            "checkpoint_every_s": 300.0,
            **changes,
        }
        return RunConfig(
            input=input_url,
            output=output,
            labels=str(self.labels),
            model=ModelConfig(model=str(self.model), device="cpu", dtype="float32"),
            **settings,
        )


def write_assets(folder: Path) -> Assets:
    """Model and class list in `folder`."""
    return Assets(write_clip(folder / "clip"), write_classes(folder / "labels.txt"))


def png(number: int) -> bytes:
    """A small PNG: flat colours with some noise, fixed by `number`."""
    random = np.random.default_rng(number)
    rgb_HW3 = random.integers(0, 256, (4, 5, 3)).repeat(9, 0).repeat(9, 1)
    rgb_HW3 = (rgb_HW3 + random.integers(-20, 20, rgb_HW3.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb_HW3).save(file, "png")
    return file.getvalue()


def members(numbers: Iterable[int], *, cameras: Sequence[str] = ()) -> list[tuple[str, bytes]]:
    """Images `000123.png`; with `cameras`, which take turns, each with its sidecar."""
    found = []
    for number in numbers:
        found.append((f"{number:06d}.png", png(number)))
        if cameras:
            sidecar = {
                "camera": cameras[number % len(cameras)],
                "timestamp": f"2026-03-01T12:{number // 60:02d}:{number % 60:02d}Z",
            }
            found.append((f"{number:06d}.json", json.dumps(sidecar).encode()))
    return found


def tar(contents: Members) -> bytes:
    """A tar with these members; the same contents give the same bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in contents:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def parquet(images: Sequence[bytes | None], **columns: Sequence[Any]) -> bytes:
    """A Parquet file with the column `image` and others."""
    file = io.BytesIO()
    table = pa.table({"image": pa.array(images, pa.binary()), **columns})
    pq.write_table(table, file, row_group_size=4)
    return file.getvalue()


def put(root: str, objects: Mapping[str, bytes]) -> Store:
    """Write `objects` below `root`, local or remote."""
    store = Store(root)
    for name, data in objects.items():
        store.write(name, data)
    return store


def put_tars(
    root: str, *, shards: int, frames: int, first: int = 0, cameras: Sequence[str] = ()
) -> list[str]:
    """`shards` tars of `frames` images each, `first` on; gives the ids of all frames, in order."""
    ids = []
    for shard in range(first, first + shards):
        contents = members(range(shard * frames, (shard + 1) * frames), cameras=cameras)
        store = put(root, {f"{shard:03d}.tar": tar(contents)})
        uri = store.uri(f"{shard:03d}.tar")
        ids += [f"{uri}#{name}" for name, _ in contents if name.endswith(".png")]
    return ids
