"""Lesions worked out by hand, and against flood fill and sets of pixels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.lesions import THRESHOLDS, froc, lesion_figures
from cnn_jax.evaluation.mask_predictions import MaskPredictions


def drawn(*rows):
    """A picture of one example: `#` is True."""
    return np.array([[c == "#" for c in row] for row in rows])[np.newaxis]


def counts(candidates, reference, overlap=0.1):
    found = lesion_figures(candidates, reference, overlap)
    return tuple(int(x[0]) for x in (found.lesions, found.found, found.false_positives))


def flood(mask):
    """The components as sets of pixels, through faces, edges and corners."""
    left, out = {tuple(at) for at in np.argwhere(mask).tolist()}, []
    steps = list(itertools.product((-1, 0, 1), repeat=mask.ndim))
    while left:
        waiting, component = [left.pop()], set()
        while waiting:
            at = waiting.pop()
            component.add(at)
            near = {tuple(a + s for a, s in zip(at, step, strict=True)) for step in steps} & left
            left -= near
            waiting += near
        out.append(component)
    return out


def naive(candidates, reference, overlap):
    lesions, found = flood(reference), flood(candidates)
    enough = [[len(a & b) / len(a | b) >= overlap for b in lesions] for a in found]
    return (
        len(lesions),
        sum(any(row[k] for row in enough) for k in range(len(lesions))),
        sum(not any(row) for row in enough),
    )


def test_two_lesions_of_which_one_is_found_and_a_false_positive():
    reference = drawn("##....", "##....", "....##", "....##")
    candidates = drawn("##....", "#.....", "......", "###...")
    # The first has 3 of 4 pixels in common; `###` lies beside both.
    assert counts(candidates, reference) == (2, 1, 1)
    assert counts(reference, reference) == (2, 2, 0)
    assert counts(np.zeros_like(reference), reference) == (2, 0, 0)
    assert counts(candidates, np.zeros_like(reference)) == (0, 0, 2)


def test_corners_connect():
    assert counts(*[drawn("#..", ".#.", "..#")] * 2) == (1, 1, 0)
    volume = np.zeros((1, 2, 2, 2), bool)
    volume[0, 0, 0, 0] = volume[0, 1, 1, 1] = True
    assert counts(volume, volume) == (1, 1, 0)


def test_least_overlap_is_a_tenth_of_the_union():
    lesion = drawn("#" + 69 * ".")
    for length, found in ((10, True), (11, False)):  # 1 of 10, 1 of 11
        candidate = drawn(length * "#" + (70 - length) * ".")
        assert counts(candidate, lesion) == (1, int(found), int(not found))
    # The whole picture finds nothing small, and is a false alarm.
    assert counts(drawn(70 * "#"), drawn(6 * "#" + 64 * ".")) == (1, 0, 1)
    # 7 of 100 is 0.07, although 0.07 × 100 is 7.000000000000001 in float64.
    assert 0.07 * 100 > 7
    assert counts(drawn(100 * "#"), drawn(7 * "#" + 93 * "."), 0.07) == (1, 1, 0)


def test_one_candidate_may_find_two_lesions_and_two_candidates_one():
    two, one = drawn("###.###"), drawn("#######")
    assert counts(one, two) == (2, 2, 0)
    assert counts(two, one) == (1, 1, 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([(9, 10), (4, 5, 4)]), st.floats(0.05, 0.9))
def test_against_sets_of_pixels(seed, shape, overlap):
    generator = np.random.default_rng(seed)
    a, b = generator.random((2, 3, *shape)) < generator.uniform(
        0.02, 0.4, (2, 3, *[1] * len(shape))
    )
    b[:, 0] = a[:, 0]
    found = lesion_figures(a, b, overlap)
    for row in range(3):
        wanted = naive(a[row], b[row], overlap)
        assert (found.lesions[row], found.found[row], found.false_positives[row]) == wanted
    assert found.lesions.dtype == found.found.dtype == found.false_positives.dtype == np.int64


def predictions(masks, p, regions=("background", "lesion"), dtype=np.float16):
    masks = np.asarray(masks, np.uint8)
    p = np.asarray(p, dtype).reshape(*masks.shape, -1)
    return MaskPredictions("test", np.arange(len(masks)).astype(str), masks, p, regions)


def two_images():
    """Two lesions of 2 x 2 at p = 0.9 and 0.4; in another image a false blob at 0.6."""
    masks, p = np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    masks[0, :2, :2] = masks[0, 5:7, 5:7] = 1
    p[0, :2, :2], p[0, 5:7, 5:7], p[1, 3:5, 3:5] = 0.9, 0.4, 0.6
    return masks, p


def test_curve_by_hand():
    curve = froc(predictions(*two_images()), thresholds=[0.7, 0.3, 0.5, 0.95])
    assert curve.thresholds.tolist() == [0.3, 0.5, 0.7, 0.95]
    assert curve.sensitivity.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert curve.false_positives_per_image.tolist() == [0.5, 0.5, 0.0, 0.0]
    assert (curve.lesions, curve.images) == (2, 2)
    assert (curve.at(0.5), curve.at(0.49), curve.at(0)) == (1.0, 0.5, 0.5)
    # 0.5 at 1/8 and 1/4; 1 at 1/2, 1, 2, 4, 8.
    assert curve.score() == pytest.approx((2 * 0.5 + 5) / 7)
    default = froc(predictions(*two_images()))
    assert default.score() == pytest.approx(6 / 7)
    assert default.thresholds.tolist() == list(THRESHOLDS) and len(THRESHOLDS) == 20
    assert 0.3 in THRESHOLDS and 0.5 in THRESHOLDS and 0.99 in THRESHOLDS


def test_where_no_threshold_has_so_few_false_positives():
    masks, _ = two_images()
    curve = froc(predictions(masks, np.ones_like(masks)))  # the whole image, always
    assert set(curve.false_positives_per_image) == {1.0} and not curve.sensitivity.any()
    assert curve.at(0.5) == 0.0 == curve.score()


def test_thresholds_are_not_rounded_to_float16():
    """0.1 is 0.09998 in float16, and so below 0.1; in float32 it is above."""
    masks, _ = two_images()
    assert froc(predictions(masks, 0.1 * masks), thresholds=[0.1]).sensitivity[0] == 0
    of_32 = predictions(masks, 0.1 * masks, dtype=np.float32)
    assert froc(of_32, thresholds=[0.1]).sensitivity[0] == 1


def test_curve_of_each_region_at_each_threshold():
    generator = np.random.default_rng(0)
    masks = (generator.random((4, 12, 12)) < 0.1) * generator.integers(1, 3, (4, 12, 12))
    masks[3] = 0
    p = generator.dirichlet(np.ones(3), (4, 12, 12))[..., 1:]
    p[2] = 0  # neither in this image: with the mask below no pixel to look at
    masks[2] = 0
    both = predictions(masks, p, ("background", "a", "b"), np.float32)
    for region in (1, 2):
        curve = froc(both, region, [0.2, 0.6, 0.8], overlap=0.3)
        for k, t in enumerate(curve.thresholds):
            of_t = lesion_figures(
                both.probabilities[..., region - 1].astype(np.float64) >= t, masks == region, 0.3
            )
            assert curve.lesions == of_t.lesions.sum() > 0
            assert curve.sensitivity[k] == of_t.found.sum() / of_t.lesions.sum()
            assert curve.false_positives_per_image[k] == of_t.false_positives.sum() / 4


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_losing_true_candidates_never_raises_the_curve(seed):
    """Images lose their probabilities one by one, where these made no false alarm."""
    generator = np.random.default_rng(seed)
    masks = generator.random((3, 8, 8)) < 0.08
    masks[0, 0, 0] = True
    # Each lesion at its own probability, so that there is no false positive at any threshold.
    p = np.zeros(masks.shape)
    for row in range(3):
        for lesion in flood(masks[row]):
            p[row][tuple(np.array(sorted(lesion)).T)] = generator.random()
    before = froc(predictions(masks, p))
    assert not before.false_positives_per_image.any()
    for row in range(3):
        p[row] = 0
        after = froc(predictions(masks, p))
        assert (after.sensitivity <= before.sensitivity).all()
        assert after.score() <= before.score()
        before = after
    assert before.score() == 0


def test_refuses_what_does_not_fit():
    masks, p = two_images()
    with pytest.raises(EvaluationError, match="no example of 'test' has a lesion of 'lesion'"):
        froc(predictions(np.zeros_like(masks), p))
    for region in (0, 2, -1):
        with pytest.raises(EvaluationError, match=r"choose one of 1\.\.1"):
            froc(predictions(masks, p), region)
    for thresholds in ([], [0.0, 0.5], [1.5], [float("nan")]):
        with pytest.raises(EvaluationError, match="above 0 and at most 1"):
            froc(predictions(masks, p), thresholds=thresholds)
    for overlap in (0.0, 1.5, float("nan")):
        with pytest.raises(EvaluationError, match="an overlap is above 0"):
            froc(predictions(masks, p), overlap=overlap)
        with pytest.raises(EvaluationError, match="an overlap is above 0"):
            lesion_figures(masks, masks, overlap)
    with pytest.raises(EvaluationError, match=r"\[2, 8, 8\] and the reference \[1, 8, 8\]"):
        lesion_figures(masks, masks[:1])
