"""The fate of each example against NumPy's and scikit-learn's figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from sklearn import metrics as sklearn_metrics

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Fate, Predictions

CLASSES = ("w", "x", "y", "z")


def predictions(targets, logits, kind="class"):
    return Predictions(
        split="test",
        ids=np.array([f"id{i}" for i in range(len(targets))]),
        targets=np.asarray(targets, np.int32 if kind == "class" else np.float32),
        logits=np.asarray(logits, np.float32),
        classes=CLASSES,
        kind=kind,
    )


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 40), seed=st.integers(0, 10**6), temperature=st.floats(1, 10))
def test_classes(n, seed, temperature):
    generator = np.random.default_rng(seed)
    p = predictions(generator.integers(0, 4, n), 3 * generator.normal(size=(n, 4)))
    probabilities = softmax(p.logits.astype(np.float64) / temperature, axis=1)
    fate = Fate.of(p, temperature)
    assert fate.loss.mean() == pytest.approx(
        sklearn_metrics.log_loss(p.targets, probabilities, labels=range(4))
    )
    assert 1 - fate.wrong.mean() == pytest.approx(
        sklearn_metrics.accuracy_score(p.targets, probabilities.argmax(axis=1))
    )
    np.testing.assert_allclose(fate.p_given, np.exp(-fate.loss))
    np.testing.assert_allclose(fate.p_predicted, probabilities.max(axis=1))
    for i, k in enumerate(p.targets):
        assert fate.margin[i] == pytest.approx(
            probabilities[i, k] - np.delete(probabilities[i], k).max()
        )
    assert ((fate.margin < 0) == fate.wrong).all()
    order = fate.hardest()
    assert sorted(order) == list(range(n)) and (np.diff(fate.loss[order]) <= 0).all()


def test_several_labels():
    generator = np.random.default_rng(1)
    targets = generator.integers(0, 2, (50, 4))
    p = predictions(targets, 2 * generator.normal(size=(50, 4)), "multilabel")
    fate = Fate.of(p, 2.0)
    q = expit(p.logits.astype(np.float64) / 2)
    right = np.where(targets == 1, q, 1 - q)
    np.testing.assert_allclose(fate.p_given, right.prod(axis=1))
    np.testing.assert_allclose(fate.loss, -np.log(right).mean(axis=1))
    np.testing.assert_allclose(fate.p_predicted, np.maximum(q, 1 - q).prod(axis=1))
    np.testing.assert_allclose(fate.margin, (2 * right - 1).min(axis=1))
    subset = sklearn_metrics.accuracy_score(targets, q > 0.5)
    assert 1 - fate.wrong.mean() == pytest.approx(subset)
    assert ((fate.margin < 0) == fate.wrong).all()
    recall = sklearn_metrics.recall_score(targets, q > 0.5, average=None)
    rows = {row.name: row for row in fate.errors_by_class()}
    for k, name in enumerate(CLASSES):
        missed = len(rows[name].examples) / rows[name].support
        assert missed == pytest.approx(1 - recall[k]) and rows[name].taken_for == ()


def test_soft_targets_are_named_by_their_most_likely_class():
    p = predictions([[0.6, 0.4, 0, 0]], [[0.0, 2, 0, 0]], "soft")
    fate = Fate.of(p)
    log_p = np.log(softmax([0.0, 2, 0, 0]))
    assert fate.loss == pytest.approx([-(0.6 * log_p[0] + 0.4 * log_p[1])], rel=1e-6)
    assert (fate.given_name(0), fate.predicted_name(0)) == ("w", "x")
    assert fate.p_given == pytest.approx(np.exp(log_p[:1]))


def test_errors_by_class_are_those_of_the_confusion_matrix():
    generator = np.random.default_rng(2)
    p = predictions(generator.integers(0, 3, 60), generator.normal(size=(60, 4)))
    fate = Fate.of(p)
    confusion = sklearn_metrics.confusion_matrix(p.targets, p.predicted(), labels=range(4))
    rows = fate.errors_by_class()
    assert [len(row.examples) for row in rows] == sorted(
        (confusion.sum(axis=1) - np.diag(confusion))[:3], reverse=True
    )
    for row in rows:  # `z` has no examples, hence no errors
        k = CLASSES.index(row.name)
        assert row.support == confusion[k].sum()
        counts = {CLASSES[j]: confusion[k, j] for j in range(4) if j != k and confusion[k, j]}
        assert dict(row.taken_for) == counts
        assert [n for _, n in row.taken_for] == sorted(counts.values(), reverse=True)
        assert (p.targets[row.examples] == k).all() and fate.wrong[row.examples].all()
        assert (np.diff(fate.loss[row.examples]) <= 0).all()


def test_confusions_are_the_cells_of_the_matrix_beside_the_clearest_of_the_other_class():
    generator = np.random.default_rng(3)
    p = predictions(generator.integers(0, 4, 200), generator.normal(size=(200, 4)))
    fate = Fate.of(p)
    confusion = sklearn_metrics.confusion_matrix(p.targets, p.predicted(), labels=range(4))
    rows = fate.confusions()
    assert len(rows) == np.count_nonzero(confusion - np.diag(np.diag(confusion)))
    assert [len(row.examples) for row in rows] == sorted(map(len, (r.examples for r in rows)))[::-1]
    for row in rows:
        i, j = CLASSES.index(row.given), CLASSES.index(row.predicted)
        assert len(row.examples) == confusion[i, j] and row.support == confusion[i].sum()
        assert (p.targets[row.examples] == i).all() and (p.predicted()[row.examples] == j).all()
        assert (np.diff(fate.loss[row.examples]) <= 0).all()
        assert len(row.clearest) == confusion[j, j]
        assert (p.targets[row.clearest] == j).all() and not fate.wrong[row.clearest].any()
        assert (np.diff(fate.p_given[row.clearest]) <= 0).all()
    assert [r.examples.tolist() for r in fate.confusions(3)] == [
        r.examples.tolist() for r in rows[:3]
    ]
    # as many of each, but of fewer: one of one x before one of two w
    equal = Fate.of(predictions([0, 0, 1], [[0, 0, 9, 0], [9, 0, 0, 0], [9, 0, 0, 0]]))
    assert [(row.given, row.predicted) for row in equal.confusions()] == [("x", "w"), ("w", "y")]
    labels = predictions([[1, 0, 1, 0]], [[-1, -1, -1, -1]], "multilabel")
    assert Fate.of(labels).confusions() == ()
    with pytest.raises(EvaluationError, match="at least 1, not 0"):
        fate.confusions(0)


def test_the_hardest_of_a_class_and_their_names():
    p = predictions([0, 1, 0, 1], [[1, 0, 0, 0], [9, 0, 0, 0], [0, 0, 5, 0], [1, 0, 0, 0]])
    fate = Fate.of(p)
    assert fate.hardest().tolist() == [1, 2, 3, 0]
    assert fate.hardest(1, of_class="w").tolist() == [2]
    assert (fate.given_name(2), fate.predicted_name(2)) == ("w", "y")
    equal = Fate.of(predictions([0, 1, 2], np.zeros((3, 4))))
    assert equal.hardest().tolist() == [0, 1, 2]
    labels = Fate.of(predictions([[1, 0, 1, 0]], [[-1, -1, -1, -1]], "multilabel"))
    assert (labels.given_name(0), labels.predicted_name(0)) == ("w; y", "(no label)")


def test_far_logits_stay_finite_and_bad_questions_are_refused():
    fate = Fate.of(predictions([0, 1], [[3e4, -3e4, 0, 0]] * 2), 0.05)
    assert fate.loss.tolist() == [0, 1.2e6] and fate.p_given.tolist() == [1, 0]
    empty = Fate.of(predictions([], np.zeros((0, 4))))
    assert len(empty) == 0 and empty.errors_by_class() == ()
    with pytest.raises(EvaluationError, match="no class 'q' in 'test': there are w, x, y, z"):
        fate.hardest(of_class="q")
    with pytest.raises(EvaluationError, match="at least 1, not 0"):
        fate.hardest(0)
    with pytest.raises(EvaluationError, match="temperature"):
        Fate.of(predictions([0], [[0, 0, 0, 1]]), 0)
