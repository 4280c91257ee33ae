"""Rows of several seeds as one figure: the mean with Student's t interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cnn_jax import evaluation
from experiments.results import ResultsError, Row


def over_seeds(rows: Sequence[Row]) -> Row:
    """One row for runs that differ only in their seed; a single row is returned as it is.

    Raises:
      ResultsError: the runs differ in n or level, or one is a summary already.
    """
    first = rows[0]
    if len(rows) == 1:
        return first
    if any((row.n, row.level, row.n_seeds) != (first.n, first.level, 1) for row in rows):
        raise ResultsError(
            f"{first.metric} of {first.experiment!r}: the rows of its {len(rows)} seeds differ in "
            "n or level, or hold several seeds already"
        )
    mean = evaluation.over_seeds([row.value for row in rows], first.n, level=first.level)
    return replace(
        first,
        value=mean.value,
        low=mean.low,
        high=mean.high,
        n_seeds=len(rows),
        seed="",
        covers=mean.covers,
        method=mean.method,
    )
