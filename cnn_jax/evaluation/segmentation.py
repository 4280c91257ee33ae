"""Figures of masks, each with its interval, by which a model that misses more looks worse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import (
    Statistic,
    Units,
    add_note,
    bootstrap,
    exact_where_alike,
    share_of,
)
from cnn_jax.evaluation.lesions import lesion_figures
from cnn_jax.evaluation.mask_predictions import MaskPredictions
from cnn_jax.evaluation.surfaces import largest_percentile, share_within, surface_distances
from cnn_jax.evaluation.weighted import mean_of_defined, ratio

EMPTY_POLICY = (
    "Every case counts: where reference and prediction are both empty, Dice, IoU and surface Dice "
    "are 1 and the distance is 0; where only one is empty, these are 0 and the distance is the "
    "diagonal of the image."
)

SEGMENTATION_IN_PERCENT = ("lesion_sensitivity", "false_area", "specificity")

# Of these figures the smaller is the better.
SEGMENTATION_LOWER_IS_BETTER = (
    *("hausdorff95", "hausdorff95_present"),
    *("false_positives", "false_area"),
)

# The default tolerance of the surface Dice, in mm or pixels.
TOLERANCE = 2.0


@dataclass(frozen=True, eq=False)
class CaseFigures:
    """The figures of each case (example); none is NaN, see `EMPTY_POLICY`.

    Of several regions `dice`, `iou`, `hausdorff95` and `surface_dice` are means over regions, the
    others sums.

    Attributes:
      ids: str `[N]`.
      dice: float64 `[N]`, 2 |A ∩ B| / (|A| + |B|).
      iou: float64 `[N]`, |A ∩ B| / |A ∪ B|.
      hausdorff95: float64 `[N]`, in mm, or in pixels without a spacing; see `hausdorff`.
      surface_dice: float64 `[N]`; see `normalised_surface_dice`.
      lesions, found, false_positives: int64 `[N]`, in the predicted masks; see `lesion_figures`.
      predicted_area, reference_area: float64 `[N]`, in mm² (of volumes mm³), or in pixels.
      image_area: of a whole image, in the same unit.
      of_regions: the same of each region 1..R - 1; empty in those of a single region.
    """

    ids: np.ndarray
    dice: np.ndarray
    iou: np.ndarray
    hausdorff95: np.ndarray
    surface_dice: np.ndarray
    lesions: np.ndarray
    found: np.ndarray
    false_positives: np.ndarray
    predicted_area: np.ndarray
    reference_area: np.ndarray
    image_area: float
    of_regions: tuple[CaseFigures, ...] = ()

    @property
    def present(self) -> np.ndarray:
        """bool `[N]`: whether the reference holds the region, or any of several."""
        return self.reference_area > 0

    def over_present(self, name: str) -> np.ndarray:
        """float64 `[N]`: a figure's mean over the regions that the reference holds; else 0.

        Args:
          name: `dice`, `iou`, `hausdorff95` or `surface_dice`.
        """
        parts = self.of_regions or (self,)
        values = np.stack([np.where(p.present, getattr(p, name), np.nan) for p in parts])
        return np.nan_to_num(mean_of_defined(values), nan=0.0)


def case_figures(predictions: MaskPredictions, *, tolerance: float = TOLERANCE) -> CaseFigures:
    """The figures of each case, of the predicted masks.

    Args:
      predictions: of every example of the split.
      tolerance: of the surface Dice, in mm, or in pixels without a spacing.

    Raises:
      EvaluationError: the tolerance is negative.
    """
    predicted = predictions.predicted()
    parts = tuple(
        _of_region(predictions, predicted == r, predictions.masks == r, tolerance)
        for r in range(1, len(predictions.regions))
    )
    if len(parts) == 1:
        return parts[0]
    means = ("dice", "iou", "hausdorff95", "surface_dice")
    sums = ("lesions", "found", "false_positives", "predicted_area", "reference_area")
    return replace(
        parts[0],
        **{name: np.mean([getattr(p, name) for p in parts], axis=0) for name in means},
        **{name: np.sum([getattr(p, name) for p in parts], axis=0) for name in sums},
        of_regions=parts,
    )


def _of_region(
    predictions: MaskPredictions, a: np.ndarray, b: np.ndarray, tolerance: float
) -> CaseFigures:
    spatial = tuple(range(1, a.ndim))
    of_a, of_b, both = (m.sum(axis=spatial).astype(np.float64) for m in (a, b, a & b))
    distances = [surface_distances(*pair, predictions.spacing) for pair in zip(a, b, strict=True)]
    counts = lesion_figures(a, b)
    pixel = float(np.prod(predictions.spacing or (1.0,)))
    return CaseFigures(
        ids=predictions.ids,
        dice=_or_one(2 * both, of_a + of_b),
        iou=_or_one(both, of_a + of_b - both),
        hausdorff95=np.array([largest_percentile(d) for d in distances], np.float64),
        surface_dice=np.array([share_within(d, tolerance) for d in distances], np.float64),
        lesions=counts.lesions,
        found=counts.found,
        false_positives=counts.false_positives,
        predicted_area=of_a * pixel,
        reference_area=of_b * pixel,
        image_area=float(np.prod(a.shape[1:])) * pixel,
    )


def _or_one(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def segmentation_metrics(
    predictions: MaskPredictions,
    *,
    tolerance: float = TOLERANCE,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """The figures of one model on one split, in the order they are reported.

    Cases (examples) without anything to segment, or without a prediction, are not left out: see
    `EMPTY_POLICY`. The figures of a case are means over its regions. Those named `present` are
    over the cases whose reference holds a region, and of a case over the regions that it holds:
    there an easy empty case cannot flatter, nor can, of several regions, silence about one that
    is not there.

    - `dice`, `dice_present`: 2 |A ∩ B| / (|A| + |B|).
    - `iou`: |A ∩ B| / |A ∪ B|.
    - `hausdorff95`, `hausdorff95_present`: see `hausdorff`, in mm, or in pixels without a
      spacing, as `Estimate.method` says.
    - `surface_dice`, `surface_dice_present`: see `normalised_surface_dice`.
    - `lesion_sensitivity`: share of lesions that are found in the predicted masks, see
      `lesion_figures`; all cases together. `n` counts lesions.
    - `false_positives`: candidates per image that are no lesion. The one figure that is best for
      a model that says nothing: read it beside the sensitivity.
    - `false_area`: over the cases with an empty reference, mean share of the image that is
      predicted to be of a region.
    - `specificity`: share of these cases with nothing predicted.
    - of several regions `dice of NAME` and `dice_present of NAME` of each.

    Intervals are percentile bootstraps by group, in which the cases of a `present` figure and
    lesions are drawn with their images. The specificity has that of `share_of`; so has a
    sensitivity of 0 or 1, each image (or group) with lesions counting once.

    Args:
      predictions: of every example of the split.
      tolerance: of the surface Dice, in mm, or in pixels without a spacing.
      level: confidence level of the intervals.
      resamples: number of bootstrap resamples.
      seed: of the resamples.

    Returns:
      name -> estimate. A figure that no case defines is left out.

    Raises:
      EvaluationError: no examples, or a tolerance, level or resamples out of range.
    """
    cases = case_figures(predictions, tolerance=tolerance)
    ratios = case_ratios(cases, predictions.regions)
    found = bootstrap(
        {name: one.statistic for name, one in ratios.items()},
        len(cases.ids),
        predictions.groups,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    units = Units.of(len(cases.ids), predictions.groups)
    if "specificity" in found:
        clean, empty = cases.predicted_area == 0, ~cases.present
        found["specificity"] = share_of(
            clean[empty], units, empty, level=level, resamples=resamples, seed=seed
        )
    sensitivity = found.get("lesion_sensitivity")
    if sensitivity is not None:
        count = len(np.unique(units.index[cases.lesions > 0]))
        what = "images" if units.name == "example" else "groups"
        found["lesion_sensitivity"] = exact_where_alike(sensitivity, count, what)
    notes = notes_of(predictions, tolerance)
    for name, estimate in found.items():
        note = notes.get(name.removesuffix("_present"))
        found[name] = replace(
            add_note(estimate, note) if note else estimate,
            n=ratios[name].n,
            percent=name in SEGMENTATION_IN_PERCENT,
        )
    return found


def notes_of(predictions: MaskPredictions, tolerance: float) -> dict[str, str]:
    """Name of a figure -> its unit or tolerance, of those that have one."""
    unit = "pixels" if predictions.spacing is None else "mm"
    return {"hausdorff95": f"in {unit}", "surface_dice": f"tolerance {tolerance:g} {unit}"}


@dataclass(frozen=True, eq=False)
class Ratio:
    """A figure as Σ part / Σ whole over cases, float64 `[N]` each, so that both are resampled."""

    part: np.ndarray
    whole: np.ndarray

    @property
    def n(self) -> int:
        """What it is over: cases, or lesions."""
        return int(self.whole.sum())

    @property
    def statistic(self) -> Statistic:
        """The ratio as a function of the cases' weights."""
        return lambda weights: ratio(self.part @ weights, self.whole @ weights)


