"""Classes that a model cannot tell apart, or has never read, are warned about by name."""

from __future__ import annotations

import logging
from functools import cache

import pytest
import torch

from mint_stream.clip.class_check import alike, unread
from mint_stream.clip.model import LoadedClip, load_clip
from mint_stream.config import BUNDLED_LABELS, PRESETS, ModelConfig
from mint_stream.method.adapter import MintAdapter


@cache
def bundled() -> LoadedClip:
    return load_clip(ModelConfig(model="bundled", device="cpu", dtype="float32"))


def warned(names: list[str], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mint_stream"):
        MintAdapter(bundled(), [(name,) for name in names], PRESETS["frozen"])
    return caplog.messages


def test_classes_that_the_model_does_not_know_are_not_answered_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They have the same features, and the first of them would win at a confidence of its own."""
    close, strange = warned(["scratch", "dent", "car", "rust"], caplog)
    assert "can hardly tell these classes apart, whatever the image: scratch, dent, rust." in close
    assert "never read the words of scratch, dent, rust:" in strange


def test_one_class_that_the_model_does_not_know_is_told_among_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (strange,) = warned(["car", "zebra", "bus"], caplog)
    assert "never read the words of zebra:" in strange


def test_names_that_are_one_to_the_model_are_told(caplog: pytest.LogCaptureFixture) -> None:
    (close,) = warned(["Car", "bus", "car", "dog", "traffic light", "traffic_light"], caplog)
    assert "Car, car; traffic light, traffic_light." in close


def test_long_lists_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"zebra {letter * 3}" for letter in "abcdefgh"]
    assert all("and 3 more" in message for message in warned(names, caplog))


@pytest.mark.parametrize(
    "names",
    [
        BUNDLED_LABELS.read_text().split("\n")[:-1],
        ["car", "automobile", "truck", "lorry"],
        ["bicycle", "bike"],
    ],
)
def test_classes_that_the_model_tells_apart_raise_no_warning(
    names: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert warned(names, caplog) == []


def test_groups_are_the_pairs_between_which_no_image_decides() -> None:
    """Brute force: by the largest log odds that a unit image feature can give."""
    generator = torch.Generator().manual_seed(3)
    text_CE = torch.randn(40, 8, generator=generator)
    text_CE[20:] = text_CE[:20] + 0.02 * torch.randn(20, 8, generator=generator)
    text_CE = torch.nn.functional.normalize(text_CE, dim=-1).double()
    scale = 20.0
    odds_CC = scale * torch.cdist(text_CE, text_CE)
    expected = {(i, j) for i in range(40) for j in range(i + 1, 40) if odds_CC[i, j] < 2}
    assert 5 < len(expected) <= 20
    groups = alike(text_CE, scale)
    assert {(group[0], other) for group in groups for other in group[1:]} == expected


def test_a_whole_vocabulary_has_no_strange_words() -> None:
    clip = bundled()
    table = clip.model.token_embedding.weight
    kept = table.clone()
    try:
        table.data.add_(1)
        assert unread(clip, [("zebra",)]) == []
    finally:
        table.data.copy_(kept)
    assert unread(clip, [("car", "zebra"), ("bus",)]) == [0]
