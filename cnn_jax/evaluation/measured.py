"""One figure of one run as what is resampled: of classes, of masks and of embeddings alike."""

from __future__ import annotations

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import in_percent, metric_statistics
from cnn_jax.evaluation.embedding_predictions import EmbeddingPredictions
from cnn_jax.evaluation.intervals import Measure
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
    if isinstance(answers, EmbeddingPredictions):
        return recognition_statistics(answers)
    count = len(answers)
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
        name: Measure(statistic, count, count, in_percent(name))
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
