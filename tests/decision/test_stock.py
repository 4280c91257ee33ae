"""Counts of classes: exact where that can be enumerated, and intervals that hold."""

import itertools
from dataclasses import replace
from math import lgamma

import numpy as np
import pytest

from cnn_jax.decision import Confusion, fit_confusion
from cnn_jax.decision.fitted import FittedOn
from cnn_jax.decision.stock import _moments
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import CalibrationPredictions, Predictions
from experiments.inventory.simulate import shelf


def predictions_of(answers, labels, k, kind=CalibrationPredictions, groups=None):
    """Predictions whose most likely class is as said."""
    logits = 5 * np.eye(k, dtype=np.float32)[np.asarray(answers)]
    return kind(
        split="validation" if kind is CalibrationPredictions else "test",
        ids=np.array([f"{n:04}" for n in range(len(answers))]),
        targets=np.asarray(labels, np.int32),
        logits=logits,
        classes=tuple(f"product {n}" for n in range(k)),
        groups=groups,
    )


def known(rows, size):
    """A confusion that is all but certain, or as certain as so many images of each class."""
    rows = np.asarray(rows, np.float64)
    classes = tuple(f"product {n}" for n in range(len(rows)))
    return Confusion(classes, size * rows, FittedOn("validation", size, size))


def enumerated(rows, seen):
    """The exact distribution of the numbers of the classes: every way to deal the answers out."""
    k, n = len(rows), sum(seen)

    def prior(number):
        """Of Dirichlet shares that are integrated out, over how even they are."""
        return sum(
            np.exp(
                lgamma(k * a)
                - lgamma(k * a + n)
                + sum(lgamma(t + a) - lgamma(a) for t in number.tolist())
            )
            for a in np.geomspace(1 / k, 2, 8)
        )

    found = {}
    ways = [
        [way for way in itertools.product(range(count + 1), repeat=k) if sum(way) == count]
        for count in seen
    ]
    for dealt in itertools.product(*ways):
        number = np.sum(dealt, axis=0)
        log_p = np.log(prior(number))
        for j, way in enumerate(dealt):
            for m, some in enumerate(way):
                log_p += some * np.log(rows[m][j]) - lgamma(some + 1)
        key = tuple(number.tolist())
        found[key] = found.get(key, 0.0) + np.exp(log_p)
    total = sum(found.values())
    return {key: p / total for key, p in found.items()}


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        ([[0.8, 0.2], [0.3, 0.7]], (5, 3)),
        ([[0.9, 0.1], [0.2, 0.8]], (6, 0)),
        ([[0.75, 0.2, 0.05], [0.1, 0.8, 0.1], [0.25, 0.2, 0.55]], (4, 1, 2)),
    ],
)
def test_numbers_are_those_of_enumeration(rows, seen):
    exact = enumerated(rows, seen)
    answers = np.repeat(np.arange(len(seen)), seen)
    counts = known(rows, 10**9).count(answers, drift=0.0)
    for n, count in enumerate(counts):
        mean = sum(p * number[n] for number, p in exact.items())
        assert count.mean == pytest.approx(mean, abs=0.12)
        assert count.answered == seen[n]
        of = np.zeros(sum(seen) + 1)
        for number, p in exact.items():
            of[number[n]] += p
        inside = of[count.low : count.high + 1].sum()
        assert inside > 0.94
        # One end fewer would leave too much outside (but for what sampling may miss).
        cumulative = np.cumsum(of)
        assert count.low == 0 or cumulative[count.low - 1] < 0.035
        assert cumulative[count.high] > 0.965


def confusion_of(counted):
    classes = tuple(f"product {n}" for n in range(len(counted)))
    return Confusion(classes, counted, FittedOn("validation", 1, 1))


@pytest.mark.heavy
def test_intervals_hold_the_truth_and_plain_counting_does_not():
    rng = np.random.default_rng(0)
    inside, error, plain = [], [], []
    for _ in range(80):
        counted, true, answers = shelf(rng, 6, 60, 0.05)
        found = confusion_of(counted).count(answers, drift=0.05)
        inside += [one.low <= t <= one.high for one, t in zip(found, true, strict=True)]
        error.append(np.mean([abs(one.mean - t) for one, t in zip(found, true, strict=True)]))
        plain.append(np.abs(np.bincount(answers, minlength=6) - true).mean())
    # 480 intervals, those of a shelf dependent: two standard errors of 80 shelves either way.
    assert 0.92 < np.mean(inside) < 0.985
    assert np.mean(error) < 0.9 * np.mean(plain)