def case_ratios(cases: CaseFigures, regions: tuple[str, ...]) -> dict[str, Ratio]:
    """The figures of `segmentation_metrics`, without those that no case defines."""
    every, present = np.ones(len(cases.ids)), cases.present.astype(np.float64)
    empty = 1 - present
    clean = (cases.predicted_area == 0).astype(np.float64)

    def over_present(name: str) -> Ratio:
        return Ratio(cases.over_present(name), present)

    ratios = {
        "dice": Ratio(cases.dice, every),
        "dice_present": over_present("dice"),
        "iou": Ratio(cases.iou, every),
        "hausdorff95": Ratio(cases.hausdorff95, every),
        "hausdorff95_present": over_present("hausdorff95"),
        "surface_dice": Ratio(cases.surface_dice, every),
        "surface_dice_present": over_present("surface_dice"),
        "lesion_sensitivity": Ratio(1.0 * cases.found, 1.0 * cases.lesions),
        "false_positives": Ratio(1.0 * cases.false_positives, every),
        "false_area": Ratio(cases.predicted_area / cases.image_area * empty, empty),
        "specificity": Ratio(clean * empty, empty),
    }
    for name, part in zip(regions[1:], cases.of_regions, strict=False):
        held = part.present.astype(np.float64)
        ratios[f"dice of {name}"] = Ratio(part.dice, every)
        ratios[f"dice_present of {name}"] = Ratio(part.dice * held, held)
    return {name: one for name, one in ratios.items() if one.n}
