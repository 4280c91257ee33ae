"""Medians of pair ratios and their intervals; times are made, not taken."""

import math
import random
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.bench.statistics import FEWEST_PAIRS, median_interval, paired_ratio
from cnn_jax.bench.timing import measure
from cnn_jax.errors import BenchmarkError


@pytest.mark.parametrize("n", range(FEWEST_PAIRS, 120))
def test_ranks_are_those_of_the_binomial_distribution(n):
    low, high = median_interval(range(1, n + 1))
    assert low + high == n + 1
    covered = 1 - 2 * scipy.stats.binom.cdf(low - 1, n, 0.5)
    covered_inside = 1 - 2 * scipy.stats.binom.cdf(low, n, 0.5)
    assert covered >= 0.95 > covered_inside


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(0).lognormal(size=25)
    expected = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert median_interval(list(values)) == pytest.approx((expected.low, expected.high))


def test_the_interval_covers_the_median_of_a_skewed_distribution():
    draw = random.Random(1)
    covered = 0
    for _ in range(2000):
        low, high = median_interval([draw.expovariate(1.0) for _ in range(10)])
        covered += low <= math.log(2) <= high
    assert 0.97 <= covered / 2000 <= 0.987  # exactly 0.9785


@given(st.lists(st.tuples(*[st.floats(1e-6, 1e3)] * 2), min_size=FEWEST_PAIRS, max_size=30))
def test_a_ratio_of_pairs(pairs):
    seconds, reference = zip(*pairs, strict=True)
    timed = paired_ratio(seconds, reference)
    assert timed.ratio == statistics.median(a / b for a, b in pairs)
    assert timed.low <= timed.ratio <= timed.high
    swapped = paired_ratio(reference, seconds)
    assert (swapped.low, swapped.high) == pytest.approx((1 / timed.high, 1 / timed.low))


def test_what_slows_both_of_a_pair_changes_nothing():
    slow = [1.0, 7.0, 1.0, 3.0, 1.0, 50.0]
    timed = paired_ratio([2 * s for s in slow], slow)
    assert (timed.ratio, timed.low, timed.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("seconds", "reference"),
    [
        *(([1.0] * 5, [1.0] * 5), ([1.0] * 7, [1.0] * 6), ([0.0] * 6, [1.0] * 6)),
        *(([1.0] * 6, [math.nan] * 6), ([math.inf] * 6, [1.0] * 6)),
    ],
)
def test_times_that_make_no_ratio_are_refused(seconds, reference):
    with pytest.raises(BenchmarkError):
        paired_ratio(seconds, reference)


class Clockwork:
    """A rival that takes `seconds` a call, more for the first ones, and writes down its calls."""

    def __init__(self, name, seconds, diary, warm_up=0.0):
        self.name, self.seconds, self.diary, self.warm_up = name, seconds, diary, warm_up

    def time(self, repeats):
        self.diary.append((self.name, repeats))
        extra, self.warm_up = self.warm_up, 0.0
        return repeats * self.seconds + extra


def test_rounds_hold_each_rival_once_in_changing_order():
    diary = []
    rivals = {name: Clockwork(name, 0.05, diary) for name in "abc"}
    measure(rivals, pairs=12)
    rounds = [tuple(name for name, _ in diary[-36:][k : k + 3]) for k in range(0, 36, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3
    again = []
    measure({name: Clockwork(name, 0.05, again) for name in "abc"}, pairs=12)
    assert again == diary


@pytest.mark.parametrize("seconds", [1e-6, 3e-4, 0.019, 0.021, 2.0])
def test_a_measurement_lasts_long_enough_and_not_much_longer(seconds):
    diary = []
    times = measure({"a": Clockwork("a", seconds, diary, warm_up=1.0)}, pairs=6)
    assert times["a"] == pytest.approx([seconds] * 6)
    repeats = diary[-1][1]
    assert repeats * seconds >= 0.02
    assert repeats == 1 or (repeats - 1) * seconds <= 0.02 * 1.2


def test_a_call_that_takes_no_time_is_refused():
    with pytest.raises(BenchmarkError, match="nothing to measure"):
        measure({"a": Clockwork("a", 1e-12, [])}, pairs=6)
