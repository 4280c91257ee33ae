"""Figures of a classifier from its predictions, each with its interval.

All figures are computed on the host in float64. Ties are never broken by chance: of equal
logits the first class is predicted, and equal scores count half in the AUROC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.calibration import expected_calibration_error, refuse_multilabel
from cnn_jax.evaluation.delong import auroc_interval
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Statistic, Units, add_note, bootstrap, proportion, share_of
from cnn_jax.evaluation.multilabel import multilabel_statistics
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import (
    Counts,
    Ranking,
    macro_auroc,
    macro_average_precision,
    mean_statistic,
)


def classification_metrics(
    predictions: Predictions,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    top_k: Sequence[int] = (5,),
) -> dict[str, Estimate]:
    """The figures of one model on one split, in the order they are reported.

    For kind `class`:

    - `accuracy`: Wilson's interval, or Clopper and Pearson's where fewer than 10 are right or
      wrong; the bootstrap if groups hold several examples, of which some are right and some
      wrong.
    - `balanced_accuracy`: mean recall over the classes that have examples.
    - `worst_recall`: the lowest recall of a class that has examples; `Estimate.method` names the
      class, see `worst_recall`. It is no figure to compare runs by (`metric_names`): resamples
      and means over seeds would miss what it is of the truly worst class.
    - `top_5_accuracy` and so on: for every k of `top_k` below the number of classes; intervals
      as for the accuracy.
    - `nll`: mean -log p of the target, in nats.
    - `brier`: Σ_k (p_k - y_k)², summed over classes (0..2; twice the usual one for 2 classes).
    - `ece`: expected calibration error in 15 bins, see `expected_calibration_error`; its
      interval is the basic bootstrap's, all others are percentiles.
    - `macro_f1`: over the classes among targets or predictions.
    - `auroc`, `average_precision`: of each class against the rest, then the mean over the
      classes that have examples and are not all there is; for two classes that of the second
      class (index 1). `Estimate.method` counts the classes left out. The AUROC of two classes
      has DeLong's interval unless groups hold several examples.

    For kind `soft`: `accuracy` against the most likely class, `nll` (cross-entropy) and
    `brier` against the target distribution. For kind `multilabel`: the figures of
    `multilabel_statistics`.

    Args:
      predictions: of every example of the split.
      temperature: divides the logits; as fitted on validation data.
      level: confidence level of the intervals.
      resamples: number of bootstrap resamples.
      seed: of the resamples.
      top_k: which top-k accuracies to give.

    Returns:
      name -> estimate. A figure that is undefined is NaN and `Estimate.method` says why.

    Raises:
      EvaluationError: no examples, or a temperature, level or resamples out of range.
    """
    statistics = metric_statistics(predictions, temperature=temperature, top_k=top_k)
    n = len(predictions)
    estimates = bootstrap(
        statistics,
        n,
        predictions.groups,
        basic=("ece",),
        level=level,
        resamples=resamples,
        seed=seed,
    )
    units = Units.of(n, predictions.groups)
    for name in estimates:
        # That of several labels is a mean of shares.
        if _is_proportion(name) and (predictions.kind, name) != ("multilabel", "accuracy"):
            estimates[name] = interval_of_share(estimates[name], units)
        if in_percent(name):
            estimates[name] = replace(estimates[name], percent=True)
    if predictions.kind == "class":
        worst = worst_recall(predictions, level=level, resamples=resamples, seed=seed)
        items = list(estimates.items())
        at = [name for name, _ in items].index("balanced_accuracy") + 1
        estimates = dict([*items[:at], ("worst_recall", worst), *items[at:]])
    if predictions.kind == "class" and len(predictions.classes) == 2 and units.name == "example":
        estimates["auroc"] = auroc_of_two(
            predictions.log_odds(temperature)[:, 1], predictions.labels() == 1, estimates["auroc"]
        )
    for name in {"auroc", "average_precision"} & set(estimates):
        note = _ranking_note(predictions)
        estimates[name] = add_note(estimates[name], note) if note else estimates[name]
    return estimates


def metric_statistics(
    predictions: Predictions, *, temperature: float = 1.0, top_k: Sequence[int] = (5,)
) -> dict[str, Statistic]:
    """The figures of `classification_metrics` as functions of example weights.

    Raises:
      EvaluationError: the temperature is not positive, or a k of `top_k` is below 1.
    """
    if predictions.kind == "multilabel":
        return multilabel_statistics(predictions, temperature=temperature)
    labels, predicted = predictions.labels(), predictions.predicted()
    k = len(predictions.classes)
    nll = mean_statistic(predictions.negative_log_likelihood(temperature))
    probabilities = predictions.probabilities(temperature)
    truth = np.eye(k)[labels] if predictions.kind == "class" else predictions.targets
    brier = mean_statistic(((probabilities - truth) ** 2).sum(axis=1))
    accuracy = mean_statistic((predicted == labels).astype(np.float64))
    if predictions.kind == "soft":
        return {"accuracy": accuracy, "nll": nll, "brier": brier}
    counts = Counts.of(_one_hot(labels, k), _one_hot(predicted, k))
    rankings = _reported_rankings(predictions, temperature)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": counts.balanced_accuracy,
        **_top_k_statistics(predictions, top_k),
        "nll": nll,
        "brier": brier,
        "ece": expected_calibration_error(predictions, temperature),
        "macro_f1": counts.macro_f1,
        "auroc": macro_auroc(rankings),
        "average_precision": macro_average_precision(rankings),
    }


def worst_recall(
    predictions: Predictions, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """The lowest recall of the K classes that have examples, with the interval of the lowest.

    The lowest of several shares falls below the truth by chance, and that of a resample further.
    With intervals [l_k, h_k] of each recall the lowest lies in [min l_k, min h_k]: below that
    with at most the chance that one l_k errs, that of the truly worst class; above it with at
    most the chance that any h_k errs, so the h_k are of level 1 - (1 - level) / K.

    Args:
      predictions: of kind `class`.
      level: confidence level.
      resamples, seed: of the bootstrap, where groups hold several examples.

    Raises:
      EvaluationError: no examples, or a level out of range.
    """
    labels = predictions.labels()
    right = predictions.predicted() == labels
    units = Units.of(len(labels), predictions.groups)
    present = np.unique(labels).tolist()

    def share(k: int, level: float) -> Estimate:
        """The recall of a class."""
        inside = labels == k
        return share_of(right[inside], units, inside, level=level, resamples=resamples, seed=seed)

    wide = 1 - (1 - level) / len(present)
    worst = min(present, key=lambda k: right[labels == k].mean())
    return replace(
        share(worst, level),
        n=len(labels),
        low=min(share(k, level).low for k in present),
        high=min(share(k, wide).high for k in present),
        method=f"lowest ends of all classes; of class {predictions.classes[worst]!r}",
    )


def metric_names(predictions: Predictions) -> tuple[str, ...]:
    """The names of the figures of `classification_metrics` for such predictions, in order."""
    return tuple(metric_statistics(predictions))


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """int64 `[K, K]`: how many examples of class (row) were predicted as class (column).

    Raises:
      EvaluationError: multi-label predictions, which have no single class.
    """
    refuse_multilabel(predictions, "a confusion matrix")
    k = len(predictions.classes)
    cells = predictions.labels() * k + predictions.predicted()
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def in_percent(name: str) -> bool:
    """Whether a figure of `classification_metrics` prints as per cent."""
    return name in ("balanced_accuracy", "worst_recall") or _is_proportion(name)


def _is_proportion(name: str) -> bool:
    """Whether a figure is the share of examples for which something holds."""
    return name in ("accuracy", "subset_accuracy") or name.startswith("top_")


def interval_of_share(estimate: Estimate, units: Units) -> Estimate:
    """The interval of a share where examples are independent, and where all or none are right.

    In the second case each group is all right or all wrong, and counts as one example.
    """
    alike = estimate.value in (0, 1)
    if units.name == "group" and not (alike and units.count > 1):
        return estimate
    right = round(estimate.value * units.count)
    low, high, method = proportion(right, units.count, estimate.level)
    method += "" if units.name == "example" else " over groups"
    return replace(estimate, low=low, high=high, method=method)


def auroc_of_two(scores: np.ndarray, positive: np.ndarray, resampled: Estimate) -> Estimate:
    """DeLong's interval of an AUROC; the bootstrap's where it needs more."""
    if min(int(positive.sum()), int((~positive).sum())) < 2:
        return resampled
    return auroc_interval(scores, positive, level=resampled.level)


def _one_hot(labels: np.ndarray, k: int) -> np.ndarray:
    return labels[:, np.newaxis] == np.arange(k)


def _top_k_statistics(predictions: Predictions, top_k: Sequence[int]) -> Mapping[str, Statistic]:
    if min(top_k, default=1) < 1:
        raise EvaluationError(f"top_k must be 1 or more, not {min(top_k)}")
    logits, labels = predictions.logits, predictions.labels()
    of_target = np.take_along_axis(logits, labels[:, np.newaxis], axis=1)
    # As for argmax, the first of equal logits goes first.
    first = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    ahead = ((logits > of_target) | ((logits == of_target) & first)).sum(axis=1)
    return {
        f"top_{k}_accuracy": mean_statistic((ahead < k).astype(np.float64))
        for k in top_k
        if k < logits.shape[1]
    }


def _reported_rankings(predictions: Predictions, temperature: float) -> list[Ranking]:
    scores, labels = predictions.log_odds(temperature), predictions.labels()
    classes = [1] if len(predictions.classes) == 2 else range(len(predictions.classes))
    return [Ranking.of(scores[:, k], labels == k) for k in classes]


def _ranking_note(predictions: Predictions) -> str:
    """What a reader must know about the mean over classes; empty if it is over all of them."""
    k = len(predictions.classes)
    if predictions.kind == "multilabel":
        positives = (predictions.targets > 0.5).sum(axis=0)
        missing = int(((positives == 0) | (positives == len(predictions))).sum())
        return f"labels never or always present left out: {missing}" if missing else ""
    counts = np.bincount(predictions.labels(), minlength=k)
    if counts.max() == len(predictions):
        return "all examples are of one class"
    if k == 2:
        return f"of class {predictions.classes[1]!r}"
    missing = int((counts == 0).sum())
    return f"classes without examples left out: {missing}" if missing else ""
