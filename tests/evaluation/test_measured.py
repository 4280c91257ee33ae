"""Runs that segment, compared and averaged: against naive loops, and by simulated experiments."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    MaskPredictions,
    Predictions,
    case_figures,
    compare,
    compare_segmentations,
    figure,
    mean_figure,
    mean_figures,
    over_seeds,
    over_seeds_and_test_sets,
    segmentation_metrics,
)
from cnn_jax.evaluation.intervals import Measure, Units
from cnn_jax.evaluation.seeds import half_width, variances
from cnn_jax.evaluation.segmentation import SEGMENTATION_LOWER_IS_BETTER, Ratio


def run(share, seed=0, n=24, spacing=None):
    """Squares of which so great a share of the pixels is found; a quarter of the images has none.

    Two images are of one patient.
    """
    masks = np.zeros((n, 8, 8), np.uint8)
    masks[np.arange(n) % 4 > 0, 2:6, 2:6] = 1
    draw = np.random.default_rng(seed)
    found = masks * (draw.random(masks.shape) < share)
    found[:, 0, 0] = draw.random(n) < 1 - share  # false alarms
    return MaskPredictions(
        split="test",
        ids=np.array([f"{i:03d}" for i in range(n)]),
        masks=masks,
        probabilities=found[..., None].astype(np.float16),
        regions=("background", "lesion"),
        groups=(np.arange(n) // 2).astype(str),
        spacing=spacing,
    )


def test_the_parts_of_both_are_those_of_naive_loops_over_patients():
    runs = [run(share, seed) for seed, share in enumerate((0.9, 0.8, 0.85))]
    dice = np.array([case_figures(one).dice for one in runs])
    held = np.arange(24) % 4 > 0
    means = dice[:, held].mean(axis=1)
    # np.unique sorts the patients' names: 0, 1, 10, 11, 2, ...
    order = np.argsort(np.arange(12).astype(str))
    resampled = []
    for drawn in np.random.default_rng(5).integers(0, 12, (300, 12)):
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in order[drawn]])
        resampled.append(np.mean([one[rows[held[rows]]].mean() for one in dice]))
    parts = [(means.var(ddof=1) / 3, 2), (np.var(resampled, ddof=1), 11)]
    found = over_seeds_and_test_sets(runs, metric="dice_present", level=0.9, resamples=300, seed=5)
    half = half_width(parts, 0.9)
    assert found.value == pytest.approx(means.mean())
    assert (found.low, found.high) == pytest.approx((means.mean() - half, means.mean() + half))
    assert (found.covers, found.unit, found.n, found.n_seeds) == ("both", "group", 18, 3)


def test_figures_of_several_runs_are_the_means_of_their_own():
    order = np.random.default_rng(0).permutation(24)
    runs = [run(0.9, 0), run(0.8, 1), run(0.85, 2).take(order)]
    own = [segmentation_metrics(one, resamples=2) for one in runs]
    every = mean_figures(runs)
    assert list(every) == list(own[0])
    for name, estimate in every.items():
        assert estimate.value == pytest.approx(np.mean([one[name].value for one in own])), name
        assert (estimate.n, estimate.percent) == (own[0][name].n, own[0][name].percent)
        assert (estimate.covers, estimate.n_seeds) == ("both", 3)
    assert every["hausdorff95_present"].method.endswith("; in pixels")
    one = mean_figure(runs, "dice")
    assert one["both"] == every["dice"]
    values = [each["dice"].value for each in own]
    assert one["seed"] == over_seeds(values, 24)
    assert figure(runs[0], "dice") == own[0]["dice"].value


def crossed(draw, k, patients, of_seed=0.03):
    """Dice of k runs for two images of each patient: easy and hard ones, better and worse seeds.

    A third of the images holds nothing, and is none of those that the mean is over.
    """
    ease = np.repeat(draw.normal(0, 0.1, patients), 2) + draw.normal(0, 0.05, 2 * patients)
    held = (draw.random(2 * patients) < 2 / 3).astype(np.float64)
    for _ in range(k):
        dice = 0.7 + draw.normal(0, of_seed) + ease + draw.normal(0, 0.05, 2 * patients)
        one = Ratio(dice * held, held)
        yield Measure(one.statistic, 2 * patients, one.n, percent=False)


def test_the_interval_over_both_covers_the_truth():
    draw, covered = np.random.default_rng(1), {"both": 0, "seed": 0, "difference": 0}
    units = Units.of(60, (np.arange(60) // 2).astype(str))
    for trial in range(300):
        runs = list(crossed(draw, 6, 30))
        both = variances(runs[:4], (), units, resamples=200, seed=trial).estimate(0.95)
        seeds = over_seeds([one.value for one in runs[:4]], 60)
        apart = variances(runs[:3], runs[3:], units, resamples=200, seed=trial).estimate(0.95)
        for name, estimate, truth in (
            ("both", both, 0.7),
            ("seed", seeds, 0.7),
            ("difference", apart, 0.0),
        ):
            covered[name] += estimate.low <= truth <= estimate.high
    # 4 standard errors of 300 trials are 5 points; the difference counts some of it twice.
    assert covered["both"] / 300 >= 0.92 and covered["difference"] / 300 >= 0.93
    assert covered["seed"] < covered["both"]


def test_better_and_worse_in_one_run_each():
    good, bad = run(0.95, 0), run(0.6, 1)
    for metric in (None, "dice_present", "iou", "surface_dice", "lesion_sensitivity"):
        verdict, back = (compare(x, y, metric) for x, y in (([good], [bad]), ([bad], [good])))
        if metric != "lesion_sensitivity":
            assert (verdict.answer, back.answer) == ("better", "worse"), metric
        assert verdict.difference.value == pytest.approx(-back.difference.value)
        assert verdict.difference.covers == "test-set" and verdict.tests == ()
    assert compare([good], [bad]).metric == "dice"
    for metric in SEGMENTATION_LOWER_IS_BETTER:
        verdict = compare([good], [bad], metric)
        assert verdict.difference.value < 0 and verdict.answer != "worse"
    verdict = compare([good], [bad], "hausdorff95")
    assert verdict.answer == "better"
    same = compare_segmentations(good, bad, "hausdorff95", resamples=2000)
    assert verdict.difference == same
    silent = replace(good, probabilities=np.zeros_like(good.probabilities))
    verdict = compare([silent], [bad], "false_positives")
    assert verdict.answer == "better" and "marks nothing" in verdict.advice[0]


def test_several_runs_answer_for_seeds_and_test_sets():
    good, bad = [run(0.9, s) for s in range(3)], [run(0.6, 9 + s) for s in range(2)]
    verdict = compare(good, bad)
    assert (verdict.answer, verdict.metric) == ("better", "dice")
    assert verdict.difference.covers == "both" and verdict.over_seeds.covers == "seed"
    assert verdict.difference == over_seeds_and_test_sets(good, bad, resamples=2000)
    assert verdict.difference.n_seeds == 2 and not verdict.difference.percent


def test_it_says_what_would_settle_it():
    verdict = compare([run(0.80, 0)], [run(0.79, 1)], "dice_present")
    assert verdict.answer == "cannot tell"
    assert re.search(r"Cannot tell with 12 groups: .* about [\d,]+ would", verdict.advice[1])
    seeds = compare([run(0.8, 0), run(0.7, 1)], [run(0.78, 2), run(0.69, 3)])
    assert seeds.answer == "cannot tell" and seeds.advice[0].startswith("Cannot tell with ")
    nothing = compare([run(1.0)], [run(1.0)], "dice")
    assert math.isnan(nothing.difference.low) and "no resample differs" in nothing.advice[1]


def test_what_is_not_alike_is_refused():
    a = run(0.9)
    classes = Predictions(
        split="test",
        ids=a.ids,
        targets=np.zeros(24, np.int32),
        logits=np.zeros((24, 2), np.float32),
        classes=("a", "b"),
        groups=a.groups,
    )
    for b, message in (
        (classes, "compare runs of one task"),
        (replace(a, regions=("background", "organ")), "same regions: background, organ, and"),
        (run(0.9, spacing=(1.0, 1.0)), "same spacing"),
        (a.take(np.arange(20)), "same examples"),
        (replace(a, groups=None), "disagree on the groups"),
    ):
        for one, other in ((a, b), (b, a)):
            with pytest.raises(EvaluationError, match=message.split(":")[0]):
                compare([one], [other])
        with pytest.raises(EvaluationError, match=message):
            over_seeds_and_test_sets([a, b])
    with pytest.raises(EvaluationError, match="no metric 'auroc': choose one of dice,"):
        compare([a], [a], "auroc")
    with pytest.raises(EvaluationError, match="no metric 'dice': choose one of accuracy,"):
        compare([classes], [classes], "dice")
    for several in (mean_figures, lambda runs: mean_figure(runs, "dice")):
        with pytest.raises(EvaluationError, match="two or more runs"):
            several([a])
