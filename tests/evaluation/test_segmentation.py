"""Figures of masks worked out by hand, against naive loops, and against MONAI (`-m parity`)."""

import dataclasses
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.comparison import compare_segmentations
from cnn_jax.evaluation.intervals import bootstrap, widened
from cnn_jax.evaluation.mask_predictions import MaskPredictions
from cnn_jax.evaluation.segmentation import (
    EMPTY_POLICY,
    SEGMENTATION_IN_PERCENT,
    case_figures,
    segmentation_metrics,
)
from cnn_jax.evaluation.surfaces import hausdorff
from cnn_jax.evaluation.weighted import mean_statistic

LESS_IS_BETTER = ("hausdorff95", "hausdorff95_present", "false_area", "false_positives")


def predictions(masks, predicted, names=("background", "lesion"), groups=None, spacing=None):
    """Masks and predicted masks; the probability of what is predicted is 0.9."""
    masks, predicted = np.asarray(masks, np.uint8), np.asarray(predicted)
    return MaskPredictions(
        split="test",
        ids=np.array([f"{i:03d}" for i in range(len(masks))]),
        masks=masks,
        probabilities=np.stack(
            [0.9 * (predicted == r) for r in range(1, len(names))], axis=-1
        ).astype(np.float16),
        regions=names,
        groups=groups,
        spacing=spacing,
    )


def values(p, **options):
    return {k: e.value for k, e in segmentation_metrics(p, resamples=2, **options).items()}


def five_cases():
    """8 x 8 pixels each: right, a column off, a false alarm, one of two lesions, rightly empty."""
    masks, predicted = np.zeros((5, 8, 8), int), np.zeros((5, 8, 8), int)
    masks[:2, 2:6, 2:6] = 1
    predicted[0, 2:6, 2:6] = predicted[1, 2:6, 3:7] = predicted[2, 3:5, 3:5] = 1
    masks[3, :2, :2] = masks[3, 5:7, 5:7] = predicted[3, :2, :2] = 1
    return masks, predicted


# Of the second lesion's pixels to (1, 1) of the first: sqrt(16 + 16), twice sqrt(16 + 25),
# sqrt(25 + 25). The 95th percentile of the 8 sorted distances is at 0.95 x 7 = 6.65.
HALF_FOUND = math.sqrt(41) + 0.65 * (math.sqrt(50) - math.sqrt(41))
DIAGONAL = math.sqrt(64 + 64)


def test_five_cases_by_hand():
    p = predictions(*five_cases())
    found = segmentation_metrics(p, tolerance=0.5, resamples=50)
    wanted = {
        # Case 1: 2 x 12 / (16 + 16); case 3: 2 x 4 / (4 + 8).
        "dice": ((1 + 0.75 + 0 + 2 / 3 + 1) / 5, 5),
        "dice_present": ((1 + 0.75 + 2 / 3) / 3, 3),
        # 12 / 20 and 4 / 8.
        "iou": ((1 + 0.6 + 0 + 0.5 + 1) / 5, 5),
        "hausdorff95": ((0 + 1 + DIAGONAL + HALF_FOUND + 0) / 5, 5),
        "hausdorff95_present": ((0 + 1 + HALF_FOUND) / 3, 3),
        # Case 1: 12 of 24 boundary pixels are on the other's; case 3: 4 of 4 and 4 of 8.
        "surface_dice": ((1 + 0.5 + 0 + 8 / 12 + 1) / 5, 5),
        "surface_dice_present": ((1 + 0.5 + 8 / 12) / 3, 3),
        "lesion_sensitivity": (3 / 4, 4),
        "false_positives": (1 / 5, 5),
        # 4 of 64 pixels in one of the two cases without a lesion.
        "false_area": (4 / 64 / 2, 2),
        "specificity": (1 / 2, 2),
    }
    assert list(found) == list(wanted)
    for name, (value, n) in wanted.items():
        assert found[name].value == pytest.approx(value, rel=1e-12), name
        assert found[name].n == n and found[name].unit == "example"
        assert found[name].low <= value <= found[name].high
        assert found[name].percent == (name in SEGMENTATION_IN_PERCENT)
    assert found["hausdorff95"].method == "bootstrap (percentile); in pixels"
    assert found["surface_dice_present"].method.endswith("tolerance 0.5 pixels")
    assert found["specificity"].method == "Clopper-Pearson"
    assert str(found["lesion_sensitivity"]).startswith("75.00 %")
    assert "diagonal" in EMPTY_POLICY


