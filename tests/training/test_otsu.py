import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cnn_jax import data
from cnn_jax.errors import DataError
from cnn_jax.training.otsu import otsu, threshold_of


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, st.integers(2, 40)))
def test_the_threshold_is_the_best_of_all(values):
    def between(t):
        low, high = values[values <= t].astype(float), values[values > t].astype(float)
        if not len(low) or not len(high):
            return 0.0
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2

    best = max(between(t) for t in range(255))
    assert between(threshold_of(values)) == pytest.approx(best, rel=1e-9)


def discs(n=20, *, dark):
    """A disc on a noisy ground, and a small speck of the same grey that is not marked."""
    rng = np.random.default_rng(0)
    row, column = np.ogrid[:24, :24]
    images, masks = [], []
    for _ in range(n):
        mask = (row - rng.integers(8, 12)) ** 2 + (column - rng.integers(8, 12)) ** 2 < 30
        shown = mask.copy()
        shown[20:22, 20:22] = True
        grey = np.where(shown ^ dark, 180, 60) + rng.integers(-20, 20, mask.shape)
        images.append(grey)
        masks.append(mask)
    return np.array(images, np.uint8), np.array(masks)


@pytest.mark.parametrize("dark", [False, True])
def test_side_and_part_are_chosen_on_the_training_part(dark):
    images, masks = discs(dark=dark)
    dataset = data.from_arrays(images, np.arange(20) % 2, masks=masks)
    baseline = otsu(dataset)
    assert ("dark" if dark else "bright") in baseline.note and "largest" in baseline.note
    assert set(baseline.predictions) == {"validation", "test"}
    for part, found in baseline.predictions.items():
        np.testing.assert_array_equal(found.predicted(), dataset.splits[part].masks)
        assert (found.ids == dataset.splits[part].ids).all()


def test_the_test_part_plays_no_part_in_the_choice():
    images, masks = discs(dark=True)
    bright, other = discs(dark=False)
    given = data.from_arrays(
        images, np.zeros(20, int), masks=masks, test=(bright, np.zeros(20, int), other)
    )
    assert "dark" in otsu(given).note


def test_several_regions_and_volumes_have_no_such_baseline():
    images, masks = discs(dark=True)
    labels = np.zeros(20, int)
    with pytest.raises(DataError, match="marks one region in images, not 2"):
        otsu(data.from_arrays(images, labels, masks=masks * 2))
    volumes = np.repeat(images[:, None, ..., None], 2, axis=1)
    with pytest.raises(DataError, match="leave baselines out"):
        otsu(data.from_arrays(volumes, labels, masks=np.repeat(masks[:, None], 2, axis=1)))
