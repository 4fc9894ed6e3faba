"""What the method is compared with, each against a plain loop over the model's own functions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.config import ENSEMBLE, PRESETS, ConfigError, MethodConfig, ModelConfig, as_dict
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.losses import votes
from mint_stream.method.prediction import Cost


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> LoadedClip:
    folder: Path = tiny.write_clip(tmp_path_factory.mktemp("clip"))
    return load_clip(ModelConfig(model=str(folder), device="cpu", dtype="float32"))


def adapter(clip: LoadedClip, preset: str, **changes: Any) -> MintAdapter:
    method = dataclasses.replace(PRESETS[preset], **changes)
    return MintAdapter(clip, [(name,) for name in tiny.CLASSES], method)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3)).astype(np.uint8)


def text_features(clip: LoadedClip, shift_NW: Tensor | None = None) -> Tensor:
    """open_clip's own text tower over whole sentences, the four context words moved by a shift."""
    model = clip.model
    ids = clip.tokenizer([f"a photo of a {name}." for name in tiny.CLASSES])
    x = model.token_embedding(ids)
    if shift_NW is not None:
        x = torch.cat([x[:, :1], x[:, 1:5] + shift_NW, x[:, 5:]], dim=1)
    x = x + model.positional_embedding
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    eos = x[torch.arange(len(ids)), ids.argmax(-1)] @ model.text_projection
    return torch.nn.functional.normalize(eos, dim=-1)


def entropies(p_BC: Tensor) -> list[float]:
    return [-sum(float(p) * float(p.log()) for p in row) for row in p_BC]


def test_zero_is_the_vote_of_the_confident_views(clip: LoadedClip) -> None:
    one = adapter(clip, "zero", views=20)
    for seed in range(5):
        views = one.views(image(seed), "a")
        with torch.no_grad():
            features = clip.model.encode_image(views, normalize=True)
            p_VC = (one.logit_scale * features @ text_features(clip).T).softmax(-1)
        surest = sorted(range(20), key=entropies(p_VC).__getitem__)[:6]
        counts = [0] * len(tiny.CLASSES)
        for view in surest:
            counts[int(p_VC[view].argmax())] += 1
        prediction = one.label_views(views)
        assert counts[tiny.CLASSES.index(prediction.label)] == max(counts)
        assert prediction.confidence == pytest.approx(max(counts) / 6, abs=0.02)
        assert prediction.cost == Cost(forwards=20, backwards=0)
        assert prediction.adapted


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 1000))
def test_more_votes_win_and_ties_go_to_the_more_probable(
    rows: int, classes: int, seed: int
) -> None:
    logits = torch.tensor(np.random.default_rng(seed).normal(0, 3, (rows, classes)))
    counts = [0] * classes
    for row in logits:
        counts[int(row.argmax())] += 1
    mean = logits.softmax(-1).mean(0)
    best = max(range(classes), key=lambda c: (counts[c], float(mean[c])))
    shares = votes(logits)
    assert int(shares.argmax()) == best
    assert float(shares.sum()) == pytest.approx(1)


def test_tpt_moves_the_context_alone_and_starts_afresh(clip: LoadedClip) -> None:
    one = adapter(clip, "tpt", views=10, confident_share=0.3, steps=2)
    bank = one.bank.arrays()
    views = one.views(image(), "a")
    with torch.no_grad():
        features_VE = clip.model.encode_image(views, normalize=True)
        scale = clip.model.logit_scale.exp()
        p_VC = (scale * features_VE @ text_features(clip).T).softmax(-1)
    surest = sorted(range(10), key=entropies(p_VC).__getitem__)[:3]
    # The published loop: AdamW from scratch on the entropy of the mean of the confident views.
    # It is the embeddings that decay, not their shift.
    words = clip.tokenizer(["a photo of a"])[0][1:5]
    start = clip.model.token_embedding.weight[words].detach()
    context = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([context], lr=5e-3, weight_decay=0.01)
    for _ in range(2):
        p_BC = (scale * features_VE[surest] @ text_features(clip, context - start).T).softmax(-1)
        mean_C = p_BC.mean(0)
        optimizer.zero_grad()
        (-(mean_C * mean_C.log()).sum()).backward()
        optimizer.step()
    with torch.no_grad():
        expected_C = (scale * features_VE[0] @ text_features(clip, context - start).T).softmax(-1)
    prediction = one.label_views(views)
    torch.testing.assert_close(one.context_NW, context.detach(), atol=1e-5, rtol=0)
    assert prediction.label == tiny.CLASSES[int(expected_C.argmax())]
    assert prediction.confidence == pytest.approx(float(expected_C.max()), abs=1e-4)
    assert prediction.confidence != pytest.approx(prediction.source_confidence, abs=1e-4)
    assert prediction.cost == Cost(forwards=10, backwards=0)
    for before, after in zip(bank, one.bank.arrays(), strict=True):
        np.testing.assert_array_equal(before, after)
    one.label(image(7), "b")
    assert one.label_views(views) == prediction


def test_the_ensemble_reads_its_own_templates(clip: LoadedClip) -> None:
    one = adapter(clip, "ensemble")
    features = []
    for template in ENSEMBLE:
        ids = clip.tokenizer([template.format(name) for name in tiny.CLASSES])
        with torch.no_grad():
            features.append(clip.model.encode_text(ids, normalize=True))
    expected = torch.nn.functional.normalize(torch.stack(features).mean(0), dim=-1)
    torch.testing.assert_close(one.source_text_CE, expected, atol=1e-5, rtol=0)
    assert not one.label(image()).adapted


def test_a_vote_needs_a_view() -> None:
    with pytest.raises(ConfigError, match=r"confident_share is 0\.01"):
        MethodConfig(algorithm="zero", steps=0, views=64, confident_share=0.01)


def test_settings_are_what_json_makes_of_them() -> None:
    for method in PRESETS.values():
        assert json.loads(json.dumps(as_dict(method))) == as_dict(method)
