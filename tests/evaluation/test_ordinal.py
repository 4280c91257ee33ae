import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, mean_absolute_error

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Predictions, ordinal_figures


def answers(labels, given, k):
    logits = np.eye(k, dtype=np.float32)[given]
    ids = np.arange(len(labels)).astype(str)
    return Predictions("test", ids, np.asarray(labels, np.int32), logits, tuple("abcdefgh"[:k]))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(0, 10**6))
def test_kappas_are_scikit_learns(k, seed):
    generator = np.random.default_rng(seed)
    labels, given = generator.integers(0, k, (2, 60))
    given = np.where(generator.random(60) < 0.5, labels, given)
    found = ordinal_figures(answers(labels, given, k), resamples=2)
    for name in ("quadratic", "linear"):
        # All classes named: scikit-learn would leave out those that do not occur.
        expected = cohen_kappa_score(labels, given, labels=range(k), weights=name)
        assert found[f"{name}_kappa"].value == pytest.approx(expected, abs=1e-12)
    expected = mean_absolute_error(labels, given)
    assert found["mean_absolute_error"].value == pytest.approx(expected)


def test_a_far_miss_costs_more_and_chance_gives_nothing():
    labels = np.repeat(np.arange(5), 20)
    near, far = (labels + 1).clip(0, 4), 4 - labels
    of_near, of_far = (ordinal_figures(answers(labels, g, 5)) for g in (near, far))
    assert of_near["quadratic_kappa"].value > 0.79 > 0 > of_far["quadratic_kappa"].value
    one = ordinal_figures(answers(labels, np.zeros(100, int), 5))["quadratic_kappa"]
    assert one.value == 0
    same = ordinal_figures(answers(np.zeros(9, int), np.zeros(9, int), 5))["quadratic_kappa"]
    assert np.isnan(same.value)


def test_several_labels_have_no_order():
    p = answers([0, 1], [0, 1], 2)
    many = Predictions("test", p.ids, p.logits, p.logits, p.classes, "multilabel")
    with pytest.raises(EvaluationError, match="ordered classes need one class each"):
        ordinal_figures(many)
