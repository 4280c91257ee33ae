import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates, uniform_filter
from scipy.spatial.distance import cdist

from cnn_jax.anomaly import embed, enlarged, fit_padim, fit_patchcore, greedy_coreset
from cnn_jax.errors import DataError


def drawn(seed, n=6, h=4, w=5, d=7, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, h, w, d)).astype(dtype)


def resized(image, size):
    """Bilinear with half-pixel centres and repeated borders: float64 `[H, W]` of `[h, w]`."""
    at = [(np.arange(n) + 0.5) * k / n - 0.5 for n, k in zip(size, image.shape, strict=True)]
    return map_coordinates(image, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")


@pytest.mark.parametrize("side", [1, 3, 5])
def test_layers_are_averaged_resized_and_put_side_by_side(side):
    fine, coarse = drawn(0, 3, 6, 8, 2), drawn(1, 3, 3, 4, 5)
    found = embed([jnp.asarray(fine), coarse], side)
    assert found.shape == (3, 6, 8, 7) and found.dtype == np.float32
    means = [
        uniform_filter(m.astype(np.float64), (1, side, side, 1), mode="constant")
        for m in (fine, coarse)
    ]
    np.testing.assert_allclose(found[..., :2], means[0], atol=1e-6)
    for n in range(3):
        for c in range(5):
            wanted = resized(means[1][n, ..., c], (6, 8))
            np.testing.assert_allclose(found[n, ..., 2 + c], wanted, atol=1e-6)


def test_maps_that_do_not_fit_together_are_refused():
    with pytest.raises(DataError, match="no feature maps"):
        embed([])
    with pytest.raises(DataError, match="maps of 6, 5 images"):
        embed([drawn(0), drawn(0, n=5)])
    with pytest.raises(DataError, match="of 2 has no middle"):
        embed([drawn(0)], 2)
    with pytest.raises(DataError, match=r"layer 1 are \[6, 4\], not \[N images, h rows"):
        embed([drawn(0), drawn(0)[..., 0, 0]])


def padim_by_hand(normal, other, channels, epsilon):
    normal, other = (x[..., channels].astype(np.float64) for x in (normal, other))
    out = np.empty(other.shape[:3])
    for i, j in np.ndindex(*normal.shape[1:3]):
        here = normal[:, i, j]
        covariance = np.cov(here, rowvar=False).reshape(len(channels), -1)
        inverse = np.linalg.inv(covariance + epsilon * np.eye(len(channels)))
        for m in range(len(other)):
            apart = other[m, i, j] - here.mean(axis=0)
            out[m, i, j] = np.sqrt(apart @ inverse @ apart)
    return out


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 7))
def test_padim_is_that_of_a_loop(seed, n, channels):
    """Also with fewer images than channels."""
    normal, other = drawn(seed, n), drawn(seed + 1, 3)
    detector = fit_padim(normal, channels=channels, seed=seed)
    assert len(set(detector.channels.tolist())) == channels
    wanted = padim_by_hand(normal, other, detector.channels, 0.01)
    np.testing.assert_allclose(detector.score_maps(other), wanted, rtol=1e-9)
    np.testing.assert_array_equal(
        detector.score(other), detector.score_maps(other).max(axis=(1, 2))
    )


def test_padim_draws_channels_by_its_seed_and_all_if_there_are_few(monkeypatch):
    normal, other = drawn(0, d=30), drawn(1, d=30)
    a, b, c = (fit_padim(normal, channels=10, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.score_maps(other), b.score_maps(other))
    assert a.channels.tolist() != c.channels.tolist()
    assert fit_padim(normal, channels=100).channels.tolist() == list(range(30))
    monkeypatch.setattr("cnn_jax.anomaly.neighbours.NUMBERS_AT_ONCE", 1)  # a position at a time
    blocked = fit_padim(normal, channels=10)
    np.testing.assert_allclose(blocked.factor, a.factor, rtol=1e-12, atol=1e-15)


def test_padim_finds_the_place():
    normal, other = drawn(0, n=40), drawn(1, n=40)
    other[3, 2, 1] += 6
    detector = fit_padim(normal)
    assert detector.score(other).argmax() == 3
    maps = detector.score_maps(other)
    assert np.unravel_index(maps.argmax(), maps.shape) == (3, 2, 1)
    with pytest.raises(DataError, match=r"was fitted on maps \[N, 4, 5, 7\]"):
        detector.score(other[:, :3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels = 0 and epsilon = 0.01 must be positive"),
        ({"epsilon": 0.0}, "must be positive"),
    ],
)
def test_padim_refuses_bad_wishes(options, message):
    with pytest.raises(DataError, match=message):
        fit_padim(drawn(0), **options)
    with pytest.raises(DataError, match="one normal image shows no variance"):
        fit_padim(drawn(0, n=1))


def patchcore_by_hand(memory, other, b):
    """Score maps, and image scores by equations 6 and 7, in loops."""
    memory = memory.astype(np.float64)
    maps, scores = [], []
    for image in other.astype(np.float64):
        patches = image.reshape(-1, image.shape[-1])
        apart = cdist(patches, memory)
        maps.append(apart.min(axis=1).reshape(image.shape[:2]))
        worst = apart.min(axis=1).argmax()
        largest, nearest = apart[worst].min(), apart[worst].argmin()
        if b is None:
            scores.append(largest)
            continue
        around = np.argsort(cdist(memory[[nearest]], memory)[0])[:b]
        weight = 1 - np.exp(largest) / np.exp(apart[worst][around]).sum()
        scores.append(weight * largest)
    return np.array(maps), np.array(scores)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([None, 2, 3, 9]),
    st.sampled_from([None, 128]),
)
def test_patchcore_is_that_of_a_loop(seed, share, b, projected):
    normal, other = drawn(seed), drawn(seed + 1, 3, 3, 6)
    detector = fit_patchcore(normal, share=share, neighbours=b, projected=projected, seed=seed)
    assert len(detector.memory) == int(share * 120)
    np.testing.assert_array_equal(detector.memory, normal.reshape(-1, 7)[detector.positions])
    maps, scores = patchcore_by_hand(detector.memory, other, b)
    np.testing.assert_allclose(detector.score_maps(other), maps, rtol=1e-12)
    np.testing.assert_allclose(detector.score(other), scores, rtol=1e-9)


