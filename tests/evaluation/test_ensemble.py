"""Ensembles: the mean of probabilities, by definition and by law."""

import itertools

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

from cnn_jax import evaluation
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Predictions


def member(logits, targets=None, kind="class", groups=None, order=None):
    n, k = logits.shape
    targets = np.arange(n, dtype=np.int32) % k if targets is None else targets
    order = np.arange(n) if order is None else order
    return Predictions(
        split="test",
        ids=np.array([f"i{i}" for i in range(n)])[order],
        targets=targets[order],
        logits=logits.astype(np.float32)[order],
        classes=tuple("abcdefgh"[:k]),
        kind=kind,
        groups=None if groups is None else groups[order],
    )


def draws(members=4, n=50, k=3, scale=3.0, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, k))
    return [scale * (common + rng.normal(size=(n, k))) for _ in range(members)]


def test_the_mean_of_the_softmax():
    logits = draws()
    found = evaluation.ensemble([member(z) for z in logits])
    expected = np.mean([softmax(z, axis=1) for z in logits], axis=0)
    np.testing.assert_allclose(found.probabilities(), expected, rtol=1e-5)


def test_the_mean_of_the_sigmoid():
    logits = draws(k=5)
    targets = np.random.default_rng(1).integers(0, 2, (50, 5)).astype(np.float32)
    found = evaluation.ensemble([member(z, targets, "multilabel") for z in logits])
    expected = np.mean([expit(z) for z in logits], axis=0)
    np.testing.assert_allclose(found.probabilities(), expected, rtol=1e-5)


def test_logits_beyond_what_exp_can_hold():
    logits = [np.array([[1000.0, 0.0, -1000.0]]), np.array([[-1000.0, 0.0, 1000.0]])]
    found = evaluation.ensemble([member(z) for z in logits])
    np.testing.assert_allclose(found.probabilities(), [[0.5, 0.0, 0.5]], atol=1e-12)
    targets = np.ones((1, 3), np.float32)
    several = evaluation.ensemble([member(z, targets, "multilabel") for z in logits])
    np.testing.assert_allclose(several.probabilities(), [[0.5, 0.5, 0.5]], atol=1e-6)


def test_equal_members_are_their_ensemble():
    one = member(draws()[0])
    found = evaluation.ensemble([one, one, one])
    np.testing.assert_allclose(found.probabilities(), one.probabilities(), rtol=1e-5)
    apart = evaluation.disagreement([one, one, one])
    assert not apart.pairs.any()
    np.testing.assert_allclose(apart.between, 0, atol=1e-12)
    gain = evaluation.ensemble_gain([one, one], "nll")
    assert gain.difference.value == pytest.approx(0, abs=1e-6)


def test_the_order_of_the_examples_does_not_matter():
    logits = draws()
    order = np.random.default_rng(2).permutation(50)
    mixed = [member(logits[0]), *(member(z, order=order) for z in logits[1:])]
    found = evaluation.ensemble(mixed)
    expected = evaluation.ensemble([member(z) for z in logits])
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)


def test_disagreement_by_definition():
    logits = draws(members=5)
    found = evaluation.disagreement([member(z) for z in logits])
    answers = [z.argmax(axis=1) for z in logits]
    pairs = [a != b for a, b in itertools.combinations(answers, 2)]
    np.testing.assert_allclose(found.pairs, np.mean(pairs, axis=0))
    p = np.stack([softmax(z.astype(np.float32).astype(float), axis=1) for z in logits])
    np.testing.assert_allclose(found.total, entropy(p.mean(axis=0), axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.within, entropy(p, axis=2).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.between, found.total - found.within, rtol=1e-9)
    assert (found.between >= 0).all()  # entropy is concave


def test_disagreement_of_several_labels():
    logits = draws(members=3, k=4)
    targets = np.zeros((50, 4), np.float32)
    found = evaluation.disagreement([member(z, targets, "multilabel") for z in logits])
    answers = [z > 0 for z in logits]
    pairs = [(a != b).mean(axis=1) for a, b in itertools.combinations(answers, 2)]
    np.testing.assert_allclose(found.pairs, np.mean(pairs, axis=0))
    p = np.stack([expit(z.astype(np.float32).astype(float)) for z in logits])
    binary = entropy(np.stack([p, 1 - p]), axis=0)
    np.testing.assert_allclose(found.within, binary.sum(axis=2).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("metric", ["nll", "brier"])
def test_a_convex_loss_is_never_worse_than_the_members_mean(metric):
    """Jensen's inequality, for every set of members."""
    for seed in range(5):
        gain = evaluation.ensemble_gain([member(z) for z in draws(seed=seed)], metric)
        assert gain.difference.value < 0
        assert gain.ensemble.value == pytest.approx(gain.members + gain.difference.value)


def test_the_gain_is_paired_and_over_groups():
    groups = np.array([f"g{i // 5}" for i in range(50)])
    runs = [member(z, groups=groups) for z in draws()]
    gain = evaluation.ensemble_gain(runs, "accuracy")
    assert gain.difference.unit == gain.ensemble.unit == "group"
    assert gain.difference.percent and "paired" in gain.difference.method
    alone = [(run.predicted() == run.targets).mean() for run in runs]
    assert gain.members == pytest.approx(np.mean(alone))
    together = (evaluation.ensemble(runs).predicted() == runs[0].targets).mean()
    assert gain.ensemble.value == pytest.approx(together)
    width = gain.difference.high - gain.difference.low
    assert 0 < width < gain.ensemble.high - gain.ensemble.low


def test_what_is_no_ensemble():
    one = member(draws()[0])
    for runs in ([], [one]):
        with pytest.raises(EvaluationError, match=f"two members or more, not {len(runs)}"):
            evaluation.ensemble(runs)
    other = member(draws(n=40)[0])
    with pytest.raises(EvaluationError):
        evaluation.ensemble([one, other])
    with pytest.raises(EvaluationError, match="no metric 'f2'"):
        evaluation.ensemble_gain([one, one], "f2")
