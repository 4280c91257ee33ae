"""Classes in a tree: right at a coarser level, and how far off a mistake is.

To take a cat for a dog is a smaller mistake than to take it for a lorry.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.classification import interval_of_share
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import Units, bootstrap
from cnn_jax.evaluation.predictions import Predictions
from cnn_jax.evaluation.weighted import mean_statistic, ratio


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """What each class is, more and more generally.

    Attributes:
      classes: K names.
      levels: L names, such as `("family", "order")`.
      ancestors: of each class its L ancestors, nearest first. Two classes of one ancestor have
        all ancestors of that in common.

    Raises:
      EvaluationError: no level, ancestors that are not L for each class, or an ancestor that lies
        in two others.
    """

    classes: tuple[str, ...]
    levels: tuple[str, ...]
    ancestors: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.levels or len(self.ancestors) != len(self.classes):
            raise EvaluationError(
                f"{len(self.classes)} classes have {len(self.ancestors)} lines of ancestors, and "
                f"{len(self.levels)} levels: one level or more, and a line for each class"
            )
        if len(set(self.levels)) < len(self.levels) or not all(self.levels):
            raise EvaluationError(
                f"the levels {', '.join(map(repr, self.levels))} of a hierarchy need a name each"
            )
        above: dict[tuple[int, str], tuple[str, tuple[str, ...]]] = {}
        for name, line in zip(self.classes, self.ancestors, strict=True):
            if len(line) != len(self.levels):
                raise EvaluationError(
                    f"{name!r} has {len(line)} ancestors, and there are {len(self.levels)} levels: "
                    f"{', '.join(self.levels)}"
                )
            if not all(line):
                raise EvaluationError(
                    f"{name!r} has no {self.levels[line.index('')]}: name one, if only itself"
                )
            for level, ancestor in enumerate(line):
                first, rest = above.setdefault((level, ancestor), (name, line[level + 1 :]))
                if rest != line[level + 1 :]:
                    raise EvaluationError(
                        f"{ancestor!r} is in {', '.join(rest)} by {first!r}, and in "
                        f"{', '.join(line[level + 1 :])} by {name!r}: call one of them otherwise"
                    )

    @classmethod
    def read(cls, path: str | os.PathLike[str], classes: Sequence[str]) -> Hierarchy:
        """From a table whose first line names the levels: `class,family,order`, and so on.

        Classes of the table that are not asked for are passed over.

        Raises:
          EvaluationError: the file cannot be read, or lacks a class, or has one twice; or as the
            fields.
        """
        shown = os.fspath(path)
        try:
            with open(path, newline="", encoding="utf-8-sig") as file:
                rows = [tuple(cell.strip() for cell in row) for row in csv.reader(file)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EvaluationError(f"hierarchy {shown!r} cannot be read: {error}") from None
        head, *lines = [row for row in rows if any(row)] or [()]
        if len(head) < 2:
            raise EvaluationError(
                f"hierarchy {shown!r} needs a first line that names the levels: class,family,order"
            )
        own = {name.strip(): name for name in classes}
        found: dict[str, tuple[str, ...]] = {}
        for name, *ancestors in lines:
            if own.get(name, name) in found:
                raise EvaluationError(f"hierarchy {shown!r} has {name!r} twice")
            found[own.get(name, name)] = tuple(ancestors)
        if missing := [name for name in classes if name not in found]:
            raise EvaluationError(
                f"hierarchy {shown!r} says nothing of {len(missing)} of {len(classes)} "
                f"classes, such as {missing[0]!r}: each needs a line, {','.join(head)}"
            )
        return cls(tuple(classes), head[1:], tuple(found[name] for name in classes))

    def at(self, level: int) -> tuple[np.ndarray, tuple[str, ...]]:
        """int64 `[K]`, the ancestor of each class at a level from 0, and their names."""
        names = [line[level] for line in self.ancestors]
        order = tuple(dict.fromkeys(names))
        return np.array([order.index(name) for name in names]), order

    @property
    def heights(self) -> np.ndarray:
        """int64 `[K, K]`: levels to climb until two classes have an ancestor in common.

        0 for a class and itself, 1 for two of one parent, L + 1 for two with none in common.
        """
        k = len(self.classes)
        height = np.full((k, k), len(self.levels) + 1)
        for level in reversed(range(len(self.levels))):
            of, _ = self.at(level)
            height[of[:, np.newaxis] == of] = level + 1
        np.fill_diagonal(height, 0)
        return height


def hierarchy_metrics(
    predictions: Predictions,
    hierarchy: Hierarchy,
    *,
    temperature: float = 1.0,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Accuracy at each level of a hierarchy, and how far off answers and mistakes are.

    `accuracy_LEVEL` is the share of images whose likeliest ancestor is right; its probability is
    the sum of its classes'. `mean_height` is the mean height of the lowest common ancestor of the
    likeliest class and the true one, 0 where that is right, and `mistake_height` the mean over the
    mistakes alone (Bertinetto et al. 2020), which a better network may raise: its easy mistakes
    go first. See `Hierarchy.heights`.

    Args:
      predictions: of one class for each image.
      hierarchy: of the same classes, in the same order.
      temperature: divides the logits before probabilities are summed.
      level, resamples, seed: of the bootstrap by group.

    Raises:
      EvaluationError: several labels for an image, no image, or other classes.
    """
    if predictions.kind != "class":
        raise EvaluationError(f"a hierarchy is of one class for each image, not {predictions.kind}")
    if hierarchy.classes != predictions.classes:
        raise EvaluationError(
            f"the hierarchy is of {len(hierarchy.classes)} classes, and the predictions are of "
            f"{len(predictions.classes)} that are others, or in another order"
        )
    labels, p = predictions.labels(), predictions.probabilities(temperature)
    climb = hierarchy.heights[labels, p.argmax(axis=1)].astype(np.float64)
    right = {"accuracy": (climb == 0).astype(np.float64)}
    for number, name in enumerate(hierarchy.levels):
        of, names = hierarchy.at(number)
        summed = p @ (of[:, np.newaxis] == np.arange(len(names)))
        right[f"accuracy_{name}"] = (summed.argmax(axis=1) == of[labels]).astype(np.float64)
    statistics = {name: mean_statistic(each) for name, each in right.items()}
    statistics["mean_height"] = mean_statistic(climb)
    wrong = (climb > 0).astype(np.float64)
    statistics["mistake_height"] = lambda weights: ratio(climb @ weights, wrong @ weights)
    found = bootstrap(
        statistics,
        len(predictions),
        predictions.groups,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    units = Units.of(len(predictions), predictions.groups)
    for name in right:
        found[name] = replace(interval_of_share(found[name], units), percent=True)
    return found
