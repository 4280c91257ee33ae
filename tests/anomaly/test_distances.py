import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from cnn_jax.anomaly import fit_mahalanobis, fit_neighbours, fit_reconstruction
from cnn_jax.errors import DataError

FITS = [fit_mahalanobis, fit_neighbours, fit_reconstruction]


def drawn(seed, n, d, dtype=np.float64):
    """Features of correlated channels of different scale."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(d).normal(size=(d, d)) * np.geomspace(1, 0.05, d)
    return (generator.normal(size=(n, d)) @ mixing.T + 3).astype(dtype)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(3, 60), st.integers(1, 40))
def test_mahalanobis_is_scikit_learns(seed, n, d):
    normal, other = drawn(seed, n, d), drawn(seed + 1, 9, d)
    found, oracle = fit_mahalanobis(normal), LedoitWolf().fit(normal)
    assert found.shrinkage == pytest.approx(oracle.shrinkage_, abs=1e-12)
    covariance = found.factor @ found.factor.T
    np.testing.assert_allclose(covariance, oracle.covariance_, atol=1e-11 * covariance.max())
    np.testing.assert_allclose(found.score(other) ** 2, oracle.mahalanobis(other), rtol=1e-8)


def test_mahalanobis_works_with_more_channels_than_images():
    normal = drawn(0, 12, 200, np.float32)
    detector = fit_mahalanobis(jnp.asarray(normal))
    assert 0 < detector.shrinkage < 1
    scores = detector.score(drawn(1, 5, 200, np.float32))
    assert scores.dtype == np.float64 and (scores > detector.score(normal).max()).all()


def test_mahalanobis_does_not_depend_on_the_axes():
    normal, other = drawn(0, 50, 6), drawn(1, 8, 6)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))[0]
    np.testing.assert_allclose(
        fit_mahalanobis(normal @ turn + 5).score(other @ turn + 5),
        fit_mahalanobis(normal).score(other),
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 7), st.booleans())
def test_neighbours_are_scikit_learns(seed, k, unit_length):
    normal, other = drawn(seed, 40, 5), drawn(seed + 1, 9, 5)
    found = fit_neighbours(normal, k=k, unit_length=unit_length).score(other)
    if unit_length:
        normal, other = normalize(normal), normalize(other)
    oracle = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(normal)
    # Scikit-learn's differences of squares are good to half of the digits.
    np.testing.assert_allclose(found, oracle.kneighbors(other)[0].mean(axis=1), rtol=1e-6)


def test_unit_length_is_blind_to_length_and_takes_zeros():
    normal = drawn(0, 20, 4)
    normal[0] = 0
    detector = fit_neighbours(normal, k=2, unit_length=True)
    other = drawn(1, 6, 4)
    np.testing.assert_allclose(detector.score(1e200 * other), detector.score(other))
    assert fit_neighbours(normal, k=1, unit_length=True).score(np.zeros((1, 4))) == [0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(3, 40), st.integers(3, 30), st.floats(0.05, 0.9))
def test_reconstruction_is_scikit_learns(seed, n, d, variance):
    normal, other = drawn(seed, n, d), drawn(seed + 1, 9, d)
    oracle = PCA(variance, svd_solver="full").fit(normal)
    if oracle.n_components_ == d:
        return
    found = fit_reconstruction(normal, variance=variance)
    assert len(found.directions) == oracle.n_components_
    assert found.kept == pytest.approx(oracle.explained_variance_ratio_.sum())
    again = oracle.inverse_transform(oracle.transform(other))
    np.testing.assert_allclose(found.score(other), np.linalg.norm(other - again, axis=1))


def test_reconstruction_sees_what_leaves_the_plane():
    generator = np.random.default_rng(0)
    normal = np.concatenate([generator.normal(size=(30, 3)), np.zeros((30, 2))], axis=1)
    detector = fit_reconstruction(normal, variance=0.999)
    scores = detector.score(np.array([[9.0, -9, 9, 0, 0], [0, 0, 0, 3, 4]]))
    np.testing.assert_allclose(scores, [0, 5], atol=1e-12)


@pytest.mark.parametrize("fit", FITS)
def test_fitting_twice_gives_the_same(fit):
    normal, other = drawn(0, 30, 8, np.float32), drawn(1, 5, 8, np.float32)
    np.testing.assert_array_equal(fit(normal).score(other), fit(normal).score(other))
    narrow = jnp.asarray(other, jnp.bfloat16)
    np.testing.assert_array_equal(
        fit(normal).score(narrow), fit(normal).score(np.asarray(narrow).astype(np.float32))
    )


@pytest.mark.parametrize("fit", FITS)
def test_features_that_do_not_fit_are_refused(fit):
    normal = drawn(0, 30, 8, np.float32)
    broken = normal.copy()
    broken[[2, 5], 3] = np.nan
    for features, message in [
        (normal[0], r"are \[8\], not \[N images, D channels\]"),
        (normal[:0], r"are \[0, 8\], not"),
        (broken, "of 2 of 30 of the normal images are not finite"),
    ]:
        with pytest.raises(DataError, match=message):
            fit(features)
    with pytest.raises(DataError, match="have 7 channels, and the detector was fitted on 8"):
        fit(normal).score(normal[:, :7])
    with pytest.raises(DataError, match="of the images to score are not finite"):
        fit(normal).score(broken)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda: fit_mahalanobis(np.full((5, 3), 0.1)), "all 5 normal images show the same"),
        (lambda: fit_reconstruction(np.full((5, 3), 0.1)), "all 5 normal images show the same"),
        (lambda: fit_mahalanobis(np.ones((1, 3))), "the one normal image shows"),
        (lambda: fit_mahalanobis(drawn(0, 2, 3)), "of the 2 normal images do not vary in some"),
        (lambda: fit_neighbours(drawn(0, 4, 3)), r"k = 5 neighbours of 4 normal images"),
        (lambda: fit_reconstruction(drawn(0, 9, 3), variance=1), "between 0 and 1, not at 1"),
        (lambda: fit_reconstruction(drawn(0, 9, 3), variance=1 - 1e-9), "takes all 3 directions"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, message):
    with pytest.raises(DataError, match=message):
        fit()
