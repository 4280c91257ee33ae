"""Is one model better than another on the same examples?"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.embedding_predictions import EmbeddingPredictions
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Measure, add_note, bootstrap, tango
from cnn_jax.evaluation.mask_predictions import MaskPredictions
from cnn_jax.evaluation.measured import Answers, measure, usual_metric
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.segmentation import TOLERANCE
from cnn_jax.evaluation.significance import discordant

A = TypeVar("A", bound=Answers)


def paired_difference(
    a: Answers,
    b: Answers,
    metric: str | None = None,
    *,
    tolerance: float = TOLERANCE,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """metric(a) - metric(b) on the same examples, aligned by their ids.

    What is hard for both cancels, and so the interval is narrower than the models' own suggest.
    It covers another test set, not another training seed. For the accuracy of independent
    examples it is Tango's score interval; else the accelerated bootstrap (BCa), which draws
    groups (examples without groups; of embeddings people) once for both models.

    Args:
      a: predictions of one model.
      b: predictions of the other, of the same examples in any order.
      metric: a figure of `classification_metrics`, such as `auroc` or `macro_f1`, of masks
        `segmentation_metrics` or of embeddings `recognition_metrics`; None for the accuracy, of
        masks the Dice, of embeddings the equal error rate.
      tolerance: of the surface Dice of masks.
      level: confidence level.
      resamples: number of resamples.
      seed: of the resamples.

    Raises:
      EvaluationError: other examples, classes, targets or groups, or an unknown metric.
    """
    b = aligned_alike(b, a)
    metric = usual_metric(a) if metric is None else metric
    of_both = measure(a, metric, tolerance=tolerance), measure(b, metric, tolerance=tolerance)
    return difference_of((a, b), of_both, metric, level=level, resamples=resamples, seed=seed)


def compare_segmentations(
    a: MaskPredictions,
    b: MaskPredictions,
    metric: str = "dice_present",
    *,
    tolerance: float = TOLERANCE,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """`paired_difference` of two models that segment.

    Args:
      a: predictions of one model.
      b: predictions of the other, of the same examples in any order.
      metric: a figure of `segmentation_metrics`. Of `hausdorff95`, `false_positives` and
        `false_area` less is better.
      tolerance, level, resamples, seed: as there.

    Raises:
      EvaluationError: other examples, regions, spacing, masks or groups, an unknown metric, or
        one that no case defines.
    """
    return paired_difference(
        a, b, metric, tolerance=tolerance, level=level, resamples=resamples, seed=seed
    )


def difference_of(
    runs: tuple[Answers, Answers],
    measures: tuple[Measure, Measure],
    metric: str,
    *,
    level: float,
    resamples: int,
    seed: int,
) -> Estimate:
    """`paired_difference` of two runs that are aligned and measured already."""
    (a, b), (of_a, of_b) = runs, measures
    estimate = bootstrap(
        {metric: lambda weights: of_a.statistic(weights) - of_b.statistic(weights)},
        len(a),
        a.groups,
        accelerated=(metric,),
        level=level,
        resamples=resamples,
        seed=seed,
    )[metric]
    if of_a.note:
        estimate = add_note(estimate, of_a.note)
    estimate = add_note(estimate, "paired")
    estimate = replace(estimate, n=of_a.n, percent=of_a.percent, difference=True)
    if not (isinstance(a, Predictions) and isinstance(b, Predictions)):
        return estimate
    if metric == "accuracy" and a.kind != "multilabel" and estimate.unit == "example":
        low, high = tango(*discordant(a, b), level)
        estimate = replace(estimate, low=low, high=high, method="Tango; paired")
    return estimate


def aligned_alike(answers: A, other: Answers) -> A:
    """The answers of a run in the order of the other ones, whose groups must be the same.

    Raises:
      EvaluationError: other examples, classes or regions, targets, masks or groups; or the two
        are not of one task.
    """
    for kind, does in (
        (MaskPredictions, "marks masks"),
        (EmbeddingPredictions, "makes embeddings"),
    ):
        if isinstance(answers, kind) != isinstance(other, kind):
            raise EvaluationError(
                f"one of the two {does} and the other does not: compare runs of one task"
            )
    aligned: A = answers.aligned(other)  # type: ignore[arg-type,assignment]
    if not _same_groups(aligned.groups, other.groups):
        raise EvaluationError("the two predictions disagree on the groups")
    return aligned


def _same_groups(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)
