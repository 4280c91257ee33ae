"""Fitted detectors as arrays, and back."""

import numpy as np
import pytest

from cnn_jax import anomaly
from cnn_jax.errors import DataError

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(12, 5)).astype(np.float32)
MAPS = RNG.normal(size=(6, 2, 3, 4)).astype(np.float32)
FITTED = [
    anomaly.fit_neighbours(VECTORS, k=3, unit_length=True),
    anomaly.fit_mahalanobis(VECTORS),
    anomaly.fit_reconstruction(VECTORS, variance=0.7),
    anomaly.fit_padim(MAPS, channels=3),
    anomaly.fit_patchcore(MAPS, share=0.5, projected=None),
    anomaly.fit_patchcore(MAPS, share=0.5, projected=None, neighbours=3),
]


@pytest.mark.parametrize("fitted", FITTED, ids=lambda one: type(one).__name__)
def test_arrays_bring_back_the_same_scores(fitted, tmp_path):
    arrays = anomaly.arrays_of(fitted)
    np.savez(tmp_path / "arrays.npz", **arrays)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as read:
        found = anomaly.of_arrays(type(fitted), dict(read))
    images = 3 * (MAPS if hasattr(fitted, "score_maps") else VECTORS)
    np.testing.assert_array_equal(found.score(images), fitted.score(images), strict=True)
    for name in arrays:
        value = getattr(fitted, name)
        assert type(getattr(found, name)) is type(value)
        np.testing.assert_array_equal(getattr(found, name), value, strict=True)


def test_arrays_that_are_missing_are_named():
    arrays = anomaly.arrays_of(FITTED[1])
    del arrays["factor"]
    with pytest.raises(DataError, match="a fitted Mahalanobis has 'factor', and it is not there"):
        anomaly.of_arrays(anomaly.Mahalanobis, arrays)
