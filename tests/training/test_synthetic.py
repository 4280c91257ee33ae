"""Finding made defects: the problem, and its loss in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError
from cnn_jax.training.selfsupervised import Preparing
from cnn_jax.training.synthetic import Synthetic

KEY = jax.random.key(1)
HYPER = {"label_smoothing": jnp.float32(0)}
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(0.2, 0.8, (60, 16, 20, 1)), jnp.float32)
prepare = jax.jit(lambda batch, key: Synthetic().prepare(batch, key=key))


@pytest.mark.heavy
def test_some_images_stay_and_of_the_others_the_change_is_marked():
    found = prepare({"image": IMAGES, "mask": jnp.zeros((60, 16, 20), jnp.uint8)}, KEY)
    where = np.asarray(found["changed"])
    assert where.dtype == np.bool_ and not np.asarray(found["mask"]).any()
    seen = (np.abs(np.asarray(found["image"] - IMAGES)) > 0.03).any(axis=-1)
    np.testing.assert_array_equal(where, seen)
    intact = (np.asarray(found["image"]) == np.asarray(IMAGES)).all(axis=(1, 2, 3))
    assert 9 <= intact.sum() <= 30  # 0.3 of 60, and what could not be seen
    everything = Synthetic(intact=1.0).prepare({"image": IMAGES}, key=KEY)
    np.testing.assert_array_equal(everything["image"], IMAGES)


@pytest.mark.heavy
def test_padded_rows_lend_no_texture():
    """The last valid image takes that of the first, in a batch of any size."""
    valid = jnp.arange(10) < 7
    padded = {"image": jnp.concatenate([IMAGES[:7], 0 * IMAGES[:3]]), "valid": valid}
    whole = prepare({"image": IMAGES[:7]}, KEY)
    found = prepare(padded, KEY)
    np.testing.assert_array_equal(found["changed"][:7], whole["changed"])
    np.testing.assert_allclose(found["image"][:7], whole["image"], atol=1e-6)
    nothing = prepare({**padded, "valid": jnp.zeros(10, bool)}, KEY)
    assert np.isfinite(np.asarray(nothing["image"])).all()


def cells(values, side):
    """The highest of each cell, in loops; cells at the end may be smaller, with the rest shared."""
    n, height, width = values.shape
    rows, columns = (-(-length // side) for length in (height, width))
    before = [(count * side - length) // 2 for count, length in ((rows, height), (columns, width))]
    out = np.empty((n, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * side - before[0], j * side - before[1]
            part = values[:, max(top, 0) : top + side, max(left, 0) : left + side]
            out[:, i, j] = part.max(axis=(1, 2))
    return out


@pytest.mark.parametrize("side", [1, 3, 4])
def test_the_loss_is_the_mean_cross_entropy_of_the_cells(side):
    logits = RNG.normal(0, 4, (5, 10, 13, 1)).astype(np.float32)
    logits[0, 0, 0], logits[0, 0, 1] = 200, -200  # no overflow
    where = RNG.random((5, 10, 13)) < 0.1
    where[4] = False
    batch, task = {"changed": jnp.asarray(where)}, Synthetic(cell=side)
    loss, weight = task.loss(jnp.asarray(logits), batch, HYPER, key=KEY)
    z = cells(logits[..., 0].astype(np.float64), side)
    y = cells(where.astype(np.float64), side)
    expected = (np.logaddexp(0, z) - y * z).mean(axis=(1, 2))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_array_equal(weight, 1)
    found = z > 0
    dice = 2 * (found & (y > 0)).sum((1, 2)) / (found.sum((1, 2)) + y.sum((1, 2)))
    correct = task.correct(jnp.asarray(logits), batch)
    np.testing.assert_allclose(correct, dice, rtol=1e-6)
    nothing = jnp.full((1, 6, 7, 1), -1.0)
    assert float(task.correct(nothing, {"changed": jnp.zeros((1, 6, 7), bool)})[0]) == 1


def test_what_does_not_fit():
    for shape in ((2, 7, 20, 1), (2, 3, 20, 20, 1)):
        with pytest.raises(DataError, match=r"8 pixels a side or more, not in"):
            Synthetic().prepare({"image": jnp.zeros(shape)}, key=KEY)
    with pytest.raises(RecipeError, match="from 0 to 1, not 1"):
        Synthetic(intact=1.5)
    with pytest.raises(RecipeError, match="1 pixel or more, not 0"):
        Synthetic(cell=0)
    batch = {"changed": jnp.zeros((2, 8, 8), bool)}
    for outputs in (jnp.zeros((2, 8, 8, 2)), jnp.zeros((2, 1)), {"logits": jnp.zeros((2, 1))}):
        with pytest.raises(ModelError, match=r"one logit for each pixel, \[2, 8, 8, 1\]"):
            Synthetic().loss(outputs, batch, HYPER, key=KEY)
    task = Synthetic()
    assert isinstance(task, Preparing) and task.whole_batch and task.num_outputs == 1
    for figures in (task.score, task.metrics):
        with pytest.raises(EvaluationError, match="Synthetic learns without labels"):
            figures(None)
