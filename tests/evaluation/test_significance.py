"""Tests of a difference against SciPy, their own definitions and published tables."""

import itertools
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Predictions, auroc_interval, delong, holm, mcnemar, sign_flip


def classified(right, classes=("a", "b"), groups=None):
    """Predictions of class 0 that are right where `right` says so."""
    right = np.asarray(right, bool)
    logits = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0]).astype(np.float32)
    return Predictions(
        split="test",
        ids=np.array([f"{i:05d}" for i in range(len(right))]),
        targets=np.zeros(len(right), np.int32),
        logits=logits,
        classes=classes,
        groups=groups,
    )


def ranked(scores, positive, groups=None):
    """Predictions of two classes with these log odds of the second."""
    scores = np.asarray(scores, np.float32)
    return Predictions(
        split="test",
        ids=np.array([f"{i:05d}" for i in range(len(scores))]),
        targets=np.asarray(positive, np.int32),
        logits=np.stack([np.zeros_like(scores), scores], axis=1),
        classes=("healthy", "ill"),
        groups=groups,
    )


def pair(both, only_a, only_b, neither):
    a = [True] * both + [True] * only_a + [False] * only_b + [False] * neither
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return classified(a), classified(b)


@given(*(st.integers(0, 40) for _ in range(4)))
def test_mcnemar_is_the_binomial_test(both, only_a, only_b, neither):
    if both + only_a + only_b + neither == 0:
        return
    result = mcnemar(*pair(both, only_a, only_b, neither))
    differ = only_a + only_b
    wanted = scipy.stats.binomtest(only_a, differ, 0.5).pvalue if differ else 1.0
    assert result.p_value == pytest.approx(wanted, rel=1e-12)
    assert result.n == both + differ + neither
    assert result.value == pytest.approx((only_a - only_b) / result.n)


def test_mcnemar_of_many_examples_does_not_overflow():
    result = mcnemar(*pair(0, 6000, 5000, 0))
    assert result.p_value == pytest.approx(scipy.stats.binomtest(6000, 11000).pvalue, rel=1e-9)


def kernel_delong(a, b, positive):
    """The variance by its definition, with all pairs written out."""
    means, structures = [], []
    for scores in (a, b):
        pairs = scores[positive][:, None] - scores[~positive][None, :]
        psi = (pairs > 0) + 0.5 * (pairs == 0)
        means.append(psi.mean())
        structures.append((psi.mean(axis=1), psi.mean(axis=0)))
    variance = sum(
        np.cov(*parts, ddof=1) / len(parts[0]) for parts in zip(*structures, strict=True)
    )
    contrast = np.array([1, -1])
    return means[0] - means[1], contrast @ variance @ contrast


@pytest.mark.parametrize("decimals", [6, 1])  # the second with many ties
def test_delong_is_its_definition(decimals):
    draw = np.random.default_rng(0)
    positive = draw.random(120) < 0.3
    shared = draw.normal(size=120) + positive
    a, b = (np.round(shared + s * draw.normal(size=120), decimals) for s in (0.5, 1.0))
    a, b = a.astype(np.float32), b.astype(np.float32)
    estimate, result = delong(ranked(a, positive), ranked(b, positive))
    value, variance = kernel_delong(a.astype(float), b.astype(float), positive)
    z = value / math.sqrt(variance)
    assert estimate.value == pytest.approx(value, abs=1e-12)
    assert result.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(z)), rel=1e-6)
    half = scipy.stats.norm.ppf(0.975) * math.sqrt(variance)
    assert (estimate.low, estimate.high) == pytest.approx((value - half, value + half), rel=1e-6)


def test_delong_does_not_depend_on_the_scale_of_the_scores():
    draw = np.random.default_rng(1)
    positive = draw.random(60) < 0.5
    a, b = draw.normal(size=(2, 60)) + positive
    first = delong(ranked(a, positive), ranked(b, positive))[0]
    second = delong(ranked(3 * a + 1, positive), ranked(b, positive))[0]
    assert (first.value, first.low) == pytest.approx((second.value, second.low))


