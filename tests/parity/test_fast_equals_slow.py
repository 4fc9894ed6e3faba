"""The product's savings are exact: it does what the slow reference does, on random worlds.

Shape suffixes: B images, V views, Q query levels, D width, K entries, R retrieved, C classes.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from random_models import USAGE_STATES, Shape, UsageState, World, worlds
from reference import PlainLoop, PublishedLoop, record_stream
from reference_records import Bank, Settings
from replay_trace import record_stream as record_product
from replay_trace import start_adapter
from torch import Tensor
from torch.nn.functional import normalize
from trace_files import differences

from mint_stream.method.adapter import MintAdapter
from mint_stream.method.retrieval import assemble, retrieval_counts, retrieve

FLOAT64_TOLERANCE = 1e-8
FLOAT32_TOLERANCE = 1e-3

PAPER_LIKE = World(
    seed=5,
    shape=Shape(layers=12, heads=2, head_width=16, grid=3),
    settings=Settings(query_layers=(3, 7, 11), selection_fraction=0.3),
    n_classes=5,
    n_entries=20,
    n_views=7,
    n_images=3,
    usage_state="about to switch off",
)


def examples(count: int) -> settings:
    """So many examples, with no limit on the time of one: a busy machine is not a failure."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def start(world: World, dtype: torch.dtype = torch.float64) -> MintAdapter:
    """The product at the start of a world."""
    bank = world.bank(dtype)
    return start_adapter(
        world.clip(dtype),
        world.class_names,
        world.hyper_parameters,
        context_NW=world.context(dtype),
        keys_KD=bank.keys_KD,
        prompts_KPD=bank.prompts_KPD,
        usage_K=bank.usage_K,
        dtype=dtype,
    )


def assert_same(expected: dict[str, Tensor], actual: dict[str, Tensor], tolerance: float) -> None:
    """Every choice equal, every number within `tolerance`."""
    # The product has image features of unit length only.
    plain = normalize(expected["encode_image.plain"], dim=-1)
    found = differences({**expected, "encode_image.plain": plain}, actual)
    wrong = [f"{d.name}: {d.largest:g}" for d in found if d.exceeds(tolerance)]
    assert not wrong, "\n".join(wrong)


@examples(40)
@given(world=worlds())
@example(world=PAPER_LIKE)
def test_the_product_does_what_the_reference_does(world: World) -> None:
    expected = record_stream(world.loop(), world.views())
    assert_same(expected, record_product(start(world), world.views()), FLOAT64_TOLERANCE)


@examples(15)
@given(world=worlds())
def test_batched_reference_and_plain_loops_agree(world: World) -> None:
    plain = record_stream(world.loop(PlainLoop), world.views())
    batched = record_stream(world.loop(PublishedLoop), world.views())
    wrong = [d.name for d in differences(plain, batched) if d.exceeds(FLOAT64_TOLERANCE)]
    assert not wrong


@examples(10)
@given(world=worlds())
def test_watching_changes_nothing(world: World) -> None:
    """With an observer the product encodes all views in every step, without one it must not."""
    watched, alone = start(world), start(world)
    record_product(watched, world.views())
    for views_VCHW in world.views():
        alone.reset()
        alone.adapt(alone.look(views_VCHW))
    for name in ("keys_KD", "prompts_KPD", "usage_K"):
        assert torch.equal(getattr(alone.bank, name), getattr(watched.bank, name)), name
    assert torch.equal(alone.context_NW, watched.context_NW)


@examples(10)
@given(world=worlds())
def test_labels_come_from_the_adapted_prediction(world: World) -> None:
    """`label_views`, what the pipeline calls, is reset, adapt and predict for each image."""
    expected = record_stream(world.loop(), world.views())
    adapter = start(world)
    for number, views_VCHW in enumerate(world.views()):
        prediction = adapter.label_views(views_VCHW, top_k=world.n_classes)
        p_C = expected["logits.final"][number].softmax(-1)
        assert prediction.label == world.class_names[int(p_C.argmax())]
        for name, score in prediction.topk:
            assert math.isclose(
                score, p_C[world.class_names.index(name)], abs_tol=FLOAT64_TOLERANCE
            )
    assert torch.equal(adapter.bank.usage_K, expected["bank.usage.after_image"][-1])


@pytest.mark.parametrize("usage_state", USAGE_STATES)
def test_in_float32_too(usage_state: UsageState) -> None:
    """Loosely: Adam's first step magnifies the rounding of gradients of about its eps."""
    world = World(
        seed=11,
        shape=Shape(layers=6),
        settings=Settings(query_layers=(1, 3, 5), selection_fraction=0.5),
        n_classes=5,
        n_entries=40,
        n_views=6,
        n_images=2,
        usage_state=usage_state,
    )
    expected = record_stream(world.loop(dtype=torch.float32), world.views(torch.float32))
    actual = record_product(start(world, torch.float32), world.views(torch.float32))
    assert all(value.dtype in (torch.float32, torch.int64) for value in actual.values())
    assert_same(expected, actual, FLOAT32_TOLERANCE)


