from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, binom

from cnn_jax.decision.alarm import Alarm, check_promise, fit_alarm
from cnn_jax.decision.order_statistics import allowed_beyond
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import AnomalyScores, CalibrationScores, scores_type


def scored(scores, split="calibration", groups=None, anomalous=None, kind=None):
    scores = np.asarray(scores, np.float64)
    return (kind or scores_type(split))(
        split,
        np.array([f"{split}/{i}" for i in range(len(scores))], np.str_),
        scores,
        anomalous,
        groups,
    )


def normal(scores, split="test", **options):
    return scored(scores, split, anomalous=np.zeros(len(scores), bool), **options)


def drawn(seed, n=200):
    return np.random.default_rng(seed).uniform(size=n)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_k_is_the_smallest_that_keeps_the_promise(n, rate, confidence):
    doubts = binom.sf(np.arange(n), n, 1 - rate)  # of k = 1, 2, .. n
    assume((np.abs(doubts - (1 - confidence)) > 1e-9).all())  # not decided by a rounding
    fine = np.flatnonzero(doubts <= 1 - confidence) + 1
    calibration = scored(drawn(0, n))
    if not len(fine):
        with pytest.raises(EvaluationError, match="are needed; give more"):
            fit_alarm(calibration, false_alarm=rate, confidence=confidence)
        return
    alarm = fit_alarm(calibration, false_alarm=rate, confidence=confidence)
    assert (alarm.n, alarm.k) == (n, min(fine))
    assert alarm.k == n - allowed_beyond(n, rate, confidence)
    assert alarm.threshold == np.sort(calibration.scores)[alarm.k - 1]
    assert alarm.alarms(calibration).sum() == n - alarm.k


def test_fifty_nine_are_needed_for_5_in_95():
    alarm = fit_alarm(scored(drawn(0, 59)))
    assert (alarm.n, alarm.k, alarm.threshold) == (59, 59, drawn(0, 59).max())
    assert (alarm.false_alarm, alarm.confidence) == (0.05, 0.95)
    with pytest.raises(EvaluationError, match=r"58 independent .* 59 are needed"):
        fit_alarm(scored(drawn(0, 58)))
    # One group of two leaves 58 of 59 images.
    groups = np.maximum(np.arange(59), 1).astype(str)
    with pytest.raises(EvaluationError, match=r"58 independent .* 59 are needed"):
        fit_alarm(scored(drawn(0, 59), groups=groups))


@pytest.mark.parametrize("n", [100, 200])
def test_the_promise_holds_in_95_of_100_calibrations(n):
    """Uniform scores: the true rate of false alarms of each threshold is 1 - threshold."""
    scores = np.random.default_rng(n).uniform(size=(2000, n))
    alarms = [fit_alarm(scored(row)) for row in scores]
    held = np.mean([1 - alarm.threshold <= 0.05 for alarm in alarms])
    assert held >= 0.95
    # As often as the binomial distribution says, within three standard deviations.
    assert held == pytest.approx(binom.cdf(alarms[0].k - 1, n, 0.95), abs=0.015)


def test_the_promise_holds_with_the_fewest_images():
    """So tightly (0.9515) that 2,000 calibrations would not show it."""
    alarm = fit_alarm(scored(drawn(0, 59)))
    scores = np.random.default_rng(0).uniform(size=(100_000, 59))
    thresholds = np.sort(scores, axis=1)[:, alarm.k - 1]
    assert 0.95 <= np.mean(1 - thresholds <= 0.05) <= 0.953
    np.testing.assert_array_equal(
        [fit_alarm(scored(row)).threshold for row in scores[:50]], thresholds[:50]
    )


