import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import roc_auc_score

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.intervals import (
    Units,
    bootstrap,
    proportion,
    resampling_weights,
    tango,
    widened,
    wilson,
)
from cnn_jax.evaluation.weighted import Ranking, mean_statistic


@given(n=st.integers(1, 500), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n, share, level):
    s = round(share * n)
    interval = binomtest(s, n).proportion_ci(level, method="wilson")
    low, high = wilson(s, n, level)
    assert low == pytest.approx(interval.low, abs=1e-12)
    assert high == pytest.approx(interval.high, abs=1e-12)


@given(n=st.integers(1, 300), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95]))
def test_a_proportion_has_scipys_interval(n, share, level):
    s = round(share * n)
    low, high, method = proportion(s, n, level)
    few = min(s, n - s) < 10
    assert method == ("Clopper-Pearson" if few else "Wilson")
    theirs = binomtest(s, n).proportion_ci(level, method="exact" if few else "wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_of_no_trials_says_nothing():
    low, high = wilson(np.array([0, 1]), np.array([0, 1]))
    assert (low[0], high[0]) == (0, 1)
    assert low[1] > 0.2


def test_wilson_covers():
    p, n = 0.9, 60
    s = np.arange(n + 1)
    low, high = wilson(s, n)
    coverage = binom.pmf(s, n, p)[(low <= p) & (p <= high)].sum()
    assert 0.93 < coverage < 0.97


def test_bootstrap_of_a_mean_covers_and_has_the_normal_width():
    generator = np.random.default_rng(0)
    covered, n = 0, 80
    for seed in range(400):
        values = generator.normal(size=n)
        e = bootstrap({"mean": mean_statistic(values)}, n, resamples=400, seed=seed)["mean"]
        covered += e.low <= 0 <= e.high
    assert 0.91 < covered / 400 < 0.98
    assert e.high - e.low == pytest.approx(2 * 1.96 * values.std() / n**0.5, rel=0.15)


def test_group_bootstrap_covers_where_that_of_examples_does_not():
    generator = np.random.default_rng(1)
    groups = np.repeat(np.arange(40), 5).astype(str)
    by_group = by_example = 0
    for seed in range(200):
        values = np.repeat(generator.normal(size=40), 5)
        statistics = {"mean": mean_statistic(values)}
        grouped = bootstrap(statistics, 200, groups, resamples=300, seed=seed)["mean"]
        naive = bootstrap(statistics, 200, resamples=300, seed=seed)["mean"]
        by_group += grouped.low <= 0 <= grouped.high
        by_example += naive.low <= 0 <= naive.high
    assert 0.89 < by_group / 200 < 0.985
    assert by_example / 200 < 0.75


def test_copies_as_groups_change_nothing():
    values = np.random.default_rng(2).normal(size=30)
    once = bootstrap({"m": mean_statistic(values)}, 30)["m"]
    groups = np.tile(np.array([f"g{i:02d}" for i in range(30)]), 2)
    twice = bootstrap({"m": mean_statistic(np.tile(values, 2))}, 60, groups)["m"]
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-12)
    assert (twice.unit, twice.n, once.unit) == ("group", 60, "example")


def test_weights_are_draws_with_replacement_whatever_the_chunk(monkeypatch):
    units = Units.of(7, np.array(list("aabbbcd")))
    whole = np.concatenate(list(resampling_weights(units, 50, seed=3)), axis=1)
    monkeypatch.setattr("cnn_jax.evaluation.intervals._WEIGHTS_AT_ONCE", 21)
    chunks = list(resampling_weights(units, 50, seed=3))
    assert len(chunks) == 17
    np.testing.assert_array_equal(np.concatenate(chunks, axis=1), whole)
    first_of_each_group = whole[[0, 2, 5, 6]]
    np.testing.assert_array_equal(first_of_each_group.sum(axis=0), 4)
    np.testing.assert_array_equal(whole, first_of_each_group[units.index])


def test_resampled_aurocs_are_those_of_a_naive_loop_over_groups():
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 5)
    positive = generator.random(500) < 0.3
    scores = (generator.normal(size=500) + positive).round(1)  # with ties
    units = Units.of(500, groups)
    weights = np.concatenate(list(resampling_weights(units, 200, seed=1)), axis=1)
    found = Ranking.of(scores, positive).auroc(weights)
    for column in range(200):
        drawn = np.repeat(np.arange(500), weights[:, column].astype(int))
        assert found[column] == pytest.approx(roc_auc_score(positive[drawn], scores[drawn]))


def test_basic_interval_reflects_the_percentile_one():
    statistics = {"m": mean_statistic(np.random.default_rng(4).exponential(size=40))}
    percentile, basic = (bootstrap(statistics, 40, basic=b)["m"] for b in ((), ("m",)))
    assert basic.low == pytest.approx(2 * percentile.value - percentile.high)
    assert basic.high == pytest.approx(2 * percentile.value - percentile.low)
    assert basic.method == "bootstrap (basic)"