@st.composite
def banks_with_unused_entries(draw: st.DrawFn) -> tuple[Tensor, Bank, int]:
    """Queries (B, Q, D), a bank in the weighted state, and R."""
    n_entries = draw(st.integers(2, 12))
    n_rows, n_levels, width = draw(st.integers(1, 4)), draw(st.integers(1, 3)), 5
    counts = st.integers(0, n_rows)
    usage = draw(
        st.lists(counts, min_size=n_entries, max_size=n_entries).filter(
            lambda usage: 0 < sum(usage) <= n_entries * n_rows and 0 in usage
        )
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    bank = Bank(normal(n_entries, width), normal(n_entries, 2, width), torch.tensor(usage))
    return normal(n_rows, n_levels, width), bank, draw(st.integers(1, n_entries))


@examples(100)
@given(case=banks_with_unused_entries())
def test_entries_never_used_come_first_the_nearest_of_them_before_the_others(
    case: tuple[Tensor, Bank, int],
) -> None:
    """The tie rule of METHOD.md 2, against plain sorting."""
    query_BQD, bank, top_k = case
    indices_BQR, distances_BQR = retrieve(query_BQD, bank.keys_KD, top_k, bank.usage_K)
    usage, total = bank.usage_K.tolist(), int(bank.usage_K.sum())
    cosine_BQK = torch.cosine_similarity(query_BQD[:, :, None], bank.keys_KD, dim=-1)
    for b, row in enumerate((1 - cosine_BQK).tolist()):
        for q, plain in enumerate(row):
            unused = sorted((k for k in range(len(usage)) if usage[k] == 0), key=plain.__getitem__)
            used = sorted(
                (k for k in range(len(usage)) if usage[k] > 0), key=lambda k: plain[k] * usage[k]
            )
            expected = (unused + used)[:top_k]
            assert indices_BQR[b, q].tolist() == expected
            for k, distance in zip(expected, distances_BQR[b, q].tolist(), strict=True):
                assert math.isclose(distance, plain[k] * usage[k] / total, abs_tol=1e-12)


@examples(100)
@given(case=banks_with_unused_entries(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_unused_entries_are_ordered_in_every_precision(
    case: tuple[Tensor, Bank, int], dtype: torch.dtype
) -> None:
    query_BQD, bank, top_k = case
    # Distances one float32 step apart would be told apart differently by different code.
    plain_BQK = 1 - torch.cosine_similarity(query_BQD[:, :, None], bank.keys_KD, dim=-1)
    unused_BQU = plain_BQK[..., bank.usage_K == 0].sort(-1).values
    if unused_BQU.shape[-1] > 1 and float(unused_BQU.diff(dim=-1).min()) < 1e-5:
        return
    n_unused = unused_BQU.shape[-1]
    indices_BQR = retrieve(
        query_BQD.to(dtype), bank.keys_KD.to(dtype), top_k, bank.usage_K
    ).indices_BQR
    first_BQU = indices_BQR[..., :n_unused]
    assert bool((bank.usage_K[first_BQU] == 0).all())
    ordered = plain_BQK.gather(-1, first_BQU)
    assert bool((ordered.diff(dim=-1) > 0).all())


@examples(100)
@given(total=st.integers(0, 40), n_rows=st.integers(1, 4), seed=st.integers(0, 1000))
def test_weighting_holds_while_the_counts_sum_to_at_most_entries_times_rows(
    total: int, n_rows: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query_BQD = torch.randn(n_rows, 2, 4, generator=generator, dtype=torch.float64)
    keys_KD = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    owners = torch.randint(6, (total,), generator=generator)
    usage_K = owners.bincount(minlength=6)
    plain_BQK = 1 - torch.cosine_similarity(query_BQD[:, :, None], keys_KD, dim=-1)
    weighted = 0 < total <= len(keys_KD) * n_rows
    expected_BQK = plain_BQK * usage_K / total if weighted else plain_BQK
    distances_BQR = retrieve(query_BQD, keys_KD, 6, usage_K).distances_BQR
    torch.testing.assert_close(distances_BQR, expected_BQK.sort(-1).values, rtol=0, atol=1e-12)
    unweighted_BQR = retrieve(query_BQD, keys_KD, 6).distances_BQR
    torch.testing.assert_close(unweighted_BQR, plain_BQK.sort(-1).values, rtol=0, atol=1e-12)


@examples(50)
@given(seed=st.integers(0, 1000), n_entries=st.integers(1, 8), n_retrieved=st.integers(1, 6))
def test_assembly_counts_repeats_as_often_as_retrieved(
    seed: int, n_entries: int, n_retrieved: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    indices_BQR = torch.randint(n_entries, (3, 2, n_retrieved), generator=generator)
    prompts_KPD = torch.randn(n_entries, 4, 5, generator=generator, dtype=torch.float64)
    counts_BK = retrieval_counts(indices_BQR, n_entries)
    for b in range(3):
        retrieved = indices_BQR[b].flatten().tolist()
        assert counts_BK[b].tolist() == [retrieved.count(k) for k in range(n_entries)]
        expected_PD = sum(prompts_KPD[k] for k in retrieved) / len(retrieved)
        torch.testing.assert_close(
            assemble(counts_BK, prompts_KPD)[b], expected_PD, rtol=0, atol=1e-12
        )
