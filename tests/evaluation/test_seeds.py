"""Figures over seeds against SciPy, published tables, and simulated experiments."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    Predictions,
    classification_metrics,
    minimum_detectable_effect,
    out_of_fold,
    over_seeds,
    over_seeds_and_test_sets,
    power,
    runs_needed,
)


def run(right, groups=None, start=0):
    """A run on a binary set that is right where `right` says so."""
    n = len(right)
    return Predictions(
        split="test",
        ids=np.array([f"{i:05d}" for i in range(start, start + n)]),
        targets=np.zeros(n, np.int32),
        logits=np.where(np.asarray(right)[:, None], [1.0, 0.0], [0.0, 1.0]).astype(np.float32),
        classes=("a", "b"),
        groups=groups,
    )


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_over_seeds_is_the_t_interval(values, level):
    estimate = over_seeds(values, 100, level=level)
    if min(values) == max(values):
        assert math.isnan(estimate.low) and estimate.method == "no interval: all seeds agree"
        return
    k, error = len(values), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    wanted = scipy.stats.t.interval(level, k - 1, np.mean(values), max(error, 1e-300))
    assert (estimate.low, estimate.high) == pytest.approx(tuple(wanted), rel=1e-6, abs=1e-9)
    assert (estimate.covers, estimate.unit, estimate.n_seeds) == ("seed", "seed", len(values))


def test_one_seed_has_no_interval():
    estimate = over_seeds([0.9], 100, percent=True)
    assert math.isnan(estimate.low) and str(estimate) == "90.00 % [no interval], n = 100"


@pytest.mark.parametrize(
    ("effect", "runs"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17), (1.5, 9), (2.0, 6)]
)
def test_runs_needed_are_those_of_the_published_tables(effect, runs):
    # Two-sided t test, 5 %, power 0.8: Cohen (1988), table 2.4.1, and G*Power 3.1.
    assert runs_needed(effect, 1.0) == runs
    assert power(effect, 1.0, runs) >= 0.8 > power(effect, 1.0, runs - 1)
    assert minimum_detectable_effect(1.0, runs) <= effect < minimum_detectable_effect(1.0, runs - 1)


def test_power_is_how_often_the_test_finds_it():
    draw = np.random.default_rng(0)
    a, b = draw.normal(1.0, 1, (4000, 8)), draw.normal(0, 1, (4000, 8))
    found = (scipy.stats.ttest_ind(a, b, axis=1).pvalue < 0.05).mean()
    assert power(1.0, 1.0, 8) == pytest.approx(found, abs=4 * math.sqrt(0.25 / 4000))
    assert power(0.0, 1.0, 8) == pytest.approx(0.05)


def test_what_no_number_of_runs_shows():
    assert runs_needed(0.0, 1.0) is None
    assert runs_needed(1e-6, 1.0) is None
    assert runs_needed(0.1, 0.0) == 2
    assert minimum_detectable_effect(0.0, 3) == 0


def crossed(draw, k, n, mean, of_seed=0.03):
    """k runs on the same n examples: easy and hard examples, better and worse seeds."""
    ease = draw.normal(0, 0.1, n)
    return [
        run(draw.random(n) < np.clip(mean + draw.normal(0, of_seed) + ease, 0, 1)) for _ in range(k)
    ]


@pytest.mark.heavy
def test_the_interval_over_both_covers_the_truth():
    draw = np.random.default_rng(0)
    covered = {"both": 0, "seed": 0}
    for trial in range(300):
        runs = crossed(draw, 4, 100, 0.7)
        accuracies = [classified_right(r) for r in runs]
        both = over_seeds_and_test_sets(runs, resamples=200, seed=trial)
        seeds = over_seeds(accuracies, 100)
        for name, estimate in (("both", both), ("seed", seeds)):
            covered[name] += estimate.low <= 0.7 <= estimate.high
    assert 0.93 <= covered["both"] / 300 <= 1
    assert both.covers == "both" and both.n_seeds == 4
    # The one over seeds alone was not made for another test set.
    assert covered["seed"] < covered["both"]


def classified_right(p):
    return float((p.predicted() == p.labels()).mean())


def test_a_difference_over_both_covers_none():
    draw = np.random.default_rng(1)
    covered = 0
    for trial in range(150):
        runs = crossed(draw, 6, 100, 0.7)
        both = over_seeds_and_test_sets(runs[:3], runs[3:], resamples=200, seed=trial)
        covered += both.low <= 0 <= both.high
    assert 0.93 <= covered / 150 <= 1
    assert "paired" in both.method


def test_runs_may_hold_their_examples_in_any_order():
    draw = np.random.default_rng(2)
    a, b = crossed(draw, 2, 50, 0.7)
    order = draw.permutation(50)
    mixed = replace(b, ids=b.ids[order], targets=b.targets[order], logits=b.logits[order])
    first, second = over_seeds_and_test_sets([a, b]), over_seeds_and_test_sets([a, mixed])
    assert (first.low, first.high) == (second.low, second.high)


def test_pooled_folds_are_the_whole_set():
    draw = np.random.default_rng(3)
    whole = run(draw.random(90) < 0.8, groups=np.array([f"p{i // 3}" for i in range(90)]))
    folds = [
        run(
            classified(whole)[start : start + 30],
            groups=whole.groups[start : start + 30],
            start=start,
        )
        for start in (60, 0, 30)
    ]
    pooled = out_of_fold(folds)
    assert pooled.split == "out-of-fold" and len(pooled) == 90
    ours, theirs = (classification_metrics(p)["accuracy"] for p in (pooled, whole))
    assert ours.value == theirs.value and ours.unit == "group"


def classified(p):
    return p.predicted() == p.labels()


def test_folds_that_overlap_or_cut_a_group_are_refused():
    a, b = run([True] * 4, start=0), run([True] * 4, start=4)
    with pytest.raises(EvaluationError, match="no folds"):
        out_of_fold([])
    with pytest.raises(EvaluationError):
        out_of_fold([a, a])
    groups = np.array(["x", "x", "y", "y"])
    with pytest.raises(EvaluationError, match="group 'x' is in folds 1 and 2"):
        out_of_fold([replace(a, groups=groups), replace(b, groups=groups)])
    with pytest.raises(EvaluationError, match="some folds have groups"):
        out_of_fold([replace(a, groups=groups), b])
    with pytest.raises(EvaluationError, match="classes"):
        out_of_fold([a, replace(b, classes=("a", "c"))])


def test_what_makes_no_sense_is_refused():
    a = run([True, False])
    with pytest.raises(EvaluationError, match="two or more runs"):
        over_seeds_and_test_sets([a])
    with pytest.raises(EvaluationError, match="two or more runs"):
        over_seeds_and_test_sets([a, a], [a])
    with pytest.raises(EvaluationError, match="no metric 'speed'"):
        over_seeds_and_test_sets([a, a], metric="speed")
    for values in ([], [math.nan], [[1.0]]):
        with pytest.raises(EvaluationError, match="finite numbers"):
            over_seeds(values, 10)
    with pytest.raises(EvaluationError, match="level"):
        over_seeds([1, 2], 10, level=1.0)
    with pytest.raises(EvaluationError, match="two or more runs"):
        power(1.0, 1.0, 1)
    with pytest.raises(EvaluationError, match="power wanted"):
        runs_needed(1.0, 1.0, wanted=1.0)