def test_more_may_differ_more_is_not_known():
    counted, _, answers = shelf(np.random.default_rng(4), 6, 60, 0.05)
    widths = [
        sum(one.high - one.low for one in confusion_of(counted).count(answers, drift=drift))
        for drift in (0.0, 0.1, 0.3)
    ]
    assert widths[0] < widths[1] < widths[2]
    narrow = confusion_of(counted).count(answers, level=0.5)
    wide = confusion_of(counted).count(answers, level=0.99)
    for one, other in zip(narrow, wide, strict=True):
        assert other.low <= one.low <= one.high <= other.high and one.mean == other.mean
    again = confusion_of(counted).count(answers, level=0.5)
    assert again == narrow  # a seed, a result
    fewer = known(counted / counted.sum(axis=1, keepdims=True), 5).count(answers)
    more = known(counted / counted.sum(axis=1, keepdims=True), 5000).count(answers, drift=0.0)
    assert sum(c.high - c.low for c in fewer) > sum(c.high - c.low for c in more)


def test_a_perfect_classifier_is_taken_at_its_word():
    rows = np.eye(4)
    answers = np.repeat([0, 1, 3], (5, 70, 2))
    for count, true in zip(
        known(rows, 10**6).count(answers, drift=0.0), (5, 70, 0, 2), strict=True
    ):
        assert (count.low, count.high) == (true, true)


def test_where_all_was_right_it_may_be_less_now():
    """Nothing was mistaken in validation, and yet a drift makes the numbers uncertain."""
    counted = np.diag(np.full(5, 40.0))
    answers = np.repeat(np.arange(5), (60, 50, 40, 30, 20))
    sure = confusion_of(counted * 10**6).count(answers, drift=0.0)
    assert all(one.low == one.high for one in sure)
    for drift, most in ((0.05, 12), (0.2, 40)):
        found = confusion_of(counted).count(answers, drift=drift)
        for one in found:
            assert 2 < one.high - one.low < most
            assert one.low < one.answered < one.high


def test_the_share_that_is_right_has_the_moments_of_both():
    rng = np.random.default_rng(0)
    right, wrong = np.array([30.0, 9.5, 1.2]), np.array([4.0, 0.3, 2.0])
    for drift in (0.0, 0.05, 0.4):
        mean, variance = _moments(right, wrong, drift)
        drawn = rng.beta(right, wrong, (400_000, 3)) + rng.uniform(-drift, drift, (400_000, 3))
        drawn = drawn.clip(0, 1)
        np.testing.assert_allclose(mean, drawn.mean(axis=0), atol=2e-3)
        np.testing.assert_allclose(np.sqrt(variance), drawn.std(axis=0), rtol=0.03)


def test_what_is_known_of_a_confusion():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], (30, 20, 10))
    answers = np.where(rng.random(60) < 0.2, (labels + 1) % 3, labels)
    found = fit_confusion(predictions_of(answers, labels, 3))
    for n in range(3):
        for j in range(3):
            assert found.counts[n, j] == ((labels == n) & (answers == j)).sum()
    new = predictions_of([0, 2, 1], [0, 0, 0], 3, Predictions)
    np.testing.assert_array_equal(found.answers(new), [0, 2, 1])
    # Ten images of a shop are one.
    groups = np.repeat([f"shop {n}" for n in range(6)], 10)
    grouped = fit_confusion(predictions_of(answers, labels, 3, groups=groups))
    np.testing.assert_allclose(grouped.counts, found.counts / 10)
    assert grouped.fitted_on.groups == 6


def test_a_class_without_validation_images_is_uncertain():
    """What is usual stands in for it, and its interval is wide."""
    counted = np.diag([50.0, 50.0, 0.0])
    answers = np.repeat([0, 1, 2], (20, 20, 20))
    first, _, last = confusion_of(counted).count(answers)
    assert last.high - last.low > first.high - first.low
    assert last.low <= 20 <= last.high


def test_what_makes_no_sense_is_refused():
    labels = np.arange(12) % 3
    held = predictions_of(labels, labels, 3)
    with pytest.raises(EvaluationError, match="confusion"):
        fit_confusion(predictions_of(labels, labels, 3, Predictions))
    found = fit_confusion(held)
    for changes in ({"drift": -0.1}, {"drift": 1.0}, {"level": 1.0}, {"level": 0.0}):
        with pytest.raises(EvaluationError, match="drift lies in"):
            found.count(labels, **changes)
    with pytest.raises(EvaluationError, match="no images"):
        found.count(labels[:0])
    with pytest.raises(EvaluationError, match="numbers of classes, 0 to 2"):
        found.count(labels + 1)
    with pytest.raises(EvaluationError, match="4 classes"):
        found.answers(predictions_of(labels, labels, 4, Predictions))


