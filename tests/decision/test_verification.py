import re
from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest
from scipy.stats import beta, binom

from cnn_jax.decision.order_statistics import allowed_beyond, highest_rate
from cnn_jax.decision.verification import fit_threshold_far
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    CalibrationPairScores,
    PairScores,
    disjoint_impostor_pairs,
    pair_scores,
    pairs_type,
)


def strangers(scores, genuine=(0.9, 0.95), split="calibration", kind=None):
    """Impostor pairs that share nobody, and a genuine pair for each further score."""
    scores = np.concatenate([scores, genuine]).astype(np.float64)
    impostors = len(scores) - len(genuine)
    names = np.array([[f"{split} a{i}", f"{split} b{i}"] for i in range(len(scores))])
    names[impostors:, 1] = names[impostors:, 0]
    images = np.array([f"{split}/{i}" for i in range(2 * len(scores))]).reshape(-1, 2)
    same = np.arange(len(scores)) >= impostors
    return (kind or pairs_type(split))(split, images, scores, same, names)


def album(people=20, images=2, seed=0, split="validation"):
    """Every two images of some people."""
    generator = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), images)
    rows = generator.normal(size=(people, 6))[who] + 0.5 * generator.normal(size=(len(who), 6))
    names = np.array([f"{split} {i}" for i in who])
    ids = np.array([f"{split}/{i}" for i in range(len(who))])
    return pair_scores(rows, split=split, ids=ids, subjects=names)


@pytest.mark.parametrize("far", [0.3, 0.35, 0.9])
def test_it_is_the_lowest_threshold_with_so_few_false_accepts(far):
    pairs = album()
    found = fit_threshold_far(pairs, far=far)
    impostors = pairs.scores[~pairs.same]
    lines = np.unique(pairs.scores)
    fine = [t for t in lines if (impostors >= t).mean() <= far]
    np.testing.assert_array_equal(found.accepts(pairs.scores), pairs.scores >= min(fine))
    below = lines[lines < min(fine)].max()
    assert found.score == pytest.approx((below + min(fine)) / 2)
    assert found.calibration_far == (impostors >= min(fine)).mean() <= far
    assert (found.impostor_pairs, found.disjoint_pairs) == (len(impostors), 10)
    assert (found.fitted_on.n, found.fitted_on.groups) == (40, 20)
    accepted = int(found.accepts(pairs.scores[disjoint_impostor_pairs(pairs)]).sum())
    assert binom.cdf(accepted, 10, found.bound) == pytest.approx(0.05)


def test_a_rate_that_strangers_cannot_show_is_refused():
    """Of 20 people come 760 impostor pairs and 10 that share nobody: 3/10."""
    pairs = album()
    fit_threshold_far(pairs, far=0.3)
    with pytest.raises(EvaluationError, match=r"20 people .* 760 .* which 10 .* 30 are needed"):
        fit_threshold_far(pairs, far=0.1)
    with pytest.raises(EvaluationError, match=r"ask for at least 0\.3, or give more people"):
        fit_threshold_far(pairs, far=0.29)
    with pytest.raises(
        EvaluationError, match=r"of which 3 that share .* \(twice as many people\)$"
    ):
        fit_threshold_far(album(people=6), far=0.9)
    with pytest.raises(EvaluationError, match="of which 0 that share nobody were found"):
        fit_threshold_far(pairs.take(pairs.same), far=0.3)


@pytest.mark.parametrize("people", [14, 18, 26, 38])
def test_the_rate_that_is_advised_is_taken(people):
    pairs = album(people)
    with pytest.raises(EvaluationError) as refused:
        fit_threshold_far(pairs, far=0.01)
    advised = float(re.search(r"ask for at least (\S+), or", str(refused.value))[1])
    m = people // 2
    assert 3 / m <= advised < 3 / m + 1e-4
    assert fit_threshold_far(pairs, far=advised).far == advised


@pytest.mark.parametrize(("beyond", "n"), [(0, 1), (3, 20), (19, 20)])
def test_the_highest_rate_is_the_last_that_the_binomial_test_does_not_reject(beyond, n):
    assert binom.cdf(beyond, n, highest_rate(beyond, n, 0.9)) == pytest.approx(0.1)
    assert highest_rate(n, n, 0.9) == 1


