"""What corruptions do to a picture: their definitions in plain loops, and what they all promise."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from mint_stream.evaluation.corruptions import CORRUPTIONS, Picture, corrupt, noise_like

NAMES = [name for name in CORRUPTIONS if name != "clear"]


def picture(height: int = 32, width: int = 40, seed: int = 0) -> Picture:
    """Smooth shapes with edges, neither black nor white."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = np.stack([np.sin(9 * rows + p) * np.cos(7 * columns - p) for p in phase], -1)
    inside = (np.hypot(rows - 0.4, columns - 0.4) < 0.25)[..., None]
    return (127 + 60 * waves + 40 * inside).astype(np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_size_keeps_its_shape_and_severity_0_every_pixel(name: str) -> None:
    for height, width in ((32, 32), (5, 9), (70, 33)):
        before = picture(height, width)
        copy = before.copy()
        after = corrupt(name, before, 3, rng())
        assert after.shape == before.shape
        assert after.dtype == np.uint8
        np.testing.assert_array_equal(before, copy)
        np.testing.assert_array_equal(corrupt(name, before, 0, rng()), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_fixes_every_bit_and_more_severity_is_more_harm(name: str) -> None:
    before = picture(64, 64)
    assert np.array_equal(corrupt(name, before, 2.5, rng(1)), corrupt(name, before, 2.5, rng(1)))

    def harm(severity: float) -> float:
        differences = [
            corrupt(name, before, severity, rng(seed)).astype(float) - before for seed in range(8)
        ]
        return float(np.mean([np.sqrt((d**2).mean()) for d in differences]))

    harms = [harm(severity) for severity in (0.3, 1, 3)]
    assert harms == sorted(harms), harms
    assert harm(5) >= harms[-1] * 0.98
    assert harms[1] > 0.5


def test_brightness_is_the_value_of_hsv() -> None:
    before = picture(6, 7)
    before[0, 0] = 0
    after = corrupt("brightness", before, 3, rng())
    for pixel, found in zip(before.reshape(-1, 3), after.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.3))
        np.testing.assert_allclose(found / 255, wanted, atol=0.51 / 255)


def test_contrast_draws_towards_the_mean_colour() -> None:
    before = picture()
    mean = before.mean((0, 1))
    wanted = (before - mean) * 0.2 + mean
    np.testing.assert_allclose(corrupt("contrast", before, 3, rng()), wanted, atol=0.51)


@pytest.mark.parametrize("name", ["motion_blur", "defocus"])
def test_blur_is_a_weighted_mean(name: str) -> None:
    flat = np.full((40, 40, 3), 90, np.uint8)
    np.testing.assert_array_equal(corrupt(name, flat, 4, rng()), flat)
    point = np.zeros((224, 224, 3), np.uint8)
    point[100:110, 100:110] = 250
    spread = corrupt(name, point, 3, rng())
    assert float(spread.sum()) == pytest.approx(float(point.sum()), rel=0.02)
    lit = spread[..., 0] > 0
    # The disk reaches 6 pixels (and its soft edge) beyond the square; the line 15, one way.
    reach = {"defocus": 7, "motion_blur": 16}[name]
    rows, columns = np.nonzero(lit)
    assert 100 - reach <= min(rows.min(), columns.min())
    assert max(rows.max(), columns.max()) < 110 + reach
    assert lit.sum() > 1.5 * 100


def test_noise_has_the_spread_that_it_says() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    gaussian = corrupt("gaussian_noise", grey, 1, rng()) / 255
    assert gaussian.std() == pytest.approx(0.08, rel=0.03)
    shot = corrupt("shot_noise", grey, 1, rng()) / 255
    assert shot.std() == pytest.approx(np.sqrt(128 / 255 / 60), rel=0.03)
    assert shot.mean() == pytest.approx(128 / 255, abs=0.003)
    nothing = noise_like(grey, rng())
    assert (nothing.min(), nothing.max()) == (0, 255)
    assert nothing.mean() == pytest.approx(127.5, abs=1)


def test_infrared_knows_no_colour() -> None:
    after = corrupt("infrared", picture(), 5, rng())
    assert (after == after[..., :1]).all()


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="corruption 'mist' is not one of clear"):
        corrupt("mist", picture(), 3, rng())
    with pytest.raises(ValueError, match="severity 6 is not between 0 and 5"):
        corrupt("fog", picture(), 6, rng())
