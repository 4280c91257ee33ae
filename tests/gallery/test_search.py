"""The search against all products in float64: the same names and scores, however it is stored."""

import numpy as np
import pytest

from cnn_jax.gallery.search import Index, _propose

D = 32


def units(draw, n, spread=1.0, centre=0.0):
    x = centre + spread * draw.standard_normal((n, D))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def by_hand(queries, templates, k):
    scores = np.round(queries.astype(np.float64) @ templates.astype(np.float64).T, 12)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["spread", "near", "copies", "opposite"])
def test_names_and_scores_are_exact(precision, kind):
    draw = np.random.default_rng(0)
    templates = {
        "spread": lambda: units(draw, 1000),
        # Nearer to each other than float16 (and many than float32) can tell.
        "near": lambda: units(draw, 1000, 1e-4, np.ones(D)),
        "copies": lambda: np.repeat(units(draw, 5), 200, axis=0),
        # All scores are negative: what only fills up the rows must not come first.
        "opposite": lambda: units(draw, 1000, 0.05, -np.ones(D)),
    }[kind]()
    queries = units(draw, 7, 0.3, np.ones(D))
    index = Index(templates, precision)
    fallbacks = []
    of_all = index._of_all
    index._of_all = lambda q, k: fallbacks.append(len(q)) or of_all(q, k)
    for some in (queries, queries[:1]):
        scores, positions = index.top(some, 5)
        expected, order = by_hand(some, templates, 5)
        np.testing.assert_array_equal(positions, order)
        np.testing.assert_allclose(scores, expected, atol=2e-12)
    # The bound proves what it can, and only that.
    assert bool(fallbacks) == (kind in ("near", "copies"))


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_device_is_off_by_no_more_than_the_bound(precision):
    draw = np.random.default_rng(1)
    templates, queries = units(draw, 1000), units(draw, 8)
    index = Index(templates, precision)
    values, positions = map(
        np.asarray, _propose(queries, index._stored, np.int32(1000), index._proposed)
    )
    exact = queries.astype(np.float64) @ templates.astype(np.float64).T
    apart = np.abs(values - np.take_along_axis(exact, positions, axis=1)).max()
    assert index._bound / 50 < apart < index._bound


def test_few_templates_and_queries_in_pieces(monkeypatch):
    draw = np.random.default_rng(2)
    templates, queries = units(draw, 3), units(draw, 5)
    whole = Index(templates, "float32").top(queries, 3)
    monkeypatch.setattr("cnn_jax.gallery.search.NUMBERS_AT_ONCE", 2 * 1024)
    pieces = Index(templates, "float32").top(queries, 3)
    for found in (whole, pieces):
        np.testing.assert_array_equal(found[1], by_hand(queries, templates, 3)[1])
    assert (Index(templates, "float32").scores(queries, 1) == whole[0][whole[1] == 1]).all()
