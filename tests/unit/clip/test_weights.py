"""Weights as they really come: beside others, under other names, cut off, or no weights at all."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from open_clip import CLIP
from safetensors.torch import load_file, save_file

from mint_stream.cli.label import main
from mint_stream.clip.model import load_clip
from mint_stream.clip.model_files import model_identity
from mint_stream.clip.weights import read_header, tensor_shapes, weights_form
from mint_stream.config import ConfigError, ModelConfig

LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 598641023\n"
)
HTML = b"<!DOCTYPE html>\n<html lang=en><title>Sign in</title></html>"
XML = b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_clip(tmp_path / "clip")


def config(model: Path | str, weights: Path | str | None = None) -> ModelConfig:
    given = None if weights is None else str(weights)
    return ModelConfig(model=str(model), weights=given, device="cpu", dtype="float32")


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def of_transformers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As the library Transformers names what open_clip's repositories hold beside their own."""
    return {
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "visual_projection.weight": weights["visual.proj"].T.contiguous(),
    }


def as_on_the_hub(folder: Path) -> dict[str, torch.Tensor]:
    """Make it a folder as it comes from the hub; gives open_clip's weights."""
    weights = state(folder)
    (folder / "config.json").rename(folder / "open_clip_config.json")
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(of_transformers(weights), folder / "model.safetensors")
    torch.save(of_transformers(weights), folder / "pytorch_model.bin")
    return weights


def loaded(model: ModelConfig) -> torch.Tensor:
    projection: torch.Tensor = load_clip(model).model.visual.proj
    return projection


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_folder_from_the_hub_is_read_as_open_clip_s_pair(folder: Path, name: str) -> None:
    weights = as_on_the_hub(folder)
    save_file(weights, folder / name) if "safe" in name else torch.save(weights, folder / name)
    assert torch.equal(loaded(config(folder)), weights["visual.proj"])
    before = model_identity(config(folder))
    (folder / "model.safetensors").write_bytes(LFS)
    (folder / "pytorch_model.bin").unlink()
    assert model_identity(config(folder)) == before, "what is passed over does not count"


def test_own_weights_beside_open_clip_s_configuration_are_taken(folder: Path) -> None:
    (folder / "config.json").rename(folder / "open_clip_config.json")
    assert torch.equal(loaded(config(folder)), state(folder)["visual.proj"])


def test_a_folder_of_transformers_alone_says_what_is_missing(folder: Path) -> None:
    as_on_the_hub(folder)
    with pytest.raises(ConfigError, match=r"Transformers' weights alone: get open_clip_m"):
        model_identity(config(folder))
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin' holds Transformers' weights"):
        model_identity(config(folder, folder / "pytorch_model.bin"))
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ConfigError, match=r"library Transformers: get open_clip_config\.json"):
        model_identity(config(folder))


def truncated(path: Path) -> bytes:
    return path.read_bytes()[:-1000]


def pt(value: Any, folder: Path, **how: Any) -> bytes:
    path = folder / "made"
    torch.save(value, path, **how)
    return path.read_bytes()


def archive(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "made", "w") as file:
        file.writestr("clip/model.safetensors", b"x")
    return (folder / "made").read_bytes()


def scripted(folder: Path) -> bytes:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(folder / "made"))
    return (folder / "made").read_bytes()


def of_another_model(folder: Path, **vision: int) -> dict[str, torch.Tensor]:
    changed = {**tiny.MODEL_CFG, "vision_cfg": {**tiny.MODEL_CFG["vision_cfg"], **vision}}
    return CLIP(**changed).state_dict()


