"""The answer to "is A better than B?", and what it says would settle it."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import (
    EmbeddingPredictions,
    MaskPredictions,
    Predictions,
    classification_metrics,
    compare,
)
from cnn_jax.evaluation.measured import measures
from cnn_jax.evaluation.seeds import Spread
from cnn_jax.evaluation.verdict import LOWER_IS_BETTER


def run(right, noise=0, scale=1.0):
    """A run on a binary set that is right where `right` says so, with log odds of `scale`."""
    n = len(right)
    sign = np.where(right, 1.0, -1.0)
    jitter = np.random.default_rng(noise).uniform(0.5, 1.5, n)
    logits = np.stack([scale * sign * jitter, np.zeros(n)], axis=1).astype(np.float32)
    targets = np.arange(n) % 2
    logits[targets == 1] *= -1
    return Predictions(
        split="test",
        ids=np.array([f"{i:05d}" for i in range(n)]),
        targets=targets.astype(np.int32),
        logits=logits,
        classes=("a", "b"),
    )


def runs(draw, k, n, accuracy, of_seed=0.0):
    return [run(draw.random(n) < accuracy + of_seed * draw.normal(), seed) for seed in range(k)]


def number(sentence):
    return int(re.search(r"about ([\d,]+)", sentence).group(1).replace(",", ""))


def test_better_and_worse_are_each_others_reverse():
    draw = np.random.default_rng(0)
    (good,), (bad,) = runs(draw, 1, 400, 0.9), runs(draw, 1, 400, 0.7)
    one, other = compare([good], [bad]), compare([bad], [good])
    assert (one.answer, other.answer) == ("better", "worse")
    assert one.difference.value == pytest.approx(-other.difference.value)
    assert one.difference.covers == "test-set" and one.over_seeds is None
    assert one.tests[0].p_value < 1e-6
    assert "another seed" in one.advice[0] and len(one.advice) == 1


def test_of_losses_the_lower_is_better():
    draw = np.random.default_rng(1)
    right = draw.random(300) < 0.8
    sure, unsure = run(right, 1, scale=4.0), run(right, 2, scale=1.0)
    assert compare([unsure], [sure], "nll").answer == "better"
    assert compare([sure], [unsure], "brier").answer == "worse"


# Of these the larger is the better; of `LOWER_IS_BETTER` the smaller. A new figure belongs to one.
HIGHER_IS_BETTER = {
    *("accuracy", "balanced_accuracy", "subset_accuracy", "top_5_accuracy"),
    *("micro_f1", "macro_f1", "auroc", "average_precision"),
    *("dice", "dice_present", "iou", "surface_dice", "surface_dice_present"),
    *("lesion_sensitivity", "specificity", "rank1", "tar_at_far_0.01", "tar_at_far_0.001"),
}


def answers(kind, classes=7, n=40):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(n, classes)).astype(np.float32)
    targets = {
        "class": draw.integers(0, classes, n),
        "soft": draw.dirichlet(np.ones(classes), n).astype(np.float32),
        "multilabel": draw.integers(0, 2, (n, classes)).astype(np.float32),
    }[kind]
    ids = np.array([f"{i:03d}" for i in range(n)])
    return Predictions("test", ids, targets, logits, tuple("abcdefg"[:classes]), kind)


def masks():
    found = np.zeros((4, 8, 8), np.uint8)
    found[:2, 2:5, 2:5] = 1
    ids = np.array(list("abcd"))
    probabilities = found[..., None].astype(np.float16)
    return MaskPredictions("test", ids, found, probabilities, ("background", "lesion"))


def people():
    ids = np.array([f"{i:03d}" for i in range(120)])
    embeddings = np.random.default_rng(0).normal(size=(120, 8)).astype(np.float32)
    return EmbeddingPredictions("test", ids, np.repeat(ids[:60], 2), embeddings)


def test_of_every_figure_it_is_known_which_way_is_better():
    seen = set()
    kinds = [answers(kind) for kind in ("class", "soft", "multilabel")]
    for one in (*kinds, masks(), people()):
        seen |= set(measures(one))
    assert not HIGHER_IS_BETTER & set(LOWER_IS_BETTER)
    assert seen - {*HIGHER_IS_BETTER, *LOWER_IS_BETTER} == set()
    assert HIGHER_IS_BETTER - seen == set()


@pytest.mark.parametrize("kind", ["class", "soft", "multilabel"])
def test_what_prints_as_per_cent_does_so_in_a_comparison(kind):
    one = answers(kind)
    figures = classification_metrics(one, resamples=10)
    for name, measured in measures(one).items():
        assert measured.percent == figures[name].percent, name
    other = replace(one, logits=one.logits[:, ::-1].copy())
    for name in figures.keys() & {"accuracy", "top_5_accuracy", "subset_accuracy"}:
        assert compare([one], [other], name, resamples=10).difference.percent, name


def test_the_number_of_examples_it_asks_for_is_enough():
    draw = np.random.default_rng(2)
    (a,), (b,) = runs(draw, 1, 200, 0.84), runs(draw, 1, 200, 0.80)
    verdict = compare([a], [b])
    assert verdict.answer == "cannot tell"
    needed = number(verdict.advice[1])
    # Draw such pairs of examples as were seen, so many that it should tell 4 times of 5.
    right = [p.predicted() == p.labels() for p in (a, b)]
    told = 0
    for _ in range(100):
        index = draw.integers(0, 200, needed)
        told += compare([run(right[0][index])], [run(right[1][index])], resamples=50).answer == (
            "better" if verdict.difference.value > 0 else "worse"
        )
    assert 0.68 < told / 100 < 0.92


def test_several_runs_answer_for_seeds_and_test_sets():
    draw = np.random.default_rng(3)
    good, bad = runs(draw, 4, 1000, 0.9, 0.005), runs(draw, 3, 1000, 0.8, 0.005)
    verdict = compare(good, bad)
    assert verdict.answer == "better" and verdict.difference.covers == "both"
    assert verdict.over_seeds.covers == "seed" and verdict.over_seeds.n_seeds == 3
    assert verdict.tests == ()


def test_seeds_that_differ_need_more_seeds():
    draw = np.random.default_rng(4)
    shared = draw.random((1000,))
    # All runs find the same examples easy: the test set is not what makes the difference.
    a = [run(shared < 0.80 + 0.05 * z, i) for i, z in enumerate((1.2, -0.6, -0.2))]
    b = [run(shared < 0.78 + 0.05 * z, i) for i, z in enumerate((1.0, -0.9, 0.2))]
    verdict = compare(a, b)
    assert verdict.answer == "cannot tell"
    assert "3 and 3 seeds" in verdict.advice[0]
    assert 4 < number(verdict.advice[0]) < 2000


def test_a_small_test_set_cannot_be_mended_by_seeds():
    draw = np.random.default_rng(5)
    a, b = runs(draw, 2, 30, 0.75), runs(draw, 2, 30, 0.72)
    verdict = compare(a, b)
    assert verdict.answer == "cannot tell"
    assert re.search("whatever the number of seeds|no number of seeds", verdict.advice[0])


def test_runs_that_agree_on_everything_have_a_width_still():
    a = run(np.ones(50, bool))
    verdict = compare([a], [a])
    assert verdict.answer == "cannot tell" and verdict.difference.value == 0
    assert verdict.difference.low < 0 < verdict.difference.high
    assert "no number" in verdict.advice[1]
    assert compare([a], [a], "auroc").advice[1].startswith("No interval: ")


def over_seeds_alone(a, b, level):
    varied = [float(np.var(side, ddof=1)) if np.ptp(side) else 0.0 for side in (a, b)]
    sides = tuple((v / len(s), len(s) - 1) for v, s in zip(varied, (a, b), strict=True))
    value = float(np.mean(a) - np.mean(b))
    spread = Spread(value, sides, 1.0, "example", units=100, n=100, n_seeds=min(len(a), len(b)))
    return spread.estimate_over_seeds(level)


def test_welch_is_scipys():
    a, b = [0.91, 0.93, 0.90, 0.95], [0.85, 0.92, 0.80]
    ours = over_seeds_alone(a, b, 0.9)
    theirs = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), rel=1e-9)
    same = over_seeds_alone([0.9, 0.9], [0.8, 0.8], 0.95)
    assert same.value == pytest.approx(0.1) and math.isnan(same.low) and math.isnan(same.high)


def test_runs_that_never_differ_have_no_interval_over_test_sets():
    right, wrong = run(np.ones(50, bool)), run(np.zeros(50, bool))
    verdict = compare([right, right], [wrong, wrong])
    assert verdict.difference.value == 1 and math.isnan(verdict.difference.low)
    assert verdict.answer == "cannot tell" and verdict.advice[0].startswith("No interval: ")


def test_runs_that_disagree_on_the_groups_are_refused():
    a, b = (run(np.arange(20) % 3 > 0, seed) for seed in range(2))
    grouped = replace(b, groups=(np.arange(20) // 2).astype(str))
    with pytest.raises(EvaluationError, match="groups"):
        compare([a, a], [b, grouped])


def test_what_makes_no_sense_is_refused():
    a = run(np.array([True, False] * 5))
    with pytest.raises(EvaluationError, match="on each side"):
        compare([], [a])
    with pytest.raises(EvaluationError, match="1 against 2 runs"):
        compare([a], [a, a])
    with pytest.raises(EvaluationError, match="no metric 'speed'"):
        compare([a], [a], "speed")
    one_class = Predictions(
        split="test",
        ids=a.ids,
        targets=np.zeros(10, np.int32),
        logits=a.logits,
        classes=a.classes,
    )
    with pytest.raises(EvaluationError, match="undefined"):
        compare([one_class], [one_class], "auroc")
    assert not math.isnan(compare([a], [a], "nll").of_a)