def test_case_figures_by_hand():
    p = predictions(*five_cases(), spacing=(1.0, 3.0))
    cases = case_figures(p, tolerance=2.0)
    assert cases.ids.tolist() == p.ids.tolist()
    assert cases.dice.tolist() == pytest.approx([1, 0.75, 0, 2 / 3, 1])
    # Of the shifted square 4 of 12 pixels are 3 mm off, 2 are 1 mm off; see test_surfaces.
    assert cases.hausdorff95[1] == 3 and cases.surface_dice[1] == pytest.approx(8 / 12)
    assert cases.hausdorff95[2] == math.sqrt(8**2 + 24**2)
    assert cases.lesions.tolist() == [1, 1, 0, 2, 0]
    assert cases.found.tolist() == [1, 1, 0, 1, 0]
    assert cases.false_positives.tolist() == [0, 0, 1, 0, 0]
    assert cases.predicted_area.tolist() == [48, 48, 12, 12, 0]  # pixels of 3 mm²
    assert cases.reference_area.tolist() == [48, 48, 0, 24, 0]
    assert cases.image_area == 192 and cases.of_regions == ()
    for field in ("dice", "iou", "hausdorff95", "surface_dice", "predicted_area"):
        assert getattr(cases, field).dtype == np.float64
    found = segmentation_metrics(p, resamples=2)
    assert "in mm" in found["hausdorff95"].method
    assert "tolerance 2 mm" in found["surface_dice"].method
    assert found["false_area"].value == 12 / 192 / 2


def test_everything_right():
    masks, _ = five_cases()
    found = segmentation_metrics(predictions(masks, masks), resamples=20)
    best = {name: 0.0 if name in LESS_IS_BETTER else 1.0 for name in found}
    assert {name: e.value for name, e in found.items()} == best
    assert found["dice"].method == "no interval: no resample differs from another"
    # All 4 lesions of 3 images: (1 - 0.95) / 2 = low^3.
    assert found["lesion_sensitivity"].low == pytest.approx(0.025 ** (1 / 3))
    assert found["lesion_sensitivity"].high == 1 and found["lesion_sensitivity"].n == 4
    assert found["lesion_sensitivity"].method == "Clopper-Pearson of 3 images"
    assert found["specificity"].low == pytest.approx(0.025 ** (1 / 2))


def test_a_model_that_misses_everything_has_the_worst_of_all_figures():
    masks = five_cases()[0][[0, 1, 3]]
    groups = np.array(["a", "a", "b"])
    nothing = predictions(masks, np.zeros_like(masks), groups=groups, spacing=(0.5, 2.0))
    found = segmentation_metrics(nothing, tolerance=1e6, resamples=20)
    diagonal = math.hypot(8 * 0.5, 8 * 2)
    assert {name: e.value for name, e in found.items()} == {
        "dice": 0,
        "dice_present": 0,
        "iou": 0,
        "hausdorff95": diagonal,
        "hausdorff95_present": diagonal,
        "surface_dice": 0,
        "surface_dice_present": 0,
        "lesion_sensitivity": 0,
        "false_positives": 0,  # what says nothing raises no alarm
    }
    sensitivity = found["lesion_sensitivity"]
    assert (sensitivity.low, sensitivity.method) == (0, "Clopper-Pearson of 2 groups")
    assert sensitivity.high == pytest.approx(1 - 0.025 ** (1 / 2)) and sensitivity.n == 4


