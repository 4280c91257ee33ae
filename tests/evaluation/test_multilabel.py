import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from cnn_jax.evaluation.classification import classification_metrics
from cnn_jax.evaluation.predictions import Predictions


def example(targets, logits):
    n, k = targets.shape
    return Predictions(
        split="test",
        ids=np.arange(n).astype(str),
        targets=targets.astype(np.float32),
        logits=logits.astype(np.float32),
        classes=tuple(f"c{i}" for i in range(k)),
        kind="multilabel",
    )


@settings(deadline=None, max_examples=30)
@given(n=st.integers(20, 60), k=st.integers(1, 5), seed=st.integers(0, 10**6), ties=st.booleans())
def test_values_are_scikit_learns(n, k, seed, ties):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, (n, k))
    logits = generator.normal(size=(n, k)) + targets
    p = example(targets, logits.round() if ties else logits)
    if (targets.min(axis=0) == 1).any() or (targets.max(axis=0) == 0).any():
        return
    figures = classification_metrics(p, resamples=1)
    z, given_labels = p.logits.astype(np.float64), p.logits > 0
    nll = [sklearn_metrics.log_loss(targets[:, c], p.probabilities()[:, c]) for c in range(k)]
    expected = {
        "auroc": sklearn_metrics.roc_auc_score(targets, z, average="macro"),
        "average_precision": sklearn_metrics.average_precision_score(targets, z),
        "accuracy": 1 - sklearn_metrics.hamming_loss(targets, given_labels),
        "subset_accuracy": (targets == given_labels).all(axis=1).mean(),
        "macro_f1": sklearn_metrics.f1_score(
            targets, given_labels, average="macro" if k > 1 else "binary"
        ),
        "nll": np.mean(nll),
    }
    if k > 1:
        expected["micro_f1"] = sklearn_metrics.f1_score(targets, given_labels, average="micro")
    for name, value in expected.items():
        assert figures[name].value == pytest.approx(value, abs=1e-9), name


def test_labels_never_present_are_left_out_and_said():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, (40, 3))
    targets[:, 1] = 0
    p = example(targets, generator.normal(size=(40, 3)))
    auroc = classification_metrics(p, resamples=20)["auroc"]
    kept = [sklearn_metrics.roc_auc_score(targets[:, c], p.logits[:, c]) for c in (0, 2)]
    assert auroc.value == pytest.approx(np.mean(kept))
    assert auroc.method.endswith("labels never or always present left out: 1")


def test_half_is_not_above_half():
    p = example(np.array([[1], [0]]), np.zeros((2, 1)))
    figures = classification_metrics(p, resamples=5)
    assert figures["accuracy"].value == 0.5
    assert figures["macro_f1"].value == 0
    nothing = example(np.zeros((2, 1)), np.zeros((2, 1)))
    assert math.isnan(classification_metrics(nothing, resamples=5)["macro_f1"].value)
