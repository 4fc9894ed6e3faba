"""The slow reference reproduces the recordings of the published algorithm."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from reference import PlainLoop, PublishedLoop, record_stream
from reference_records import Bank, Settings
from torch import Tensor
from trace_files import Trace, differences, read_trace

HERE = Path(__file__).resolve().parent
SMALL = {name: HERE / "data" / name for name in ("a", "b")}
FULL_FOLDER = HERE.parents[2] / "shared" / "traces"
TOLERANCE = 1e-8
"""Tighter than METHOD.md's 1e-6. What is left comes from the recordings: they hold usage(k) / T
rounded to float32 (integers divided by torch), which moves weighted distances by up to 6e-10;
without weighting everything agrees to 1e-13."""

LOOPS = pytest.mark.parametrize("loop_class", [PlainLoop, PublishedLoop])


def start(trace: Trace, loop_class: type[PlainLoop]) -> PlainLoop:
    bank = Bank(
        trace.tensors["bank.keys.init"],
        trace.tensors["bank.prompts.init"],
        trace.tensors["bank.usage.init"],
    )
    return loop_class(
        trace.build_clip(),
        trace.meta["classnames"],
        Settings.from_meta(trace.hyper_parameters),
        context_NT=trace.tensors["ctx.init"],
        bank=bank,
    )


def assert_reproduces(trace: Trace, loop_class: type[PlainLoop]) -> None:
    computed = record_stream(start(trace, loop_class), trace.tensors["views"])
    wrong = [d for d in differences(trace.recorded, computed) if d.exceeds(TOLERANCE)]
    assert not wrong, "\n".join(f"{d.name}: {d.largest:g}" for d in wrong)


@functools.cache
def small_trace(name: str) -> Trace:
    return read_trace(SMALL[name])


@LOOPS
@pytest.mark.parametrize("name", sorted(SMALL))
def test_reproduces_the_small_traces(name: str, loop_class: type[PlainLoop]) -> None:
    assert_reproduces(small_trace(name), loop_class)


@LOOPS
@pytest.mark.parametrize("name", ["a", "b"])
def test_reproduces_the_full_traces(name: str, loop_class: type[PlainLoop]) -> None:
    directory = FULL_FOLDER / name
    if not directory.is_dir():
        pytest.skip(f"the full traces are not beside the checkout ({directory})")
    assert_reproduces(read_trace(directory), loop_class)


def test_small_trace_a_sees_the_usage_weighting_switch_off() -> None:
    trace = small_trace("a")
    usage = int(trace.tensors["bank.usage.init"].sum())
    n_images, n_steps, n_views, per_view = trace.tensors["retrieved.indices"].shape
    limit = trace.meta["bank_size"] * n_views
    totals = [usage + step * n_views * per_view for step in range(n_images * n_steps)]
    assert totals[0] <= limit < totals[-1]


@LOOPS
def test_makes_the_encoder_passes_of_the_published_loop(loop_class: type[PlainLoop]) -> None:
    trace = small_trace("b")
    loop = start(trace, loop_class)
    views_VCHW = trace.tensors["views"][0]
    loop.adapt(views_VCHW)
    n_views, steps, n_classes = len(views_VCHW), trace.meta["steps"], len(trace.meta["classnames"])
    assert loop.counts.image_forwards == 2 * steps * n_views + 2
    assert loop.counts.image_backwards == steps * n_views
    assert loop.counts.text_forwards == (steps + 1) * n_classes


def tiny_bank_loop(loop_class: type[PlainLoop], usage: list[int]) -> tuple[PlainLoop, Tensor]:
    """A loop whose four keys lie at 10, 30, 60 and 90 degrees from the returned query (1, 1, D)."""
    trace = small_trace("a")
    loop = start(trace, loop_class)
    width = loop.bank.keys_KD.shape[1]
    degrees_K = torch.tensor([10.0, 30.0, 60.0, 90.0], dtype=torch.float64).deg2rad()
    keys_KD = torch.zeros(4, width, dtype=torch.float64)
    keys_KD[:, 0], keys_KD[:, 1] = degrees_K.cos(), degrees_K.sin()
    loop.bank = Bank(keys_KD, torch.zeros(4, 2, width, dtype=torch.float64), torch.tensor(usage))
    query_BQD = torch.zeros(1, 1, width, dtype=torch.float64)
    query_BQD[..., 0] = 2.0
    return loop, query_BQD


@LOOPS
@pytest.mark.parametrize(
    ("usage", "adapting", "expected"),
    [
        ([0, 0, 0, 0], True, [0, 1]),  # T = 0: not weighted
        ([1, 1, 1, 1], True, [0, 1]),  # T = K * B: still weighted, with equal weights
        ([3, 1, 0, 0], True, [2, 3]),  # never used first; of those the nearest unweighted
        ([3, 0, 1, 0], True, [1, 3]),
        ([3, 0, 1, 0], False, [0, 1]),  # a prediction is not weighted
        ([0, 2, 0, 3], True, [0, 1]),  # T = 5 > K * B = 4: not weighted
        ([1, 0, 0, 0], True, [1, 2]),
    ],
)
def test_usage_weighting_and_its_ties(
    loop_class: type[PlainLoop], usage: list[int], adapting: bool, expected: list[int]
) -> None:
    loop, query_BQD = tiny_bank_loop(loop_class, usage)
    indices_BQR, distances_BQR = loop.retrieve(query_BQD, adapting=adapting)
    assert indices_BQR.flatten().tolist() == expected
    total = sum(usage)
    weighted = adapting and 0 < total <= 4
    for k, distance in zip(expected, distances_BQR.flatten().tolist(), strict=True):
        plain = 1 - float(loop.bank.keys_KD[k, 0])
        assert distance == pytest.approx(plain * usage[k] / total if weighted else plain, abs=1e-12)
