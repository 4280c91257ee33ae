"""The ten-fold protocol against a plain loop in the manner of insightface's verification.py."""

from dataclasses import replace

import numpy as np
import pytest
from pairs_of_people import faces, listed, resampled
from scipy import interpolate
from sklearn.model_selection import KFold

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import fold_accuracy, fold_tar_at_far
from cnn_jax.evaluation.intervals import widened


def list_of_folds(seed=0, folds=10, pairs=30, people=4, spread=0.35):
    """As LFW's: in each fold its own people, genuine pairs first."""
    generator = np.random.default_rng(seed)
    subjects, same = [], []
    for fold in range(folds):
        for row in range(pairs):
            a, b = generator.permutation(people)[:2]
            same.append(row < pairs // 2)
            subjects.append([f"{fold}-{a}", f"{fold}-{a if same[-1] else b}"])
    scores = np.clip(0.6 * np.array(same) - 0.1 + spread * generator.normal(size=len(same)), -1, 1)
    return listed(scores, same, subjects, np.repeat(np.arange(folds), pairs))


def accuracy_of(distance, same, t, strict=True):
    accepted = distance < t if strict else distance <= t
    return (accepted == same).mean()


def protocol(scores, same, folds, strict=True, cut=None):
    """calculate_roc of insightface: accuracy of each fold and its threshold."""
    distance, lines = 2 - 2 * scores, np.arange(0, 4, 0.01)
    cut = cut or KFold(folds, shuffle=False).split(scores)
    values, chosen = [], []
    for train, test in cut:
        found = [accuracy_of(distance[train], same[train], t, strict) for t in lines]
        t = lines[np.argmax(found)]
        values.append(accuracy_of(distance[test], same[test], t, strict))
        chosen.append(t)
    return values, chosen


def validation(scores, same, folds, target):
    """calculate_val of insightface, with an interpolation that knows what to do with ties."""
    distance, lines = 2 - 2 * scores, np.arange(0, 4, 0.001)
    rows = []
    for train, test in KFold(folds, shuffle=False).split(scores):
        impostors = np.sort(distance[train][~same[train]])
        far = np.searchsorted(impostors, lines, side="left") / len(impostors)  # those below
        t = np.interp(target, far, lines) if far.max() >= target else 0.0
        accepted = distance[test] < t
        rows.append((accepted[same[test]].mean(), t, accepted[~same[test]].mean()))
    return np.array(rows).T


@pytest.mark.parametrize(("n", "folds"), [(300, 10), (64, 5), (23, 4)])
def test_accuracies_are_those_of_a_plain_loop(n, folds):
    pairs = list_of_folds(n).take(np.random.default_rng(n).permutation(300)[:n])
    pairs = replace(pairs, scores=pairs.scores.round(2), fold=None)
    found = fold_accuracy(pairs, folds=folds, resamples=2)
    values, lines = protocol(pairs.scores, pairs.same, folds)
    np.testing.assert_allclose(found.values, values, atol=1e-15)
    np.testing.assert_array_equal(found.thresholds, lines)
    for k, (_, test) in enumerate(KFold(folds).split(pairs.scores)):
        accepted = 2 - 2 * pairs.scores[test] < lines[k]
        assert found.false_accept_rates[k] == accepted[~pairs.same[test]].mean()
    assert found.estimate.value == pytest.approx(np.mean(values))
    assert (found.mean, found.population_std) == pytest.approx((np.mean(values), np.std(values)))
    # Huang et al.: sqrt(sum of squares / 9) / sqrt(10).
    assert found.standard_error == pytest.approx(np.std(values) / (folds - 1) ** 0.5)


@pytest.mark.parametrize("far", [1 / 45, 0.037, 0.2, 0.9])
def test_validation_rates_are_those_of_a_plain_loop(far):
    pairs = list_of_folds(1, folds=4)
    found = fold_tar_at_far(pairs, far=far, resamples=2)
    values, lines, wrong = validation(pairs.scores, pairs.same, 4, far)
    np.testing.assert_allclose(found.thresholds, lines, atol=1e-9)
    np.testing.assert_allclose(found.values, values, atol=1e-12)
    np.testing.assert_allclose(found.false_accept_rates, wrong, atol=1e-12)


def test_intervals_choose_every_threshold_anew():
    pairs = list_of_folds(2, folds=3, pairs=12, people=3)
    for figure, plain in ((fold_accuracy, protocol), (fold_tar_at_far, None)):
        options = {"far": 0.2} if plain is None else {}
        found = figure(pairs, level=0.8, resamples=12, seed=4, **options).estimate
        means = []
        folds = pairs.fold
        for times in resampled(replace(pairs, scores=np.arange(36.0)), 12, 4):
            rows = times[0].astype(int)  # the rows of each resample, in order
            scores, same, of = pairs.scores[rows], pairs.same[rows], folds[rows]
            cut = [(of != k, of == k) for k in range(3) if 0 < (of == k).sum() < len(of)]
            if plain is not None:
                means.append(np.mean(plain(scores, same, 3, cut=cut)[0]))
                continue
            values, distance, lines = [], 2 - 2 * scores, np.arange(0, 4, 0.001)
            for train, test in cut:
                if not same[test].any() or same[train].all():
                    continue
                impostors = np.sort(distance[train][~same[train]])
                far = np.searchsorted(impostors, lines) / len(impostors)
                line = np.interp(0.2 + 1e-12, far, lines)
                values.append((distance[test][same[test]] < line).mean())
            means.append(np.mean(values))
        ends = tuple(np.quantile(means, widened(0.8, len(np.unique(pairs.subjects)))))
        assert (found.low, found.high) == pytest.approx(ends, abs=1e-6)
        assert found.method.startswith("subject bootstrap") and found.n == 36


def test_too_few_accepted_at_any_threshold_accepts_none():
    """Of the other fold's impostors half are opposite (4, beyond every threshold)."""
    pairs = listed([0.9, -1, -1, 0.9, -1, -1], [1, 0, 0, 1, 0, 0], fold=[0, 0, 0, 1, 1, 1])
    found = fold_tar_at_far(pairs, far=0.5, resamples=2)
    assert found.thresholds.tolist() == [0, 0] and found.values.tolist() == [0, 0]
    assert found.estimate.method.startswith("Clopper-Pearson of 2 pairs")


def test_no_mistake_has_a_bound():
    pairs = list_of_folds(0, folds=3, people=4, spread=0)
    found = fold_tar_at_far(pairs, far=0.1, resamples=10).estimate
    assert (found.value, found.high) == (1, 1) and found.low < 1
    assert "subjects" in found.method
    assert fold_accuracy(pairs, resamples=10).mean == 1


# Traps.


def test_trap_the_threshold_of_all_pairs():
    """Distances 0.405 (same), 0.605, then 1.405 (same), 1.605: each fold misleads the other.

    By the protocol the threshold is 0.41 for the second fold (one of two is right: 0.5) and 1.41
    for the first (0.5). On all pairs 0.41 is right for 3 of 4, which flatters.
    """
    scores, same = (
        1 - np.array([0.405, 0.605, 1.405, 1.605]) / 2,
        np.array([True, False, True, False]),
    )
    pairs = listed(scores, same, fold=[0, 0, 1, 1])
    found = fold_accuracy(pairs, resamples=2)
    assert found.values.tolist() == [0.5, 0.5]
    np.testing.assert_allclose(found.thresholds, [1.41, 0.41])
    lines = np.arange(0, 4, 0.01)
    assert max(accuracy_of(2 - 2 * scores, same, t) for t in lines) == 0.75


def test_trap_a_distance_at_the_threshold_is_not_accepted():
    """Distances 1 of one person, 1.5 of two: the first threshold above 1 is 1.01, not 1."""
    scores, same = np.array([0.5, 0.25] * 2), np.array([True, False] * 2)
    found = fold_accuracy(listed(scores, same, fold=[0, 0, 1, 1]), resamples=2)
    np.testing.assert_allclose(found.thresholds, 1.01)
    assert protocol(scores, same, 2, strict=False)[1] == [1.0, 1.0]
    # With 0.5 instead of 0 as distance of the second fold it changes the figure.
    scores = np.array([0.5, 0.4951, 0.5, 0.495])
    pairs = listed(scores, same, fold=[0, 0, 1, 1])
    strict = fold_accuracy(pairs, resamples=2).values.tolist()
    assert strict == protocol(scores, same, 2)[0]
    assert strict != protocol(scores, same, 2, strict=False)[0]


def test_trap_folds_that_are_not_blocks():
    pairs = list_of_folds(3)
    blocks = fold_accuracy(replace(pairs, fold=None), resamples=2)
    np.testing.assert_array_equal(blocks.values, fold_accuracy(pairs, resamples=2).values)
    shuffled = KFold(10, shuffle=True, random_state=0).split(pairs.scores)
    assert protocol(pairs.scores, pairs.same, 10, cut=shuffled)[0] != blocks.values.tolist()
    order = np.random.default_rng(0).permutation(len(pairs))
    assert fold_accuracy(replace(pairs.take(order), fold=None), resamples=2).mean != blocks.mean
    with pytest.raises(EvaluationError, match="sort the pairs by fold"):
        fold_accuracy(pairs.take(order))


def test_trap_scipy_refuses_the_interpolation_of_insightface():
    far = np.array([0, 0, 0.5, 0.5, 1])
    with pytest.raises(ValueError, match="duplicates"):
        interpolate.interp1d(far, np.arange(5) / 1000, kind="slinear")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.full(300, 1.5)}, r"reach 1.5, and the protocol is of cosines"),
        ({"fold": np.zeros(300, np.int64)}, "sort the pairs by fold"),
        ({"fold": np.repeat([0, 2, 3], 100)}, "sort the pairs by fold"),
        ({"fold": np.repeat([1, 2, 3], 100)[::-1].copy()}, "sort the pairs by fold"),
    ],
)
def test_what_is_not_of_the_protocol_is_refused(changes, message):
    with pytest.raises(EvaluationError, match=message):
        fold_accuracy(replace(list_of_folds(), **changes))


def test_options_out_of_range_are_refused():
    pairs = list_of_folds()
    unknown = replace(pairs, fold=None)
    for folds in (1, 301):
        with pytest.raises(EvaluationError, match=f"300 .* cannot be cut into {folds} folds"):
            fold_accuracy(unknown, folds=folds)
    with pytest.raises(EvaluationError, match="135 impostor pairs of the other folds cannot show"):
        fold_tar_at_far(pairs, far=1e-3)
    with pytest.raises(EvaluationError, match="pairs of one kind alone"):
        fold_tar_at_far(replace(faces(people=4), fold=None), folds=10)
    with pytest.raises(EvaluationError, match="sort the pairs by fold"):
        fold_accuracy(pairs.take(np.arange(0)))
