"""Several networks as one: the mean of their probabilities, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import (
    classification_metrics,
    in_percent,
    metric_statistics,
)
from cnn_jax.evaluation.comparison import aligned_alike
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import add_note, bootstrap
from cnn_jax.evaluation.predictions import P, Predictions, TargetKind, log_probabilities


def ensemble(runs: Sequence[P]) -> P:
    """The predictions of a deep ensemble (Lakshminarayanan et al. 2017).

    p(k | x) is the mean over the members of softmax(z)_k, or of sigmoid(z)_k where an example may
    have several labels; the logits are those that give p.

    Args:
      runs: two or more, of the same examples in any order.

    Raises:
      EvaluationError: fewer than two, or other examples, classes, targets or groups.
    """
    aligned = _aligned(runs)
    logits = mean_logits([run.logits for run in aligned], aligned[0].kind)
    return replace(aligned[0], logits=logits, run_digest="")


def mean_logits(logits: Sequence[np.ndarray], kind: TargetKind) -> np.ndarray:
    """Logits float32 `[N, K]` of the mean probabilities of several networks' logits `[N, K]`."""
    mean = _log_mean([log_probabilities(one, kind) for one in logits])
    if kind == "multilabel":
        mean = mean - _log_mean([log_probabilities(-one, kind) for one in logits])
    return mean.astype(np.float32)


@dataclass(frozen=True)
class Disagreement:
    """How far the members of an ensemble agree, float64 `[N]` each, in nats where entropies.

    Attributes:
      pairs: share of the pairs of members that predict other classes (of several labels: the
        mean over the labels).
      total: entropy of the mean probabilities.
      within: mean entropy of the members: what they are unsure of, each for itself.
      between: total - within, the mutual information of label and member: what one of them
        knows and another does not. High far from the training data.
    """

    pairs: np.ndarray
    total: np.ndarray
    within: np.ndarray
    between: np.ndarray


def disagreement(runs: Sequence[Predictions]) -> Disagreement:
    """Where the members of an ensemble differ, for each example in the order of the first.

    Raises:
      EvaluationError: as `ensemble`.
    """
    aligned = _aligned(runs)
    probabilities = np.stack([run.probabilities() for run in aligned])  # [M, N, K]
    members = len(aligned)
    several = aligned[0].kind == "multilabel"
    votes = probabilities > 0.5 if several else _one_hot(probabilities)
    count = votes.sum(axis=0)  # of the members, by class
    if several:
        apart = (count * (members - count)).mean(axis=1)
    else:
        apart = (members**2 - (count**2).sum(axis=1)) / 2
    total = _entropy(probabilities.mean(axis=0), several=several)
    within = _entropy(probabilities, several=several).mean(axis=0)
    between = np.maximum(total - within, 0.0)  # rounding may leave a little less than nothing
    return Disagreement(apart / (members * (members - 1) / 2), total, within, between)


@dataclass(frozen=True)
class Gain:
    """One figure of an ensemble beside that of its members.

    Attributes:
      ensemble: with the interval over test sets.
      members: mean of the members' figures.
      difference: ensemble - members, with its paired interval over test sets.
    """

    ensemble: Estimate
    members: float
    difference: Estimate


def ensemble_gain(
    runs: Sequence[Predictions],
    metric: str = "accuracy",
    *,
    together: Predictions | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Gain:
    """What is gained by asking all members rather than one of them, on the same examples.

    The interval of the difference is the accelerated bootstrap's, over groups, of this very
    ensemble and its members; what other seeds would give is not in it.

    Args:
      runs: the members.
      metric: a figure of `classification_metrics`.
      together: the ensemble, where it is not simply that of the members, but calibrated.
      level: confidence level.
      resamples: number of resamples.
      seed: of the resamples.

    Raises:
      EvaluationError: as `ensemble`, or an unknown metric.
    """
    aligned = _aligned(runs)
    whole_ensemble = ensemble(aligned) if together is None else aligned_alike(together, runs[0])
    of_ensemble = metric_statistics(whole_ensemble)
    if metric not in of_ensemble:
        raise EvaluationError(f"no metric {metric!r}: choose one of {', '.join(of_ensemble)}")
    alone = [metric_statistics(run)[metric] for run in aligned]
    one = of_ensemble[metric]
    difference = {
        "difference": lambda w: one(w) - np.mean([statistic(w) for statistic in alone], axis=0)
    }
    first = aligned[0]
    estimates = bootstrap(
        difference,
        len(first),
        first.groups,
        accelerated=difference,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    paired = add_note(estimates["difference"], "paired")
    whole = np.ones((len(first), 1))
    return Gain(
        ensemble=classification_metrics(whole_ensemble, level=level)[metric],
        members=float(np.mean([statistic(whole)[0] for statistic in alone])),
        difference=replace(paired, percent=in_percent(metric), difference=True),
    )


def _aligned(runs: Sequence[P]) -> list[P]:
    if len(runs) < 2:
        raise EvaluationError(f"an ensemble has two members or more, not {len(runs)}")
    return [runs[0], *(aligned_alike(run, runs[0]) for run in runs[1:])]


def _log_mean(logs: Sequence[np.ndarray]) -> np.ndarray:
    """log of the mean of exp, without overflow."""
    stacked = np.stack(logs)
    highest = stacked.max(axis=0)
    mean: np.ndarray = highest + np.log(np.exp(stacked - highest).mean(axis=0))
    return mean


def _one_hot(probabilities: np.ndarray) -> np.ndarray:
    return np.eye(probabilities.shape[-1], dtype=bool)[probabilities.argmax(axis=-1)]


def _entropy(p: np.ndarray, *, several: bool) -> np.ndarray:
    """Of distributions `[..., K]`; of several labels the sum of K binary entropies."""
    from scipy.special import entr

    terms = entr(p) + entr(1 - p) if several else entr(p)
    return np.asarray(terms.sum(axis=-1))
