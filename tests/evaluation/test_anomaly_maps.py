import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import anomaly_map_metrics, au_pro
from cnn_jax.evaluation.anomaly_maps import _grid, _Overlap, _Pairs


def drawn(seed, n=5, size=(7, 9), ties=True, shift=0.7):
    """Maps and masks; some images are normal, and regions touch by corners."""
    generator = np.random.default_rng(seed)
    masks = generator.uniform(size=(n, *size)) < 0.2
    masks[n // 2 :] = False
    masks[0, 0, 0], masks[1, 2, 2] = True, False
    maps = generator.normal(size=(n, *size)) + shift * masks
    return (maps.round(1) if ties else maps), masks


def au_pro_by_hand(maps, masks, limit):
    """Thresholds, regions and images in loops; the curve is interpolated at the limit."""
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        overlaps, false, normal = [], 0, 0
        for one, mask in zip(maps, masks, strict=True):
            labels, count = label(mask, np.ones((3, 3)))
            regions = (one[labels == region] for region in range(1, count + 1))
            overlaps.extend((values >= threshold).mean() for values in regions)
            false += (one[~mask] >= threshold).sum()
            normal += (~mask).sum()
        curve.append((false / normal, np.mean(overlaps)))
    x, y = np.array(curve).T
    # Where the curve rises straight up, its top is what the limit meets last.
    inside = x <= limit
    at_limit = np.interp(limit, x, y) if not (x == limit).any() else y[x == limit].max()
    x, y = np.append(x[inside], limit), np.append(y[inside], at_limit)
    return float(np.trapezoid(y, x) / limit)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.01, 0.3, 1.0]))
def test_au_pro_is_that_of_a_loop(seed, ties, limit):
    maps, masks = drawn(seed, ties=ties)
    wanted = au_pro_by_hand(maps, masks, limit)
    assert au_pro(maps, masks, fpr_limit=limit) == pytest.approx(wanted, abs=1e-12)
    found = anomaly_map_metrics(maps, masks, fpr_limit=limit, resamples=2)["au_pro"]
    assert found.value == au_pro(maps, masks, fpr_limit=limit)
    assert found.method.endswith(f"up to a false positive rate of {limit:g}")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.booleans())
def test_pixel_auroc_is_scikit_learns(seed, ties):
    maps, masks = drawn(seed, ties=ties)
    found = anomaly_map_metrics(maps.astype(np.float32), masks.astype(np.uint8), resamples=2)
    wanted = roc_auc_score(masks.ravel(), maps.astype(np.float32).ravel())
    assert found["pixel_auroc"].value == pytest.approx(wanted, abs=1e-12)


def test_resampled_images_are_what_repeating_them_gives():
    maps, masks = drawn(0)
    weights = np.random.default_rng(1).integers(0, 3, (5, 20)).astype(np.float64)
    weights[0] += 1  # a region is always there
    areas = _Overlap.of(maps, masks, _grid(maps, masks)).area(weights, 0.3)
    aurocs = _Pairs.of(maps, masks).auroc(weights)
    for column, area, auroc in zip(weights.T.astype(int), areas, aurocs, strict=True):
        some, truth = np.repeat(maps, column, axis=0), np.repeat(masks, column, axis=0)
        assert area == pytest.approx(au_pro(some, truth), abs=1e-12)
        assert auroc == pytest.approx(roc_auc_score(truth.ravel(), some.ravel()), abs=1e-12)
    nothing = weights * (np.arange(5)[:, np.newaxis] > 2)
    assert np.isnan(_Overlap.of(maps, masks, _grid(maps, masks)).area(nothing, 0.3)).all()


def test_many_scores_are_resampled_on_a_grid_that_hardly_matters():
    maps, masks = drawn(0, n=20, size=(40, 40), ties=False, shift=1.5)
    grid = _grid(maps, masks)
    assert 900 < len(grid) <= 1003 and (np.diff(grid) < 0).all()
    ones = np.ones((20, 1))
    for limit in (0.05, 0.3, 1.0):
        exact = au_pro(maps, masks, fpr_limit=limit)
        assert _Overlap.of(maps, masks, grid).area(ones, limit)[0] == pytest.approx(exact, abs=2e-3)
    found = anomaly_map_metrics(maps, masks, (np.arange(20) // 2).astype(str))
    for one in found.values():
        assert one.low < one.value < one.high and (one.n, one.unit) == (20, "group")


def test_a_perfect_map_and_a_useless_one():
    _, masks = drawn(0)
    perfect = anomaly_map_metrics(masks.astype(np.float64), masks, resamples=20)
    assert perfect["au_pro"].value == pytest.approx(1) and perfect["pixel_auroc"].value == 1
    # All ties: the curve is the diagonal, and half the limit is under it.
    useless = anomaly_map_metrics(np.zeros(masks.shape), masks, resamples=20)
    assert useless["au_pro"].value == pytest.approx(0.15)
    assert useless["pixel_auroc"].value == 0.5


def test_small_regions_count_as_much_as_large_ones():
    masks = np.zeros((1, 10, 10), bool)
    masks[0, :5, :5], masks[0, 9, 9] = True, True
    maps = np.zeros((1, 10, 10))
    maps[0, :5, :5] = 1  # the large one is found, the small one only with everything
    assert au_pro(maps, masks) == pytest.approx(0.5 + 0.5 * 0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"maps": np.zeros((5, 7, 8))}, r"\[5, 7, 8\] and masks \[5, 7, 9\] must both"),
        ({"maps": np.full((5, 7, 9), np.nan)}, "not finite"),
        ({"masks": np.full((5, 7, 9), 0.5)}, "masks of float64 hold other values than 0 and 1"),
        ({"masks": np.full((5, 7, 9), 255, np.uint8)}, "masks of uint8 hold other values"),
        ({"masks": np.zeros((5, 7, 9), bool)}, "no anomalous pixel"),
        ({"masks": np.ones((5, 7, 9), bool)}, "no normal pixel"),
        ({"fpr_limit": 0}, "above 0 and at most 1: 0"),
        ({"resamples": 0}, "resamples must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    maps, masks = drawn(0)
    with pytest.raises(EvaluationError, match=message):
        anomaly_map_metrics(**{"maps": maps, "masks": masks, **changes})
