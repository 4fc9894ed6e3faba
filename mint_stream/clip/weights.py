"""Whether a file can be a model's weights: its form by its first bytes, names and shapes inside.

Forms are told without torch, which takes seconds to import, and so is all of a safetensors file;
what a file of PyTorch holds, torch has to say. Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from mint_stream.config import ConfigError

Form = Literal["safetensors", "pytorch"]
Shapes = Mapping[str, tuple[int, ...]]

PART_OF_VOCABULARY = "token_embedding.rows"
"""Says of which rows of the vocabulary a small model stores the values; all others are zero."""

_PREFIXES = ("module.", "_orig_mod.")
"""Of names that were saved from within `DistributedDataParallel`, or from a compiled model."""
_DOWNLOAD = "download the file itself again"
_TRANSFORMERS = ("vision_model.", "text_model.", "visual_projection.")
_DEFAULTS = {
    "vision_cfg": {"layers": 12, "width": 768, "patch_size": 16, "image_size": 224},
    "text_cfg": {"layers": 12, "width": 512, "context_length": 77, "vocab_size": 49408},
}
"""Of open_clip's towers, where a configuration does not say."""


def tower(content: Mapping[str, Any], part: Literal["vision_cfg", "text_cfg"]) -> dict[str, Any]:
    """What a model's configuration says of a tower, with open_clip's defaults."""
    return _DEFAULTS[part] | content.get(part, {})


