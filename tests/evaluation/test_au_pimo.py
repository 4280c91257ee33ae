import importlib
import importlib.util
import math
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import au_pimo


def drawn(seed, n=6, size=(12, 10), ties=True):
    """Maps and masks; the last half of the images is normal."""
    generator = np.random.default_rng(seed)
    masks = generator.uniform(size=(n, *size)) < 0.2
    masks[n // 2 :] = False
    maps = generator.normal(size=(n, *size)) + masks
    return (maps.round(1) if ties else maps), masks


def by_hand(maps, masks, normal, low, high):
    """Recall where ever more normal pixels are let through, one at a time, in plain loops."""
    clean = sorted(maps[normal].ravel().tolist(), reverse=True)
    values = []
    for one, mask in zip(maps, masks, strict=True):
        if not mask.any():
            continue
        area = 0.0
        for let_through, score in enumerate(clean):
            left = max(low, let_through / len(clean))
            right = min(high, (let_through + 1) / len(clean))
            if right > left:
                found = sum(value > score for value in one[mask].tolist()) / int(mask.sum())
                area += found * (math.log(right) - math.log(left))
        values.append(area / (math.log(high) - math.log(low)))
    return values


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from([(1e-5, 1e-4), (1e-3, 0.1), (0.004, 1.0), (0.05, 0.051)]),
)
def test_it_is_that_of_a_loop(seed, ties, bounds):
    maps, masks = drawn(seed, ties=ties)
    found = au_pimo(maps, masks, bounds=bounds, resamples=2)
    wanted = by_hand(maps, masks, ~masks.any(axis=(1, 2)), *bounds)
    np.testing.assert_allclose(found.values, wanted, atol=1e-12)
    assert found.images.tolist() == np.flatnonzero(masks.any(axis=(1, 2))).tolist()
    assert found.mean.value == pytest.approx(np.mean(wanted), abs=1e-12)
    assert found.mean.n == len(wanted)


def test_a_case_worked_by_hand():
    maps, masks = np.zeros((2, 1, 4)), np.zeros((2, 1, 4), bool)
    maps[0, 0] = [9, 3, 1, 0]  # the marked pixels are the first two
    masks[0, 0, :2] = True
    maps[1, 0] = [4, 2, 0, 0]  # normal: rates 0, 1/4, 2/4 with thresholds above 4, 2, 0
    # From 1/8 to 1/4 nothing is let through: above 4 lies one of two. From 1/4 to 1/2 one normal
    # pixel is: above 2 lie both.
    found = au_pimo(maps, masks, bounds=(1 / 8, 1 / 2), resamples=2)
    assert found.values == pytest.approx([(0.5 * math.log(2) + 1.0 * math.log(2)) / math.log(4)])
    # With fewer than 1 / L pixels the first step alone counts.
    assert au_pimo(maps, masks, resamples=2).values == pytest.approx([0.5])


def test_what_is_marked_is_no_normal_pixel_and_what_lies_beside_it_neither():
    maps, masks = drawn(0)
    beside = maps.copy()
    beside[0][~masks[0]] = 100  # around a defect, which is not counted against a map
    a, b = (au_pimo(one, masks, bounds=(0.01, 0.5), resamples=2) for one in (maps, beside))
    np.testing.assert_array_equal(a.values, b.values)


def test_an_anomalous_image_without_a_mark_is_neither():
    maps, masks = drawn(1)
    normal = ~masks.any(axis=(1, 2))
    normal[-1] = False
    maps[-1] = 100  # were it normal nothing would be found
    found = au_pimo(maps, masks, normal=normal, bounds=(0.01, 0.5), resamples=2)
    assert found.values == pytest.approx(by_hand(maps, masks, normal, 0.01, 0.5))
    assert au_pimo(maps, masks, bounds=(0.01, 0.02), resamples=2).mean.value == 0


