"""Templates against a loop in float64, and against `evaluation.make_templates`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import DataError, EvaluationError
from cnn_jax.evaluation import make_templates
from cnn_jax.gallery.templates import templates_of, unit_and_quality, without_each


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_templates_are_the_weighted_means_of_unit_embeddings(sizes, seed):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((sum(sizes), 5)).astype(np.float32) * draw.lognormal(size=(1, 1))
    units, lengths = unit_and_quality(x.astype(np.float32), 5)
    first = np.cumsum([0, *sizes[:-1]])
    owners = np.repeat([f"{i:03d}" for i in range(len(sizes))], sizes)
    found = templates_of(units, lengths, first)
    # With the length for its quality, a mean of units is one of embeddings.
    np.testing.assert_allclose(found, make_templates(x, owners).embeddings, atol=1e-5)
    weights = draw.uniform(0.1, 3, len(x))
    weighed = make_templates(x, owners, quality=weights, unit_first=True).embeddings
    np.testing.assert_allclose(templates_of(units, weights, first), weighed, atol=1e-5)
    left = without_each(units, weights, first)
    for row, owner in enumerate(owners):
        others = (owners == owner) & (np.arange(len(x)) != row)
        mean = (weights[others, None] * units[others].astype(np.float64)).sum(axis=0)
        expected = mean / np.linalg.norm(mean) if others.any() else np.zeros(5)
        np.testing.assert_allclose(left[row], expected, atol=1e-5)


def test_lengths_of_extreme_embeddings_neither_overflow_nor_vanish():
    x = np.array([[3e38, 3e38], [1e-40, 0], [3, 4]], np.float32)
    units, lengths = unit_and_quality(x, 2)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(lengths, np.linalg.norm(x.astype(np.float64), axis=1), rtol=1e-6)


def test_images_that_cancel_out_have_no_template():
    units = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
    found = templates_of(units, np.ones(3), np.array([0, 2]))
    assert found.tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("embeddings", "quality", "error", "said"),
    [
        (np.zeros((0, 2), np.float32), None, DataError, "no images"),
        (np.ones(2, np.float32), None, DataError, "one vector for each image"),
        (np.ones((1, 2), np.int32), None, DataError, "int32"),
        (np.ones((1, 3), np.float32), None, DataError, "of another model"),
        (np.zeros((1, 2), np.float32), None, EvaluationError, "no direction"),
        (np.full((1, 2), np.nan, np.float32), None, EvaluationError, "not finite"),
        (np.ones((2, 2), np.float32), [1, 0], DataError, "one positive number"),
        (np.ones((2, 2), np.float32), [1], DataError, "one positive number"),
    ],
)
def test_what_is_no_embedding_is_refused(embeddings, quality, error, said):
    with pytest.raises(error, match=said):
        unit_and_quality(embeddings, 2, quality)
