from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from cnn_jax.anomaly import greedy_coreset
from cnn_jax.errors import DataError


def drawn(seed, n=14, d=3):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)) + 4 * generator.integers(0, 3, (n, 1))


def radius(features, positions):
    return cdist(features, features[list(positions)]).min(axis=1).max()


def by_hand(features, size):
    """The greedy search as a loop in float64, from the feature nearest to the mean."""
    apart = cdist(features, features)
    chosen = [int(np.linalg.norm(features - features.mean(axis=0), axis=1).argmin())]
    while len(chosen) < size:
        chosen.append(int(apart[chosen].min(axis=0).argmax()))
    return chosen


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 14))
def test_an_exact_search_is_that_of_a_loop(seed, size):
    features = drawn(seed)
    found = greedy_coreset(features, size)
    assert found.positions.tolist() == by_hand(features, size)
    wanted = [radius(features, found.positions[: i + 1]) for i in range(size)]
    np.testing.assert_allclose(found.radii, wanted, rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([None, 128]))
def test_it_covers_at_most_twice_as_badly_as_the_best(seed, size, projected):
    """Also from a random start; 3 dimensions are not projected to 128."""
    features = drawn(seed, n=11)
    best = min(radius(features, some) for some in combinations(range(11), size))
    found = greedy_coreset(features, size, projected=projected, seed=seed)
    assert best * (1 - 1e-6) <= radius(features, found.positions) <= 2 * best * (1 + 1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([None, 2, 128]))
def test_the_radius_never_grows_and_all_of_them_leave_none(seed, projected):
    features = drawn(seed)
    found = greedy_coreset(features, 14, projected=projected, seed=seed)
    assert sorted(found.positions.tolist()) == list(range(14))
    assert (np.diff(found.radii) <= 0).all() and found.radii[-1] == 0
    fewer = greedy_coreset(features, 5, projected=projected, seed=seed)
    np.testing.assert_array_equal(fewer.positions, found.positions[:5])


def test_of_copies_none_is_taken_before_all_others_are():
    features = np.repeat(drawn(0, n=5), 4, axis=0)
    found = greedy_coreset(features, 20)
    assert len(set((found.positions[:5] // 4).tolist())) == 5
    assert sorted(found.positions.tolist()) == list(range(20))
    np.testing.assert_array_equal(found.radii[4:], 0)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_features_of_any_size_are_searched_alike(size):
    features = drawn(0)
    a, b = greedy_coreset(features, 9), greedy_coreset(features * size, 9)
    np.testing.assert_array_equal(a.positions, b.positions)
    np.testing.assert_allclose(b.radii, a.radii * size, rtol=1e-6)


def test_a_projection_keeps_distances_and_covers_nearly_as_well():
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(400, 20)) @ generator.normal(size=(20, 600))).astype(
        np.float32
    )
    exact = greedy_coreset(features, 40)
    found = greedy_coreset(features, 40, projected=128, seed=3)
    again = greedy_coreset(features, 40, projected=128, seed=3)
    np.testing.assert_array_equal(found.positions, again.positions)
    other = greedy_coreset(features, 40, projected=128, seed=4)
    assert found.positions.tolist() != other.positions.tolist()
    # Johnson and Lindenstrauss with 128 dimensions: within a third here.
    assert radius(features, found.positions) < 1.34 * found.radii[-1]
    drawn_at_random = generator.choice(400, 40, replace=False)
    assert radius(features, found.positions) < 1.15 * radius(features, exact.positions)
    assert radius(features, found.positions) < radius(features, drawn_at_random)


@pytest.mark.parametrize(("size", "projected"), [(0, None), (15, None), (3, 0)])
def test_what_cannot_be_is_refused(size, projected):
    with pytest.raises(DataError, match=r"choose 1\.\.14|1 or more dimensions"):
        greedy_coreset(drawn(0), size, projected=projected)