def blobs(generator, n, shape, share, regions=1):
    """Smooth random masks `[N, *shape]`, some of them empty."""
    noise = generator.normal(size=(n, *shape))
    smooth = np.stack([gaussian_filter(x, 1.0, mode="wrap") for x in noise])
    masks = smooth > np.quantile(smooth, 1 - share)
    return masks * generator.integers(1, regions + 1, (n, *[1] * len(shape)))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_missing_more_never_looks_better(seed):
    """Cases with a lesion lose their prediction one by one: no figure improves at any step.

    But for the false positives, of which a model that says nothing has none.
    """
    generator = np.random.default_rng(seed)
    masks = blobs(generator, 6, (8, 9), 0.1)
    predicted = np.where(generator.random(masks.shape) < 0.9, masks, 1 - masks)
    masks[:2] = 0
    masks[2, 4, 4] = 1
    spacing = tuple(generator.uniform(0.3, 4, 2))
    before = values(predictions(masks, predicted, spacing=spacing))
    for row in generator.permutation(6):
        if not masks[row].any():
            continue
        predicted[row] = 0
        after = values(predictions(masks, predicted, spacing=spacing))
        assert list(after) == list(before)
        for name in set(after) - {"false_positives"}:
            better = (
                after[name] - before[name]
                if name not in LESS_IS_BETTER
                else (before[name] - after[name])
            )
            assert better <= 1e-12, name
        before = after
    assert before["dice_present"] == before["lesion_sensitivity"] == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_missing_more_of_several_regions_never_looks_better(seed):
    """Of several regions a case without a prediction has no false ones of what it lacks, which
    counts in `dice` but not in what is over the regions that are there."""
    generator = np.random.default_rng(seed)
    masks = blobs(generator, 4, (8, 8), 0.2, regions=2)
    masks[0, :3, :3], masks[0, 5:, 5:] = 1, 2
    predicted = np.where(generator.random(masks.shape) < 0.8, masks, 2 - masks)
    names = ("background", "a", "b")
    before = values(predictions(masks, predicted, names))
    for row in range(4):
        predicted[row] = 0
        after = values(predictions(masks, predicted, names))
        for name in before:
            if "present" in name or name == "lesion_sensitivity":
                sign = 1 if name in LESS_IS_BETTER else -1
                assert sign * (after[name] - before[name]) >= -1e-12, name
        before = after


def test_two_regions_by_hand():
    """4 x 6 pixels. Case 0: `a` right, half of `b` found. Case 1: `a` is missed, no `b`.

    Case 2: nothing there, `b` predicted at 2 pixels.
    """
    masks, predicted = np.zeros((3, 4, 6), int), np.zeros((3, 4, 6), int)
    masks[0, :2, :2] = predicted[0, :2, :2] = masks[1, :2, :2] = 1
    masks[0, 2:, 4:] = 2
    predicted[0, 2, 4:] = predicted[2, 0, :2] = 2
    p = predictions(masks, predicted, ("background", "a", "b"))
    diagonal, b = math.sqrt(16 + 36), 2 * 2 / (2 + 4)
    cases = case_figures(p)
    assert [part.dice.tolist() for part in cases.of_regions] == [[1, 0, 1], [b, 1, 0]]
    assert cases.dice.tolist() == pytest.approx([(1 + b) / 2, 0.5, 0.5])
    # Of `b` in case 0: 4 boundary pixels at 0, 0, 1, 1 the one way, 2 at 0 the other.
    assert cases.hausdorff95.tolist() == pytest.approx([0.5, diagonal / 2, diagonal / 2])
    assert cases.lesions.tolist() == [2, 1, 0] and cases.found.tolist() == [2, 0, 0]
    assert cases.predicted_area.tolist() == [6, 0, 2] and cases.reference_area[0] == 8
    found = values(p, tolerance=0)
    wanted = {
        "dice": ((1 + b) / 2 + 0.5 + 0.5) / 3,
        "dice_present": ((1 + b) / 2 + 0) / 2,  # of case 1 over `a` alone
        "iou": ((1 + 0.5) / 2 + 0.5 + 0.5) / 3,
        "hausdorff95": (0.5 + diagonal / 2 + diagonal / 2) / 3,
        "hausdorff95_present": (0.5 + diagonal) / 2,
        # Of `b` 2 of 2 and 2 of 4 boundary pixels.
        "surface_dice": ((1 + 4 / 6) / 2 + 0.5 + 0.5) / 3,
        "surface_dice_present": ((1 + 4 / 6) / 2 + 0) / 2,
        "lesion_sensitivity": 2 / 3,
        "false_positives": 1 / 3,
        "false_area": 2 / 24,
        "specificity": 0,
        "dice of a": 2 / 3,
        "dice_present of a": 1 / 2,
        "dice of b": (b + 1 + 0) / 3,
        "dice_present of b": b,
    }
    assert list(found) == list(wanted)
    assert found == pytest.approx(wanted)


