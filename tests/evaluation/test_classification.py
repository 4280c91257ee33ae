import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.calibration import expected_calibration_error, reliability
from cnn_jax.evaluation.classification import (
    classification_metrics,
    confusion_matrix,
    metric_statistics,
)
from cnn_jax.evaluation.intervals import bootstrap
from cnn_jax.evaluation.predictions import Predictions


def example(targets, logits, *, kind="class", groups=None):
    logits = np.asarray(logits, np.float32)
    n, k = logits.shape
    return Predictions(
        split="test",
        ids=np.arange(n).astype(str),
        targets=np.asarray(targets, np.int32 if kind == "class" else np.float32),
        logits=logits,
        classes=tuple(f"c{i}" for i in range(k)),
        kind=kind,
        groups=groups,
    )


def drawn(n, k, seed, *, ties=False, absent=0):
    """Predictions better than chance; the last `absent` classes have no examples."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, k - absent, n)
    logits = generator.normal(size=(n, k)) + 0.8 * np.eye(k)[targets]
    return example(targets, logits.round() if ties else logits)


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(20, 80),
    k=st.integers(2, 7),
    seed=st.integers(0, 10**6),
    ties=st.booleans(),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_values_are_scikit_learns(n, k, seed, ties, temperature):
    p = drawn(n, k, seed, ties=ties)
    if len(np.unique(p.targets)) < k:
        return
    figures = classification_metrics(p, temperature=temperature, resamples=1, top_k=(2, 5))
    y, q, labels = p.targets, p.predicted(), np.arange(k)
    # Scores rounded to 12 digits, so that a tie is a tie however it was summed.
    scores, one_hot = p.probabilities(temperature).round(12), np.eye(k)[y]
    rounded = scores / scores.sum(axis=1, keepdims=True)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(y, q),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(y, q),
        "worst_recall": sklearn_metrics.recall_score(y, q, average=None).min(),
        "nll": sklearn_metrics.log_loss(y, rounded, labels=labels),
        "brier": ((rounded - one_hot) ** 2).sum(axis=1).mean(),
        "macro_f1": sklearn_metrics.f1_score(y, q, average="macro"),
    }
    per_class = [1] if k == 2 else range(k)
    for name, oracle in [
        ("auroc", sklearn_metrics.roc_auc_score),
        ("average_precision", sklearn_metrics.average_precision_score),
    ]:
        expected[name] = np.mean([oracle(one_hot[:, c], scores[:, c]) for c in per_class])
    if k == 2:
        binary = sklearn_metrics.brier_score_loss(y, rounded[:, 1])
        assert figures["brier"].value == pytest.approx(2 * binary, abs=1e-9)
    elif not ties:
        ovr = sklearn_metrics.roc_auc_score(y, rounded, multi_class="ovr", average="macro")
        assert figures["auroc"].value == pytest.approx(ovr, abs=1e-9)
    if k > 2 and not ties:
        top_2 = sklearn_metrics.top_k_accuracy_score(y, p.logits, k=2, labels=labels)
        assert figures["top_2_accuracy"].value == pytest.approx(top_2)
    for name, value in expected.items():
        assert figures[name].value == pytest.approx(value, abs=1e-9), name
    assert ("top_5_accuracy" in figures) == (k > 5)
    assert next(iter(figures)) == "accuracy"
    oracle = sklearn_metrics.confusion_matrix(y, q, labels=labels)
    np.testing.assert_array_equal(confusion_matrix(p), oracle)


def test_bootstrap_by_weights_is_the_bootstrap_by_indices():
    """Weighted AUROC and F1 of a resample equal scikit-learn's of the repeated examples."""
    p = drawn(60, 3, 5, ties=True)
    generator = np.random.default_rng(0)
    statistics = metric_statistics(p)
    for _ in range(10):
        drawn_indices = generator.integers(0, 60, 60)
        weights = np.bincount(drawn_indices, minlength=60).astype(np.float64)[:, np.newaxis]
        again = example(p.targets[drawn_indices], p.logits[drawn_indices])
        repeated = classification_metrics(again, resamples=1)
        for name, statistic in statistics.items():
            assert statistic(weights)[0] == pytest.approx(repeated[name].value, abs=1e-12), name


