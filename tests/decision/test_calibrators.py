"""Vector and isotonic scaling, cross-fitting; temperature scaling has a file of its own."""

from dataclasses import replace

import numpy as np
import pytest
from calibrated import calibrated
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression

from cnn_jax.decision import (
    cross_fitted,
    fit_isotonic,
    fit_temperature,
    fit_vector_scaling,
)
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import CalibrationPredictions, Predictions, classification_metrics


def spoiled(p, factors, offsets):
    return replace(p, logits=((p.logits - offsets) / factors).astype(np.float32))


FACTORS, OFFSETS = np.array([0.5, 1.0, 1.8]), np.array([-0.7, 0.0, 0.7])


@pytest.mark.parametrize("kind", ["class", "multilabel", "soft"])
def test_vector_scaling_undoes_factors_and_offsets(kind):
    p = spoiled(calibrated(kind, n=8000), FACTORS, OFFSETS)
    fitted = fit_vector_scaling(p)
    assert fitted.nll_after < fitted.nll_before - 0.01
    np.testing.assert_allclose(fitted.factors, FACTORS, atol=0.12)
    offsets = np.array(fitted.offsets)
    # Softmax does not see what is added to all logits.
    offsets = offsets if kind == "multilabel" else offsets - offsets.mean()
    np.testing.assert_allclose(offsets, OFFSETS, atol=0.12)
    new = spoiled(calibrated(kind, n=4000, seed=1, split="test"), FACTORS, OFFSETS)
    better = fitted.apply(new).negative_log_likelihood().mean()
    assert better < new.negative_log_likelihood().mean() - 0.01
    assert type(fitted.apply(new)) is Predictions


def test_vector_scaling_is_at_the_minimum_of_what_it_minimises():
    p = spoiled(calibrated(n=200), FACTORS, OFFSETS)
    fitted = fit_vector_scaling(p)
    x = np.array([*fitted.factors, *fitted.offsets])

    def objective(x):
        log_p = log_softmax(p.logits * x[:3] + x[3:], axis=1)
        nll = -log_p[np.arange(200), p.targets].sum()
        return nll + (((x[:3] - 1) / 0.5) ** 2).sum() / 2 + (x[3:] ** 2).sum() / 2

    for direction in np.eye(6):
        for size in (-1e-2, 1e-2):
            assert objective(x + size * direction) > objective(x)


def test_few_examples_move_vector_scaling_little():
    p = calibrated(n=3)
    sure = replace(p, logits=(30 * np.eye(3)[p.targets]).astype(np.float32))
    assert np.abs(np.array(fit_vector_scaling(sure).factors) - 1).max() < 0.1
    assert np.abs(fit_vector_scaling(sure).offsets).max() < 0.1


def test_isotonic_levels_are_scikit_learns():
    p = calibrated(n=3000, k=2)
    p = replace(p, logits=(np.abs(p.logits) ** 1.7 * np.sign(p.logits)).astype(np.float32))
    fitted = fit_isotonic(p)
    score = p.log_odds()[:, 1]
    theirs = IsotonicRegression(out_of_bounds="clip").fit(score, p.targets == 1)
    ours = fitted.apply(p).probabilities()[:, 1]
    # They differ by the half that is added to each level's count, least on long levels.
    difference = np.abs(ours - theirs.predict(score))
    assert np.median(difference) < 0.01 and (np.diff(ours[np.argsort(score)]) >= -1e-9).all()
    level = np.isclose(theirs.predict(score), 0)
    m = level.sum()
    assert m > 3 and ours[level].min() == pytest.approx(0.5 / (m + 1), rel=1e-4)


@pytest.mark.parametrize(("kind", "k"), [("class", 2), ("class", 4), ("multilabel", 3)])
def test_isotonic_mends_a_curve_that_no_temperature_mends(kind, k):
    def bent(p):
        # Sure on both sides, but only one side is right to be.
        return replace(p, logits=np.where(p.logits > 0, 4 * p.logits, p.logits / 2))

    p, new = (
        bent(calibrated(kind, n=6000, k=k, seed=s, split=name))
        for s, name in ((0, "validation"), (1, "test"))
    )
    isotonic = fit_isotonic(p).apply(new).negative_log_likelihood().mean()
    # Several curves share what is one distribution: there it need not beat a temperature.
    rival = new if k == 4 else fit_temperature(p).apply(new)
    assert isotonic < rival.negative_log_likelihood().mean() - 0.01
    if kind == "class":
        np.testing.assert_allclose(fit_isotonic(p).apply(new).probabilities().sum(axis=1), 1)


def test_isotonic_never_says_never():
    p = calibrated(n=40, k=2)
    certain = replace(p, logits=np.where(np.eye(2)[p.targets] > 0, 9, -9).astype(np.float32))
    fitted = fit_isotonic(certain)
    found = fitted.apply(certain).probabilities()
    assert found.min() > 0.01 and found.max() < 0.99
    with pytest.raises(EvaluationError, match="does not fit predictions of 3 classes"):
        fitted.apply(calibrated(k=3, n=9))
    with pytest.raises(EvaluationError, match="scaling of 2 classes does not fit predictions of 3"):
        fit_vector_scaling(p).apply(calibrated(k=3, n=9))


def test_soft_targets_have_no_isotonic_calibration():
    with pytest.raises(EvaluationError, match="isotonic calibration needs hard labels"):
        fit_isotonic(calibrated("soft", n=20))


def test_cross_fitting_shows_each_example_a_fit_to_others():
    p = replace(calibrated(n=120), groups=np.array([f"patient {i // 4}" for i in range(120)]))
    fitted_on = []

    class Nothing:
        def __init__(self, groups):
            self.groups = groups

        def apply(self, other):
            assert not self.groups & set(other.groups.tolist())
            return replace(other, logits=other.logits + 1)

    def fit(some):
        fitted_on.append(len(some))
        return Nothing(set(some.groups.tolist()))

    found = cross_fitted(p, fit, folds=5)
    assert type(found) is CalibrationPredictions and sum(fitted_on) == 4 * 120
    np.testing.assert_array_equal(found.ids, p.ids)
    np.testing.assert_allclose(found.logits, p.logits + 1)
    with pytest.raises(EvaluationError, match="one for each of 30 groups, not 31"):
        cross_fitted(p, fit, folds=31)
    with pytest.raises(EvaluationError, match="is fitted on CalibrationPredictions"):
        cross_fitted(calibrated(split="test"), fit)


def test_cross_fitted_figures_are_those_of_new_data():
    """Twenty examples flatter a fit that is judged by them; cross-fitting tells what is left."""
    within, across, new = [], [], []
    test = spoiled(calibrated(n=4000, seed=99, split="test"), 0.3, 0.0)
    for seed in range(30):
        p = spoiled(calibrated(n=20, seed=seed), 0.3, 0.0)
        fitted = fit_vector_scaling(p)
        within.append(fitted.nll_after)
        across.append(cross_fitted(p, fit_vector_scaling).negative_log_likelihood().mean())
        new.append(fitted.apply(test).negative_log_likelihood().mean())
    assert np.mean(within) < np.mean(new) - 0.05
    assert abs(np.mean(across) - np.mean(new)) < 0.5 * abs(np.mean(within) - np.mean(new))


def test_what_is_calibrated_has_a_low_calibration_error():
    p = spoiled(calibrated(n=4000), 0.4, 0.0)
    before = classification_metrics(p, resamples=1)["ece"].value
    after = classification_metrics(cross_fitted(p, fit_temperature), resamples=1)["ece"].value
    assert before > 0.1 and after < 0.03
