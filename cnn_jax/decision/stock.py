"""How many there are of each class among new images: counts corrected for the classifier's errors.

Counting answers is biased: a classifier that takes one juice in ten for milk finds milk where there
is none. What it answers for images of each class is known from validation images; which numbers of
the classes fit the answers on new images follows by Bayes' rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnn_jax.decision.fitted import FittedOn
from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.predictions import (
    CalibrationPredictions,
    Predictions,
    check_calibration,
)

# Markov chains side by side, and their steps before the first draw that counts, and after.
_CHAINS, _BURN_IN, _KEPT = 16, 150, 200
# Images that the mean of all classes counts as, beside a class's own validation images.
_PRIOR = 2.0
_KNOWN, _DRIFTS = 256, 32  # quantiles of what is known, and of the drift
UNKNOWN = "unknown"  # the answer for what is like none of the classes, and the class of such images


@dataclass(frozen=True)
class Count:
    """How many images are of one class.

    Attributes:
      name: of the class.
      answered: how many images the classifier says are of it.
      mean: expected number, given all answers.
      low, high: ends of the interval, whole numbers.
    """

    name: str
    answered: int
    mean: float
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """What a classifier answers for images of each class, from validation images.

    Attributes:
      classes: K names; with a line `unknown` is the last.
      counts: float64 `[K, K]`: validation images of each class by answer. Images of a group (a
        shop, a day) count as one image together.
      fitted_on: the examples.
      line: an image whose familiarity is below this is answered `unknown`; None for none.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    fitted_on: FittedOn
    line: float | None = None

    def answers(
        self, predictions: Predictions, familiarity: np.ndarray | None = None
    ) -> np.ndarray:
        """int64 `[N]`: the likeliest class of each image, or `unknown`.

        Args:
          predictions: of the images.
          familiarity: float `[N]`, where the confusion has a line.

        Raises:
          EvaluationError: other classes, or familiarity that is missing or does not fit.
        """
        learned = self.classes if self.line is None else self.classes[:-1]
        if predictions.classes != learned or predictions.kind != "class":
            raise EvaluationError(
                f"these predictions are of {len(predictions.classes)} classes, kind "
                f"{predictions.kind!r}: counts were fitted for {len(learned)} others"
            )
        if (familiarity is None) != (self.line is None):
            raise EvaluationError("the confusion and the images need familiarity both, or neither")
        if familiarity is not None:
            _check_familiarity(familiarity, len(predictions))
        return _answers(predictions, familiarity, self.line)

    def count(
        self,
        answers: np.ndarray,
        *,
        drift: float = 0.05,
        level: float = 0.95,
        seed: int = 0,
    ) -> tuple[Count, ...]:
        """How many of some new images are of each class, with an interval.

        The model: shares of the classes are Dirichlet, and how even they are is unknown (eight
        values of its parameter from 1 / K to 2, equally likely). Of an image of class k the answer
        follows row k of a matrix, which is Dirichlet: as validation images say, and less certain
        than that, since new images differ, by `drift`. Of what is unknown nobody can say how often
        it is told as such: any share of it is as likely, and the rest is spread evenly. Sampled by
        Gibbs's method (16 chains). Without a line each image must show one of the classes.

        Args:
          answers: int `[N]` of `answers`.
          drift: by how much the share of a class's images that are answered right may differ, up or
            down, between validation and these images, each difference as likely.
          level: probability that a class's true number lies in its interval.
          seed: of the sampling.

        Returns:
          For each class its count, in the order of the classes.

        Raises:
          EvaluationError: no images, answers out of range, or drift or level that make no sense.
        """
        k = len(self.classes)
        answers = np.asarray(answers)
        if not len(answers):
            raise EvaluationError("no images to count")
        if answers.ndim != 1 or answers.min() < 0 or answers.max() >= k:
            raise EvaluationError(f"answers are numbers of classes, 0 to {k - 1}")
        if not 0 <= drift < 1 or not 0 < level < 1:
            raise EvaluationError(
                f"drift lies in 0..1 (below 1) and level between 0 and 1, not {drift} and {level}"
            )
        seen = np.bincount(answers, minlength=k)
        rows = _rows(self.counts, drift, last_unknown=self.line is not None)
        drawn = np.concatenate(list(_draws(rows, seen, np.random.default_rng(seed))))
        tail = (1 - level) / 2
        low = np.quantile(drawn, tail, axis=0, method="lower")
        high = np.quantile(drawn, 1 - tail, axis=0, method="higher")
        return tuple(
            Count(name, int(seen[n]), float(drawn[:, n].mean()), int(low[n]), int(high[n]))
            for n, name in enumerate(self.classes)
        )