def test_intervals_are_those_of_a_naive_loop_over_groups():
    generator = np.random.default_rng(1)
    masks = blobs(generator, 12, (10, 10), 0.08)
    masks[[0, 5]] = 0
    predicted = np.where(generator.random(masks.shape) < 0.9, masks, 0)
    predicted[[1, 4, 9]] = 0
    groups = np.array(list("aabbbcddeeff"))
    p = predictions(masks, predicted, groups=groups)
    cases, names = case_figures(p), np.unique(groups)
    drawn = np.random.default_rng(3).integers(0, len(names), (200, len(names)))
    dice, sensitivity = [], []
    for one in drawn:
        rows = np.concatenate([np.flatnonzero(groups == names[k]) for k in one])
        held = rows[cases.reference_area[rows] > 0]
        dice.append(cases.dice[held].mean())
        sensitivity.append(cases.found[rows].sum() / cases.lesions[rows].sum())
    found = segmentation_metrics(p, resamples=200, seed=3, level=0.9)
    ends = widened(0.9, len(names))
    for name, resampled in (("dice_present", dice), ("lesion_sensitivity", sensitivity)):
        estimate = found[name]
        assert [estimate.low, estimate.high] == pytest.approx(np.quantile(resampled, ends))
        assert (estimate.unit, estimate.level) == ("group", 0.9)


def test_figures_that_no_case_defines_are_left_out():
    masks, predicted = five_cases()
    with_lesions = values(predictions(masks[[0, 3]], predicted[[0, 3]]))
    assert not {"false_area", "specificity"} & set(with_lesions)
    empty = values(predictions(masks[[2, 4]], predicted[[2, 4]]))
    assert list(empty) == [
        *("dice", "iou", "hausdorff95", "surface_dice", "false_positives"),
        *("false_area", "specificity"),
    ]
    assert not any(math.isnan(v) for v in (*with_lesions.values(), *empty.values()))
    with pytest.raises(EvaluationError, match="no examples"):
        segmentation_metrics(predictions(masks[:0], predicted[:0]))
    with pytest.raises(EvaluationError, match="tolerance"):
        segmentation_metrics(predictions(masks, predicted), tolerance=-1)


def test_difference_of_two_models_is_paired():
    masks, predicted = five_cases()
    a, b = predictions(masks, masks), predictions(masks, predicted)
    order = np.array([3, 1, 4, 0, 2])
    moved = dataclasses.replace(b.take(order), run_digest="b")
    for metric in ("dice_present", "hausdorff95", "false_positives", "lesion_sensitivity"):
        difference = compare_segmentations(a, moved, metric, resamples=200)
        of_a, of_b = (segmentation_metrics(p, resamples=2)[metric] for p in (a, b))
        assert difference.value == pytest.approx(of_a.value - of_b.value)
        assert difference.n == of_a.n and difference.method.endswith("; paired")
        assert difference.percent == (metric == "lesion_sensitivity")
        backwards = compare_segmentations(b, a, metric, resamples=200)
        assert backwards.value == pytest.approx(-difference.value)
    narrow, wide = (
        compare_segmentations(a, b, "surface_dice", tolerance=t, resamples=2) for t in (0.5, 3.0)
    )
    for found, t in ((narrow, 0.5), (wide, 3.0)):
        of_b = segmentation_metrics(b, tolerance=t, resamples=2)["surface_dice"].value
        assert found.value == pytest.approx(1 - of_b) and f"tolerance {t:g} pixels" in found.method
    assert narrow.value > wide.value
    same = compare_segmentations(b, b, resamples=20)
    assert same.value == 0 and math.isnan(same.low)


