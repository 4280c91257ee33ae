"""Figures of verification against scikit-learn and plain loops; their intervals against a loop
over resampled people and against simulated people."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs_of_people import faces, listed, random_list, resampled

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    error_curve,
    verification_by_subgroup,
    verification_metrics,
    verification_rates,
)
from cnn_jax.evaluation.accepted import AcceptSteps
from cnn_jax.evaluation.intervals import bootstrap, widened
from cnn_jax.evaluation.verification_intervals import pair_bootstrap


def points(scores, same):
    """FAR and TAR of every threshold, none accepted first, by counting."""
    lines = [np.inf, *sorted(set(scores.tolist()), reverse=True)]
    return [((scores[~same] >= t).mean(), (scores[same] >= t).mean()) for t in lines]


def crossing(found):
    for (x0, y0), (x1, y1) in pairwise(found):
        if x1 >= 1 - y1:
            part = (1 - y0 - x0) / ((x1 - x0) + (y1 - y0))
            return x0 + part * (x1 - x0)
    raise AssertionError


def plain(scores, same, far):
    found = points(scores, same)
    within = max(y for x, y in found if x <= far + 1e-12)
    distance = min(abs(x - far) for x, _ in found)
    near = max((x, y) for x, y in found if abs(x - far) <= distance + 1e-12)[1]
    area = sklearn.metrics.roc_auc_score(same, scores)
    return {"auroc": area, "eer": crossing(found), "at": within, "near": near}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 6]), st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_figures_are_those_of_plain_loops(seed, decimals, far):
    pairs = random_list(seed, decimals=decimals)
    found = verification_metrics(pairs, fars=[far], resamples=1)
    names = ["auroc", "eer", f"tar_at_far_{far:g}", f"tar_near_far_{far:g}"]
    assert list(found) == names
    values = plain(pairs.scores, pairs.same, far).values()
    assert [e.value for e in found.values()] == pytest.approx(list(values), abs=1e-12)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6))
def test_the_curves_are_scikit_learns(seed):
    pairs = random_list(seed)
    curve = error_curve(pairs, resamples=1)
    far, tar, thresholds = sklearn.metrics.roc_curve(
        pairs.same, pairs.scores, drop_intermediate=False
    )
    np.testing.assert_allclose(curve.far, far, atol=1e-15)
    np.testing.assert_allclose(1 - curve.frr, tar, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    fpr, fnr, _ = sklearn.metrics.det_curve(pairs.same, pairs.scores)
    ours = set(zip(curve.far.round(12), curve.frr.round(12), strict=True))
    assert set(zip(fpr.round(12), fnr.round(12), strict=True)) <= ours


def test_intervals_are_those_of_a_loop_over_resampled_people():
    pairs = faces(seed=3, people=7, images=2)
    pairs = replace(pairs, scores=pairs.scores.round(1))
    found = verification_metrics(pairs, fars=[0.05], level=0.8, resamples=30, seed=5)
    loops = [plain(*one, 0.05) for one in resampled(pairs, 30, 5)]
    for ours, name in zip(found.values(), ("auroc", "eer", "at", "near"), strict=True):
        ends = np.quantile([one[name] for one in loops], widened(0.8, 7))
        assert (ours.low, ours.high) == pytest.approx(tuple(ends), abs=1e-9)
        assert (ours.n, ours.unit, ours.level) == (len(pairs), "group", 0.8)
        assert ours.method.startswith("subject bootstrap (percentile)")
    curve = error_curve(pairs, level=0.8, resamples=30, seed=5)
    assert curve.at[[0, -11, -1]] == pytest.approx([10**-1.9, 0.1, 1])
    least = [1 - max(y for x, y in points(*one) if x <= 0.1) for one in resampled(pairs, 30, 5)]
    ends = tuple(np.quantile(least, widened(0.8, 7)))
    assert (curve.low[-11], curve.high[-11]) == pytest.approx(ends, abs=1e-9)
    rates = verification_rates(pairs, 0.5, level=0.8, resamples=30, seed=5)
    for name, kind in (("far", False), ("frr", True)):
        some = pairs.take(pairs.same == kind)
        wrong = [((s >= 0.5) != y).mean() for s, y in resampled(some, 30, 5) if len(s)]
        assert rates[name].value == ((some.scores >= 0.5) != some.same).mean()
        ends = tuple(np.quantile(wrong, widened(0.8, 7)))
        assert (rates[name].low, rates[name].high) == pytest.approx(ends, abs=1e-9)


def test_the_subject_bootstrap_covers_where_that_of_pairs_does_not():
    """Every two of 20 people: what a person adds to its scores is the same in all its pairs."""
    generator = np.random.default_rng(0)
    template = faces(people=20, images=2)
    who = np.unique(template.subjects, return_inverse=True)[1].reshape(-1, 2)
    impostor = ~template.same
    by_subject, by_pair = 0, 0
    for seed in range(60):
        of_person = generator.normal(size=20)[who].sum(axis=1)
        scores = of_person + generator.normal(size=len(template))
        some = replace(template, scores=scores).take(impostor)
        values = some.scores

        def mean(weights, values=values):
            return values @ weights / weights.sum(axis=0)

        subject = pair_bootstrap({"": mean}, some, resamples=200, seed=seed)[""]
        pair = bootstrap({"": mean}, len(some), resamples=50, seed=seed)[""]
        by_subject += subject.low <= 0 <= subject.high
        by_pair += pair.low <= 0 <= pair.high
    assert by_subject >= 53 and by_pair < 36


def test_a_sparse_list_has_intervals_that_are_too_wide_rather_than_too_narrow():
    """A ring, each person in two pairs, whose scores are independent: variance times up to 3."""
    generator = np.random.default_rng(1)
    ring = [[f"{i:03d}", f"{(i + 1) % 100:03d}"] for i in range(100)]
    widths = []
    for seed in range(20):
        pairs = listed(generator.normal(size=100), np.zeros(100, bool), ring)

        def mean(weights, pairs=pairs):
            return pairs.scores @ weights / weights.sum(axis=0)

        found = pair_bootstrap({"": mean}, pairs, resamples=300, seed=seed)[""]
        widths.append((found.high - found.low) / (2 * 1.98 * pairs.scores.std() / 10))
    assert 1.4 < np.mean(widths) < 3**0.5 * 1.05


def test_where_nobody_is_in_two_pairs_the_pairs_are_resampled():
    generator = np.random.default_rng(2)
    same = np.arange(40) < 15
    people = [[f"a{i}", f"a{i}" if same[i] else f"b{i}"] for i in range(40)]
    alone = listed(generator.normal(size=40) + same, same, people)
    unknown = replace(alone, subjects=None)
    ours, theirs = (verification_metrics(p, fars=[0.2], resamples=50) for p in (alone, unknown))
    for name, estimate in ours.items():
        assert (estimate.low, estimate.high) == (theirs[name].low, theirs[name].high)
        assert estimate.n == 40 and "independent" not in estimate.method
        assert "pairs taken as independent: subjects not known" in theirs[name].method
    shared = replace(alone, subjects=np.where(alone.subjects == "b39", "b38", alone.subjects))
    assert "subject" in verification_metrics(shared, fars=[0.2], resamples=50)["eer"].method


def test_rates_that_pairs_cannot_resolve_are_refused_with_the_rule_of_three():
    pairs = faces(people=6, images=2)  # 60 impostor pairs, 6 genuine
    assert [name for name in verification_metrics(pairs, resamples=2) if "at" in name] == [
        "tar_at_far_0.1"
    ]
    verification_metrics(pairs, fars=[1 / 60], resamples=2)
    with pytest.raises(EvaluationError, match=r"60 impostor .* 1/60 = 0.017, .* 3/60 = 0.05; ask"):
        verification_metrics(pairs, fars=[1 / 61])
    for far in (0, 1, -0.1, np.nan):
        with pytest.raises(EvaluationError, match="a FAR lies between 0 and 1"):
            verification_metrics(pairs, fars=[far])


def test_no_mistake_has_the_bound_of_independent_pairs():
    pairs = faces(people=10, noise=0)
    found = verification_metrics(pairs, resamples=50)
    assert (found["auroc"].value, found["eer"].value) == (1, 0)
    assert "no resample differs" in found["auroc"].method
    tar = found["tar_at_far_0.01"]
    # All of 10 people: 0.025^(1/10).
    assert (tar.value, tar.low, tar.high) == pytest.approx((1, 0.025**0.1, 1))
    assert tar.method == "Clopper-Pearson of 10 subjects"
    far = verification_rates(pairs, 0.999)["far"]
    # None of the 5 pairs of 10 people that share nobody.
    assert (far.value, far.low, far.high) == pytest.approx((0, 0, 1 - 0.025**0.2))
    assert "5 impostor pairs that share nobody" in far.method
    unknown = verification_rates(replace(pairs, subjects=None), 0.999)["far"]
    assert unknown.high == pytest.approx(1 - 0.025 ** (1 / 405))
    assert "independent" in unknown.method


def test_a_subgroup_is_judged_by_pairs_within_it():
    subjects = [["a", "a"], ["a", "b"], ["a", "b"], ["c", "c"], ["a", "c"], ["b", "c"], ["d", "c"]]
    same = [a == b for a, b in subjects]
    pairs = listed([0.9, 0.8, 0.2, 0.1, 0.95, 0.95, 0.3], same, subjects)
    group = {"a": "x", "b": "x", "c": "y", "d": "z"}
    rows = verification_by_subgroup(pairs, group, 0.8, resamples=20)
    assert [(row.name, row.subjects) for row in rows] == [("x", 2), ("y", 1), ("z", 0)]
    x, y, z = rows
    assert (x.far.value, x.far.n, x.frr.value, x.frr.n) == (0.5, 2, 0, 1)
    assert (y.far, y.frr.value, y.frr.n) == (None, 1, 1) and z.far is z.frr is None
    assert x.frr.high == pytest.approx(0.975)  # none of one person
    with pytest.raises(EvaluationError, match="1 of 4 subjects, such as 'd', have no subgroup"):
        verification_by_subgroup(pairs, {"a": "x", "b": "x", "c": "y"}, 0.8)
    with pytest.raises(EvaluationError, match="needs pairs of 'test' with subjects"):
        verification_by_subgroup(replace(pairs, subjects=None), group, 0.8)


@pytest.mark.parametrize("kind", [True, False])
def test_pairs_of_one_kind_are_refused(kind):
    pairs = faces(people=3)
    some = pairs.take(pairs.same == kind)
    for figures in (verification_metrics, error_curve):
        with pytest.raises(EvaluationError, match=f"no {'impostor' if kind else 'genuine'} pair"):
            figures(some)
    assert list(verification_rates(some, 0.5, resamples=2)) == ["frr" if kind else "far"]
    with pytest.raises(EvaluationError, match="no pairs in 'test'"):
        verification_rates(pairs.take(np.arange(0)), 0.5)
    with pytest.raises(EvaluationError, match="not a number"):
        verification_rates(pairs, np.nan)


def test_a_resample_of_one_kind_alone_is_undefined():
    steps = AcceptSteps.of(np.array([1.0, 2.0, 2.0]), np.array([True, False, True]))
    weights = np.array([[1.0, 1, 0], [1, 0, 1], [0, 1, 0]])
    counts = steps.counts(weights)
    for values in (counts.auroc(), counts.eer(), counts.rate_at(0.5), counts.rate_near(0.5)):
        assert np.isnan(values).tolist() == [False, True, True]


# Traps.


def test_trap_equal_error_rates_of_other_conventions():
    """(FAR, FRR) is (1/4, 1/3), then (2/4, 1/3), then (2/4, 0): equal on the way, at 1/3."""
    pairs = listed([0.9, 0.8, 0.4, 0.7, 0.5, 0.3, 0.2], [True] * 3 + [False] * 4)
    assert verification_metrics(pairs, fars=[], resamples=1)["eer"].value == pytest.approx(1 / 3)
    curve = error_curve(pairs, resamples=1)
    nearest = np.abs(curve.far - curve.frr).argmin()
    assert (curve.far[nearest], curve.frr[nearest]) == pytest.approx((1 / 4, 1 / 3))
    mean_of_both = (curve.far[nearest] + curve.frr[nearest]) / 2
    assert mean_of_both == pytest.approx(7 / 24)  # flatters
    assert curve.far[nearest] == 1 / 4  # flatters more


def test_trap_the_nearest_false_accept_rate_may_be_larger():
    """5 impostors: FAR 0 or 1/5. The one nearest to 0.12 is 1/5, which finds all."""
    pairs = listed([0.9, 0.5, 0.8, 0.1, 0.1, 0.1, 0.1], [True, True] + [False] * 5)
    found = verification_metrics(pairs, fars=[0.2], resamples=1)
    assert found["tar_at_far_0.2"].value == 1
    found = AcceptSteps.of(pairs.scores, pairs.same).counts(np.ones((7, 1)))
    assert (found.rate_at(0.12)[0], found.rate_near(0.12)[0]) == (0.5, 1)
    assert found.rate_near(0.08)[0] == 0.5
    assert found.rate_near(0.1)[0] == 1  # of two equally near the larger


def test_trap_the_nearest_of_the_points_that_scikit_learn_keeps():
    """Its ROC curve drops what lies on a straight line, so that another point is nearest."""
    scores = np.array([0.9, 0.4, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2])
    same = np.array([True, True] + [False] * 6)
    far, tar, _ = sklearn.metrics.roc_curve(same, scores)
    theirs = tar[np.flatnonzero(np.abs(far - 0.45) == np.abs(far - 0.45).min())].max()
    assert theirs == 1  # at FAR 4/6: 1/6, 2/6, 3/6 are gone
    counts = AcceptSteps.of(scores, same).counts(np.ones((8, 1)))
    assert counts.rate_near(0.45)[0] == 0.5  # at 3/6
