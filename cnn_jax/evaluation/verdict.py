"""Is A better than B? An answer in words, with what it rests on and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.comparison import aligned_alike, difference_of
from cnn_jax.evaluation.delong import delong
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Units
from cnn_jax.evaluation.mask_predictions import MaskPredictions
from cnn_jax.evaluation.measured import Answers, measure, usual_metric
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.recognition import RECOGNITION_LOWER_IS_BETTER
from cnn_jax.evaluation.seeds import Spread, runs_needed, variances
from cnn_jax.evaluation.segmentation import SEGMENTATION_LOWER_IS_BETTER
from cnn_jax.evaluation.significance import Significance, mcnemar

Answer = Literal["better", "worse", "cannot tell"]

# Of these figures the smaller is the better.
LOWER_IS_BETTER = (
    *("nll", "brier", "ece"),
    *SEGMENTATION_LOWER_IS_BETTER,
    *RECOGNITION_LOWER_IS_BETTER,
)
POWER = 0.8

# Of these figures of masks a network that marks nothing has the best.
_OF_FALSE_ALARMS = ("false_positives", "false_area", "specificity")


@dataclass(frozen=True)
class Verdict:
    """What comparing A with B came to.

    Attributes:
      answer: whether A is better than B, at the level of `difference`.
      metric: the figure that was compared.
      of_a, of_b: the figure of each side, the mean where a side has several runs.
      difference: A - B; `covers` says what the interval allows for.
      over_seeds: A - B with its interval over seeds alone, on this very test set, or None.
      tests: further tests of the same question, of one run against one.
      advice: what the answer does not cover, and what would settle it; sentences.
    """

    answer: Answer
    metric: str
    of_a: float
    of_b: float
    difference: Estimate
    over_seeds: Estimate | None
    tests: tuple[Significance, ...]
    advice: tuple[str, ...]


def compare(
    a: Sequence[Answers],
    b: Sequence[Answers],
    metric: str | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Compare one run with one, or two or more with two or more, on the same examples.

    One against one answers for these two trained networks on another test set; several against
    several answers for the two recipes: another seed *and* another test set.

    Args:
      a, b: the runs of each side, all of one task, of the same examples in any order.
      metric: a figure of `classification_metrics`, of masks `segmentation_metrics` or of
        embeddings `recognition_metrics`, of which all runs have one; None for the accuracy, of
        masks the Dice, of embeddings the equal error rate.
      level: confidence level.
      resamples: of the bootstrap.
      seed: of the resamples.

    Raises:
      EvaluationError: no runs, one run against several, other examples, classes beside masks, or
        an unknown or undefined figure.
    """
    if not a or not b:
        raise EvaluationError("there must be a run on each side")
    if (len(a) == 1) != (len(b) == 1):
        raise EvaluationError(
            f"{len(a)} against {len(b)} runs: compare one with one, or two or more with two or "
            "more, which tells how much seeds differ"
        )
    first = a[0]
    metric = metric or usual_metric(first)
    runs = [[aligned_alike(run, first) for run in side] for side in (a, b)]
    made = [[measure(run, metric) for run in side] for side in runs]
    values = [[one.value for one in side] for side in made]
    if any(math.isnan(value) for side in values for value in side):
        raise EvaluationError(f"{metric} is undefined for one of the runs")
    of_a, of_b = (sum(side) / len(side) for side in values)
    units = Units.of(len(first), first.groups)
    advice = []
    if isinstance(first, MaskPredictions) and metric in _OF_FALSE_ALARMS:
        advice.append("A network that marks nothing raises no false alarm: compare dice, too.")
    if len(a) == 1:
        pair = (first, runs[1][0])
        difference = difference_of(
            pair, (made[0][0], made[1][0]), metric, level=level, resamples=resamples, seed=seed
        )
        answer, tests = _answer(difference, metric), _tests(*pair, metric, units)
        advice.append("One run each: another seed of either may answer otherwise.")
        if answer == "cannot tell":
            advice.append(_examples_needed(difference, units, level))
        return Verdict(answer, metric, of_a, of_b, difference, None, tests, tuple(advice))
    spread = variances(made[0], made[1], units, resamples=resamples, seed=seed)
    difference, here = spread.estimate(level), spread.estimate_over_seeds(level)
    answer = _answer(difference, metric)
    if answer == "cannot tell":
        advice.append(_seeds_needed(spread, difference, (len(a), len(b))))
    return Verdict(answer, metric, of_a, of_b, difference, here, (), tuple(advice))


def _answer(difference: Estimate, metric: str) -> Answer:
    if math.isnan(difference.low) or difference.low <= 0 <= difference.high:
        return "cannot tell"
    return "better" if (difference.low > 0) != (metric in LOWER_IS_BETTER) else "worse"


def _tests(a: Answers, b: Answers, metric: str, units: Units) -> tuple[Significance, ...]:
    """Tests that need no resampling, where they apply."""
    if not (isinstance(a, Predictions) and isinstance(b, Predictions)) or units.name == "group":
        return ()
    if metric == "accuracy" and a.kind != "multilabel":
        return (mcnemar(a, b),)
    if metric == "auroc" and a.kind == "class" and len(a.classes) == 2:
        return (delong(a, b)[1],)
    return ()


def _examples_needed(difference: Estimate, units: Units, level: float) -> str:
    if math.isnan(difference.low):
        return f"No interval: {difference.method}."
    if difference.value == 0:
        return "The two do not differ here: no number of examples can be named."
    normal = NormalDist()
    error = (difference.high - difference.low) / 2 / normal.inv_cdf(0.5 + level / 2)
    wanted = normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(POWER)
    count = math.ceil(units.count * (wanted * error / difference.value) ** 2)
    return (
        f"Cannot tell with {units.count:,} {units.name}s: if the difference is what was seen, "
        f"about {count:,} would show it ({POWER:.0%} of the time)."
    )


def _seeds_needed(spread: Spread, difference: Estimate, have: tuple[int, int]) -> str:
    """How many seeds would show the difference that was seen, if any number would."""
    if math.isnan(difference.low):
        return f"No interval: {difference.method}."
    if spread.value == 0:
        return "The two do not differ here: no number of seeds can be named."
    normal, level = NormalDist(), difference.level
    wanted = normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(POWER)
    left = (spread.value / wanted) ** 2 - spread.of_test_set
    if left <= 0:
        units = math.ceil(spread.units * spread.of_test_set * (wanted / spread.value) ** 2)
        return (
            f"Cannot tell with these {spread.units:,} {spread.unit}s, whatever the number of "
            f"seeds: if the difference is what was seen, more than {units:,} {spread.unit}s "
            f"would show it ({POWER:.0%} of the time)."
        )
    both = sum(part * (degrees + 1) for part, degrees in spread.of_seeds)  # s_a^2 + s_b^2
    # The t test of few runs needs more than the normal formula says.
    by_t = runs_needed(spread.value, math.sqrt(both / 2), level=level, wanted=POWER)
    if by_t is None:
        return f"Cannot tell with {have[0]} and {have[1]} seeds, nor with 100,000."
    count = max(math.ceil(both / left), by_t)
    return (
        f"Cannot tell with {have[0]} and {have[1]} seeds: if the difference is what was seen, "
        f"about {count:,} on each side would show it ({POWER:.0%} of the time)."
    )
