"""What the page for a clinician shows: plain values and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    DecisionCurve,
    Estimate,
    OperatingFigures,
    PrecisionRecallCurve,
    Reliability,
    RocCurve,
)


@dataclass(frozen=True, eq=False)
class Case:
    """One test example and what was decided.

    Attributes:
      id: the example's id in its split.
      risk: calibrated probability of the class that is looked for, in 0..1.
      truth: the class that was given, in words.
      positive: whether that is what is looked for.
      flagged: what was decided.
      image: uint8 `[H, W, C]`, or None if it cannot be read.
      heat: float32 `[H, W]`, 0 or more: where the image speaks for the class; None if there is
        no map.
      given, marked: masks uint8 `[H, W]`, the number of the region of each pixel: what the
        reference marks, and what the network does; None where there is no such mask.

    Raises:
      EvaluationError: a risk outside 0..1, an image that is not uint8 `[H, W, C]`, or heat or a
        mask that does not fit it, or heat that is negative or not finite.
    """

    id: str
    risk: float
    truth: str
    positive: bool
    flagged: bool
    image: np.ndarray | None = None
    heat: np.ndarray | None = None
    given: np.ndarray | None = None
    marked: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.risk <= 1:
            raise EvaluationError(f"risk of {self.id!r} is {self.risk}: pass a probability in 0..1")
        image, heat = self.image, self.heat
        if image is not None and (image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape):
            raise EvaluationError(
                f"image of {self.id!r} is {image.dtype} {list(image.shape)}: a page shows uint8 "
                "[H, W, C]; pass one slice of a volume"
            )
        if heat is not None and (
            image is None
            or heat.shape != image.shape[:2]
            or not np.isfinite(heat).all()
            or (heat < 0).any()
        ):
            raise EvaluationError(
                f"the heat map of {self.id!r} must hold a number of 0 or more for each pixel of "
                "its image"
            )
        for mask in (self.given, self.marked):
            if mask is not None and (
                image is None or mask.shape != image.shape[:2] or mask.dtype != np.uint8
            ):
                raise EvaluationError(
                    f"a mask of {self.id!r} must be uint8 with a value for each pixel of its image"
                )


@dataclass(frozen=True)
class Subgroup:
    """The line among some of the test examples.

    Attributes:
      target, name: the further target of the data, and its class.
      n: number of its examples.
      sensitivity, specificity: of the line among them; None where no example has the class that
        is looked for, or all do.
    """

    target: str
    name: str
    n: int
    sensitivity: Estimate | None
    specificity: Estimate | None


@dataclass(frozen=True, eq=False)
class ClinicPage:
    """Everything the page shows.

    Attributes:
      positive: the class that is looked for.
      dataset, model: their names.
      rule: how the line was chosen, in words.
      line: what is flagged, in words, such as `flagged from a probability of 0.4213 on`.
      line_probability: the same as a number; None where no one is flagged.
      fitted_on: where the line was chosen, such as `524 validation examples`.
      on_validation, on_test: figures of the line where it was chosen, and on test.
      elsewhere: at another prevalence, or None.
      all_negative: accuracy on test of flagging no one.
      roc, precision_recall, calibration, benefit: the curves of the test part.
      highest: test examples with the highest risk, highest first.
      missed: those with the class that are not flagged, lowest risk first.
      alarms: those without it that are flagged, highest risk first.
      pictures_note: why pictures, or masks on them, are missing; or empty.
      heat_note: what the picture beside each image shows, a heat map or outlines.
      made: how the model was trained, chosen and calibrated, a sentence each.
      intended, not_for: uses, a sentence each.
      facts, data_facts: (label, value) of the model and machine, and of the data.
      notes: of the data, a sentence each.
      subgroups: figures of the line in parts of the test set.
      subgroups_note: what is known of subgroups, in a sentence.
      test_uses: each use of the test split; the keys become columns.
      command: shell command that repeats the run.
    """

    positive: str
    dataset: str
    model: str
    rule: str
    line: str
    line_probability: float | None
    fitted_on: str
    on_validation: OperatingFigures
    on_test: OperatingFigures
    elsewhere: OperatingFigures | None
    all_negative: Estimate
    roc: RocCurve
    precision_recall: PrecisionRecallCurve
    calibration: Reliability
    benefit: DecisionCurve
    highest: tuple[Case, ...] = ()
    missed: tuple[Case, ...] = ()
    alarms: tuple[Case, ...] = ()
    pictures_note: str = ""
    heat_note: str = ""
    made: tuple[str, ...] = ()
    intended: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    data_facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    subgroups: tuple[Subgroup, ...] = ()
    subgroups_note: str = ""
    test_uses: tuple[Mapping[str, str], ...] = ()
    command: str = ""