class Program:
    """What a pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (open, ("/tmp/this-must-never-exist-mint", "w"))


BROKEN: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "nothing": (lambda _: b"", "is empty: download"),
    "a Git LFS pointer": (lambda _: LFS, r"is a pointer of Git LFS \(\d+ bytes\).*`git lfs pull`"),
    "a page": (lambda _: HTML, r"is a web page .*<!DOCTYPE html>.*download the file itself"),
    "a server's refusal": (lambda _: XML, r"is a web page or an error message of a server"),
    "an index": (lambda _: b'{"weight_map": {}}', r"is JSON .*weight_map"),
    "text": (lambda _: b"hello " * 99, r"begins with 'hello hello.* neither safetensors nor"),
    "an archive": (archive, "is an archive without weights"),
    "a program": (scripted, r"TorchScript archive.*--weights openai"),
    "a cut safetensors": (lambda f: truncated(f / "model.safetensors"), r"has \d+ bytes, and \d+"),
    "a cut header": (lambda f: (f / "model.safetensors").read_bytes()[:99], "is cut off or damag"),
    "a cut .pt": (lambda f: pt(state(f), f)[:-1000], "is cut off or damaged"),
    "a cut old .pt": (
        lambda f: pt(state(f), f, _use_new_zipfile_serialization=False)[:-1000],
        "cannot be read as tensors alone",
    ),
    "a pickle": (lambda _: pickle.dumps({"a": Program()}), "cannot be read as tensors alone"),
    "a whole model": (lambda f: pt(Program(), f), "cannot be read as tensors alone"),
    "an optimiser": (lambda f: pt({"epoch": 3, "lr": 0.1}, f), "no state dict but epoch, lr"),
    "a list": (lambda f: pt([torch.zeros(2)], f), "no state dict but list"),
    "another model": (
        lambda f: pt(of_another_model(f, patch_size=8), f),
        r"visual\.conv1\.weight is \(32, 3, 8, 8\), and should be \(32, 3, 16, 16\).*--model",
    ),
    "another size": (
        lambda f: pt(of_another_model(f, image_size=64), f),
        r"visual\.positional_embedding is \(17, 32\), and should be \(5, 32\)",
    ),
    "a shallower one": (
        lambda f: pt(of_another_model(f, layers=2), f),
        r"resblocks\.2\.ln_1\.weight is missing",
    ),
    "a ResNet": (lambda f: pt({"layer1.0.conv1.weight": torch.zeros(1)}, f), "no CLIP of open_cl"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_what_cannot_be_weights_is_told_before_a_run_with_the_file_and_the_remedy(
    folder: Path, kind: str, name: str
) -> None:
    make, said = BROKEN[kind]
    data = make(folder)
    (folder / name).write_bytes(data)
    with pytest.raises(ConfigError, match=said) as refused:
        model_identity(config(folder, folder / name))
    assert str(folder / name) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not Path("/tmp/this-must-never-exist-mint").exists(), "what a file holds was executed"


@pytest.mark.parametrize("kind", ["a Git LFS pointer", "another model", "a page", "nothing"])
def test_the_command_refuses_them_before_ray_is_started(
    folder: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").write_bytes(BROKEN[kind][0](folder))
    tiny.put_tars(str(tmp_path / "in"), shards=1, frames=1)
    labels = tiny.write_classes(tmp_path / "labels.txt")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--labels", str(labels), "--model", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: weights file '{folder}/model.safetensors' ")


@pytest.mark.parametrize(
    "content",
    [
        "",
        HTML.decode(),
        "[]",
        '{"embed_dim": 2}',
        '{"embed_dim": 2, "vision_cfg": null, "text_cfg": {}}',
        '{"embed_dim": 2, "vision_cfg": {}, "text_cfg": "a"}',
    ],
)
def test_a_configuration_that_is_none_is_told_with_its_file(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"/config\.json is no model configuration of open_clip"):
        model_identity(config(folder))


def test_weights_for_a_named_model_are_looked_into(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"another model than 'ViT-B-32'.*conv1\.weight is \(32,"):
        model_identity(config("ViT-B-32", folder / "model.safetensors"))


def test_a_file_named_like_a_tag_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model_identity(config("ViT-B-16", "openai"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "openai").write_bytes(b"x")
    assert model_identity(config("ViT-B-16", "openai")) == before


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("form", ["safetensors", "pt", "checkpoint", "old pt"])
def test_names_of_a_wrapped_model_are_those_of_the_model(
    folder: Path, prefix: str, form: str
) -> None:
    expected = state(folder)
    wrapped = {f"{prefix}{name}": value for name, value in expected.items()}
    path = folder / "wrapped.bin"  # whatever its name: the contents tell
    if form == "safetensors":
        save_file(wrapped, path)
    elif form == "pt":
        torch.save(wrapped, path)
    elif form == "old pt":
        torch.save(wrapped, path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"epoch": 3, "name": "run", "state_dict": wrapped}, path)
    model = load_clip(config(folder, path)).model
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_half_precision_and_a_scale_in_a_list_are_taken(folder: Path) -> None:
    weights = {name: value.half() for name, value in state(folder).items()}
    weights["logit_scale"] = weights["logit_scale"].reshape(1)
    torch.save(weights, folder / "half.pt")
    found = loaded(config(folder, folder / "half.pt"))
    assert torch.equal(found, weights["visual.proj"].float())


@pytest.mark.parametrize(
    ("name", "part", "values"),
    [
        ("visual.proj", "image tower", ["nan", "inf", "0"]),
        ("visual.conv1.weight", "image tower", ["nan", "inf"]),
        ("text_projection", "text tower", ["nan", "inf", "0"]),
        ("transformer.resblocks.1.mlp.c_fc.weight", "text tower", ["nan", "inf"]),
        ("logit_scale", "scale", ["nan", "inf"]),
    ],
)
def test_weights_that_compute_nothing_finite_are_refused_when_they_are_loaded(
    folder: Path, name: str, part: str, values: list[str]
) -> None:
    weights = state(folder)
    for value in values:
        weights[name] = torch.full_like(weights[name], float(value))
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(ConfigError, match=rf"compute nothing: the {part} gives .*grey image"):
            load_clip(config(folder))


def test_a_header_is_read_without_torch(folder: Path) -> None:
    program = (
        "import sys; from mint_stream.clip.model_files import model_identity; "
        "from mint_stream.config import ModelConfig; "
        f"model_identity(ModelConfig(model={str(folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_both_forms_show_the_same_shapes(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.save(state(folder), folder / "same.pt")
    assert weights_form(folder / "same.pt") == "pytorch"
    assert tensor_shapes(folder / "same.pt") == dict(read_header(path)) == tensor_shapes(path)


def test_the_small_clips_keep_their_part_of_the_vocabulary(folder: Path) -> None:
    weights = state(folder)
    table = weights.pop("token_embedding.weight")
    rows = torch.tensor([320, 49406, 49407])
    weights |= {"token_embedding.rows": rows, "token_embedding.values": table[rows]}
    torch.save({f"module.{name}": value for name, value in weights.items()}, folder / "part.pt")
    found = load_clip(config(folder, folder / "part.pt")).model.token_embedding.weight
    assert torch.equal(found[rows], table[rows])
