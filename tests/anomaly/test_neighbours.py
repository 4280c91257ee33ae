import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.anomaly import nearest
from cnn_jax.errors import DataError

MODULE = sys.modules["cnn_jax.anomaly.neighbours"]


def by_hand(queries, references, k):
    """In extended precision: distances, and positions, of ties the first first."""
    queries, references = queries.astype(np.longdouble), references.astype(np.longdouble)
    apart = np.sqrt(((queries[:, np.newaxis] - references) ** 2).sum(axis=2))
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(apart, order, axis=1).astype(np.float64), order


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 3, 60])
def test_they_are_those_of_a_loop(dtype, k):
    generator = np.random.default_rng(0)
    references = generator.normal(size=(60, 7)).astype(dtype)
    queries = generator.normal(size=(23, 7)).astype(dtype)
    distances, positions = nearest(queries, references, k)
    wanted, order = by_hand(queries, references, k)
    assert (distances.dtype, positions.dtype) == (np.float64, np.int64)
    np.testing.assert_allclose(distances, wanted, rtol=1e-14)
    np.testing.assert_array_equal(positions, order)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([1e-12, 1e-3, 1.0, 1e30]), st.booleans())
def test_they_are_exact_where_float32_is_blind(seed, spread, copies):
    """Far from the origin, of any size, with copies: the float32 product decides nothing here."""
    generator = np.random.default_rng(seed)
    # On a grid, so that float64 holds every coordinate and the oracle sees the same numbers.
    references = 3e5 * spread + spread * generator.integers(-(2**12), 2**12, (40, 5)) / 2**12
    queries = 3e5 * spread + spread * generator.integers(-(2**12), 2**12, (15, 5)) / 2**12
    if copies:
        references[10:] = references[generator.integers(0, 10, 30)]
        queries[:5] = references[:5]
    distances, _ = nearest(queries, references, 4)
    np.testing.assert_allclose(distances, by_hand(queries, references, 4)[0], rtol=1e-12)


def test_what_float32_cannot_decide_is_searched_in_float64(monkeypatch):
    asked = []
    kept = MODULE._in_float64

    def spy(queries, *rest):
        asked.append(len(queries))
        return kept(queries, *rest)

    monkeypatch.setattr(MODULE, "_in_float64", spy)
    generator = np.random.default_rng(0)
    references = generator.normal(size=(200, 16))
    queries = generator.normal(size=(50, 16))
    nearest(queries, references, 2)
    assert asked == []  # all of it is proven by the bound
    close = np.concatenate([references, references[:1] + 1e-6 * references[:20]])
    queries[3] = references[0]
    distances, positions = nearest(queries, close, 2)
    assert asked == [1]
    wanted, order = by_hand(queries, close, 2)
    np.testing.assert_allclose(distances, wanted, rtol=1e-9)
    np.testing.assert_array_equal(positions, order)


def test_blocks_change_nothing(monkeypatch):
    generator = np.random.default_rng(1)
    references, queries = generator.normal(size=(50, 4)), generator.normal(size=(33, 4))
    queries[::5] = references[:7]
    references[7:20] = references[:1]
    whole = nearest(queries, references, 3)
    monkeypatch.setattr(MODULE, "NUMBERS_AT_ONCE", 400)
    for a, b in zip(whole, nearest(queries, references, 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_single_reference_and_k_out_of_range():
    one = np.ones((1, 3))
    distances, positions = nearest(np.zeros((2, 3)), one)
    np.testing.assert_allclose(distances, np.sqrt(3) * np.ones((2, 1)))
    assert positions.tolist() == [[0], [0]]
    for k in (0, 2):
        with pytest.raises(DataError, match=rf"k = {k}: take 1\.\.1"):
            nearest(one, one, k)
