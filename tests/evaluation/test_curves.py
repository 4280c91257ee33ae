"""Curves against scikit-learn, and their bands against a loop over resamples."""

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import calibration_curve, precision_recall_curve, roc_curve
from cnn_jax.evaluation.intervals import Units, resampling_weights, widened


def examples(seed, n=60, ties=True, groups=None):
    """Scores that tell something of the truth, some of them equal."""
    generator = np.random.default_rng(seed)
    actual = generator.random(n) < 0.4
    actual[:2] = True, False
    scores = generator.normal(size=n) + actual
    scores = np.round(scores, 1) if ties else scores
    return scores, actual, None if groups is None else np.arange(n) % groups


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_points_are_scikit_learns(seed, ties):
    scores, actual, _ = examples(seed, ties=ties)
    roc = roc_curve(scores, actual, resamples=2)
    fpr, tpr, thresholds = sklearn.metrics.roc_curve(actual, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.false_positive_rate, fpr)
    np.testing.assert_allclose(roc.true_positive_rate, tpr)
    np.testing.assert_array_equal(roc.thresholds, thresholds)
    assert roc.area.value == pytest.approx(sklearn.metrics.roc_auc_score(actual, scores))
    pr = precision_recall_curve(scores, actual, resamples=2)
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(actual, scores)
    np.testing.assert_allclose(pr.precision, precision[::-1])
    np.testing.assert_allclose(pr.recall, recall[::-1])
    np.testing.assert_array_equal(pr.thresholds[1:], thresholds[::-1])
    average = sklearn.metrics.average_precision_score(actual, scores)
    assert pr.area.value == pytest.approx(average)


def naive(scores, actual, groups, level, resamples, seed, place):
    """The band by repeating each example as often as it was drawn, one resample at a time."""
    units = Units.of(len(scores), groups)
    weights = np.concatenate(list(resampling_weights(units, resamples, seed)), axis=1)
    rows, left_out = [], 0
    for times in weights.T.astype(int):
        s, a = np.repeat(scores, times), np.repeat(actual, times)
        if a.all() or not a.any():
            left_out += 1
            continue
        lines = [np.inf, *sorted(set(s.tolist()), reverse=True)]
        rows.append([place(s, a, lines, k) for k in range(101)])
    values = np.array(rows)
    low, high = np.quantile(values, widened(level, units.count), axis=0)
    alike = np.ptp(values, axis=0) == 0
    low[alike] = high[alike] = np.nan
    return low, high, left_out


def best_rate(s, a, lines, k):
    found = [(s[a] >= t).mean() for t in lines if 100 * (s[~a] >= t).sum() <= k * (~a).sum()]
    return max(found)


def first_precision(s, a, lines, k):
    for t in lines:
        hits = (s[a] >= t).sum()
        if hits and 100 * hits >= k * a.sum():
            return hits / (s >= t).sum()
    raise AssertionError


@pytest.mark.parametrize(("n", "groups"), [(40, None), (40, 10), (7, None), (300, 2)])
def test_bands_are_those_of_a_loop_over_resamples(n, groups):
    scores, actual, of = examples(n, n, groups=groups)
    if groups == 2:
        actual = of == 0  # every second resample has one kind alone
    resamples = 12 if n == 300 else 40
    options = {"level": 0.8, "resamples": resamples, "seed": 3}
    for curve, place in ((roc_curve, best_rate), (precision_recall_curve, first_precision)):
        band = curve(scores, actual, of, **options).band
        low, high, left_out = naive(scores, actual, of, 0.8, resamples, 3, place)
        if curve is roc_curve:
            low[-1] = high[-1] = 1
        np.testing.assert_allclose(band.low, low)
        np.testing.assert_allclose(band.high, high)
        assert band.left_out == left_out and band.resamples == resamples
        assert band.unit == ("example" if groups is None else "group")
    assert left_out > 0 or n > 7


def test_the_band_holds_the_curve_and_does_not_hang_on_the_size_of_chunks(monkeypatch):
    scores, actual, _ = examples(0, 400, ties=False)
    whole = roc_curve(scores, actual).band
    np.testing.assert_array_equal(whole.at, np.linspace(0, 1, 101))
    monkeypatch.setattr("cnn_jax.evaluation.intervals._WEIGHTS_AT_ONCE", 400 * 7)
    np.testing.assert_array_equal(roc_curve(scores, actual).band.low, whole.low)
    curve = precision_recall_curve(scores, actual)
    at = np.searchsorted(curve.recall, curve.band.at - 1e-12)[5:]
    inside = (curve.band.low[5:] <= curve.precision[at]) & (
        curve.precision[at] <= curve.band.high[5:]
    )
    assert inside.all()


def test_where_every_resample_is_alike_there_is_no_band():
    actual = np.arange(50) < 20
    roc = roc_curve(actual.astype(float), actual)
    assert np.isnan(roc.band.low[:-1]).all() and roc.band.low[-1] == 1
    assert roc.area.value == 1 and roc.area.low < 1
    one = roc_curve(np.arange(50.0), actual, np.zeros(50))
    assert np.isnan(one.band.low[:-1]).all() and np.isnan(one.area.low)


@pytest.mark.parametrize(
    ("scores", "actual", "message"),
    [
        (np.arange(3.0), np.ones(2, bool), "two rows of equal length"),
        (np.arange(3.0), np.ones(3, bool), "examples of both kinds"),
        (np.arange(3.0), np.zeros(3, bool), "examples of both kinds"),
        (np.array([0, np.nan, 1]), np.array([True, False, True]), "1 scores are no numbers"),
    ],
)
def test_what_has_no_curve_is_refused(scores, actual, message):
    for curve in (roc_curve, precision_recall_curve):
        with pytest.raises(EvaluationError, match=message):
            curve(scores, actual)


@pytest.mark.parametrize(("level", "resamples"), [(0, 10), (1, 10), (0.9, 0)])
def test_options_out_of_range_are_refused(level, resamples):
    scores, actual, _ = examples(0)
    with pytest.raises(EvaluationError):
        roc_curve(scores, actual, level=level, resamples=resamples)


def test_the_calibration_curve_is_scikit_learns():
    generator = np.random.default_rng(1)
    probability = generator.random(500)
    actual = generator.random(500) < probability**2
    found = calibration_curve(probability, actual, bins=8)
    share, mean = sklearn.calibration.calibration_curve(actual, probability, n_bins=8)
    np.testing.assert_allclose(found.accuracy, share)
    np.testing.assert_allclose(found.confidence, mean)
    assert found.count.sum() == 500 and (found.low <= share).all() and (share <= found.high).all()
    few = calibration_curve(np.array([0.0, 1.0]), np.array([False, True]))
    assert few.count[[0, -1]].tolist() == [1, 1] and np.isnan(few.accuracy[1:-1]).all()
    for wrong in ({"bins": 0}, {"level": 1.0}):
        with pytest.raises(EvaluationError):
            calibration_curve(probability, actual, **wrong)
    with pytest.raises(EvaluationError, match=r"in 0\.\.1"):
        calibration_curve(probability + 1, actual)