def test_difference_is_the_mean_of_differences_by_case():
    generator = np.random.default_rng(0)
    masks = blobs(generator, 20, (10, 10), 0.2)
    masks[:, 0, 0] = 1
    a, b = (
        predictions(
            masks,
            np.where(generator.random(masks.shape) < keep, masks, 0),
            groups=np.repeat(np.arange(10), 2).astype(str),
        )
        for keep in (0.9, 0.7)
    )
    found = compare_segmentations(a, b, resamples=300, seed=4)
    by_case = case_figures(a).dice - case_figures(b).dice
    wanted = bootstrap(
        {"mean": mean_statistic(by_case)},
        20,
        a.groups,
        accelerated=("mean",),
        resamples=300,
        seed=4,
    )["mean"]
    assert (found.value, found.low, found.high) == pytest.approx(
        (wanted.value, wanted.low, wanted.high)
    )
    assert (found.unit, found.method) == ("group", "bootstrap (BCa); paired")
    assert 0 < found.low < found.value < found.high


def test_comparison_refuses_what_is_not_alike():
    masks, predicted = five_cases()
    a = predictions(masks, predicted)
    for changes, message in [
        ({"masks": 1 - a.masks}, "disagree on the masks"),
        ({"groups": np.array(list("aabbc"))}, "disagree on the groups"),
        ({"ids": np.array(list("vwxyz"))}, "same examples"),
        ({"spacing": (1.0, 1.0)}, r"the same spacing: \(1.0, 1.0\), and None"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            compare_segmentations(a, dataclasses.replace(a, **changes))
    with pytest.raises(EvaluationError, match="no metric 'auroc': choose one of dice,"):
        compare_segmentations(a, a, "auroc")
    empty = a.take(np.array([2, 4]))
    with pytest.raises(EvaluationError, match="no metric 'dice_present'"):
        compare_segmentations(empty, empty)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((40, 33), None),
        ((40, 33), (0.7, 1.9)),
        ((12, 17, 14), None),
        ((12, 17, 14), (5.0, 0.8, 1.1)),
    ],
)
def test_cases_are_those_of_monai(shape, spacing):
    """20 cases with 2 regions of each shape and spacing, where both masks hold the region.

    MONAI keeps distances in float32, also the rank at which it interpolates a percentile: its
    HD95 is off by up to 1e-5, its largest distance is not. Where a mask is empty it answers NaN.
    """
    generator = np.random.default_rng(len(shape))
    masks = np.where(blobs(generator, 20, shape, 0.15), 2, blobs(generator, 20, shape, 0.2))
    wrong = generator.integers(0, 3, masks.shape)
    predicted = np.where(generator.random(masks.shape) < 0.95, np.roll(masks, 1, axis=2), wrong)
    p = predictions(masks, predicted, ("background", "a", "b"), spacing=spacing)
    cases = case_figures(p, tolerance=1.25)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("monai.metrics")
        y_pred, y = (
            pytest.importorskip("torch").from_numpy(np.moveaxis(np.eye(3)[m], -1, 1))
            for m in (predicted, masks)
        )
        largest = metrics.compute_hausdorff_distance(y_pred, y, spacing=spacing)
        wanted = {
            "dice": metrics.compute_dice(y_pred, y, include_background=False),
            "iou": metrics.compute_iou(y_pred, y, include_background=False),
            "hausdorff95": metrics.compute_hausdorff_distance(
                y_pred, y, percentile=95, spacing=spacing
            ),
            "surface_dice": metrics.compute_surface_dice(y_pred, y, [1.25, 1.25], spacing=spacing),
        }
    for region, part in enumerate(cases.of_regions):
        both = (part.reference_area > 0) & (part.predicted_area > 0)
        assert both.sum() >= 15
        for name, tensor in wanted.items():
            ours, theirs = getattr(part, name)[both], tensor[:, region].double().numpy()[both]
            rtol = 2e-5 if name == "hausdorff95" else 2e-7
            np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=0, err_msg=name)
        for row in np.flatnonzero(both):
            ours = hausdorff(predicted[row] == region + 1, masks[row] == region + 1, spacing, 100)
            assert ours == pytest.approx(float(largest[row, region]), rel=2e-7)
