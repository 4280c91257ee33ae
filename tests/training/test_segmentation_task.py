"""The loss of masks against its formula in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import EvaluationError, ModelError
from cnn_jax.evaluation import MaskPredictions, segmentation_metrics
from cnn_jax.training.segmentation import Segmentation, pixel_logits

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
NAMES = ("background", "organ", "tumour")


def problem(shape, regions=3, n=5):
    logits = RNG.normal(size=(n, *shape, regions)).astype(np.float32) * 3
    masks = RNG.integers(0, regions, (n, *shape)).astype(np.uint8)
    masks[0] = 0  # nothing there
    return logits, masks


def expected_loss(logits, masks, smoothing, weight):
    """Written out for one image after the other."""
    z = logits.astype(np.float64)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    regions, losses = z.shape[-1], []
    for one, mask in zip(p, masks, strict=True):
        q = (1 - smoothing) * np.eye(regions)[mask] + smoothing / regions
        entropy = -(q * np.log(one)).sum(axis=-1).mean()
        dice = []
        for r in range(1, regions):
            g = (mask == r).astype(np.float64)
            dice.append((2 * (one[..., r] * g).sum() + 1) / (one[..., r].sum() + g.sum() + 1))
        losses.append(entropy + weight * (1 - np.mean(dice)))
    return np.array(losses)


@pytest.mark.heavy
@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize(("smoothing", "weight"), [(0.0, 1.0), (0.1, 0.5), (0.0, 0.0)])
def test_cross_entropy_and_dice(shape, smoothing, weight):
    logits, masks = problem(shape)
    task, hyper = Segmentation(NAMES, weight), {"label_smoothing": jnp.float32(smoothing)}
    batch = {"mask": jnp.asarray(masks)}
    loss, weights = task.loss(jnp.asarray(logits), batch, hyper, key=KEY)
    np.testing.assert_allclose(loss, expected_loss(logits, masks, smoothing, weight), rtol=2e-5)
    np.testing.assert_array_equal(weights, 1)
    gradient = jax.grad(lambda z: task.loss(z, batch, hyper, key=KEY)[0].sum())(jnp.asarray(logits))
    assert np.isfinite(gradient).all() and (np.abs(np.asarray(gradient)).sum(axis=-1) > 0).all()


def test_the_gradient_is_that_of_the_formula():
    logits, masks = problem((4, 4), n=2)
    hyper, batch = {"label_smoothing": jnp.float32(0.1)}, {"mask": jnp.asarray(masks)}
    task = Segmentation(NAMES)
    found = jax.grad(lambda z: task.loss(z, batch, hyper, key=KEY)[0].sum())(jnp.asarray(logits))
    direction = RNG.normal(size=logits.shape)
    step = 1e-6 * direction
    slope = (
        expected_loss(logits + step, masks, 0.1, 1) - expected_loss(logits - step, masks, 0.1, 1)
    ).sum() / 2e-6
    np.testing.assert_allclose((np.asarray(found) * direction).sum(), slope, rtol=1e-4)


def predictions_of(task, logits, masks, split="validation"):
    kept = jax.jit(task.predictions)(jnp.asarray(logits))
    assert list(kept) == ["probabilities"] and kept["probabilities"].dtype == jnp.float16
    ids = np.array([str(i) for i in range(len(masks))])
    return MaskPredictions(split, ids, masks, np.asarray(kept["probabilities"]), task.regions)


@pytest.mark.parametrize("names", [NAMES, NAMES[:2]])
def test_the_score_is_the_mean_loss_and_the_mean_dice(names):
    logits, masks = problem((16, 16), len(names))
    logits /= 3
    logits[0, ..., 0] += 9  # nothing found where nothing is: a Dice of 1
    task = Segmentation(names)
    found = predictions_of(task, logits, masks)
    score = task.score(found)
    # Probabilities are kept to three digits, and none is below 2^-12.
    mean = expected_loss(logits, masks, 0, 1).mean()
    np.testing.assert_allclose(score["loss"], mean, rtol=0.01)
    assert score["accuracy"] == pytest.approx(segmentation_metrics(found)["dice"].value, abs=1e-12)
    right = jax.jit(task.correct)(jnp.asarray(logits), {"mask": jnp.asarray(masks)})
    assert float(right.mean()) == pytest.approx(score["accuracy"], abs=1e-3)
    assert float(right[0]) == 1


def test_no_choice_of_state_sees_the_test_part():
    task = Segmentation(NAMES)
    with pytest.raises(EvaluationError, match="sees the validation part, not 'test'"):
        task.score(predictions_of(task, *problem((4, 4)), split="test"))


def test_outputs_that_are_no_logits_of_pixels():
    with pytest.raises(ModelError, match=r"logits for each pixel.*shape \[2, 3\]"):
        pixel_logits(jnp.zeros((2, 3)))
    with pytest.raises(ModelError, match="nothing called 'logits'"):
        pixel_logits({"masks": jnp.zeros((2, 3, 3, 2))})
    assert pixel_logits({"logits": jnp.zeros((2, 3, 3, 2), jnp.bfloat16)}).dtype == jnp.float32
