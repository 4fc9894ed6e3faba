"""The method on a GPU: the same choices as on the CPU, and what bfloat16 does to the answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mint_stream.clip.device import settler
from mint_stream.clip.model import pick_dtype
from mint_stream.config import BUNDLED, Dtype, ModelConfig
from mint_stream.demo.feed import SEGMENTS, stream_feed
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.retrieval import retrieval_counts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CLASSES = ["car", "bus", "truck", "bicycle", "dog"]


def frames(count: int) -> list[np.ndarray]:
    feed = stream_feed(frames=max(count, len(SEGMENTS)), seed=5)
    return [np.asarray(frame.frame) for frame in feed][:count]


def adapter(device: str, dtype: Dtype) -> MintAdapter:
    return MintAdapter.build(CLASSES, model=BUNDLED, device=device, dtype=dtype)


def test_float64_on_the_gpu_makes_the_choices_of_the_cpu() -> None:
    cpu, gpu = adapter("cpu", "float64"), adapter("cuda", "float64")
    for number, image in enumerate(frames(8)):
        # The same pixels for both: resizing is not what is compared.
        views = cpu.views(image, f"frame {number}")
        logits = []
        for one in (cpu, gpu):
            one.reset()
            seen = one.look(views.to(one.clip.device))
            one.adapt(seen)
            logits.append(one.predict(seen).cpu())
        torch.testing.assert_close(*logits, atol=1e-6, rtol=0)
        assert torch.equal(cpu.bank.usage_K, gpu.bank.usage_K.cpu())
    for name in ("keys_KD", "prompts_KPD"):
        expected, actual = getattr(cpu.bank, name), getattr(gpu.bank, name).cpu()
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


def test_two_runs_on_the_gpu_are_bit_identical() -> None:
    banks = []
    for _ in range(2):
        one = adapter("cuda", "float32")
        for number, image in enumerate(frames(6)):
            one.label(image, f"frame {number}")
        banks.append(one.bank.arrays())
    for first, second in zip(*banks, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_the_same_in_every_run(dtype: Dtype) -> None:
    """Of many views at once, where the fused kernels add in an order of their own."""
    one = adapter("cuda", dtype)
    views = one.views(frames(1)[0], "frame")
    seen = one.look(views)
    start = one.bank
    found = []
    for _ in range(8):
        one.bank = start
        one.reset()
        one.adapt(seen)
        found.append((one.context_NW, one.bank.keys_KD, one.bank.prompts_KPD))
    for other in found[1:]:
        for expected, actual in zip(found[0], other, strict=True):
            assert torch.equal(expected, actual)


def test_float32_is_not_tf32() -> None:
    """Against float64: TF32 would be off by a part in a thousand."""
    exact, single = adapter("cuda", "float64"), adapter("cuda", "float32")
    views = exact.views(frames(1)[0], "frame", count=16)
    expected, actual = exact.look(views).source_VE, single.look(views).source_VE
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=0)


def test_auto_is_bfloat16_where_the_gpu_computes_in_it() -> None:
    native = torch.cuda.get_device_capability() >= (8, 0)
    dtype = pick_dtype(ModelConfig(model=BUNDLED, device="cuda"))
    assert dtype is (torch.bfloat16 if native else torch.float32)


def test_the_encoder_pays_for_its_own_pass() -> None:
    """Timed with `settle`, as for a budget: what comes after it does not wait for it."""
    one = adapter("cuda", "float32")
    views = one.views(frames(1)[0], "frame").repeat(16, 1, 1, 1)
    one.look(views)
    one.stopwatch.settle = settler(one.clip.device)
    one.stopwatch.take()
    seen = one.look(views)
    with one.stopwatch("after"):
        seen.source_VE.cpu()
    seconds = one.stopwatch.take()
    assert seconds["after"] < seconds["encoder"]


def test_bfloat16_rarely_changes_the_frozen_answer() -> None:
    exact, fast = adapter("cuda", "float32"), adapter("cuda", "bfloat16")
    same = [
        exact.label(image, str(n)).source_label == fast.label(image, str(n)).source_label
        for n, image in enumerate(frames(40))
    ]
    assert sum(same) >= 38


def test_counts_are_exact_on_the_gpu() -> None:
    indices = torch.randint(0, 7, (5, 3, 2), device="cuda")
    counts = retrieval_counts(indices, 7)
    assert torch.equal(counts.cpu(), retrieval_counts(indices.cpu(), 7))
    assert int(counts.sum()) == indices.numel()
