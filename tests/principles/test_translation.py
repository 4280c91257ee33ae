"""Shifts: laws of circular convolutions, strides and polyphase sampling, and sums by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import models, nn
from cnn_jax.errors import EvaluationError, ModelError
from cnn_jax.principles import (
    accuracy_by_rotation,
    accuracy_by_shift,
    aliasing_energy,
    equivariance,
    shift,
    shift_consistency,
    turn,
)

IMAGES = np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype(np.float32)
SHIFTS = ((1, 0), (-3, 2), (4, -8))


def network(**options):
    model = models.create(
        "compact", num_classes=5, image_size=16, widths=(4, 8, 8), units=1, **options
    )
    return model, models.initialize(model, jax.random.key(0), (16, 16, 3))


def logits_of(model, variables):
    apply = jax.jit(lambda x: model.apply(variables, x))
    return lambda images: np.asarray(apply(jnp.asarray(images)))


def test_a_circular_convolution_moves_with_the_image_and_a_stride_with_some_shifts():
    model, variables = network(padding="circular")
    for by in SHIFTS:
        found = equivariance(model, variables, IMAGES, by)
        assert found["stage1"].stride == (1, 1) and found["stage1"].error < 1e-5
        assert found["stage3"].stride == (4, 4)
        whole = all(step % 4 == 0 for step in by)
        assert (found["stage3"].error < 1e-5) == whole and (found["head"].error < 1e-5) == whole
    assert found["head"].stride == (0, 0) and np.isnan(found["head"].inside)


def test_zeros_at_the_border_break_it_there_alone():
    model, variables = network()
    found = equivariance(model, variables, IMAGES, (2, -2), ("stage1", "stage2"))
    for path in ("stage1", "stage2"):
        assert found[path].error > 1e-2 and found[path].inside < 1e-5
    odd = equivariance(model, variables, IMAGES, (1, 0), ("stage2", "stage3"))
    assert odd["stage2"].error > 0.1 and np.isnan(odd["stage2"].inside)


def test_a_blur_is_as_wide_as_its_stride():
    """Along a circle it is the binomial of 2s - 1 weights, at every s-th position."""
    block = models.compact.Block(3, stride=4, downsample="blur", padding="circular")
    x = jnp.asarray(IMAGES)
    variables = block.init(jax.random.key(0), x, train=False)
    whole = np.asarray(block.clone(stride=1).apply(variables, x, train=False), np.float64)
    weights = np.array([1, 6, 15, 20, 15, 6, 1]) / 64
    for axis in (1, 2):
        whole = sum(w * np.roll(whole, 3 - n, axis) for n, w in enumerate(weights))
    found = block.apply(variables, x, train=False)
    np.testing.assert_allclose(found, whole[:, ::4, ::4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("by", SHIFTS)
def test_polyphase_sampling_never_changes_the_answer(by):
    model, variables = network(padding="circular", downsample="polyphase")
    found = equivariance(model, variables, IMAGES, by)
    assert max(each.error for each in found.values()) < 1e-5
    predict = logits_of(model, variables)
    np.testing.assert_allclose(predict(shift(IMAGES, by)), predict(IMAGES), rtol=1e-4, atol=1e-5)


def test_consistency_of_networks_that_have_learned_nothing():
    images = np.random.default_rng(1).normal(size=(64, 16, 16, 3)).astype(np.float32)
    found = {}
    for downsample in ("stride", "blur", "polyphase"):
        logits = logits_of(*network(padding="circular", downsample=downsample))
        usual = logits(images).mean(axis=0)  # else one class is all that is ever answered
        predict = lambda x, logits=logits, usual=usual: logits(x) - usual  # noqa: E731
        assert len(np.unique(predict(images).argmax(axis=1))) > 2
        found[downsample] = shift_consistency(predict, images, largest=7, draws=3)
    assert found["polyphase"].value == 1.0
    assert found["stride"].value < found["blur"].value < 1
    assert found["stride"].percent and found["stride"].n == 64


def test_consistency_is_the_share_of_equal_answers_by_hand():
    """A classifier that tells where the only bright pixel is: left or right half."""
    images = np.zeros((3, 8, 8, 1), np.float32)
    images[0, 2, 0] = images[1, 2, 6] = 1  # right by up to 1: both stay in their half
    images[2, 2, 3] = 1  # and this one leaves it half of the times

    def predict(batch):
        return np.stack([batch[:, :, :4].sum((1, 2, 3)), batch[:, :, 4:].sum((1, 2, 3))], axis=1)

    found = shift_consistency(predict, images, largest=1, draws=4000, resamples=10)
    assert found.value == pytest.approx((1 + 1 + 0.5) / 3, abs=0.01)
    cut = shift_consistency(lambda x: predict(x[:, :, :7]), images, largest=1, border="crop")
    assert cut.n == 3
    # zeros enter from the left, and the right one is lost
    lost = shift(images, (0, 2), "zero")
    assert lost[1].sum() == 0 and lost[0, 2, 2] == 1
    np.testing.assert_array_equal(
        shift(images, (-2, -1), "zero")[2], images[2] * 0 + np.roll(images[2], (-2, -1), (0, 1))
    )


def test_accuracy_under_every_shift():
    images = np.zeros((2, 5, 5, 1), np.float32)
    images[0, 2, 1] = images[1, 2, 3] = 1

    def predict(batch):
        left = batch[:, :, :2].sum((1, 2, 3)) > 0
        return np.stack([left, ~left], axis=1).astype(np.float32)

    found = accuracy_by_shift(predict, images, np.array([0, 1]), largest=1)
    # rows do not matter; to the left the second stays right of the middle; to the right the
    # first leaves the left part
    np.testing.assert_array_equal(found, np.tile([1.0, 1.0, 0.5], (3, 1)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_accuracy_when_images_are_turned(dtype):
    images = np.zeros((2, 5, 5, 1), dtype)
    images[0, 0, 2] = images[1, 2, 4] = 200  # one above the middle, the other right of it
    seen = []

    def predict(batch):
        seen.append(batch)
        above = batch[:, :2].astype(np.float64).sum((1, 2, 3)) > 0
        return np.stack([above, ~above], axis=1).astype(np.float32)

    found = accuracy_by_rotation(predict, images, np.array([0, 1]), (0, 90, 180))
    # By 90 degrees counterclockwise what was above is left, and what was right is above.
    np.testing.assert_array_equal(found, [1, 0, 0.5])
    np.testing.assert_array_equal(seen[0], images)
    np.testing.assert_allclose(seen[1], np.rot90(images, axes=(1, 2)), atol=1e-4)
    assert seen[1].dtype == dtype


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_aliasing_of_waves_and_of_noise(stride):
    y, x = np.mgrid[:24, :24]
    for wave, row, column in itertools.product(("y", "x"), range(1, 12), (0,)):
        value = np.cos(2 * np.pi * row * (y if wave == "y" else x) / 24 + column)
        found = aliasing_energy(value[np.newaxis, :, :, np.newaxis] + 3, stride)
        assert found == pytest.approx([float(row >= 24 / (2 * stride))], abs=1e-9)
    noise = np.random.default_rng(0).normal(size=(40, 48, 48, 2))
    kept = (2 * np.ceil(48 / (2 * stride)) - 1) / 48  # frequencies below the limit, of 48
    assert aliasing_energy(noise, stride) == pytest.approx([1 - kept**2] * 2, abs=0.01)
    assert aliasing_energy(noise, 1) == pytest.approx([1 - (47 / 48) ** 2] * 2, abs=0.01)
    assert aliasing_energy(np.ones((1, 4, 4, 1)), 2) == [0]


def test_blurring_before_the_stride_takes_aliasing_away():
    wave = np.random.default_rng(0).normal(size=(8, 32, 32, 4)).astype(np.float32)
    blurred = nn.blur_pool(jnp.asarray(wave), 1)
    assert (aliasing_energy(blurred, 2) < 0.5 * aliasing_energy(wave, 2)).all()


def test_what_cannot_be_asked():
    model, variables = network()
    with pytest.raises(ModelError, match="no submodule 'stage9'; did you mean"):
        equivariance(model, variables, IMAGES, (1, 0), ("stage9",))
    predict = logits_of(model, variables)
    for images, largest in ((IMAGES[0], 3), (IMAGES[:0], 3), (IMAGES, 16), (IMAGES, 0)):
        with pytest.raises(EvaluationError, match=r"shifts are of images|largest shift must be"):
            shift_consistency(predict, images, largest=largest)
    with pytest.raises(EvaluationError, match="one draw of shifts at least"):
        shift_consistency(predict, IMAGES, largest=1, draws=0)
    with pytest.raises(EvaluationError, match="6 images have 2 labels"):
        accuracy_by_shift(predict, IMAGES, np.zeros(2, int), largest=1)
    with pytest.raises(EvaluationError, match="border 'crop' must be circular or zero"):
        shift(IMAGES, (1, 0), "crop")
    with pytest.raises(ModelError, match="a stride of 1 or more"):
        aliasing_energy(IMAGES, 0)
    with pytest.raises(ModelError, match="downsample='aps' must be one of stride, blur, polyphase"):
        network(downsample="aps")


def test_a_quarter_turn_is_exact_and_counterclockwise():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 2)).astype(np.uint8)
    np.testing.assert_array_equal(turn(images, 0), images)
    np.testing.assert_array_equal(turn(images, 90), np.rot90(images, axes=(1, 2)))
    assert turn(images.astype(np.float32) / 255, 30).dtype == np.float32
