import functools
from dataclasses import replace

import numpy as np
import pytest
from calibrated import calibrated as calibrated_of

from cnn_jax.decision.temperature import fit_temperature
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import classification_metrics
from cnn_jax.evaluation.predictions import CalibrationPredictions

calibrated = functools.partial(calibrated_of, k=4)


@pytest.mark.parametrize("kind", ["class", "multilabel", "soft"])
@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_finds_the_factor_that_spoiled_the_calibration(kind, factor):
    p = calibrated(kind)
    spoiled = replace(p, logits=(p.logits * np.float32(factor)))
    fitted = fit_temperature(spoiled)
    assert fitted.value == pytest.approx(factor, rel=0.01 if kind == "soft" else 0.06)
    nll = spoiled.negative_log_likelihood
    assert fitted.nll_after == nll(fitted.value).mean() <= fitted.nll_before == nll().mean()
    for near in (0.95 * fitted.value, 1.05 * fitted.value):
        assert nll(near).mean() > fitted.nll_after
    assert (fitted.fitted_on, fitted.n) == ("validation", 4000)


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
    return CalibrationPredictions(
        "validation", ids, targets, np.array(logits, np.float32), ("a", "b")
    )


@pytest.mark.parametrize("n", [2, 20, 2000])
def test_it_is_the_most_probable_under_the_prior(n):
    """Separated data, where the plain NLL would have none: against a grid over the sum."""
    p = tiny([[3, 0], [0, 3]] * (n // 2), [0, 1] * (n // 2))
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 200_001))
    total = n * np.log1p(np.exp(-3 / grid)) + np.log(grid) ** 2 / (2 * 0.25)
    assert fit_temperature(p).value == pytest.approx(grid[total.argmin()], rel=1e-4)


def test_few_examples_say_little():
    """Right or wrong, two examples hardly move it; two hundred do."""
    right, wrong = [0, 1], [1, 0]
    for targets in (right, wrong):
        few = fit_temperature(tiny([[1, 0], [0, 1]], targets)).value
        many = fit_temperature(tiny([[1, 0], [0, 1]] * 100, targets * 100)).value
        assert 2 / 3 < few < 3 / 2 and abs(np.log(many)) > 3 * abs(np.log(few))
        assert (few < 1) == (targets == right)


def test_where_no_temperature_is_better_it_is_1():
    fitted = fit_temperature(tiny([[0, 0], [0, 0]], [0, 1]))
    assert fitted.value == 1.0


def test_never_fitted_on_nothing():
    with pytest.raises(EvaluationError, match="no examples"):
        fit_temperature(tiny(np.zeros((0, 2)), []))
