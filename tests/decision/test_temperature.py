from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from cnn_jax.decision.temperature import HIGHEST, _cautious_nll, fit_temperature
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import classification_metrics
from cnn_jax.evaluation.predictions import Predictions


def calibrated(kind, n=4000, k=4, seed=0):
    """Predictions whose probabilities are those the targets were drawn with."""
    generator = np.random.default_rng(seed)
    logits = (1.5 * generator.normal(size=(n, k))).astype(np.float32)
    if kind == "multilabel":
        targets = (generator.random((n, k)) < expit(logits)).astype(np.float32)
    elif kind == "soft":
        targets = softmax(logits, axis=1)
    else:
        cumulative = softmax(logits.astype(np.float64), axis=1).cumsum(axis=1)
        targets = (cumulative > generator.random((n, 1))).argmax(axis=1).astype(np.int32)
    ids = np.arange(n).astype(str)
    return Predictions("validation", ids, targets, logits, tuple("abcdefgh"[:k]), kind)


@pytest.mark.parametrize("kind", ["class", "multilabel", "soft"])
@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_finds_the_factor_that_spoiled_the_calibration(kind, factor):
    p = calibrated(kind)
    spoiled = replace(p, logits=(p.logits * np.float32(factor)))
    fitted = fit_temperature(spoiled)
    assert fitted.value == pytest.approx(factor, rel=1e-5 if kind == "soft" else 0.06)
    nll = spoiled.negative_log_likelihood
    assert fitted.nll_after == nll(fitted.value).mean() <= fitted.nll_before == nll().mean()
    for near in (0.99 * fitted.value, 1.01 * fitted.value):
        assert nll(near).mean() > fitted.nll_after
    assert (fitted.fitted_on, fitted.n, fitted.at_bound) == ("validation", 4000, False)


def test_changes_no_class_but_the_calibration():
    p = calibrated("class", n=800)
    p = replace(p, logits=4 * p.logits)
    before = classification_metrics(p, resamples=10)
    after = classification_metrics(p, temperature=fit_temperature(p).value, resamples=10)
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert after[name] == before[name]
    for name in ("nll", "ece", "brier"):
        assert after[name].value < before[name].value


def tiny(logits, targets):
    targets = np.array(targets, np.int32)
    ids = np.arange(len(targets)).astype(str)
    return Predictions("validation", ids, targets, np.array(logits, np.float32), ("a", "b"))


def test_separated_data_do_not_promise_that_no_error_will_be_made():
    """n right answers in n give 1 - 1 / (n + 2), by hand: z / T = log(n + 1)."""
    for n in (2, 180):
        logits = [[3, 0], [0, 3]] * (n // 2)
        p = tiny(logits, [0, 1] * (n // 2))
        fitted = fit_temperature(p)
        assert not fitted.at_bound
        assert p.probabilities(fitted.value).max(axis=1) == pytest.approx((n + 1) / (n + 2))


def test_the_doubt_is_that_of_each_label():
    """Against the sum written out."""
    p = calibrated("multilabel", n=30)
    t = 1.7
    z = p.logits.astype(np.float64) / t
    target = p.targets * (1 - 2 / 32) + 1 / 32
    expected = -(target * np.log(expit(z)) + (1 - target) * np.log(expit(-z))).mean()
    assert _cautious_nll(p, t) == pytest.approx(expected)
    p = calibrated("class", n=30)
    q = np.full((30, 4), 1 / 32 / 3)
    q[np.arange(30), p.targets] = 1 - 1 / 32
    expected = -(q * np.log(softmax(p.logits.astype(np.float64) / t, axis=1))).sum(axis=1).mean()
    assert _cautious_nll(p, t) == pytest.approx(expected)


def test_hopeless_data_give_the_upper_end():
    wrong = fit_temperature(tiny([[1, 0], [0, 1]], [1, 0]))
    assert (wrong.value, wrong.at_bound) == (HIGHEST, True)


def test_where_no_temperature_is_better_it_is_1():
    fitted = fit_temperature(tiny([[0, 0], [0, 0]], [0, 1]))
    assert (fitted.value, fitted.at_bound) == (1.0, False)


def test_never_fitted_on_test_nor_on_nothing():
    p = calibrated("class", n=20)
    with pytest.raises(EvaluationError, match="fit it on validation"):
        fit_temperature(replace(p, split="test"))
    with pytest.raises(EvaluationError, match="no examples"):
        fit_temperature(tiny(np.zeros((0, 2)), []))
