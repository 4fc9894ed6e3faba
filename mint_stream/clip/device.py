"""Where a model runs and in which precision: decisions as plain functions of what a device is.

Without torch, so that a driver can refuse a device that no labeler could use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from mint_stream.config import ConfigError, require

Capability = tuple[int, int]
"""CUDA's compute capability: (7, 0) is a V100, (7, 5) a T4, (8, 0) an A100, (9, 0) an H100."""

_ALLOWED = "auto, cpu, cuda or cuda:N"


def device_index(name: str) -> int | None:
    """N of `cuda:N`, 0 of `cuda`, None of `auto` and `cpu`.

    Raises `ConfigError` for what is none of them.
    """
    if name in ("auto", "cpu"):
        return None
    if name == "mps":
        raise ConfigError(
            "device is 'mps', which has no float64, in which retrieval and banks are computed: use "
            "--device cpu"
        )
    found = re.fullmatch(r"cuda(?::(\d+))?", name)
    require(found is not None, "device", name, _ALLOWED)
    assert found is not None
    return int(found[1] or 0)


def check_count(name: str, there: int) -> None:
    """Refuse a CUDA device of which `there` are fewer. Raises `ConfigError`."""
    if (device_index(name) or 0) < there or device_index(name) is None:
        return
    raise ConfigError(
        f"device is {name!r}, but torch sees {there} CUDA devices: use --device cpu, or check the "
        "driver with nvidia-smi"
    )


def check_in_actor(name: str) -> None:
    """Refuse a number where Ray chooses: an actor sees the GPU that is its own, and as the first.

    Raises `ConfigError`.
    """
    index = device_index(name)
    if index:
        raise ConfigError(
            f"device is {name!r}, but Ray gives each labeler a GPU and shows it no other: use "
            f"device cuda, and start Ray (or this command) with CUDA_VISIBLE_DEVICES={index} to "
            "leave the others out"
        )


def computes_bfloat16(capability: Capability, *, rocm: bool = False) -> bool:
    """Whether a GPU multiplies in bfloat16, rather than emulate it at a fraction of its speed.

    Torch's own `is_bf16_supported()` counts the emulation: it says yes on a T4 and a V100.
    """
    return rocm or capability >= (8, 0)


def needs_exact_attention(device_type: str, *, differentiated: bool) -> bool:
    """Whether attention must be the plain one, for the same gradients in every run.

    On CUDA the gradients of the fused kernels are sums in an order that differs from run to run.
    What is not differentiated is the same in all.
    """
    return device_type == "cuda" and differentiated


def settler(device: Any) -> Callable[[], None] | None:
    """What waits until a `torch.device` has done what it was given; None if it never queues."""
    if device.type != "cuda":
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)


def exact_float32() -> None:
    """Multiply float32 as float32 in this process: no TF32, which keeps 10 bits of 23."""
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
