"""The figures of a collapse against loops and known spectra."""

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.training.collapse import collapse_notes, collapse_of

RNG = np.random.default_rng(0)


def test_the_mean_cosine_is_that_of_all_pairs():
    x = RNG.normal(size=(9, 4)) + 0.3
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    expected = np.mean([z[i] @ z[j] for i in range(9) for j in range(9) if i != j])
    lengths = 10 ** RNG.uniform(-200, 200, (9, 1))
    np.testing.assert_allclose(collapse_of(x * lengths).mean_cosine, expected, rtol=1e-12)


def test_the_effective_rank_of_axes_used_alike_is_their_number():
    for axes in (1, 3, 8):
        found = collapse_of(np.concatenate([np.eye(8)[:axes], -np.eye(8)[:axes]]))
        assert found.effective_rank == pytest.approx(axes)
        assert found.collapsed == (axes == 1)
    random = collapse_of(RNG.normal(size=(2000, 8)))
    assert 7.8 < random.effective_rank <= 8 and "have not collapsed" in random.message
    assert abs(random.mean_cosine) < 0.01


def test_what_to_do_about_a_collapse():
    point = collapse_of(1 + 1e-3 * RNG.normal(size=(50, 16)))
    assert point.collapsed and point.mean_cosine > 0.999
    assert "semi-hard" in point.message and "nearly one point" in point.message
    line = collapse_of(np.outer(RNG.normal(size=50), np.ones(16)))
    assert line.collapsed and line.effective_rank == pytest.approx(1)
    assert "lie on a line" in line.message
    for same in (np.zeros((4, 3)), np.ones((4, 3))):
        found = collapse_of(same)
        assert (found.mean_cosine, found.effective_rank) == (pytest.approx(1), 0)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones(3), r"must be \[n, D\]"),
        (np.ones((1, 3)), "of 2 images or more"),
        (np.full((3, 2), np.nan), "training has diverged"),
    ],
)
def test_what_is_no_batch_of_embeddings(x, words):
    with pytest.raises(EvaluationError, match=words):
        collapse_of(x)


def test_two_people_told_apart_on_a_line_are_no_collapse():
    who = np.arange(60) % 2
    line = np.where(who, 1, -1)[:, None] * np.ones(8) + 0.01 * RNG.normal(size=(60, 8))
    assert not collapse_notes(line, who)
    (told,) = collapse_notes(line, np.arange(60) % 3)
    assert "on a line" in told
    assert not collapse_notes(RNG.normal(size=(60, 8)), np.arange(60) % 3)
    # Of many every so-manieth is looked at: here every third.
    many = RNG.normal(size=(6000, 8))
    many[::3] = 1.0
    assert "one point" in collapse_notes(many, np.arange(6000))[0]