def test_the_promise_is_of_groups():
    """100 groups of three images that depend on each other: each one's highest is uniform."""
    generator = np.random.default_rng(0)
    highest = generator.uniform(size=(2000, 100, 1))
    scores = highest * np.concatenate(
        [np.ones((2000, 100, 1)), generator.uniform(size=(2000, 100, 2))], axis=2
    )
    scores = generator.permuted(scores, axis=2).reshape(2000, 300)
    groups = np.repeat(np.arange(100), 3).astype(str)
    alarms = [fit_alarm(scored(row, groups=groups)) for row in scores]
    assert alarms[0].of_groups and (alarms[0].n, alarms[0].fitted_on.n) == (100, 300)
    assert np.mean([1 - alarm.threshold <= 0.05 for alarm in alarms]) >= 0.95
    # Images taken for independent would break it for groups.
    broken = [fit_alarm(scored(row)).threshold for row in scores[:200]]
    assert np.mean([1 - threshold <= 0.05 for threshold in broken]) < 0.5


def test_a_score_at_the_threshold_is_no_alarm():
    alarm = fit_alarm(scored(np.ones(100)))
    assert not alarm.alarms(scored(np.ones(5), "test")).any()
    assert alarm.of(np.array([1.0, np.nextafter(1.0, 2.0)])).tolist() == [False, True]


@pytest.mark.parametrize("split", ["test", "train", "another hospital"])
def test_it_is_fitted_on_calibration_scores_by_type(split):
    assert get_type_hints(fit_alarm)["scores"] is CalibrationScores
    with pytest.raises(EvaluationError, match="an alarm is fitted on CalibrationScores"):
        fit_alarm(scored(drawn(0), split))
    with pytest.raises(EvaluationError, match="an alarm is fitted on CalibrationScores"):
        fit_alarm(scored(drawn(0), "calibration", kind=AnomalyScores))  # a name makes no type
    fit_alarm(scored(drawn(0), "validation"))
    if split in ("test", "train"):
        with pytest.raises(EvaluationError, match="cannot serve for calibration"):
            scored(drawn(0), split, kind=CalibrationScores)
    else:
        fit_alarm(scored(drawn(0), split, kind=CalibrationScores))


def test_it_is_fitted_on_normal_images_only():
    truth = np.arange(200) < 3
    mixed = scored(drawn(0), anomalous=truth)
    with pytest.raises(EvaluationError, match=r"3 of 200 images .* scores\.normal\(\)"):
        fit_alarm(mixed)
    assert fit_alarm(mixed.normal()) == fit_alarm(scored(drawn(0)[3:]))
    with pytest.raises(EvaluationError, match="no images in 'calibration'"):
        fit_alarm(scored([]))


@pytest.mark.parametrize("options", [{"false_alarm": 5}, {"confidence": 1.0}])
def test_bad_wishes_are_refused(options):
    with pytest.raises(EvaluationError, match="of a promise lies between 0 and 1"):
        fit_alarm(scored(drawn(0)), **options)


def test_it_is_judged_by_other_images_and_other_groups():
    groups = np.array([f"part {i // 2}" for i in range(200)])
    alarm = fit_alarm(scored(drawn(0), groups=groups))
    truth = np.arange(200) < 50
    test = scored(drawn(1) + truth, "test", groups=np.char.add(groups, " b"), anomalous=truth)
    figures = alarm.figures(test)
    assert figures["detection_rate"].value == (test.scores[:50] > alarm.threshold).mean()
    assert figures["false_alarm_rate"].n == 150 and figures["auroc"].value > 0.9
    shared = replace(test, groups=np.where(np.arange(200) < 2, groups, test.groups))
    renamed = AnomalyScores("test", alarm_ids(200), test.scores, truth, test.groups)
    for judge in (alarm.figures, lambda scores: check_promise(alarm, scores)):
        with pytest.raises(EvaluationError, match=r"the alarm .* shares 1 groups .* 'part 0'"):
            judge(shared)
        with pytest.raises(EvaluationError, match=r"200 of whose 200 examples are, by their ids"):
            judge(renamed)


def alarm_ids(n):
    return np.array([f"calibration/{i}" for i in range(n)])


