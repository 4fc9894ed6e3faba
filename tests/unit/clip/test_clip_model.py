"""Loading: what fits is loaded as open_clip would, what cannot work is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from mint_stream.clip.encoder import query_blocks
from mint_stream.clip.model import check_model, load_clip, pick_dtype
from mint_stream.clip.model_files import model_identity, vision_shape
from mint_stream.config import ConfigError, ModelConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_clip(tmp_path / "clip")


def config(model: Path | str, weights: str | None = None, **more: str) -> ModelConfig:
    return ModelConfig(model=str(model), weights=weights, **{"device": "cpu", **more})  # type: ignore[arg-type]


def test_query_levels_scale_with_depth() -> None:
    assert query_blocks(12, 3) == (3, 7, 11)
    assert query_blocks(24, 3) == (7, 15, 23)
    assert query_blocks(6, 3) == (1, 3, 5)
    assert query_blocks(3, 3) == (0, 1, 2)


@pytest.mark.parametrize("name", ["RN50", "convnext_base", "ViT-B-16-SigLIP"])
def test_towers_on_which_the_method_cannot_work_are_refused(name: str) -> None:
    model = open_clip.create_model(name, pretrained=None, device="meta")
    with pytest.raises(ConfigError, match=f"model '{name}'"):
        check_model(model, name)


@pytest.mark.parametrize("name", ["ViT-B-16", "ViT-B-32-quickgelu"])
def test_plain_vits_of_open_clip_are_taken(name: str) -> None:
    check_model(open_clip.create_model(name, pretrained=None, device="meta"), name)


def test_a_model_without_a_vit_is_refused_before_it_is_loaded() -> None:
    with pytest.raises(ConfigError, match="no Vision Transformer"):
        vision_shape(config("RN50", "openai"))
    assert vision_shape(config("ViT-L-14", "openai")) == (1024, 224)


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"model is 'ViT-B-61'.*open_clip"):
        model_identity(config("ViT-B-61"))
    with pytest.raises(ConfigError, match=r"ViT-B-16 needs weights: one of .*openai"):
        model_identity(config("ViT-B-16"))
    with pytest.raises(ConfigError, match=r"weights are 'opnai'.*openai"):
        model_identity(config("ViT-B-16", "opnai"))


def test_the_activation_is_that_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bool]] = []

    def create_model(name: str, *, force_quick_gelu: bool, **_: object) -> None:
        asked.append((name, force_quick_gelu))
        raise InterruptedError

    monkeypatch.setattr(open_clip, "create_model", create_model)
    for weights in ("openai", "laion2b_s34b_b88k"):
        with pytest.raises(InterruptedError):
            load_clip(config("ViT-B-16", weights))
    assert asked == [("ViT-B-16", True), ("ViT-B-16", False)]


def test_weights_trained_without_a_named_activation_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"quick_gelu": False})
    with pytest.raises(ConfigError, match=r"use --model ViT-B-16$"):
        model_identity(config("ViT-B-16-quickgelu", "openai"))


def test_the_identity_follows_the_content_of_local_files(folder: Path) -> None:
    first = model_identity(config(folder))
    assert first == model_identity(config(folder))
    weights = load_file(folder / "model.safetensors")
    weights["visual.proj"] = weights["visual.proj"] + 1
    save_file(weights, folder / "model.safetensors")
    assert model_identity(config(folder)) != first


def test_a_folder_that_is_no_model_says_what_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"no config\.json"):
        model_identity(config(tmp_path / "empty"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weights"):
        model_identity(config(folder))
    with pytest.raises(ConfigError, match="nowhere"):
        model_identity(config(folder, "/nowhere.safetensors"))


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    content["model_cfg"]["vision_cfg"]["layers"] = 4
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"resblocks\.3\.ln_1\.weight is missing"):
        load_clip(config(folder))


def test_a_stored_part_of_the_vocabulary_fills_the_rest_with_zeros(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    table = weights.pop("token_embedding.weight")
    rows = torch.tensor([3, 320, 49406, 49407])
    weights |= {"token_embedding.rows": rows, "token_embedding.values": table[rows]}
    save_file(weights, folder / "model.safetensors")
    loaded = load_clip(config(folder, dtype="float32")).model.token_embedding.weight
    assert torch.equal(loaded[rows], table[rows])
    assert int((loaded != 0).any(1).sum()) == len(rows)


def test_bfloat16_is_for_linear_layers_alone(folder: Path) -> None:
    clip = load_clip(config(folder, dtype="bfloat16"))
    block = clip.model.visual.transformer.resblocks[0]
    assert block.mlp[0].weight.dtype is torch.bfloat16
    assert block.attn.in_proj_weight.dtype is torch.bfloat16
    assert block.ln_1.weight.dtype is torch.float32
    assert clip.dtype is torch.float32
    assert pick_dtype(config(folder, dtype="float64")) is torch.float64


def test_what_a_configuration_leaves_out_is_open_clips_own(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    del (
        content["model_cfg"]["vision_cfg"]["width"],
        content["model_cfg"]["vision_cfg"]["image_size"],
    )
    (folder / "config.json").write_text(json.dumps(content))
    default = open_clip.CLIPVisionCfg()
    assert vision_shape(config(folder)) == (default.width, default.image_size)