def fit_confusion(
    predictions: CalibrationPredictions,
    *,
    familiarity: np.ndarray | None = None,
    unknown: float = 0.05,
) -> Confusion:
    """What the classifier answers for images of each class.

    Args:
      predictions: of validation images, whose classes are known and were not learned from.
      familiarity: float `[N]`, how alike each of these is to what was learned, more is more; an
        image that is less so than nearly all of them is then answered `unknown`. None where each
        image shows one of the classes.
      unknown: with familiarity, the share of images of the classes that may be taken for unknown:
        a new one, of a new group where they are grouped, is so with at most this probability, as
        long as it is as like the validation images as they are to each other. Familiarity falls
        soon where it is not: images of another camera, day or writer may be taken for unknown
        several times as often, which no drift of `count` allows for.

    Raises:
      EvaluationError: the predictions are not of the type that is fitted on, there are none, or
        they are not of one class each; or too few of them for `unknown`, a class of that name, or
        familiarity that is not finite or not of these images.
    """
    check_calibration(predictions, "a confusion")
    if predictions.kind != "class":
        raise EvaluationError(f"counts need one class for each image, not {predictions.kind!r}")
    classes, line = predictions.classes, None
    if familiarity is not None:
        _check_familiarity(familiarity, len(predictions))
        check_unknown(predictions, unknown)
        line = _line(predictions, familiarity, unknown)
        classes = (*classes, UNKNOWN)
    k, labels = len(classes), predictions.labels()
    counts = np.zeros((k, k))
    np.add.at(counts, (labels, _answers(predictions, familiarity, line)), 1.0)
    if predictions.groups is not None:
        for n in range(k):
            own = labels == n
            if own.any():
                counts[n] *= len(np.unique(predictions.groups[own])) / own.sum()
    fitted_on = FittedOn.of(predictions, "a confusion")
    return Confusion(classes, counts, fitted_on, line)


def _check_familiarity(familiarity: np.ndarray, n: int) -> None:
    if familiarity.shape != (n,) or not np.isfinite(familiarity).all():
        raise EvaluationError(
            f"familiarity is a finite number for each of {n} images, not {list(familiarity.shape)}"
        )


def check_unknown(predictions: CalibrationPredictions, unknown: float) -> None:
    """Refuse a share that is taken for unknown, before familiarity is worked out for it.

    Raises:
      EvaluationError: it is not between 0 and 1, there are too few images (or groups of them) to
        tell, or a class is called `unknown`.
    """
    if not 0 < unknown < 1:
        raise EvaluationError(f"the share taken for unknown lies between 0 and 1, not {unknown}")
    if UNKNOWN in predictions.classes:
        raise EvaluationError(
            f"a class is called {UNKNOWN!r} already: images of none of the classes would be "
            "counted with it; leave the share out, or rename the class"
        )
    grouped = predictions.groups is not None
    count = len(predictions) if predictions.groups is None else len(np.unique(predictions.groups))
    if unknown * (count + 1) * (1 + 1e-12) < 1:
        what = "groups of validation images" if grouped else "validation images"
        raise EvaluationError(
            f"{count} {what} cannot show what one of {1 / unknown:.4g} is like: that takes "
            f"{int(np.ceil(1 / unknown - 1e-9)) - 1:,}; let a larger share be unknown"
        )


def _line(predictions: CalibrationPredictions, familiarity: np.ndarray, unknown: float) -> float:
    """The familiarity that so few images of the classes are below.

    Of n + 1 images that could have come in any order the last is among the j lowest with
    probability j / (n + 1); below the j-th lowest of the n others it is only then. Of groups the
    mean share of a group's images counts, and the new one's is 1 at most.
    """
    weight = np.ones(len(familiarity))
    if predictions.groups is not None:
        _, group, size = np.unique(predictions.groups, return_inverse=True, return_counts=True)
        weight = 1 / size[group]
    order = np.argsort(familiarity, kind="stable")
    below = np.cumsum(weight[order]) - weight[order]
    allowed = unknown * (weight.sum() + 1) * (1 + 1e-12)
    return float(familiarity[order][np.flatnonzero(below + 1 <= allowed + 1e-9)[-1]])


