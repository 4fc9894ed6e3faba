"""Devices and precisions, decided by what a GPU is: T4, V100, A100 and H100 without one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch._subclasses.fake_tensor import FakeTensorMode

from mint_stream.clip import attention
from mint_stream.clip.device import (
    check_count,
    check_in_actor,
    computes_bfloat16,
    device_index,
    needs_exact_attention,
    settler,
)
from mint_stream.clip.model import load_clip, pick_device, pick_dtype
from mint_stream.config import ConfigError, Dtype, ModelConfig
from mint_stream.pipeline import preflight
from mint_stream.pipeline.run import prepare_run

NATIVE = {"V100": False, "T4": False, "A100": True, "L4": True, "H100": True, "B200": True}
CAPABILITY = {
    "V100": (7, 0),
    "T4": (7, 5),
    "A100": (8, 0),
    "L4": (8, 9),
    "H100": (9, 0),
    "B200": (10, 0),
}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes torch say that it sees so many of a GPU. It says of all that bfloat16 is supported."""

    def seen(name: str, count: int = 1) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: CAPABILITY[name])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)

    return seen


def config(device: str, dtype: Dtype = "auto") -> ModelConfig:
    return ModelConfig(model="bundled", device=device, dtype=dtype)


@pytest.mark.parametrize("name", NATIVE)
def test_emulated_bfloat16_is_not_taken_for_a_gpu_s_own(
    name: str, gpu: Callable[..., None]
) -> None:
    gpu(name)
    expected = torch.bfloat16 if NATIVE[name] else torch.float32
    assert pick_dtype(config("auto")) is expected
    assert pick_dtype(config("cuda:0")) is expected
    assert computes_bfloat16(CAPABILITY[name]) is NATIVE[name]
    assert computes_bfloat16(CAPABILITY[name], rocm=True)


def test_bfloat16_that_is_asked_for_and_emulated_is_warned_about(
    gpu: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    gpu("A100")
    assert pick_dtype(config("cuda", "bfloat16")) is torch.bfloat16
    assert caplog.messages == []
    gpu("T4")
    assert pick_dtype(config("cuda", "bfloat16")) is torch.bfloat16
    (message,) = caplog.messages
    assert message.startswith("T4 does not compute in bfloat16 but emulates it")
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(
    ("name", "index"), [("auto", None), ("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)]
)
def test_devices_that_can_be_named(name: str, index: int | None) -> None:
    assert device_index(name) == index


@pytest.mark.parametrize(
    "name", ["tpu", "xpu", "meta", "cpu:1", "cuda:", "cuda:-1", "cuda:x", "cuda 1", "CUDA", ""]
)
def test_devices_that_pass_and_then_fail_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be auto, cpu, cuda or cuda:N"):
        pick_device(name)


@pytest.mark.parametrize("cluster", [False, True])
def test_mps_is_refused_before_a_run_with_a_remedy(
    cluster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    if cluster:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for check in (pick_device, preflight._check_device):
        with pytest.raises(ConfigError, match=r"'mps', which has no float64.*--device cpu"):
            check("mps")


@pytest.mark.parametrize(("name", "there"), [("cuda", 0), ("cuda:1", 1), ("cuda:8", 8)])
def test_devices_that_are_not_there_are_refused(
    name: str, there: int, gpu: Callable[..., None]
) -> None:
    gpu("A100", there)
    with pytest.raises(ConfigError, match=f"'{name}', but torch sees {there} CUDA devices"):
        pick_device(name)
    check_count(name, there + 1)
    check_count("cpu", 0)
    assert pick_device("auto").type == ("cuda" if there else "cpu")


def test_a_number_that_the_actor_would_not_see_is_refused_with_the_way_to_choose(
    tmp_path: Path, gpu: Callable[..., None]
) -> None:
    """The driver sees two GPUs, and each labeler the one that Ray gives it."""
    gpu("A100", 2)
    tiny.put_tars(str(tmp_path / "in"), shards=1, frames=1)
    assets = tiny.write_assets(tmp_path)
    run = assets.config(str(tmp_path / "in"), str(tmp_path / "out"))
    model = ModelConfig(model=str(assets.model), device="cuda:1")
    with pytest.raises(ConfigError, match=r"cuda:1.*use device cuda.*CUDA_VISIBLE_DEVICES=1"):
        prepare_run(type(run)(**{**vars(run), "model": model}))
    assert not (tmp_path / "out").exists()
    for name in ("auto", "cpu", "cuda", "cuda:0"):
        check_in_actor(name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float32_is_multiplied_as_float32_and_not_as_tf32(dtype: Dtype) -> None:
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    load_clip(config("cpu", dtype))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


def test_attention_is_exact_where_its_gradients_would_differ_from_run_to_run() -> None:
    assert needs_exact_attention("cuda", differentiated=True)
    assert not needs_exact_attention("cuda", differentiated=False)
    assert not needs_exact_attention("cpu", differentiated=True)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of attention, whether a fused kernel was allowed."""
    calls: list[bool] = []
    original = torch.nn.functional.scaled_dot_product_attention

    def noted(*arguments: Any, **more: Any) -> torch.Tensor:
        cuda = torch.backends.cuda
        enabled = (cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.cudnn_sdp_enabled)
        calls.append(any(allowed() for allowed in enabled))
        return original(*arguments, **more)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", noted)
    return calls


@pytest.mark.parametrize(
    ("device", "differentiated", "allowed"),
    [("cuda", True, False), ("cuda", False, True), ("cpu", True, True)],
)
def test_fused_kernels_are_left_out_where_cuda_is_differentiated_and_only_there(
    fused: list[bool], device: str, differentiated: bool, allowed: bool
) -> None:
    """On tensors that say that they are on a GPU, and have no values."""
    with FakeTensorMode(), torch.device(device):
        block = ResidualAttentionBlock(8, 2).requires_grad_(False)
        x_BTD, key_BTD = torch.empty(2, 3, 8), torch.empty(2, 3, 8).requires_grad_(differentiated)
        attention.finish(block, x_BTD, x_BTD, key_BTD, x_BTD)
        with torch.no_grad():
            attention.finish(block, x_BTD, x_BTD, key_BTD, x_BTD)
    assert fused == [allowed, True]
    assert torch.backends.cuda.flash_sdp_enabled(), "the setting is given back"


def test_only_a_device_that_queues_has_to_be_waited_for() -> None:
    assert settler(torch.device("cpu")) is None
    assert settler(torch.device("cuda")) is not None