def test_the_bound_of_independent_pairs_holds_in_95_of_100_calibrations():
    """Uniform scores: the true false accept rate of a threshold is 1 - threshold."""
    scores = np.random.default_rng(0).uniform(size=(120, 60))
    found = [fit_threshold_far(strangers(row, genuine=[2.0]), far=0.1) for row in scores]
    rates = np.array([1 - min(one.score, 1) for one in found])
    assert np.mean([rate <= one.bound for rate, one in zip(rates, found, strict=True)]) >= 0.93
    # 6 of 60 are accepted: the bound is that of the 7th highest, beyond which 6 lie.
    assert found[0].bound == pytest.approx(beta.ppf(0.95, 7, 54))
    assert 0.35 < np.mean(rates <= 0.1) < 0.75  # without a promise, as often as not


def test_the_promise_holds_in_95_of_100_calibrations():
    scores = np.random.default_rng(1).uniform(size=(120, 60))
    found = [
        fit_threshold_far(strangers(row, genuine=[2.0]), far=0.1, promised=True) for row in scores
    ]
    assert np.mean([1 - one.score <= 0.1 for one in found]) >= 0.93
    assert found[0].bound <= 0.1 and "with confidence 95 %" in found[0].rule
    beyond = allowed_beyond(60, 0.1, 0.95)
    assert (scores[0] >= found[0].score).sum() == beyond
    with pytest.raises(EvaluationError, match=r"cannot promise a rate of at most 0\.1 with"):
        fit_threshold_far(strangers(scores[0]), far=0.1, promised=True, confidence=0.999)


def test_a_promise_of_dependent_pairs_counts_those_that_share_nobody():
    """Every two of 60 people, of whom some look like everybody: 30 pairs, not 1,770."""
    generator = np.random.default_rng(2)
    template = album(people=60, images=1)
    who = np.unique(template.subjects, return_inverse=True)[1].reshape(-1, 2)
    normal = generator.normal(size=(25, 60))
    new = generator.normal(size=(5_000, 2)).sum(axis=1)
    held, plain = [], []
    for of_person in normal:
        pairs = replace(template, scores=of_person[who].sum(axis=1))
        promised = fit_threshold_far(pairs, far=0.1, promised=True)
        fitted = fit_threshold_far(pairs, far=0.1)
        assert promised.score >= fitted.score
        held.append((new >= promised.score).mean() <= 0.1)
        plain.append((new >= fitted.score).mean() <= fitted.bound)
    assert np.mean(held) >= 0.9 and np.mean(plain) >= 0.9


def test_equal_scores_are_accepted_together_or_not_at_all():
    scores = np.array([0.5] * 10 + [0.1] * 20)
    found = fit_threshold_far(strangers(scores), far=0.3)
    assert not found.accepts(np.array([0.5])).any() and found.accepts(np.array([0.9])).all()
    assert found.calibration_far == 0 and 0.5 < found.score < 0.9
    nobody = fit_threshold_far(strangers(scores, genuine=[0.5]), far=0.3)
    assert nobody.score == np.nextafter(0.5, 1) and not nobody.accepts(scores).any()
    assert fit_threshold_far(strangers(scores), far=0.34).score == pytest.approx(0.3)


@pytest.mark.parametrize("split", ["test", "train", "another camera"])
def test_it_is_fitted_on_calibration_pairs_by_type(split):
    assert get_type_hints(fit_threshold_far)["pairs"] is CalibrationPairScores
    with pytest.raises(EvaluationError, match="a threshold is fitted on CalibrationPairScores"):
        fit_threshold_far(strangers(np.zeros(40), split=split), far=0.1)
    named = strangers(np.zeros(40), kind=PairScores)
    with pytest.raises(EvaluationError, match="a threshold is fitted on CalibrationPairScores"):
        fit_threshold_far(named, far=0.1)  # a name makes no type


def test_it_is_judged_by_other_people():
    pairs = album()
    found = fit_threshold_far(pairs, far=0.3)
    figures = found.figures(album(seed=1, split="test"), resamples=20)
    other = album(seed=1, split="test")
    wrong = found.accepts(other.scores) != other.same
    assert figures["far"].value == wrong[~other.same].mean()
    assert figures["frr"].value == wrong[other.same].mean()
    with pytest.raises(EvaluationError, match="40 of whose 40 examples are, by their ids"):
        found.figures(pairs)
    same_people = replace(other, subjects=pairs.subjects)
    with pytest.raises(EvaluationError, match="shares 20 groups"):
        found.figures(same_people)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"far": 0}, "lies between 0 and 1, not at 0"),
        ({"far": 1}, "lies between 0 and 1, not at 1"),
        ({"far": 0.3, "confidence": 1.0}, "level must be between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(EvaluationError, match=message):
        fit_threshold_far(album(), **options)
    with pytest.raises(EvaluationError, match="is not known"):
        fit_threshold_far(replace(album(), subjects=None), far=0.3)
