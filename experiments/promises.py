"""How often an alarm's promise is broken when the same normal images are dealt out anew."""

from __future__ import annotations

import math

import numpy as np

from cnn_jax.anomaly import fit_neighbours
from cnn_jax.data.splits import assign_parts
from cnn_jax.decision import fit_alarm
from cnn_jax.evaluation import CalibrationScores, Estimate, proportion

RESPLITS = 200
_THIRDS = {"train": 1 / 3, "calibration": 1 / 3, "test": 1 / 3}


def resplit(
    features: np.ndarray,
    ids: np.ndarray,
    groups: np.ndarray,
    *,
    false_alarm: float,
    confidence: float,
    resplits: int = RESPLITS,
) -> tuple[Estimate, Estimate]:
    """Share of splits by group that exceed the bound, and the mean rate of false alarms.

    A third of the groups each for a detector (five neighbours), its alarm, and the test. A promise
    is broken where more groups of the test raise an alarm than a binomial variable of the
    promised rate exceeds in 5 %.

    Args:
      features: float `[N, D]` of normal images, of unit length.
      ids, groups: str `[N]`.
      false_alarm, confidence: of the alarm.
      resplits: how many.
    """
    exceeded, rates = [], []
    for number in range(resplits):
        none = np.zeros(len(ids), np.int64)
        parts = assign_parts(ids, none, groups, _THIRDS, seed=number)
        detector = fit_neighbours(features[parts == "train"])
        scores = {part: detector.score(features[parts == part]) for part in ("calibration", "test")}
        held = parts == "calibration"
        calibration = CalibrationScores(
            "calibration", ids[held], scores["calibration"], groups=groups[held]
        )
        alarm = fit_alarm(calibration, false_alarm=false_alarm, confidence=confidence)
        of_groups = np.unique(groups[parts == "test"], return_inverse=True)[1]
        raised = np.zeros(of_groups.max() + 1, bool)
        np.logical_or.at(raised, of_groups, alarm.of(scores["test"]))
        exceeded.append(raised.sum() > _bound(len(raised), false_alarm))
        rates.append(raised.mean())
    low, high, method = proportion(int(np.sum(exceeded)), resplits)
    share = Estimate(float(np.mean(exceeded)), low, high, resplits, f"{method} over splits")
    no_interval = (math.nan, math.nan)
    how = "mean over splits, which overlap"
    return share, Estimate(float(np.mean(rates)), *no_interval, resplits, how)


def _bound(n: int, rate: float) -> int:
    """The least count that a binomial variable of n and the rate exceeds in at most 5 %."""
    from scipy.stats import binom  # type: ignore[attr-defined]

    return int(binom.ppf(1 - 0.05, n, rate))