def _answers(
    predictions: Predictions, familiarity: np.ndarray | None, line: float | None
) -> np.ndarray:
    answers: np.ndarray = predictions.logits.argmax(axis=1)
    if familiarity is not None and line is not None:
        answers[familiarity < line] = len(predictions.classes)
    return answers


def _rows(counts: np.ndarray, drift: float, *, last_unknown: bool = False) -> np.ndarray:
    """Dirichlet parameters `[K, K]` of what is answered for each class.

    The share that is answered right has the mean and the variance of what validation says, a Beta,
    and the drift together, cut off at 0 and 1: where all were right it can only fall. How the rest
    is spread is as in validation, where one image more is spread evenly.
    """
    k = len(counts)
    if k == 1:
        return np.ones((1, 1))
    right, total = np.diagonal(counts), counts.sum(axis=1)
    usual = np.full(k, (right.sum() + 1) / (total.sum() + 2))
    if last_unknown:  # of which there is none in validation: Beta(1, 1)
        usual[-1] = 1 / _PRIOR
    mean, variance = _moments(right + _PRIOR * usual, total - right + _PRIOR * (1 - usual), drift)
    size = np.maximum(mean * (1 - mean) / variance - 1, 0.5)
    parameters = (counts + 1 / (k - 1)) * (1 - np.eye(k))
    parameters *= (1 - mean)[:, np.newaxis] / parameters.sum(axis=1, keepdims=True)
    parameters[np.arange(k), np.arange(k)] = mean
    scaled: np.ndarray = parameters * size[:, np.newaxis]
    return scaled


def _moments(right: np.ndarray, wrong: np.ndarray, drift: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance `[K]` of Beta(right, wrong) and a uniform drift together, within 0..1."""
    from scipy.special import betaincinv

    known, drifts = ((np.arange(count) + 0.5) / count for count in (_KNOWN, _DRIFTS))
    shares = betaincinv(right[:, np.newaxis], wrong[:, np.newaxis], known)
    drifted = np.clip(shares[..., np.newaxis] + drift * (2 * drifts - 1), 0, 1)
    mean = drifted.mean(axis=(1, 2)).clip(1e-6, 1 - 1e-6)
    return mean, drifted.var(axis=(1, 2)).clip(1e-12)


def _draws(rows: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Numbers of the classes given the answers, int64 `[chains, K]` for each step."""
    k = len(rows)
    # Where nothing was answered nothing has to be dealt out.
    some = np.flatnonzero(seen)
    answer = _dirichlet(np.broadcast_to(rows, (_CHAINS, *rows.shape)), rng)
    share, evenness = np.full((_CHAINS, k), 1 / k), _evenness(k)
    for step in range(_BURN_IN + _KEPT):
        odds = share[:, np.newaxis, :] * answer[:, :, some].transpose(0, 2, 1)
        odds = np.maximum(odds, 1e-300)
        odds /= odds.sum(axis=-1, keepdims=True)
        dealt = rng.multinomial(seen[some], odds)  # [chains, answers, K]
        number = dealt.sum(axis=1)
        share = _dirichlet(number + _even(number, evenness, rng)[:, np.newaxis], rng)
        parameters = np.broadcast_to(rows, (_CHAINS, *rows.shape)).copy()
        parameters[:, :, some] += dealt.transpose(0, 2, 1)
        answer = _dirichlet(parameters, rng)
        if step >= _BURN_IN:
            yield number


def _evenness(k: int) -> np.ndarray:
    """Parameters of the symmetric Dirichlet of the shares, equally likely beforehand."""
    values: np.ndarray = np.geomspace(1 / k, 2.0, 8)
    return values


def _even(number: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the parameters for each chain, as the numbers `[chains, K]` of the classes say."""
    from scipy.special import gammaln

    k, n = number.shape[1], number[0].sum()
    each = gammaln(number[:, np.newaxis, :] + values[:, np.newaxis]).sum(axis=-1)
    log_p = each - k * gammaln(values) + gammaln(k * values) - gammaln(k * values + n)
    # The largest of logarithms with Gumbel noise is a draw in proportion.
    drawn: np.ndarray = values[(log_p + rng.gumbel(size=log_p.shape)).argmax(axis=1)]
    return drawn


def _dirichlet(parameters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One draw for each of the last axes."""
    drawn = np.maximum(rng.standard_gamma(parameters), 1e-300)
    found: np.ndarray = drawn / drawn.sum(axis=-1, keepdims=True)
    return found