def weights_form(path: Path) -> Form:
    """How the weights in `path` are stored, whatever its name ends in.

    Raises `ConfigError`, with the remedy, for a file that holds no weights or only a part of them.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if size == 0:
        raise _refused(path, f"is empty: {_DOWNLOAD}")
    if text.startswith(b"version https://git-lfs"):
        raise _refused(
            path,
            f"is a pointer of Git LFS ({size} bytes), which stands for the weights: run `git lfs "
            f"pull` in {path.parent}, or {_DOWNLOAD}",
        )
    if text.startswith(b"<"):
        raise _refused(
            path,
            f"is a web page or an error message of a server ({_shown(text)}): {_DOWNLOAD}, by a "
            "link that leads to it and not to its page, and logged in where that is asked for",
        )
    if text.startswith(b"{"):
        raise _refused(path, f"is JSON ({_shown(text)}) and no weights: {_DOWNLOAD}")
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return "pytorch"
    if head.startswith(b"\x80"):
        return "pytorch"
    if head[8:9] == b"{":
        read_header(path)
        return "safetensors"
    raise _refused(
        path,
        f"begins with {_shown(head)}, as neither safetensors nor a file of PyTorch do: {_DOWNLOAD},"
        " or save it with safetensors.torch.save_file(model.state_dict(), ...)",
    )


def read_header(path: Path) -> Shapes:
    """Names and shapes in a safetensors file. Raises `ConfigError` if it is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= size - 8 else b""
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        whole = 8 + length + max(int(tensor["data_offsets"][1]) for tensor in tensors.values())
        shapes = {name: tuple(tensor["shape"]) for name, tensor in tensors.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise _refused(
            path, f"is cut off or damaged: its header cannot be read; {_DOWNLOAD}"
        ) from None
    if size != whole:
        raise _refused(path, f"has {size} bytes, and {whole} by its header: {_DOWNLOAD}")
    return shapes


def named_tensors(checkpoint: Any, path: Path) -> dict[str, Any]:
    """The state dict in what a file holds, under the names that the model itself gives.

    Taken out of a checkpoint of open_clip's training, and out of what wrapped the model there.
    """
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    state = {str(name): value for name, value in state.items() if hasattr(value, "shape")}
    if not state:
        found = ", ".join(map(str, checkpoint)) if isinstance(checkpoint, dict) else ""
        raise _refused(
            path,
            f"holds no state dict but {found[:80] or type(checkpoint).__name__}: save one with "
            "safetensors.torch.save_file(model.state_dict(), ...)",
        )
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def load_pytorch(path: Path, *, device: str = "cpu") -> Any:
    """What a file of PyTorch holds: tensors alone, nothing that would have to be executed.

    `device="meta"` leaves the values out. Raises `ConfigError` for anything else.
    """
    import torch

    # By this name torch would take it for what it is not.
    misnamed = path.suffix == ".safetensors"
    try:
        with path.open("rb") as file:
            return torch.load(
                file if misnamed else path,
                map_location=device,
                weights_only=True,
                mmap=zipfile.is_zipfile(path) and not misnamed,
            )
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise _refused(
            path,
            "cannot be read as tensors alone, and nothing else is read of a file "
            f"({why[:120]} ...): {_DOWNLOAD}, or save it with "
            "safetensors.torch.save_file(model.state_dict(), ...)",
        ) from None


def check_weights(path: Path, content: Mapping[str, Any], model: str) -> None:
    """Refuse a file that cannot be the weights of `model`, whose configuration is `content`.

    Raises `ConfigError`: what the file is, or the first shape that is another, and the remedy.
    """
    shapes = tensor_shapes(path)
    if "visual.conv1.weight" not in shapes:
        if is_of_transformers(shapes):
            raise _refused(
                path,
                "holds Transformers' weights, under other names: take the files of open_clip, "
                "which most repositories have beside them (open_clip_config.json with "
                "open_clip_model.safetensors or open_clip_pytorch_model.bin), or a pretrained tag",
            )
        raise _refused(
            path,
            f"holds no CLIP of open_clip, but {', '.join(list(shapes)[:3])}, ...: name the weights "
            "of one with a Vision Transformer",
        )
    for name, shape in _expected(content, shapes).items():
        found = shapes.get(name)
        if found != shape:
            raise _refused(
                path,
                f"holds the weights of another model than {model!r}: its {name} is "
                f"{'missing' if found is None else found}, and should be {shape}; name the model "
                "that it was saved from with --model",
            )


def tensor_shapes(path: Path) -> Shapes:
    """Names and shapes in a file of weights, as `named_tensors` names them."""
    if weights_form(path) == "safetensors":
        header = {name: _Shape(shape) for name, shape in read_header(path).items()}
        state = named_tensors(header, path)
    else:
        state = named_tensors(load_pytorch(path, device="meta"), path)
    return {name: tuple(value.shape) for name, value in state.items()}


def is_of_transformers(names: Iterable[str]) -> bool:
    """Whether these are the names of a CLIP of the library Transformers."""
    return any(name.startswith(_TRANSFORMERS) for name in names)


class _Shape:
    """Stands for a tensor of which only the shape is known."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def _expected(content: Mapping[str, Any], found: Shapes) -> dict[str, tuple[int, ...]]:
    """Some of the shapes that a model of this configuration has: what all models differ in."""
    vision, text = tower(content, "vision_cfg"), tower(content, "text_cfg")
    width, patch, joint = vision["width"], vision["patch_size"], content["embed_dim"]
    side = vision["image_size"]
    expected = {
        "visual.conv1.weight": (width, 3, patch, patch),
        "visual.proj": (width, joint),
        "positional_embedding": (text["context_length"], text["width"]),
        "text_projection": (text["width"], joint),
        f"visual.transformer.resblocks.{vision['layers'] - 1}.ln_1.weight": (width,),
        f"transformer.resblocks.{text['layers'] - 1}.ln_1.weight": (text["width"],),
    }
    if isinstance(side, int):
        tokens = (side // patch) ** 2 + 1
        expected["visual.positional_embedding"] = (tokens, width)
    if PART_OF_VOCABULARY not in found:
        expected["token_embedding.weight"] = (text["vocab_size"], text["width"])
    return expected


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        raise _refused(path, f"is cut off or damaged: {_DOWNLOAD}") from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise _refused(
            path,
            "is a TorchScript archive, which holds a program, as OpenAI published its weights: "
            "take them with --weights openai",
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise _refused(path, f"is an archive without weights in it: unpack it, or {_DOWNLOAD}")


def _shown(data: bytes) -> str:
    return repr(data[:40].decode("ascii", "replace").split("\n")[0][:32])


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"weights file {str(path)!r} {why}")