def test_undefined_statistics_and_single_units_say_so():
    def undefined(weights):
        return np.full(weights.shape[1], np.nan)

    def needs_first(weights):
        return np.where(weights[0] > 0, weights[0], np.nan)

    figures = bootstrap({"never": undefined, "sometimes": needs_first}, 5)
    assert figures["never"].method == "undefined"
    assert "undefined in 3" in figures["sometimes"].method  # (4/5)^5 = 0.33 of 1000
    assert figures["sometimes"].low == 1 < figures["sometimes"].high
    alone = bootstrap({"m": mean_statistic(np.arange(3.0))}, 3, np.array(["a"] * 3))["m"]
    assert np.isnan(alone.low)
    assert alone.method == "no interval: a single group"


@pytest.mark.parametrize(
    ("n", "changes", "message"),
    [
        (0, {}, "no examples"),
        (3, {"groups": np.array(["a"])}, "1 groups"),
        (3, {"level": 95}, "level must be"),
        (3, {"resamples": 0}, "resamples"),
    ],
)
def test_bad_input_is_refused(n, changes, message):
    with pytest.raises(EvaluationError, match=message):
        bootstrap({"m": mean_statistic(np.zeros(n))}, n, **changes)


def most_likely_q(only_a, only_b, n, d):
    """The share that only B has, most likely under a difference of d; by search."""
    grid = np.linspace(max(0, -d), (1 - d) / 2, 200_001)[1:-1]
    rest = np.clip(1 - 2 * grid - d, 1e-300, None)
    likelihood = (
        scipy.special.xlogy(only_a, grid + d)
        + scipy.special.xlogy(only_b, grid)
        + scipy.special.xlogy(n - only_a - only_b, rest)
    )
    return grid[likelihood.argmax()]


@pytest.mark.parametrize(
    ("only_a", "only_b", "n"), [(12, 2, 50), (1, 0, 44), (3, 9, 40), (5, 5, 11)]
)
def test_tango_ends_where_the_score_test_is_just_significant(only_a, only_b, n):
    low, high = tango(only_a, only_b, n)
    assert low < (only_a - only_b) / n < high
    for end in (low, high):
        q = most_likely_q(only_a, only_b, n, end)
        score = (only_a - only_b - n * end) / np.sqrt(n * (2 * q + end * (1 - end)))
        assert abs(score) == pytest.approx(1.959964, abs=2e-3)
    assert tango(only_b, only_a, n) == pytest.approx((-high, -low))


def test_tango_without_differences_is_wilsons_width():
    z2 = 1.959963984540054**2
    low, high = tango(0, 0, 50)
    assert (low, high) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))


def test_accelerated_interval_is_scipys():
    """Of the same resamples of a skewed sample, by SciPy's own formula."""
    draw = np.random.default_rng(0)
    values = draw.exponential(size=40)
    statistic = mean_statistic(values)
    ours = bootstrap({"mean": statistic}, 40, accelerated=("mean",), resamples=3000)["mean"]
    weights = np.concatenate(list(resampling_weights(Units.of(40), 3000, 0)), axis=1)
    made = SimpleNamespace(bootstrap_distribution=statistic(weights))
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=0,
        bootstrap_result=made,
        method="BCa",
        confidence_level=1 - 2 * widened(0.95, 40)[0],
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), rel=1e-3)
    assert ours.method == "bootstrap (BCa)"
    percentile = bootstrap({"mean": statistic}, 40, resamples=3000)["mean"]
    assert ours.low > percentile.low and ours.high > percentile.high  # it leans to the long tail


def test_accelerated_interval_of_groups_leaves_groups_out():
    draw = np.random.default_rng(1)
    of_group = draw.exponential(size=30)
    groups = np.repeat([f"{i:02d}" for i in range(30)], 3)
    single = bootstrap(
        {"mean": mean_statistic(of_group)}, 30, accelerated=("mean",), resamples=2000
    )["mean"]
    threefold = bootstrap(
        {"mean": mean_statistic(np.repeat(of_group, 3))},
        90,
        groups,
        accelerated=("mean",),
        resamples=2000,
    )["mean"]
    assert (threefold.low, threefold.high) == pytest.approx((single.low, single.high))


def test_no_interval_rather_than_one_without_width():
    for how in ({}, {"basic": ("right",)}, {"accelerated": ("right",)}):
        estimate = bootstrap({"right": mean_statistic(np.ones(20))}, 20, **how)["right"]
        assert math.isnan(estimate.low) and "no resample differs" in estimate.method


@pytest.mark.parametrize("n", [8, 30, 400])
def test_a_widened_interval_of_a_mean_is_students(n):
    """Of resamples that are normal, with the variance of a resample, the t interval."""
    low, high = (scipy.stats.norm.ppf(end) for end in widened(0.95, n))
    spread = np.sqrt((n - 1) / n)  # of a resampled mean, in standard errors
    assert (low * spread, high * spread) == pytest.approx(scipy.stats.t.interval(0.95, n - 1))
    assert [round(100 * end, 1) for end in widened(0.95, 30)] == [1.9, 98.1]
