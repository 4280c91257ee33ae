"""What became of each example: its loss, what it was given and what was predicted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.multilabel import given_labels
from cnn_jax.evaluation.predictions import Predictions, TargetKind


@dataclass(frozen=True, eq=False)
class Fate:
    """What became of every example of one split, in the order of its predictions.

    A wrong label and a hard image look alike here: both have a high loss.

    Attributes:
      split: name of the split.
      ids: str `[N]`.
      classes: K class names.
      kind: `class`, `multilabel` or `soft`.
      given: int64 `[N]`, the class of each example, of soft targets the most likely one; for
        multi-label bool `[N, K]`, the labels it has.
      predicted: the class with the largest probability, of the same shape; for multi-label the
        labels with a probability above 0.5.
      loss: float64 `[N]`, nats, as `Predictions.negative_log_likelihood`: -log p(given); of
        soft targets the cross-entropy; for multi-label the mean over the K labels of the binary
        cross-entropy.
      p_given, p_predicted: float64 `[N]`, the probabilities of the two; for multi-label of
        exactly that set of labels, the product over all K of p or 1 - p.
      margin: float64 `[N]`, in -1..1: p of the given class minus the largest p of another; for
        multi-label the least, over the labels, of p of the label's true state minus p of the
        other one. Below 0 the prediction is wrong.
    """

    split: str
    ids: np.ndarray
    classes: tuple[str, ...]
    kind: TargetKind
    given: np.ndarray
    predicted: np.ndarray
    loss: np.ndarray
    p_given: np.ndarray
    p_predicted: np.ndarray
    margin: np.ndarray

    @classmethod
    def of(cls, predictions: Predictions, temperature: float = 1.0) -> Fate:
        """The fate of every example, at a temperature fitted on validation data.

        Raises:
          EvaluationError: the temperature is not positive.
        """
        loss = predictions.negative_log_likelihood(temperature)
        of_kind = _of_sets if predictions.kind == "multilabel" else _of_classes
        given, predicted, p_given, p_predicted, margin = of_kind(predictions, temperature)
        return cls(
            split=predictions.split,
            ids=predictions.ids,
            classes=predictions.classes,
            kind=predictions.kind,
            given=given,
            predicted=predicted,
            loss=loss,
            p_given=p_given,
            p_predicted=p_predicted,
            margin=margin,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def wrong(self) -> np.ndarray:
        """bool `[N]`: whether the prediction is not what was given; one label of many is enough."""
        different = self.given != self.predicted
        return different.any(axis=1) if different.ndim == 2 else different

    def hardest(self, limit: int | None = None, *, of_class: str | None = None) -> np.ndarray:
        """int64: positions by falling loss; equal losses stay in the order of the split.

        Args:
          limit: how many at most; None for all.
          of_class: only examples that were given this class (or label).

        Raises:
          EvaluationError: there is no such class, or the limit is not positive.
        """
        if limit is not None and limit < 1:
            raise EvaluationError(f"the number of examples must be at least 1, not {limit}")
        order = np.argsort(-self.loss, kind="stable")
        if of_class is not None:
            order = order[self._has(self._class_index(of_class))[order]]
        return order[:limit]

    def given_name(self, index: int) -> str:
        """What the example at a position was given: a class name, or the names of labels."""
        return self._name(self.given[index])

    def predicted_name(self, index: int) -> str:
        """What was predicted for it, worded as `given_name`."""
        return self._name(self.predicted[index])

    def errors_by_class(self) -> tuple[ClassErrors, ...]:
        """The errors of every class that has some, the class with the most errors first."""
        order, wrong = self.hardest(), self.wrong
        found = []
        for k, name in enumerate(self.classes):
            has = self._has(k)
            missed = has & ~self.predicted[:, k] if self.given.ndim == 2 else has & wrong
            examples = order[missed[order]]
            if len(examples):
                found.append(ClassErrors(name, int(has.sum()), examples, self._taken(examples)))
        return tuple(sorted(found, key=lambda row: -len(row.examples)))

    def confusions(self, limit: int | None = None) -> tuple[Confusion, ...]:
        """Which class was taken for which, the most frequent first; none of multi-label examples.

        Equal counts: what happens to the larger share of its class first.

        Args:
          limit: how many at most; None for all.

        Raises:
          EvaluationError: the limit is not positive.
        """
        rows = self.errors_by_class()
        if limit is not None and limit < 1:
            raise EvaluationError(f"the number of confusions must be at least 1, not {limit}")
        found = []
        for row in rows:
            for name, _ in row.taken_for:
                k = self.classes.index(name)
                examples = row.examples[self.predicted[row.examples] == k]
                found.append(Confusion(row.name, name, row.support, examples, self._clearest(k)))
        found.sort(key=lambda c: (-len(c.examples), -len(c.examples) / c.support))
        return tuple(found[:limit])

    def _clearest(self, k: int) -> np.ndarray:
        right = np.flatnonzero((self.predicted == k) & (self.given == k))
        return right[np.argsort(-self.p_given[right], kind="stable")]

    def _taken(self, examples: np.ndarray) -> tuple[tuple[str, int], ...]:
        if self.given.ndim == 2:
            return ()
        counts = Counter(self.predicted[examples].tolist())
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple((self.classes[k], count) for k, count in ordered)

    def _has(self, k: int) -> np.ndarray:
        has: np.ndarray = self.given[:, k] if self.given.ndim == 2 else self.given == k
        return has

    def _class_index(self, name: str) -> int:
        if name not in self.classes:
            raise EvaluationError(
                f"no class {name!r} in {self.split!r}: there are {', '.join(self.classes)}"
            )
        return self.classes.index(name)

    def _name(self, what: np.ndarray) -> str:
        if what.ndim == 0:
            return self.classes[int(what)]
        return "; ".join(self.classes[k] for k in np.flatnonzero(what)) or "(no label)"


@dataclass(frozen=True, eq=False)
class ClassErrors:
    """The errors among the examples of one class.

    Attributes:
      name: of the class.
      support: number of examples that were given it.
      examples: int64 `[E]`, positions of those of them for which another class (for
        multi-label: not this label) was predicted, by falling loss.
      taken_for: (class, count), most frequent first; empty for multi-label, where a missed label
        is taken for nothing.
    """

    name: str
    support: int
    examples: np.ndarray
    taken_for: tuple[tuple[str, int], ...]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Examples of one class that were taken for another.

    Attributes:
      given, predicted: names of the two classes.
      support: number of examples that were given the first.
      examples: int64 `[E]`, positions of those of them for which the second was predicted, by
        falling loss.
      clearest: int64 `[R]`, positions of the examples of the second that were recognised, by
        falling probability: what the network takes for typical of it.
    """

    given: str
    predicted: str
    support: int
    examples: np.ndarray
    clearest: np.ndarray


_Outcome = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _of_classes(predictions: Predictions, temperature: float) -> _Outcome:
    rows = np.arange(len(predictions))
    given, predicted = predictions.labels(), predictions.predicted()
    p = predictions.probabilities(temperature)
    p_given, p_predicted = p[rows, given], p[rows, predicted]
    others = p.copy()
    others[rows, given] = -np.inf
    return given, predicted, p_given, p_predicted, p_given - others.max(axis=1)


def _of_sets(predictions: Predictions, temperature: float) -> _Outcome:
    given, predicted = predictions.targets > 0.5, given_labels(predictions)
    odds = predictions.log_odds(temperature)
    towards_given = np.where(given, odds, -odds)
    p_given = np.exp(-np.logaddexp(0, -towards_given).sum(axis=1))
    p_predicted = np.exp(-np.logaddexp(0, -np.abs(odds)).sum(axis=1))
    # p - (1 - p) of a label with these log odds
    margin = np.tanh(towards_given / 2).min(axis=1)
    return given, predicted, p_given, p_predicted, margin
