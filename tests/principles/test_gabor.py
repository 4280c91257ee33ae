"""Gabor fits: functions that are made are found again, and noise is told from them."""

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.principles import gabor_fits
from cnn_jax.principles.gabor import patterns_of


def _gabor(side, angle, wavelength, across, along, phase):
    """By the formula, one pixel after the other."""
    made = np.zeros((side, side))
    middle = (side - 1) / 2
    for y in range(side):
        for x in range(side):
            u = (x - middle) * np.cos(angle) + (y - middle) * np.sin(angle)
            v = (y - middle) * np.cos(angle) - (x - middle) * np.sin(angle)
            made[y, x] = np.exp(-((u / across) ** 2 + (v / along) ** 2) / 2)
            made[y, x] *= np.cos(2 * np.pi * u / wavelength + phase)
    return made


@pytest.mark.parametrize(("angle", "wavelength", "phase"), [(0.3, 5, 0.4), (1.9, 4, 2.0)])
def test_a_gabor_function_is_found_again(angle, wavelength, phase):
    made = 3.7 * _gabor(9, angle, wavelength, 2.0, 2.6, phase)
    found = gabor_fits(made[:, :, None, None], noise=0)
    assert found.r2[0] == pytest.approx(1, abs=1e-6) and not len(found.noise_r2)
    assert found.orientation[0] == pytest.approx(angle, abs=1e-3)
    assert found.wavelength[0] == pytest.approx(wavelength, rel=1e-3)
    np.testing.assert_allclose(found.sigma[0], [2.0, 2.6], rtol=1e-3)
    np.testing.assert_allclose(found.fitted[0], made, atol=1e-3)


@pytest.mark.heavy
def test_noise_fits_worse_and_the_fit_explains_what_it_says():
    rng = np.random.default_rng(0)
    made = _gabor(7, 0.8, 5, 1.8, 2.2, 1.0)
    noisy = made + 0.1 * rng.normal(size=made.shape)
    found = gabor_fits(np.stack([noisy, made * 0], axis=-1)[:, :, None], noise=20)
    assert found.r2[0] > 0.85 > 0.6 > np.quantile(found.noise_r2, 0.95)
    wanted = 1 - ((noisy - found.fitted[0]) ** 2).sum() / (noisy**2).sum()
    assert found.r2[0] == pytest.approx(wanted)
    assert found.r2[1] == 0  # a filter of zeros


def test_nearly_anything_fits_three_by_three():
    noise = np.random.default_rng(1).normal(size=(3, 3, 1, 2))
    found = gabor_fits(noise, noise=8)
    assert np.median(found.noise_r2) > 0.7


def test_colours_are_taken_apart_from_the_pattern():
    made = _gabor(5, 0.5, 4, 1.5, 1.5, 0)
    colour = np.array([0.2, -0.9, 1.4])
    pattern = patterns_of((made[:, :, None] * colour)[..., None])[0]
    np.testing.assert_allclose(pattern, made * np.linalg.norm(colour), atol=1e-12)


def test_what_has_no_answer():
    for kernel in (np.zeros((2, 3, 1, 4)), np.zeros((3, 3, 4)), np.full((3, 3, 1, 1), np.inf)):
        with pytest.raises(EvaluationError, match="3 x 3 or more"):
            gabor_fits(kernel)
