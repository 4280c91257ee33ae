"""The two figures of MedMNIST's tables, as its evaluator computes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import auroc_of_two, interval_of_share
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, Units, bootstrap
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import Ranking, mean_statistic


def medmnist_figures(
    predictions: Predictions, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """AUC and ACC by the protocol of MedMNIST (Yang et al. 2023), each with its interval.

    - `auc`: of two classes that of the second one, by its probability; of more (ordered ones
      too) each class against the rest, and the plain mean over all classes; of several labels
      the mean over the labels. Ties count half.
    - `acc`: of two classes, the second one is predicted where its probability is above 1/2; of
      more, the first of the largest probabilities; of several labels the mean over labels of
      the share that is right, a label being given where its probability is above 1/2.

    Probabilities are the softmax (sigmoid for several labels) in float64, without temperature.
    Where all sick examples are of the first class, as in BreastMNIST (0 is malignant), the AUC is
    the same seen from either side.

    Args:
      predictions: of every example of the split.
      level, resamples, seed: of the bootstrap by groups. Of independent examples of classes
        the ACC has Wilson's or Clopper and Pearson's interval, the AUC of two classes DeLong's.

    Raises:
      EvaluationError: soft targets; or a class (or label) that no example, or every one, has: the
        protocol has no AUC for it.
    """
    if predictions.kind == "soft":
        raise EvaluationError("MedMNIST's figures need hard labels, and these targets are soft")
    statistics = _statistics(predictions)
    n = len(predictions)
    found = bootstrap(
        statistics, n, predictions.groups, level=level, resamples=resamples, seed=seed
    )
    units = Units.of(n, predictions.groups)
    if predictions.kind == "class":
        found["acc"] = interval_of_share(found["acc"], units)
        if len(predictions.classes) == 2 and units.name == "example":
            score, positive = predictions.probabilities()[:, 1], predictions.labels() == 1
            found["auc"] = auroc_of_two(score, positive, found["auc"])
    return {"auc": found["auc"], "acc": replace(found["acc"], percent=True)}


def _statistics(predictions: Predictions) -> dict[str, Statistic]:
    probabilities, k = predictions.probabilities(), len(predictions.classes)
    if predictions.kind == "multilabel":
        actual = predictions.targets > 0.5
        right = ((probabilities > 0.5) == actual).mean(axis=1)
        ranked: tuple[int, ...] = tuple(range(k))
    else:
        labels = predictions.labels()
        actual = labels[:, np.newaxis] == np.arange(k)
        given = probabilities[:, 1] > 0.5 if k == 2 else probabilities.argmax(axis=1)
        right = (given == labels).astype(np.float64)
        ranked = (1,) if k == 2 else tuple(range(k))
    for column in ranked:
        if actual[:, column].all() or not actual[:, column].any():
            raise EvaluationError(
                f"MedMNIST's AUC needs examples of {predictions.classes[column]!r} and of others "
                f"in {predictions.split!r}"
            )
    rankings = [Ranking.of(probabilities[:, column], actual[:, column]) for column in ranked]
    return {
        "auc": lambda weights: np.mean([r.auroc(weights) for r in rankings], axis=0),
        "acc": mean_statistic(right),
    }