def test_the_promise_is_withdrawn_where_normal_images_are_not_exchangeable():
    alarm = fit_alarm(scored(drawn(0)))
    same = check_promise(alarm, normal(drawn(1)))
    assert same.kept and same.text.startswith("Nothing speaks against the promise of at most 5 %")
    assert same.n == 200 and same.alarms == (drawn(1) > alarm.threshold).sum()
    other = check_promise(alarm, normal(drawn(1) + 0.2, "site B"))
    assert not other.kept and other.p_value < 1e-9 and other.chance < 1e-6
    assert other.text == (
        f"The promise of at most 5 % false alarms is withdrawn: {other.alarms} of 200 normal "
        f"images of 'site B' raise one (p = {other.p_value:.2g}). It holds for images that "
        f"are exchangeable with 'calibration'; if these were, so many would be seen with "
        f"probability {other.chance:.2g}."
    )
    none = check_promise(alarm, normal(drawn(1) - 1))
    assert none.kept and (none.alarms, none.p_value, none.chance) == (0, 1, 1)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 150), st.integers(0, 150))
def test_its_probabilities_are_scipys(m, a):
    a = min(a, m)
    alarm = fit_alarm(scored(drawn(0)))
    found = check_promise(alarm, normal(np.where(np.arange(m) < a, 2.0, 0.0)))
    assert (found.alarms, found.n) == (a, m)
    assert found.p_value == pytest.approx(binom.sf(a - 1, m, 0.05), abs=1e-12)
    b = alarm.n - alarm.k
    assert found.chance == pytest.approx(betabinom.sf(a - 1, m, b + 1, alarm.n - b), abs=1e-9)
    assert found.kept == (binom.sf(a - 1, m, 0.05) > 0.05)


def test_it_is_withdrawn_in_vain_as_seldom_as_its_chance_says():
    """Both parts of one source; the number of alarms is beta-binomial over calibrations."""
    generator = np.random.default_rng(0)
    n, m, draws = 100, 150, 20_000
    alarm = fit_alarm(scored(generator.uniform(size=n)))
    thresholds = generator.beta(alarm.k, n - alarm.k + 1, size=draws)
    alarms = generator.binomial(m, 1 - thresholds)
    b = n - alarm.k
    for a in (1, 3, 6, 10):
        expected = betabinom.sf(a - 1, m, b + 1, n - b)
        assert (alarms >= a).mean() == pytest.approx(expected, abs=0.012)
    first = next(a for a in range(m) if binom.sf(a - 1, m, 0.05) <= 0.05)
    assert (alarms >= first).mean() < 0.05
    scores = np.where(np.arange(m) < first, 2.0, 0.0)
    assert not check_promise(alarm, normal(scores)).kept
    assert check_promise(alarm, normal(np.roll(scores, 3) * (np.arange(m) > 3))).kept


def test_groups_are_counted_once_in_the_check():
    groups = (np.arange(200) // 2).astype(str)
    alarm = fit_alarm(scored(drawn(0), groups=groups))
    scores = np.zeros(200)
    scores[:20] = 2.0
    found = check_promise(alarm, normal(scores, groups=np.char.add(groups, "b")))
    assert (found.alarms, found.n) == (10, 100)
    assert "10 of 100 groups of normal images of 'test' raise one" in found.text
    single = fit_alarm(scored(drawn(0)))
    with pytest.raises(EvaluationError, match="the promise is of single images, and groups"):
        check_promise(single, normal(scores, groups=groups))


def test_only_normal_images_are_looked_at():
    alarm = fit_alarm(scored(drawn(0)))
    truth = np.arange(60) < 30
    found = check_promise(alarm, scored(2.0 * truth, "test", anomalous=truth))
    assert (found.alarms, found.n) == (0, 30)
    for scores, message in [
        (scored(drawn(1), "test"), "not known which images of 'test' are anomalous"),
        (scored(drawn(1), "test", anomalous=np.ones(200, bool)), "no normal images in 'test'"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            check_promise(alarm, scores)
    with pytest.raises(EvaluationError, match="significance lies between 0 and 1"):
        check_promise(alarm, normal(drawn(1)), significance=5)


def test_an_alarm_compares_by_its_values():
    assert fit_alarm(scored(drawn(0))) == fit_alarm(scored(drawn(0)))
    assert isinstance(fit_alarm(scored(drawn(0))), Alarm)
