import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_score, recall_score

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import decision_curve, operating_figures

# 100 sick, 90 of them flagged; 900 healthy, 180 of them flagged.
ACTUAL = np.arange(1000) < 100
FLAGGED = (np.arange(1000) < 90) | ((np.arange(1000) >= 100) & (np.arange(1000) < 280))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_shares_are_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    actual = generator.random(60) < 0.4
    flagged = np.where(generator.random(60) < 0.7, actual, ~actual)
    if len({*actual.tolist()}) < 2 or len({*flagged.tolist()}) < 2:
        return
    found = operating_figures(flagged, actual)
    assert found.sensitivity.value == pytest.approx(recall_score(actual, flagged))
    assert found.specificity.value == pytest.approx(recall_score(~actual, ~flagged))
    assert found.ppv.value == pytest.approx(precision_score(actual, flagged))
    assert found.npv.value == pytest.approx(precision_score(~actual, ~flagged))
    assert found.accuracy.value == pytest.approx(accuracy_score(actual, flagged))
    # Bayes' rule at the prevalence of the examples gives their own predictive values.
    same = operating_figures(flagged, actual, prevalence=float(actual.mean()))
    for name in ("ppv", "npv", "accuracy"):
        assert getattr(same, name).value == pytest.approx(getattr(found, name).value)
        low, high = getattr(same, name).low, getattr(same, name).high
        assert low <= getattr(found, name).value <= high and high - low > 0.05


def test_worked_example():
    """A 1 % prevalence: of 10,000, 90 of 100 sick and 1,980 of 9,900 healthy are flagged."""
    found = operating_figures(FLAGGED, ACTUAL, prevalence=0.01)
    assert found.counts == (90, 180, 10, 720)
    assert found.sensitivity.value == 0.9 and found.specificity.value == 0.8
    assert found.ppv.value == pytest.approx(90 / (90 + 1980))
    assert found.npv.value == pytest.approx(7920 / (7920 + 10))
    assert found.accuracy.value == pytest.approx((90 + 7920) / 10_000)
    assert operating_figures(FLAGGED, ACTUAL).ppv.value == pytest.approx(90 / 270)


def test_missing_more_never_looks_better():
    """Each sick example that is no longer flagged lowers what it should."""
    before = operating_figures(FLAGGED, ACTUAL)
    for missed in (10, 50, 90):
        flagged = FLAGGED & ~(np.arange(1000) < missed)
        found = operating_figures(flagged, ACTUAL)
        for name in ("sensitivity", "ppv", "npv", "accuracy"):
            assert getattr(found, name).value < getattr(before, name).value
        before = found
    nothing = operating_figures(np.zeros(1000, bool), ACTUAL)
    assert nothing.sensitivity.value == 0 and 0 < nothing.sensitivity.high < 0.05
    assert np.isnan(nothing.ppv.value) and "nothing decided so" in nothing.ppv.method
    assert nothing.accuracy.value == nothing.npv.value == 0.9  # the all-negative baseline


def test_intervals_at_a_prevalence_hold_as_often_as_they_say():
    generator = np.random.default_rng(0)
    actual = np.arange(120) < 40
    truth = 0.9 * 0.1 / (0.9 * 0.1 + 0.15 * 0.9)
    held = 0
    for _ in range(400):
        flagged = generator.random(120) < np.where(actual, 0.9, 0.15)
        ppv = operating_figures(flagged, actual, prevalence=0.1).ppv
        held += ppv.low <= truth <= ppv.high
    assert held >= 380


def test_groups_are_resampled_whole():
    groups = np.arange(1000) // 10  # all ten of a group are decided alike
    alone, grouped = (operating_figures(FLAGGED, ACTUAL, g) for g in (None, groups))
    assert grouped.sensitivity.value == alone.sensitivity.value
    assert grouped.sensitivity.unit == "group"
    for name in ("sensitivity", "specificity", "ppv"):
        wide, narrow = getattr(grouped, name), getattr(alone, name)
        assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_net_benefit_is_the_formula():
    generator = np.random.default_rng(0)
    actual = generator.random(300) < 0.3
    p = np.where(actual, generator.beta(4, 2, 300), generator.beta(2, 4, 300))
    curve = decision_curve(p, actual, thresholds=[0.001, 0.2, 0.5, 0.9], resamples=200)
    for t, value in zip(curve.thresholds, curve.model, strict=True):
        tp, fp = (actual & (p >= t)).sum(), (~actual & (p >= t)).sum()
        assert value == pytest.approx(tp / 300 - fp / 300 * t / (1 - t))
    assert curve.model[0] == pytest.approx(curve.treat_all[0])
    assert (curve.low < curve.model)[1:3].all() and (curve.model < curve.high)[1:3].all()
    rare = decision_curve(p, actual, thresholds=[0.2], prevalence=0.05, resamples=2)
    sens, alarm = (p[actual] >= 0.2).mean(), (p[~actual] >= 0.2).mean()
    assert rare.model[0] == pytest.approx(0.05 * sens - 0.95 * alarm * 0.25)
    assert rare.treat_all[0] == pytest.approx(0.05 - 0.95 * 0.25)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (((FLAGGED, ACTUAL[:9]), {}), "two rows of equal length"),
        (((FLAGGED, np.ones(1000, bool)), {}), "no negative example"),
        (((FLAGGED, np.zeros(1000, bool)), {}), "no positive example"),
        (((np.linspace(0, 1, 1000), ACTUAL), {}), "are yes or no"),
        (((np.where(FLAGGED, np.nan, 0), ACTUAL), {}), "are yes or no"),
        (((FLAGGED, ACTUAL), {"prevalence": 1.0}), "prevalence lies between 0 and 1"),
        (((FLAGGED, ACTUAL), {"level": 95}), "level must be between"),
    ],
)
def test_bad_decisions_are_refused(arguments, says):
    with pytest.raises(EvaluationError, match=says):
        operating_figures(*arguments[0], **arguments[1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probability": np.full(1000, 1.2)}, "probability in 0..1"),
        ({"thresholds": [0.0, 0.5]}, "strictly between 0 and 1"),
        ({"thresholds": []}, "strictly between 0 and 1"),
        ({"prevalence": 0.0}, "prevalence lies between"),
        ({"actual": np.ones(1000, bool)}, "both kinds"),
    ],
)
def test_bad_curves_are_refused(changes, says):
    given = {"probability": np.linspace(0, 1, 1000), "actual": ACTUAL, **changes}
    with pytest.raises(EvaluationError, match=says):
        decision_curve(given.pop("probability"), given.pop("actual"), **given)