def test_top_k_and_argmax_agree_on_ties():
    p = example([0, 1, 2], np.zeros((3, 3)))
    figures = classification_metrics(p, top_k=(1, 2), resamples=10)
    assert figures["top_1_accuracy"].value == figures["accuracy"].value == pytest.approx(1 / 3)
    assert figures["top_2_accuracy"].value == pytest.approx(2 / 3)


def test_accuracy_is_wilsons_unless_groups_hold_several_examples():
    p = drawn(40, 3, 0)
    alone = classification_metrics(p, resamples=50)["accuracy"]
    assert (alone.method, alone.unit, alone.percent) == ("Wilson", "example", True)
    own_groups = example(p.targets, p.logits, groups=np.arange(40).astype(str))
    assert classification_metrics(own_groups, resamples=50)["accuracy"] == alone
    paired = example(p.targets, p.logits, groups=(np.arange(40) // 2).astype(str))
    figures = classification_metrics(paired, resamples=50)
    assert figures["accuracy"].method == "bootstrap (percentile)"
    assert {e.unit for e in figures.values()} == {"group"}


def test_absent_classes_are_left_out_and_said():
    p = drawn(50, 6, 1, absent=2)
    figures = classification_metrics(p, resamples=20)
    scores, present = p.log_odds(), range(4)
    expected = np.mean(
        [sklearn_metrics.roc_auc_score(p.targets == c, scores[:, c]) for c in present]
    )
    assert figures["auroc"].value == pytest.approx(expected)
    assert figures["auroc"].method.endswith("classes without examples left out: 2")


@pytest.mark.parametrize("k", [2, 4])
def test_split_of_one_class_has_an_accuracy_and_says_why_it_has_no_auroc(k):
    p = example(np.zeros(30), np.random.default_rng(0).normal(size=(30, k)))
    figures = classification_metrics(p)
    assert figures["accuracy"].value == (p.predicted() == 0).mean()
    for name in ("auroc", "average_precision"):
        assert math.isnan(figures[name].value)
        assert figures[name].method == "undefined; all examples are of one class"


def test_rare_class_missing_from_resamples_is_counted():
    targets = np.array([1] + [0] * 29)
    p = example(targets, np.random.default_rng(0).normal(size=(30, 2)))
    auroc = classification_metrics(p)["auroc"]
    missing = int(auroc.method.split("undefined in ")[1].split()[0])
    assert pytest.approx(missing, abs=60) == 1000 * (29 / 30) ** 30
    assert auroc.low <= auroc.value <= auroc.high


def test_saturated_probabilities_still_rank():
    margins = np.array([50.0, 60.0, 70.0, 80.0])
    p = example([0, 0, 1, 1], np.stack([np.zeros(4), margins], axis=1))
    assert classification_metrics(p, resamples=1)["auroc"].value == 1


def test_calibration_error_by_hand():
    # Confidences 0.6 (one right of two, upper edge of a bin of 1/15) and 0.9 (both right).
    confidence = np.array([0.6, 0.6, 0.9, 0.9])
    logits = np.stack([np.log(1 - confidence), np.log(confidence)], axis=1)
    p = example([1, 0, 1, 1], logits)
    expected = 0.5 * abs(0.5 - 0.6) + 0.5 * abs(1 - 0.9)
    assert classification_metrics(p, resamples=1)["ece"].value == pytest.approx(expected)
    bins = reliability(p, bins=2)
    np.testing.assert_array_equal(bins.count, [0, 4])
    assert bins.confidence[1] == pytest.approx(0.75)
    assert (bins.accuracy[1], bins.low[0], bins.high[0]) == (0.75, 0, 1)
    assert np.isnan(bins.accuracy[0])


def test_bins_are_closed_above():
    p = example([0, 0], [[0, 0], [0, 0]])  # confidence exactly 1/2
    np.testing.assert_array_equal(reliability(p, bins=2).count, [2, 0])


def test_the_interval_of_the_worst_recall_holds_for_the_truly_worst_class():
    generator = np.random.default_rng(0)
    targets, recall = np.repeat(np.arange(4), 40), np.repeat([0.9, 0.85, 0.85, 0.95], 40)
    held = 0
    for _ in range(200):
        right = generator.random(160) < recall
        given = np.where(right, targets, (targets + 1) % 4)
        found = classification_metrics(example(targets, np.eye(4)[given]), resamples=1)
        held += found["worst_recall"].low <= 0.85 <= found["worst_recall"].high
    assert held >= 188  # 95 % of 200, less two deviations of the binomial count at 97 %
    assert "of class 'c" in found["worst_recall"].method


def test_reliability_of_groups_is_resampled_by_group():
    # Ten images of each patient, all right or all wrong: sixty say no more than six patients.
    right = np.repeat([1, 1, 1, 0, 1, 0], 10)
    groups = np.repeat(list("abcdef"), 10)
    alone = reliability(example(1 - right, [[1, 0]] * 60), bins=1)
    together = reliability(example(1 - right, [[1, 0]] * 60, groups=groups), bins=1)
    assert together.accuracy == alone.accuracy == pytest.approx(4 / 6)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)
    everyone = reliability(example([0] * 60, [[1, 0]] * 60, groups=groups), bins=1)
    assert everyone.low == pytest.approx(0.025 ** (1 / 6))  # Clopper and Pearson's of 6 in 6


def test_reliability_adds_up_to_the_calibration_error():
    p = drawn(300, 4, 3)
    bins = reliability(p, temperature=0.7)
    filled = bins.count > 0
    gaps = np.abs(bins.accuracy - bins.confidence)[filled]
    total = (bins.count[filled] * gaps).sum() / 300
    error = expected_calibration_error(p, 0.7)(np.ones((300, 1)))[0]
    assert total == pytest.approx(error)
    assert ((bins.low <= bins.accuracy) & (bins.accuracy <= bins.high))[filled].all()


def test_interval_of_the_calibration_error_covers_where_percentiles_do_not():
    generator = np.random.default_rng(0)

    def overconfident(n):
        z = 1.5 * generator.normal(size=(n, 5))
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        targets = (p.cumsum(axis=1) > generator.random((n, 1))).argmax(axis=1)
        return expected_calibration_error(example(targets, 1.5 * z))

    truth = overconfident(200_000)(np.ones((200_000, 1)))[0]
    covered = {"basic": 0, "percentile": 0}
    for seed in range(150):
        statistics = dict.fromkeys(covered, overconfident(300))
        for name, e in bootstrap(
            statistics, 300, basic=("basic",), resamples=200, seed=seed
        ).items():
            covered[name] += e.low <= truth <= e.high
    assert covered["basic"] / 150 > 0.85
    assert covered["basic"] > covered["percentile"]


def test_soft_targets():
    generator = np.random.default_rng(0)
    targets = generator.dirichlet(np.ones(3), 40)
    p = example(targets, generator.normal(size=(40, 3)), kind="soft")
    figures = classification_metrics(p, resamples=20)
    assert list(figures) == ["accuracy", "nll", "brier"]
    assert figures["accuracy"].value == (p.predicted() == targets.argmax(axis=1)).mean()
    brier = ((p.probabilities() - p.targets) ** 2).sum(axis=1).mean()
    assert figures["brier"].value == pytest.approx(brier)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(EvaluationError, match="no examples"):
        classification_metrics(example(np.zeros(0), np.zeros((0, 3))))
    with pytest.raises(EvaluationError, match="top_k"):
        classification_metrics(drawn(20, 3, 0), top_k=(0,))
    several = example(np.ones((4, 2)), np.zeros((4, 2)), kind="multilabel")
    for figure in (confusion_matrix, reliability):
        with pytest.raises(EvaluationError, match="one class per example"):
            figure(several)