def test_remembering_everything_is_the_nearest_neighbour():
    normal, other = drawn(0), drawn(1, 3)
    detector = fit_patchcore(normal, share=1)
    wanted = cdist(other.reshape(-1, 7), normal.reshape(-1, 7)).min(axis=1)
    np.testing.assert_allclose(detector.score_maps(other).ravel(), wanted, rtol=1e-12)
    np.testing.assert_array_equal(detector.score(normal), 0)


def test_a_smaller_memory_only_raises_scores_and_by_no_more_than_its_radius():
    normal, other = drawn(0, n=9), drawn(1, 5)
    everything = fit_patchcore(normal, share=1).score_maps(other)
    for share in (0.5, 0.1, 0.02):
        some = fit_patchcore(normal, share=share, projected=None)
        radius = greedy_coreset(normal.reshape(-1, 7), len(some.memory)).radii[-1]
        found = some.score_maps(other)
        assert (found >= everything - 1e-12).all()
        assert (found <= everything + radius * (1 + 1e-6)).all()


def test_reweighting_bears_large_distances_and_copies():
    normal, other = drawn(0), 1e4 * drawn(1, 3)
    plain = fit_patchcore(normal, share=1)
    weighted = fit_patchcore(normal, share=1, neighbours=5)
    assert (weighted.score(other) <= plain.score(other)).all()
    assert (weighted.score(other) >= 0).all() and (weighted.score(normal) == 0).all()
    copies = fit_patchcore(np.ones((2, 3, 3, 4), np.float32), share=1, neighbours=3)
    # Of three copies each has a third.
    np.testing.assert_allclose(copies.score(np.zeros((1, 2, 2, 4))), [2 * (1 - 1 / 3)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0}, "above 0 and at most 1, not 0"),
        ({"share": 10}, "above 0 and at most 1, not 10"),
        ({"neighbours": 1}, "needs 2 neighbours or more"),
        ({"neighbours": 3, "share": 0.001}, "a memory of 2 patches or more, not 1"),
        ({"projected": 0}, "1 or more dimensions"),
    ],
)
def test_patchcore_refuses_bad_wishes(options, message):
    with pytest.raises(DataError, match=message):
        fit_patchcore(drawn(0), **options)
    with pytest.raises(DataError, match=r"\[6, 4, 5, 6\], and the detector was fitted on .* 7\]"):
        fit_patchcore(drawn(0)).score(drawn(0, d=6))


@pytest.mark.parametrize("size", [(9, 17), (4, 5), (3, 2)])
@pytest.mark.parametrize("sigma", [0, 1.5])
def test_pictures_are_bilinear_and_blurred(size, sigma):
    maps = drawn(0)[..., 0].astype(np.float64)
    found = enlarged(maps, size, sigma=sigma)
    assert found.shape == (6, *size)
    for one, wanted in zip(found, maps, strict=True):
        large = resized(wanted, size)
        np.testing.assert_allclose(
            one, gaussian_filter(large, sigma) if sigma else large, atol=1e-12
        )
    np.testing.assert_allclose(enlarged(np.full((1, 3, 3), 7.0), (20, 30)), 7)


@pytest.mark.parametrize(
    ("maps", "size", "sigma"),
    [
        (np.zeros((3, 3)), (5, 5), 1),
        (np.zeros((1, 3, 3)), (0, 5), 1),
        (np.zeros((1, 3, 3)), (5, 5), -1),
    ],
)
def test_bad_pictures_are_refused(maps, size, sigma):
    with pytest.raises(DataError, match=r"score maps are|give positive ones"):
        enlarged(maps, size, sigma=sigma)
