"""One place makes the answer: of equally probable classes the first of the list, everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.config import PRESETS, ModelConfig
from mint_stream.method import guard
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.frozen import FrozenClip
from mint_stream.method.prediction import Answers, Predictions, Standing, most_probable
from mint_stream.serving.banks.reader import BankReader

LABELS = [f"class {n}" for n in range(40)]
VALUES = st.sampled_from([0.0, 0.125, 0.25, 0.5])  # few, so that most maxima are ties
TIED = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 40)), elements=VALUES)


@settings(max_examples=300, deadline=None)
@given(p_BC=TIED, k=st.integers(1, 50))
def test_the_most_probable_are_those_of_a_stable_sort_whatever_is_tied(
    p_BC: np.ndarray, k: int
) -> None:
    topk_BK, scores_BK = most_probable(p_BC, k)
    for p_C, topk, scores in zip(p_BC, topk_BK, scores_BK, strict=True):
        order = sorted(range(len(p_C)), key=lambda n: (-p_C[n], n))[:k]
        assert topk.tolist() == order
        assert scores.tolist() == [p_C[n] for n in order]


@settings(max_examples=300, deadline=None)
@given(source_BC=TIED, data=st.data(), shadow=st.booleans(), k=st.integers(1, 50))
def test_an_answer_that_is_not_adapted_is_the_frozen_one(
    source_BC: np.ndarray, data: st.DataObject, shadow: bool, k: int
) -> None:
    """And one that is, is the adapted one: whatever is tied, refused, or not finite."""
    with_nan = arrays(np.float64, source_BC.shape, elements=VALUES | st.just(np.nan))
    verdicts = st.sampled_from([guard.ADAPTING, guard.LEARNING, guard.NO_GUARD])
    standings = [Standing(verdict=data.draw(verdicts)) for _ in source_BC]
    answers = data.draw(st.none() | with_nan.map(lambda p: Answers(p_BC=p, standings=standings)))
    labels = LABELS[: source_BC.shape[1]]
    found = Predictions.of(labels, source_BC, answers, top_k=k, shadow=shadow)
    for one, p_C in zip(found, source_BC, strict=True):
        answer = (one.label, one.confidence)
        assert one.topk[0] == answer
        assert (one.source_label, one.source_confidence) == (labels[int(p_C.argmax())], p_C.max())
        if one.adapted:
            assert answer == (one.adapted_label, one.adapted_confidence)
        else:
            assert answer == (one.source_label, one.source_confidence)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> LoadedClip:
    folder = tiny.write_clip(tmp_path_factory.mktemp("clip"))
    return load_clip(ModelConfig(model=str(folder), device="cpu", dtype="float32"))


@pytest.mark.parametrize("preset", ["frozen", "realtime", "tiny"])
def test_every_way_to_a_label_names_the_same_of_equal_classes(
    clip: LoadedClip, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen frames, a unit, one image and the service; with logits that are tied."""
    method = tiny.METHOD if preset == "tiny" else PRESETS[preset]
    adapter = MintAdapter(clip, [(f"name {n}",) for n in range(24)], method, shadow=True)
    rng = np.random.default_rng(3)
    views = torch.tensor(rng.normal(size=(12, 3, 32, 32)), dtype=torch.float32)
    whole = FrozenClip.logits

    def coarse(self: FrozenClip, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return (whole(self, image, text) / 4).round()

    monkeypatch.setattr(FrozenClip, "logits", coarse)
    seen = adapter.look(views)
    p_BC = adapter.source(seen)
    assert (p_BC == p_BC.max(-1, keepdims=True)).sum() > len(views), "there are ties"
    expected = [adapter.labels[n] for n in p_BC.argmax(-1)]
    assert [one.label for one in adapter.label_frozen(seen)] == expected
    if preset == "realtime":
        found = adapter.label_frames(seen, [adapter.bank] * 12, [None] * 12)
        assert [one.label for one in found] == [one.source_label for one in found] == expected
    if preset != "tiny":
        assert [adapter.label_views(view[None]).label for view in views] == expected
    readings = BankReader(adapter).read(views, [None] * 12, 3)
    for name, reading in zip(expected, readings, strict=True):
        one = reading.prediction
        assert not one.adapted
        assert one.label == one.source_label == reading.source_topk[0][0] == name
