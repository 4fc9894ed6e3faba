"""The adapter as people use it: from names to an answer, and what it does when adapting fails."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.config import PRESETS, ConfigError, ModelConfig
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.prediction import Cost


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> LoadedClip:
    return load_clip(ModelConfig(model=str(folder), device="cpu", dtype="float32"))


def adapter(clip: LoadedClip, **changes: object) -> MintAdapter:
    method = dataclasses.replace(tiny.METHOD, **changes)
    return MintAdapter(clip, [(name,) for name in tiny.CLASSES], method)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 48, 3)).astype(np.uint8)


def test_three_lines_from_names_to_an_answer(folder: Path) -> None:
    adapter = MintAdapter.build(tiny.CLASSES, model=str(folder), dtype="float32")
    prediction = adapter.label(Image.fromarray(image()))
    assert prediction.label in tiny.CLASSES
    assert prediction.source_label in tiny.CLASSES
    assert prediction.topk[0] == (prediction.label, prediction.confidence)
    assert len(prediction.topk) == 5
    assert sum(score for _, score in prediction.topk) == pytest.approx(1, abs=1e-5)
    assert 0 <= prediction.entropy <= np.log(5) + 1e-5
    assert prediction.adapted


def test_the_paper_preset_costs_what_the_method_says() -> None:
    paper = PRESETS["paper"]
    assert (paper.views, paper.steps, paper.confident_views) == (64, 3, 6)


def test_the_cost_is_that_of_the_passes(clip: LoadedClip) -> None:
    # 2 V + 1 forwards and S passes forward and backward over the confident views.
    assert adapter(clip).label(image()).cost == Cost(forwards=2 * 6 + 1 + 2 * 2, backwards=2 * 2)


def test_a_frame_gets_the_same_answer_whatever_else_it_is_called_with(clip: LoadedClip) -> None:
    first = adapter(clip).label(image(), "a", top_k=2)
    assert first == adapter(clip).label(Image.fromarray(image()), "a", top_k=2)
    assert len(first.topk) == 2


def test_the_frozen_answer_is_open_clip_s_own(clip: LoadedClip) -> None:
    one = adapter(clip)
    views = one.views(image(), "a")
    prediction = one.label_views(views)
    tokens = clip.tokenizer([f"a photo of a {name}." for name in tiny.CLASSES])
    with torch.no_grad():
        features = clip.model.encode_image(views[:1], normalize=True)
        text = clip.model.encode_text(tokens, normalize=True)
        p = (clip.model.logit_scale.exp() * features @ text.T).softmax(-1)[0]
    assert prediction.source_label == tiny.CLASSES[int(p.argmax())]
    assert prediction.source_confidence == pytest.approx(float(p.max()), abs=1e-5)


def test_many_frozen_answers_at_once_are_the_single_ones(clip: LoadedClip) -> None:
    frozen = adapter(clip, views=1, steps=0)
    views = torch.cat([frozen.views(image(n), str(n)) for n in range(4)])
    many = frozen.label_frozen(frozen.look(views))
    for one, prediction in zip(views, many, strict=True):
        alone = frozen.label_views(one[None])
        assert prediction.label == alone.label == alone.source_label
        assert prediction.confidence == pytest.approx(alone.confidence, abs=1e-5)
        assert not prediction.adapted


def test_the_bank_lasts_and_the_context_does_not(clip: LoadedClip) -> None:
    one = adapter(clip)
    before = one.bank.arrays()
    one.label(image(0), "a")
    context_after_a = one.context_NW
    one.label(image(1), "b")
    assert not np.array_equal(before[1], one.bank.arrays()[1])
    fresh = adapter(clip)
    fresh.bank = one.bank
    fresh.reset()
    assert torch.equal(fresh.context_NW, one.context_init_NW)
    assert not torch.equal(context_after_a, one.context_init_NW)


def test_untouched_entries_only_decay(clip: LoadedClip) -> None:
    one = adapter(clip, learning_rate=0.02, bank_size=200, retrieved=1)
    before_keys, before_prompts, _ = one.bank.arrays()
    one.label(image(), "a")
    keys, prompts, usage = one.bank.arrays()
    untouched = usage == 0
    assert untouched.any()
    assert (~untouched).any()
    assert one.bank.decay == pytest.approx((1 - 0.02 * 0.01) ** 2)
    np.testing.assert_allclose(keys[untouched], one.bank.decay * before_keys[untouched], rtol=1e-6)
    np.testing.assert_allclose(
        prompts[untouched], one.bank.decay * before_prompts[untouched], rtol=1e-6
    )


def test_adapting_that_ends_in_nonsense_leaves_the_bank_and_the_frozen_answer(
    clip: LoadedClip,
) -> None:
    one = adapter(clip, learning_rate=1e30, weight_decay=0.0)
    keys, prompts, usage = one.bank.arrays()
    prediction = one.label(image(), "a")
    assert not prediction.adapted
    assert prediction.label == prediction.source_label
    assert prediction.confidence == prediction.source_confidence
    for before, after in zip((keys, prompts, usage), one.bank.arrays(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_synonyms_and_templates_join_in_a_class_s_feature(clip: LoadedClip) -> None:
    phrases = [("car",), ("truck", "lorry"), ("bus",)]
    templates = ("a photo of a {}.", "the {} in the street")
    one = MintAdapter(clip, phrases, tiny.METHOD, templates=templates)
    assert one.labels == ["car", "truck", "bus"]
    expected = []
    for group in phrases:
        per_template = []
        for template in templates:
            tokens = clip.tokenizer([template.format(name) for name in group])
            with torch.no_grad():
                each = clip.model.encode_text(tokens, normalize=True)
            per_template.append(torch.nn.functional.normalize(each.mean(0), dim=-1))
        mean = torch.stack(per_template).mean(0)
        expected.append(torch.nn.functional.normalize(mean, dim=-1))
    torch.testing.assert_close(one.source_text_CE, torch.stack(expected), atol=1e-5, rtol=0)


def test_a_class_name_that_is_too_long_is_named(clip: LoadedClip) -> None:
    with pytest.raises(ConfigError, match=r"road works road works.* needs \d+ text positions"):
        MintAdapter(clip, [("car",), ("road works " * 12,)], tiny.METHOD)
