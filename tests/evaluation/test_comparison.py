from dataclasses import replace

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import classification_metrics
from cnn_jax.evaluation.comparison import paired_difference
from cnn_jax.evaluation.predictions import Predictions


def two_models(n=200, seed=0, gain=0.5):
    """Two models with errors in common; the first is better by `gain`."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 3, n).astype(np.int32)
    shared = generator.normal(size=(n, 3))
    b = Predictions(
        split="test",
        ids=np.array([f"{i:04d}" for i in range(n)]),
        targets=targets,
        logits=(shared + np.eye(3)[targets]).astype(np.float32),
        classes=("a", "b", "c"),
        groups=(np.arange(n) // 2).astype(str),
    )
    own = 0.2 * generator.normal(size=(n, 3)) + gain * np.eye(3)[targets]
    return replace(b, logits=(b.logits + own).astype(np.float32)), b


def shuffled(p, seed=1):
    order = np.random.default_rng(seed).permutation(len(p))
    return Predictions(
        split=p.split,
        ids=p.ids[order],
        targets=p.targets[order],
        logits=p.logits[order],
        classes=p.classes,
        groups=p.groups[order],
    )


@pytest.mark.parametrize("metric", ["accuracy", "auroc", "macro_f1", "nll"])
def test_difference_of_the_figures_whatever_the_order(metric):
    a, b = two_models()
    difference = paired_difference(a, shuffled(b), metric)
    of_a, of_b = (classification_metrics(p)[metric] for p in (a, b))
    assert difference.value == pytest.approx(of_a.value - of_b.value)
    assert difference.high - difference.low < of_a.high - of_a.low
    assert (difference.unit, difference.n) == ("group", 200)
    assert "paired" in difference.method
    back = paired_difference(b, a, metric)
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))


def test_equal_models_differ_by_nothing():
    a, _ = two_models()
    same = paired_difference(a, shuffled(a))
    assert same.value == 0 and np.isnan(same.low) and "no resample differs" in same.method
    single = replace(a, groups=None)
    same = paired_difference(single, single)
    assert same.low < same.value == 0 < same.high and same.method == "Tango; paired"


def test_interval_covers_no_difference():
    covered = 0
    for seed in range(200):
        a, b = two_models(100, seed, gain=0.0)
        # Noise alone loses accuracy, so both get it.
        noise = 0.2 * np.random.default_rng(seed + 10_000).normal(size=(100, 3))
        b = replace(b, logits=(b.logits + noise).astype(np.float32))
        e = paired_difference(a, b, "nll", seed=seed)
        covered += e.low <= 0 <= e.high
    assert 0.9 < covered / 200 < 0.985


def test_what_cannot_be_compared_is_refused():
    a, b = two_models(20)
    with pytest.raises(EvaluationError, match="choose one of accuracy"):
        paired_difference(a, b, "speed")
    with pytest.raises(EvaluationError, match="groups"):
        paired_difference(a, replace(b, groups=None))
    with pytest.raises(EvaluationError, match="groups"):
        paired_difference(a, replace(b, groups=b.groups[::-1]))
    with pytest.raises(EvaluationError, match="same examples"):
        paired_difference(a, two_models(18)[1])