@pytest.mark.parametrize("decimals", [6, 1])
def test_the_interval_of_one_auroc_is_delongs_on_the_scale_of_log_odds(decimals):
    draw = np.random.default_rng(4)
    positive = draw.random(150) < 0.3
    scores = np.round(draw.normal(size=150) + 1.5 * positive, decimals)
    estimate = auroc_interval(scores, positive, level=0.9)
    value, variance = kernel_delong(scores, np.zeros(150), positive)  # less a constant 1/2
    value += 0.5
    error = math.sqrt(variance) / (value * (1 - value))
    ends = scipy.special.logit(value) + np.array([-1, 1]) * scipy.stats.norm.ppf(0.95) * error
    assert estimate.value == pytest.approx(value)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(scipy.special.expit(ends)))


def test_an_auroc_of_1_has_the_bound_of_disjoint_pairs():
    scores, positive = np.arange(40.0), np.arange(40) >= 30
    estimate = auroc_interval(scores, positive)
    assert (estimate.value, estimate.high) == (1, 1)
    assert estimate.low == pytest.approx(0.025 ** (1 / 10))
    assert "10 pairs" in estimate.method
    reverse = auroc_interval(-scores, positive)
    assert (reverse.value, reverse.low) == (0, 0)
    assert reverse.high == pytest.approx(1 - estimate.low)
    tied = auroc_interval(np.zeros(40), positive)
    assert tied.value == 0.5 and math.isnan(tied.low)
    with pytest.raises(EvaluationError, match="two positives"):
        auroc_interval(scores, np.arange(40) >= 39)
    nearly = auroc_interval(
        np.r_[np.arange(5000.0), 4998.5, np.arange(5e3, 9e3)], np.arange(9001) >= 5000
    )
    assert 0 < nearly.low < nearly.value < nearly.high <= 1


def test_models_that_rank_alike_have_no_interval_and_no_significance():
    positive = np.array([0, 0, 1, 1], bool)
    estimate, result = delong(ranked([1, 2, 3, 4], positive), ranked([2, 3, 4, 5], positive))
    assert math.isnan(estimate.low) and "rank alike" in estimate.method
    assert result.p_value == 1


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9))
def test_sign_flips_are_scipys_permutation_test(differences):
    result = sign_flip(differences)
    if len(differences) < 2:
        assert result.p_value == 1
        return
    theirs = scipy.stats.permutation_test(
        (np.asarray(differences, float),),
        np.sum,
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=False,
    )
    # SciPy doubles the smaller tail, which for a symmetric distribution is the same.
    assert result.p_value == pytest.approx(min(theirs.pvalue, 1), abs=1e-9)


@pytest.mark.heavy
def test_drawn_sign_flips_come_near_the_exact_ones():
    draw = np.random.default_rng(3)
    differences = draw.normal(0.4, 1, 20)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=20)))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    result = sign_flip(differences)
    assert result.p_value == pytest.approx(exact, abs=5 * math.sqrt(exact / 65_536))
    assert "draws" in result.method
    assert sign_flip(np.ones(40)).p_value == pytest.approx(1 / 65_537)


def test_holm_of_the_manual_of_r():
    # p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm")
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - rank) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected


def test_what_makes_no_sense_is_refused():
    a, b = pair(5, 2, 1, 0)
    pairs = np.array([str(i // 2) for i in range(8)])
    grouped = classified([True] * 8, groups=pairs)
    for test in (mcnemar, delong):
        with pytest.raises(EvaluationError, match="independent"):
            test(grouped, grouped)
    with pytest.raises(EvaluationError, match="two examples of class"):
        delong(a, b)
    with pytest.raises(EvaluationError, match="no class 'c'"):
        delong(a, b, positive="c")
    with pytest.raises(EvaluationError, match="same examples"):
        mcnemar(a, classified([True]))
    for differences in ([], [[1.0]], [math.nan]):
        with pytest.raises(EvaluationError, match="finite numbers"):
            sign_flip(differences)
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        holm([0.5, 1.5])
    three = Predictions(
        split="test",
        ids=np.array(["0", "1"]),
        targets=np.array([0, 1], np.int32),
        logits=np.eye(3, dtype=np.float32)[:2],
        classes=("a", "b", "c"),
    )
    with pytest.raises(EvaluationError, match="say which class"):
        delong(three, three)
