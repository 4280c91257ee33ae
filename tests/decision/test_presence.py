"""Is a region in the image? From masks, against loops over pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit

from cnn_jax.decision import fit_threshold, is_positive, presence
from cnn_jax.decision.threshold import scores
from cnn_jax.evaluation import CalibrationPredictions, MaskPredictions, Predictions

REGIONS = ("background", "cyst", "tumour")


def drawn(masks, probabilities, regions=REGIONS, split="validation", groups=None):
    ids = np.arange(len(masks)).astype(str)
    return MaskPredictions(split, ids, masks, probabilities, regions, groups=groups)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([np.float16, np.float32]),
    shape=st.sampled_from([(3, 4), (2, 3, 2)]),
)
def test_an_answer_is_that_of_the_most_suspicious_pixel(seed, kind, shape):
    rng = np.random.default_rng(seed)
    masks = rng.choice(3, (6, *shape), p=(0.9, 0.06, 0.04)).astype(np.uint8)
    probabilities = (rng.random((6, *shape, 2)) / 2.01).astype(kind)
    groups = rng.integers(0, 3, 6).astype(str)
    found = presence(drawn(masks, probabilities, groups=groups))
    assert found.classes == REGIONS[1:] and found.kind == "multilabel"
    for i in range(6):
        for r in (1, 2):
            pixels = [float(p) for p in probabilities[i, ..., r - 1].ravel()]
            assert found.targets[i, r - 1] == (r in masks[i].ravel().tolist())
            np.testing.assert_allclose(found.logits[i, r - 1], logit(max(pixels)), rtol=1e-5)
    np.testing.assert_array_equal(found.groups, groups)
    # What is looked for is one region, whatever the other does.
    np.testing.assert_array_equal(
        is_positive(found, "tumour"), (masks == 2).any((*range(1, masks.ndim),))
    )


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_certain_pixels_stay_finite_and_in_their_order(kind):
    number = np.finfo(kind)
    ordered = [0, number.smallest_subnormal, 0.5, 1 - number.epsneg, 1]
    probabilities = np.array(ordered, kind).reshape(5, 1, 1, 1)
    found = presence(drawn(np.zeros((5, 1, 1), np.uint8), probabilities, ("background", "cyst")))
    assert np.isfinite(found.logits).all() and (np.diff(found.logits[:, 0]) > 0).all()


def test_a_line_is_fitted_on_validation_alone_and_flags_images():
    masks = np.zeros((40, 2, 2), np.uint8)
    masks[20:, 1, 1] = 1
    p = np.full((40, 2, 2, 1), 0.1, np.float16)
    p[:, 0, 0, 0] = np.linspace(0.2, 0.9, 40)  # not where the reference is: an image is asked for
    validation = presence(drawn(masks, p, ("background", "cyst")))
    assert isinstance(validation, CalibrationPredictions)
    test = presence(drawn(masks, p, ("background", "cyst"), split="test"))
    assert type(test) is Predictions
    threshold = fit_threshold(validation, positive="cyst", sensitivity=0.9)
    flagged = scores(test, "cyst") >= threshold.log_odds
    np.testing.assert_array_equal(flagged, np.arange(40) >= 22)
