"""What poolings keep under shifts: known distances, and who moves less."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import EvaluationError
from cnn_jax.principles import POOLINGS, shift_distances

RNG = np.random.default_rng(0)


def _smooth(n=40, side=16):
    """Blobs: neighbouring pixels are alike, as in features of images."""
    y, x = np.mgrid[:side, :side]
    centres = RNG.uniform(3, side - 3, (n, 2))
    far = (y - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2
    return np.exp(-far / 6)[..., None].astype(np.float32)


def test_the_distance_is_the_formula():
    images = RNG.normal(size=(5, 6, 6, 2)).astype(np.float32)
    found = shift_distances(lambda x: x, images, 2)
    flat = images.reshape(5, -1).astype(np.float64)
    pairs = itertools.permutations(flat, 2)
    apart = np.mean([((one - other) ** 2).sum() for one, other in pairs])
    moved = [((np.roll(images, 2, axis) - images) ** 2).sum() / 5 for axis in (1, 2)]
    assert found[0] == 0
    assert found[2] == pytest.approx(np.sqrt(np.mean(moved) / apart), rel=1e-5)


def test_what_knows_no_positions_does_not_move():
    images = _smooth()
    for name in ("maximum of all", "mean of all"):
        np.testing.assert_allclose(shift_distances(POOLINGS[name], images, 5), 0, atol=1e-5)


def test_white_noise_is_moved_as_far_as_another_image():
    images = RNG.normal(size=(200, 16, 16, 1)).astype(np.float32)
    found = shift_distances(POOLINGS["every other position"], images, 3)
    np.testing.assert_allclose(found[1:], 1, atol=0.05)


def test_blur_moves_less_than_skipping_and_polyphase_not_at_all_by_even_shifts():
    images = _smooth()
    found = {name: shift_distances(pool, images, 4) for name, pool in POOLINGS.items()}
    assert found["blur pooling"][1] < found["every other position"][1]
    assert found["mean of 2 x 2"][1] < found["every other position"][1]
    phases = lambda x: jnp.sort(POOLINGS["adaptive polyphase"](x).reshape(len(x), -1))  # noqa: E731
    np.testing.assert_allclose(shift_distances(phases, images, 4), 0, atol=1e-5)
    assert shift_distances(lambda x: x.reshape(len(x), -1), images, 1)[1] > 0.1


def test_what_has_no_answer():
    images = _smooth(4)
    for bad, largest, message in [
        (images[:1], 1, "two images"),
        (images[0], 1, "two images"),
        (images, 16, "that are larger"),
        (images * 0, 1, "the same for all images"),
    ]:
        with pytest.raises(EvaluationError, match=message):
            shift_distances(lambda x: x, bad, largest)