def test_few_of_the_classes_are_taken_for_unknown():
    """Of a new image with probability at most the share: exactly j / (n + 1), by order."""
    rng = np.random.default_rng(5)
    labels, k = rng.integers(0, 3, 99), 3
    held = predictions_of(labels, labels, k)
    for share, lowest in ((0.05, 5), (0.01, 1), (0.999, 99)):
        familiar = rng.normal(size=99)
        found = fit_confusion(held, familiarity=familiar, unknown=share)
        assert found.line == np.sort(familiar)[lowest - 1]
        assert found.classes == (*held.classes, "unknown")
        below = familiar < found.line
        assert below.sum() == lowest - 1 == found.counts[:, -1].sum()
        assert (found.counts[-1] == 0).all() and found.counts.sum() == 99
        answers = found.answers(held, familiar)
        np.testing.assert_array_equal(answers == k, below)
        np.testing.assert_array_equal(answers[~below], labels[~below])
    # So often is a new one below the line of the others: each in turn is the new one.
    share, n = 0.1, 59
    for _ in range(20):
        every = rng.normal(size=n + 1)
        taken = 0
        for new in range(n + 1):
            others = predictions_of(np.zeros(n, int), np.zeros(n), 2)
            fitted = fit_confusion(others, familiarity=np.delete(every, new), unknown=share)
            taken += every[new] < fitted.line
        assert taken == share * (n + 1)


def test_of_groups_the_share_of_a_group_counts():
    """The mean over groups, the new one's being 1 at most, by a plain loop over all lines."""
    rng = np.random.default_rng(6)
    groups = np.sort(rng.integers(0, 30, 90))
    familiar = rng.normal(size=30)[groups] + 0.2 * rng.normal(size=90)
    held = predictions_of(np.zeros(90, int), np.zeros(90), 2, groups=groups.astype(str))
    for share in (0.06, 0.2, 0.5):
        found = fit_confusion(held, familiarity=familiar, unknown=share)
        fine = []
        for line in familiar:
            shares = [(familiar[groups == g] < line).mean() for g in np.unique(groups)]
            if (sum(shares) + 1) / (len(shares) + 1) <= share + 1e-9:
                fine.append(line)
        assert found.line == max(fine)
    with pytest.raises(EvaluationError, match="groups of validation images cannot show"):
        fit_confusion(held, familiarity=familiar, unknown=0.02)


def test_without_a_line_nothing_is_unknown():
    labels = np.repeat([0, 1], 20)
    found = fit_confusion(predictions_of(labels, labels, 2))
    assert found.line is None and found.classes == ("product 0", "product 1")


@pytest.mark.heavy
def test_intervals_hold_where_unknown_products_are_on_the_shelf():
    rng = np.random.default_rng(7)
    inside, blind = [], []
    for number in range(60):
        counted, true, answers = shelf(rng, 6, 60, 0.05, unknown=True)
        names = (*(f"product {n}" for n in range(6)), "unknown")
        fitted = FittedOn("validation", 1, 1)
        found = Confusion(names, counted, fitted, 0.0).count(answers, drift=0.05)
        inside += [one.low <= t <= one.high for one, t in zip(found, true, strict=True)]
        if number >= 20:
            continue
        # One who takes each picture for one of the six classes.
        known = answers[answers < 6]
        six = Confusion(names[:-1], counted[:-1, :-1], fitted).count(known, drift=0.05)
        blind += [one.low <= t <= one.high for one, t in zip(six, true[:-1], strict=True)]
    assert 0.92 < np.mean(inside) < 0.99
    assert np.mean(blind) < 0.9


@pytest.mark.parametrize(
    ("unknown", "message"),
    [
        (1.0, "lies between 0 and 1"),
        (0.0, "lies between 0 and 1"),
        (0.02, "40 validation images cannot show what one of 50 is like: that takes 49"),
    ],
)
def test_a_share_that_cannot_be_told_is_refused(unknown, message):
    labels = np.repeat([0, 1], 20)
    with pytest.raises(EvaluationError, match=message):
        held = predictions_of(labels, labels, 2)
        fit_confusion(held, familiarity=np.arange(40.0), unknown=unknown)


def test_a_class_called_unknown_is_refused():
    labels = np.repeat([0, 1], 20)
    held = predictions_of(labels, labels, 2)
    with pytest.raises(EvaluationError, match="called 'unknown' already"):
        other = replace(held, classes=("milk", "unknown"))
        fit_confusion(other, familiarity=np.arange(40.0), unknown=0.1)


def test_familiarity_fits_the_images():
    labels = np.repeat([0, 1], 20)
    held = predictions_of(labels, labels, 2)
    found = fit_confusion(held, familiarity=np.arange(40.0), unknown=0.1)
    with pytest.raises(EvaluationError, match="fitted for 2 others"):
        found.answers(replace(held, classes=("milk", "tea")), np.arange(40.0))
    with pytest.raises(EvaluationError, match="both, or neither"):
        found.answers(held)
    with pytest.raises(EvaluationError, match="both, or neither"):
        fit_confusion(held).answers(held, np.arange(40.0))
    for wrong in (np.arange(39.0), np.full(40, np.nan)):
        with pytest.raises(EvaluationError, match="a finite number for each of 40 images"):
            found.answers(held, wrong)
        with pytest.raises(EvaluationError, match="a finite number for each of 40 images"):
            fit_confusion(held, familiarity=wrong)
