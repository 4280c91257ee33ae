from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from cnn_jax.decision import fit_prediction_sets
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import CalibrationPredictions, Predictions


def drawn(n, seed, split="validation", k=4, groups=None):
    """A model that is overconfident: coverage must not need calibrated probabilities."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k))
    cumulative = softmax(logits, axis=1).cumsum(axis=1)
    targets = (cumulative > generator.random((n, 1))).argmax(axis=1).astype(np.int32)
    made = CalibrationPredictions if split == "validation" else Predictions
    ids = np.array([f"{split}/{seed}/{i}" for i in range(n)])
    logits = (3 * logits).astype(np.float32)
    return made(split, ids, targets, logits, tuple("abcd"[:k]), groups=groups)


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_coverage_is_what_was_promised_over_calibrations(coverage):
    n, test = 60, drawn(2000, 10**6, "test")
    covered = []
    for seed in range(300):
        sets = fit_prediction_sets(drawn(n, seed), coverage=coverage).sets(test)
        covered.append(sets[np.arange(2000), test.targets].mean())
    # Between the promise and 1 / (n + 1) more; the mean of 300 varies by 0.003 or less.
    assert coverage - 0.008 < np.mean(covered) < coverage + 1 / (n + 1) + 0.008
    assert np.min(covered) < coverage  # it holds on average, not for each calibration


def test_the_line_is_the_order_statistic():
    p = drawn(19, 0)
    sets = fit_prediction_sets(p, coverage=0.9)  # the 18th of 19
    strange = np.sort(1 - p.probabilities()[np.arange(19), p.targets])
    assert sets.largest == strange[17]
    assert fit_prediction_sets(p, coverage=1e-12).largest == strange[0]
    with pytest.raises(EvaluationError, match=r"19 independent .* of 0.951 .* 20 are needed"):
        fit_prediction_sets(p, coverage=0.951)


def test_figures_say_what_is_not_promised():
    sets = fit_prediction_sets(drawn(500, 0), coverage=0.9)
    test = drawn(3000, 1, "test")
    found = sets.figures(test)
    held = sets.sets(test)
    assert found.coverage.value == pytest.approx(held[np.arange(3000), test.targets].mean())
    assert found.coverage.low < 0.9 < found.coverage.high + 0.03
    assert found.size.value == pytest.approx(held.sum(axis=1).mean())
    single = held.sum(axis=1) == 1
    assert found.single.value == pytest.approx(single.mean())
    right = held[np.arange(3000), test.targets][single].mean()
    assert found.single_right.value == pytest.approx(right)
    for k, name in enumerate("abcd"):
        of_class = test.targets == k
        expected = held[np.arange(3000), test.targets][of_class].mean()
        assert found.by_class[name].value == pytest.approx(expected)


def test_groups_are_covered_whole():
    """Ten images of a patient that are alike: the promise is for patients."""
    p = drawn(60, 0)
    alike = CalibrationPredictions(
        "validation",
        np.arange(600).astype(str),
        np.repeat(p.targets, 10),
        np.repeat(p.logits, 10, axis=0),
        p.classes,
        groups=np.repeat(p.ids, 10),
    )
    alone = fit_prediction_sets(p, coverage=0.9)
    assert alone.largest == fit_prediction_sets(alike, coverage=0.9).largest
    many = fit_prediction_sets(
        replace(drawn(600, 0), groups=(np.arange(600) // 10).astype(str)), coverage=0.9
    )
    assert many.largest > fit_prediction_sets(drawn(600, 0), coverage=0.9).largest


def test_they_are_judged_by_other_examples():
    p = drawn(50, 0)
    with pytest.raises(EvaluationError, match="50 of whose 50 examples are, by their ids, among"):
        fit_prediction_sets(p).figures(p)
    with pytest.raises(EvaluationError, match="between 0 and 1, not at 95"):
        fit_prediction_sets(p, coverage=95)
    many = replace(p, kind="multilabel", targets=np.eye(4, dtype=np.float32)[p.targets])
    with pytest.raises(EvaluationError, match="prediction sets need one class each"):
        fit_prediction_sets(many)
