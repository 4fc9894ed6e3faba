"""Views: fixed by (seed, frame), of every shape, and view 0 as open_clip prepares it."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mint_stream.clip.model import Preprocess
from mint_stream.clip.views import first_views, make_views

PREPROCESS = Preprocess(
    size=32,
    mean=open_clip.OPENAI_DATASET_MEAN,
    std=open_clip.OPENAI_DATASET_STD,
    interpolation="bicubic",
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with some noise."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3)).astype(np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def views(image: np.ndarray, count: int = 5, seed: int = 0, frame: str = "a") -> torch.Tensor:
    return make_views(image, PREPROCESS, count=count, min_crop_area=0.08, seed=seed, frame=frame)


def test_the_same_seed_and_frame_give_the_same_views_whatever_came_before() -> None:
    image = picture(60, 80)
    first = views(image)
    torch.manual_seed(99)
    views(image, frame="another")
    assert torch.equal(first, views(image))


def test_another_seed_or_frame_gives_other_crops_and_the_same_view_0() -> None:
    image = picture(60, 80)
    for other in (views(image, seed=1), views(image, frame="b")):
        assert torch.equal(other[0], views(image)[0])
        assert not torch.equal(other[1:], views(image)[1:])


def test_fewer_views_are_the_first_of_more() -> None:
    image = picture(60, 80)
    assert torch.equal(views(image, count=9)[:5], views(image, count=5))


@settings(deadline=None, max_examples=40)
@given(shapes=st.lists(st.sampled_from([(40, 50), (50, 40), (32, 32), (9, 300), (7, 5)])))
def test_first_views_are_view_0_of_each_whatever_stands_beside_it(
    shapes: list[tuple[int, int]],
) -> None:
    images = [picture(height, width, seed) for seed, (height, width) in enumerate(shapes)]
    made = first_views(images, PREPROCESS)
    assert made.shape == (len(images), 3, 32, 32)
    for view, image in zip(made, images, strict=True):
        assert torch.equal(view, views(image, count=1)[0])


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 90), width=st.integers(1, 90))
def test_every_shape_makes_views_of_the_encoder_s_size(height: int, width: int) -> None:
    made = views(picture(height, width))
    assert made.shape == (5, 3, 32, 32)
    assert torch.isfinite(made).all()


@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (3, 900)])
def test_extreme_shapes_stay_small(shape: tuple[int, int]) -> None:
    assert views(picture(*shape)).shape == (5, 3, 32, 32)


@pytest.mark.parametrize("shape", [(32, 32), (60, 80), (200, 90)])
def test_view_0_is_open_clip_s_own_preprocessing(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    transform = open_clip.image_transform(32, is_train=False, interpolation="bicubic")
    expected = transform(Image.fromarray(image))
    # PIL and torchvision round uint8 in different places: up to two steps of 1/255.
    step = 1 / 255 / min(PREPROCESS.std)
    torch.testing.assert_close(views(image)[0], expected, atol=2.5 * step, rtol=0)


def test_crops_are_flipped_about_half_of_the_time() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = 255
    made = views(image, count=400)[1:]
    left, right = made[..., :8].mean((1, 2, 3)), made[..., -8:].mean((1, 2, 3))
    flipped = (right > left).sum() / ((right != left).sum())
    assert 0.4 < float(flipped) < 0.6