def test_perfect_and_useless_maps():
    _, masks = drawn(2)
    assert au_pimo(masks.astype(float), masks, resamples=50).mean.value == 1
    assert au_pimo(np.zeros(masks.shape), masks, bounds=(0.1, 0.9), resamples=50).mean.value == 0


def test_resampled_images_are_what_repeating_them_gives():
    from cnn_jax.evaluation.au_pimo import _Recall

    maps, masks = drawn(3)
    weights = np.random.default_rng(1).integers(0, 4, (6, 20)).astype(np.float64)
    weights[-1] += 1  # a normal image is always there
    flat, truth = maps.reshape(6, -1), masks.reshape(6, -1)
    recall = _Recall.of(flat, truth, np.arange(3), np.arange(3, 6))
    found = recall.areas(weights, 0.01, 0.3)
    for column, values in zip(weights.T.astype(int), found.T, strict=True):
        once = np.maximum(column, [1, 1, 1, 0, 0, 0])  # each anomaly, to read its value
        again = [np.repeat(one, once, axis=0) for one in (maps, masks)]
        wanted = by_hand(*again, ~again[1].any(axis=(1, 2)), 0.01, 0.3)
        first = np.cumsum(np.concatenate([[0], once[:2]]))
        np.testing.assert_allclose(values, np.array(wanted)[first], atol=1e-12)
    assert np.isnan(recall.areas(weights * (np.arange(6) < 3)[:, None], 0.01, 0.3)).all()


def test_groups_are_resampled_whole():
    maps, masks = drawn(4, n=24)
    groups = (np.arange(24) // 2).astype(str)
    alone, grouped = (
        au_pimo(maps, masks, each, bounds=(0.001, 0.1), resamples=400).mean
        for each in (None, groups)
    )
    assert alone.unit == "example" and grouped.unit == "group"
    assert grouped.low < grouped.value < grouped.high
    assert grouped.method.endswith("at false positive rates of 0.001 to 0.1 on normal images")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bounds": (0, 0.1)}, "bounds of a rate are 0 < low < high <= 1, not 0 and 0.1"),
        ({"bounds": (0.1, 0.1)}, "bounds of a rate"),
        ({"bounds": (0.1, 1.5)}, "bounds of a rate"),
        ({"normal": np.ones(6, bool)}, "3 images are called normal, but their masks mark pixels"),
        ({"normal": np.zeros(6, bool)}, "no normal image"),
        ({"normal": np.zeros(5, bool)}, r"normal is bool \[5\], not bool \[6\]"),
        ({"normal": np.zeros(6)}, r"normal is float64 \[6\]"),
        ({"maps": np.zeros((6, 3, 3))}, "must both be"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    maps, masks = drawn(0)
    with pytest.raises(EvaluationError, match=message):
        au_pimo(**{"maps": maps, "masks": masks, **changes})


@pytest.mark.parity
def test_it_is_nearly_anomalibs():
    """`pip install --no-deps anomalib`; theirs goes straight from threshold to threshold."""
    torch = pytest.importorskip("torch")
    spec = importlib.util.find_spec("anomalib")
    assert spec is not None and spec.origin is not None, "pip install --no-deps anomalib"
    folder = Path(spec.origin).parent / "metrics" / "pimo"
    package = types.ModuleType("their_pimo")
    package.__path__ = [str(folder)]  # without its __init__, which wants all of anomalib
    sys.modules["their_pimo"] = package
    theirs = importlib.import_module("their_pimo.functional")
    generator = np.random.default_rng(0)
    masks = np.zeros((8, 150, 150), bool)
    masks[:4, 40:80, 30:90] = True
    maps = generator.normal(size=masks.shape) + 2.5 * masks
    bounds = (1e-3, 1e-2)
    answer = theirs.aupimo_scores(torch.from_numpy(maps), torch.from_numpy(masks), 100_000, bounds)
    wanted = answer[4][answer[3] == 1].numpy()
    found = au_pimo(maps, masks, bounds=bounds, resamples=2)
    np.testing.assert_allclose(found.values, wanted, atol=2e-3)
