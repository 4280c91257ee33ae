from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, softmax

from cnn_jax.decision.temperature import HIGHEST, LOWEST, fit_temperature
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


def test_separated_data_give_the_lower_end_and_hopeless_data_the_upper():
    right = fit_temperature(tiny([[1, 0], [0, 1]], [0, 1]))
    assert (right.value, right.at_bound) == (LOWEST, True)
    assert right.nll_after < 1e-8
    wrong = fit_temperature(tiny([[1, 0], [0, 1]], [1, 0]))
    assert (wrong.value, wrong.at_bound) == (HIGHEST, True)


@pytest.mark.parametrize("margin", [0.0, 1e6])
def test_where_no_temperature_is_better_it_is_1(margin):
    fitted = fit_temperature(tiny([[margin, 0], [0, margin]], [0, 1]))
    assert (fitted.value, fitted.at_bound) == (1.0, False)


def test_never_fitted_on_test_nor_on_nothing():
    p = calibrated("class", n=20)
    with pytest.raises(EvaluationError, match="fit it on validation"):
        fit_temperature(replace(p, split="test"))
    with pytest.raises(EvaluationError, match="no examples"):
        fit_temperature(tiny(np.zeros((0, 2)), []))
