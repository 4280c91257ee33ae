"""One figure of one run as what is resampled: of classes, of masks and of embeddings alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import IN_PERCENT, metric_statistics
from cnn_jax.evaluation.embedding_predictions import EmbeddingPredictions
from cnn_jax.evaluation.intervals import Statistic
from cnn_jax.evaluation.mask_predictions import MaskPredictions
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.recognition import recognition_statistics
from cnn_jax.evaluation.segmentation import (
    SEGMENTATION_IN_PERCENT,
    TOLERANCE,
    case_figures,
    case_ratios,
    notes_of,
)

Answers = Predictions | MaskPredictions | EmbeddingPredictions


@dataclass(frozen=True, eq=False)
class Measure:
    """A figure of one run, made once however often it is resampled.

    Attributes:
      statistic: the figure as a function of weights of the examples.
      examples: N, how many there are.
      n: what the figure is over: the examples or, of masks, the cases or lesions that define it,
        and of embeddings the pairs.
      percent: whether it prints as per cent.
      note: its unit or tolerance, where it has one.
    """

    statistic: Statistic
    examples: int
    n: int
    percent: bool
    note: str = ""

    @property
    def value(self) -> float:
        """The figure itself: every example counts once."""
        return float(self.statistic(np.ones((self.examples, 1)))[0])


def usual_metric(answers: Answers) -> str:
    """The figure that is compared where none is named."""
    if isinstance(answers, EmbeddingPredictions):
        return "eer"
    return "dice" if isinstance(answers, MaskPredictions) else "accuracy"


def measures(answers: Answers, *, tolerance: float = TOLERANCE) -> dict[str, Measure]:
    """Every figure that runs are compared by, in the order they are reported.

    Args:
      answers: of one run.
      tolerance: of the surface Dice of masks; see `segmentation_metrics`.

    Returns:
      name -> figure, of `classification_metrics`, `segmentation_metrics` or
      `recognition_metrics`. Of masks without those that no case defines.
    """
    count = len(answers)
    if isinstance(answers, EmbeddingPredictions):
        return {
            name: Measure(one.statistic, count, one.n, one.percent, one.note)
            for name, one in recognition_statistics(answers).items()
        }
    if isinstance(answers, MaskPredictions):
        ratios = case_ratios(case_figures(answers, tolerance=tolerance), answers.regions)
        notes = notes_of(answers, tolerance)
        return {
            name: Measure(
                one.statistic,
                count,
                one.n,
                name in SEGMENTATION_IN_PERCENT,
                notes.get(name.removesuffix("_present"), ""),
            )
            for name, one in ratios.items()
        }
    return {
        name: Measure(statistic, count, count, name in IN_PERCENT)
        for name, statistic in metric_statistics(answers).items()
    }


def measure(answers: Answers, metric: str, *, tolerance: float = TOLERANCE) -> Measure:
    """One of `measures`.

    Raises:
      EvaluationError: there is no such figure for such predictions.
    """
    found = measures(answers, tolerance=tolerance)
    if metric not in found:
        raise EvaluationError(f"no metric {metric!r}: choose one of {', '.join(found)}")
    return found[metric]
