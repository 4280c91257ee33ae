"""What a page shows: plain values and arrays, so that the report knows nothing of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import ClassRow, Estimate, Reliability
from cnn_jax.report.recognition import UnseenPeople


@dataclass(frozen=True)
class Baseline:
    """A simpler method on the same test examples.

    Attributes:
      name: what it is, such as `logistic regression on pixels`.
      estimate: its figure, of the same kind as the page's headline.
      difference: the model minus the baseline, paired by example; None if not computed.
      note: one sentence, or empty.
    """

    name: str
    estimate: Estimate
    difference: Estimate | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class HardExample:
    """An example with a high loss.

    Attributes:
      id: the example's id in its split.
      given, predicted: class names, of what the example was labelled and what was predicted.
      p_given, p_predicted: the calibrated probabilities of the two, in 0..1.
      loss: nats.
      image: uint8 `[H, W, C]`, or None if it cannot be read.

    Raises:
      EvaluationError: the image is not uint8 `[H, W, C]`, or a probability is outside 0..1.
    """

    id: str
    given: str
    predicted: str
    p_given: float
    p_predicted: float
    loss: float
    image: np.ndarray | None = None

    def __post_init__(self) -> None:
        image = self.image
        if image is not None and (image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape):
            raise EvaluationError(
                f"image of {self.id!r} is {image.dtype} {list(image.shape)}: a page "
                "shows uint8 [H, W, C]; pass one slice of a volume"
            )
        for probability in (self.p_given, self.p_predicted):
            if not 0 <= probability <= 1:
                raise EvaluationError(
                    f"probability of {self.id!r} is {probability}, outside 0..1: "
                    "pass the softmax, not the logit"
                )

    @property
    def right(self) -> bool:
        """Whether the prediction is what was given."""
        return self.given == self.predicted


@dataclass(frozen=True, eq=False)
class ErrorsOfClass:
    """The errors among the examples of one class.

    Attributes:
      name: of the class.
      support: number of its examples.
      wrong: number of them that were not recognised.
      taken_for: (class, count), most frequent first; may be empty.
      examples: some of the errors, highest loss first.
    """

    name: str
    support: int
    wrong: int
    taken_for: tuple[tuple[str, int], ...] = ()
    examples: tuple[HardExample, ...] = ()


@dataclass(frozen=True, eq=False)
class ConfusedClasses:
    """How often one class was taken for another, with pictures of both.

    Attributes:
      given, predicted: names of the classes.
      times: how many examples of the first were taken for the second.
      support: number of examples of the first.
      examples: some of those that were taken for the second.
      clearest: some of the second that were recognised, to be seen beside them; may be fewer.
    """

    given: str
    predicted: str
    times: int
    support: int
    examples: tuple[HardExample, ...] = ()
    clearest: tuple[HardExample, ...] = ()


@dataclass(frozen=True, eq=False)
class MaskCase:
    """An example with the mask that was given and the one that was predicted.

    Attributes:
      id: the example's id in its split.
      dice: of the case, in 0..1.
      given, predicted: uint8 `[H, W]`, the number of the region of each pixel.
      image: uint8 `[H, W, C]`, or None if it cannot be read.

    Raises:
      EvaluationError: shapes that do not fit; pass one slice of a volume.
    """

    id: str
    dice: float
    given: np.ndarray
    predicted: np.ndarray
    image: np.ndarray | None = None

    def __post_init__(self) -> None:
        shapes = {self.given.shape, self.predicted.shape}
        if self.image is not None:
            shapes.add(self.image.shape[:2])
        if len(shapes) > 1 or self.given.ndim != 2:
            raise EvaluationError(
                f"masks and image of {self.id!r} are {sorted(map(list, shapes))}: a page shows "
                "planes of one size"
            )


@dataclass(frozen=True, eq=False)
class Page:
    """Everything the page of a run shows; what is missing is left out or shown as missing.

    Attributes:
      dataset, model: the title.
      headline_name, headline: the figure that answers the question, such as `test accuracy`;
        None if there is none, because training diverged for example.
      sentence: what the headline means, in one or two sentences.
      figures: (name, figure) for the test split, then the validation split.
      policy: what the figures do about cases in which there is nothing to mark; or empty.
      baselines: simpler methods on the same examples.
      baselines_note: why a baseline comes close, or empty.
      history: one mapping an epoch: `epoch`, `train_loss`, `train_accuracy`,
        `validation_loss`, `validation_accuracy`, `gradient_norm`, `learning_rate`,
        `images_per_second`. A key may be absent or None; without `epoch` they are counted
        from 1. NaN and infinity are drawn as not finite.
      ended: why training ended.
      train_accuracy: at the end, a fraction.
      gradient_norm: global norm of the last gradient.
      accuracy_gap: training minus validation accuracy, a fraction.
      throughput: images per second in training.
      classes: the K class names.
      confusion: int `[K, K]`, rows true, columns predicted; or None.
      class_rows: the figures of each class.
      reliability, ece: confidence against accuracy, and the expected calibration error.
      reliability_after, ece_after: the same after temperature scaling.
      temperature: the fitted temperature.
      hardest: the examples with the highest loss, highest first.
      errors_by_class: the errors of each class that has some, most first.
      confused: which classes are taken for which, most often first.
      measure: what the history calls accuracy: of masks it is the mean Dice.
      mask_cases: of masks, the cases that came out worst.
      unseen: of a network that recognises people it has not seen, what is shown of them.
      filters: float `[h, w, in, out]`, kernel of the first convolution.
      facts: (label, value): data digest, licence, seeds, device, versions, commit, ...
      notes: what a reader should know, a sentence each.
      test_uses: each use of the test split; the keys become columns.
      command: shell command that repeats the run.

    Raises:
      EvaluationError: the confusion matrix does not fit the classes, or the filters are not
        `[h, w, in, out]`.
    """

    dataset: str
    model: str
    headline_name: str = "test accuracy"
    headline: Estimate | None = None
    sentence: str = ""
    figures: tuple[tuple[str, Estimate], ...] = ()
    policy: str = ""
    baselines: tuple[Baseline, ...] = ()
    baselines_note: str = ""
    history: tuple[Mapping[str, float | None], ...] = ()
    ended: str = ""
    train_accuracy: float | None = None
    gradient_norm: float | None = None
    accuracy_gap: float | None = None
    throughput: float | None = None
    classes: tuple[str, ...] = ()
    confusion: np.ndarray | None = None
    class_rows: tuple[ClassRow, ...] = ()
    reliability: Reliability | None = None
    ece: Estimate | None = None
    reliability_after: Reliability | None = None
    ece_after: Estimate | None = None
    temperature: float | None = None
    hardest: tuple[HardExample, ...] = ()
    errors_by_class: tuple[ErrorsOfClass, ...] = ()
    confused: tuple[ConfusedClasses, ...] = ()
    measure: str = "accuracy"
    mask_cases: tuple[MaskCase, ...] = ()
    unseen: UnseenPeople | None = None
    filters: np.ndarray | None = None
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    test_uses: tuple[Mapping[str, str], ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        k = len(self.classes)
        if self.confusion is not None:
            counts = self.confusion
            if counts.shape != (k, k) or counts.dtype.kind not in "iu" or (counts < 0).any():
                raise EvaluationError(
                    f"confusion matrix is {counts.dtype} {list(counts.shape)}: "
                    f"{k} class names need counts of shape [{k}, {k}]"
                )
        if self.filters is not None and (self.filters.ndim != 4 or 0 in self.filters.shape):
            raise EvaluationError(
                f"filters are {list(self.filters.shape)}: pass a kernel [h, w, in, out]"
            )
