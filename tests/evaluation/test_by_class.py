import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.by_class import per_class
from cnn_jax.evaluation.predictions import Predictions


def example(targets, logits, kind="class"):
    return Predictions(
        split="test",
        ids=np.arange(len(targets)).astype(str),
        targets=np.asarray(targets, np.int32 if kind == "class" else np.float32),
        logits=np.asarray(logits, np.float32),
        classes=tuple("wxyz"),
        kind=kind,
    )


@pytest.mark.parametrize("kind", ["class", "multilabel"])
def test_rows_are_scikit_learns(kind):
    generator = np.random.default_rng(0)
    if kind == "class":
        targets = generator.integers(0, 4, 80)
        actual = np.eye(4)[targets]
    else:
        targets = actual = generator.integers(0, 2, (80, 4))
    p = example(targets, generator.normal(size=(80, 4)) + actual, kind)
    predicted = np.eye(4)[p.predicted()] if kind == "class" else p.logits > 0
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        actual, predicted, average=None
    )
    rows = per_class(p, resamples=50)
    assert [row.name for row in rows] == list("wxyz")
    for k, row in enumerate(rows):
        score = p.log_odds()[:, k]
        assert row.support == support[k]
        assert row.precision.value == pytest.approx(precision[k])
        assert row.recall.value == pytest.approx(recall[k])
        assert row.f1.value == pytest.approx(f1[k])
        auroc = sklearn_metrics.roc_auc_score(actual[:, k], score)
        assert row.auroc.value == pytest.approx(auroc)
        ap = sklearn_metrics.average_precision_score(actual[:, k], score)
        assert row.average_precision.value == pytest.approx(ap)
        assert row.f1.low <= row.f1.value <= row.f1.high


def test_nothing_over_nothing_is_0_and_flagged():
    row = per_class(example([0, 1, 2, 0], np.eye(4)[[0, 1, 2, 1]]), resamples=20)[3]
    assert row.support == 0
    for estimate in (row.precision, row.recall, row.f1):
        assert (estimate.value, estimate.method) == (0, "0/0, defined as 0")
        assert math.isnan(estimate.low)
    assert math.isnan(row.auroc.value)
    assert "needs examples of the class" in row.auroc.method


def test_soft_targets_are_refused():
    with pytest.raises(EvaluationError, match="hard labels"):
        per_class(example(np.full((3, 4), 0.25), np.zeros((3, 4)), "soft"))
