"""Monte-Carlo dropout: dropped at the stated rate, scaled, everything else as in evaluation."""

import jax
import numpy as np
import pytest
from small import small_set

import cnn_jax
from cnn_jax import evaluation, nn
from cnn_jax.errors import ModelError, RunError
from cnn_jax.training.progress import Silent


class Dropping(nn.Module):
    rate: float = 0.5

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(image))
        x = nn.relu(x).mean(axis=(1, 2))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(3)(x)


def test_a_layer_drops_at_its_rate_and_keeps_its_mean():
    x = np.ones((4000, 6), np.float32)
    layer = nn.Dropout(0.25, deterministic=True)
    with nn.keep_dropping():
        y = layer.apply({}, x, rngs={"dropout": jax.random.key(0)})
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert np.mean(np.asarray(y) == 0) == pytest.approx(0.25, abs=0.01)
    with nn.keep_dropping():
        rows = nn.Dropout(0.25, broadcast_dims=(1,), deterministic=True).apply(
            {}, x, rngs={"dropout": jax.random.key(0)}
        )
    assert (np.ptp(np.asarray(rows), axis=1) == 0).all()
    with nn.keep_dropping():
        same = nn.Dropout(0.25, broadcast_dims=(-1,), deterministic=True).apply(
            {}, x, rngs={"dropout": jax.random.key(0)}
        )
    np.testing.assert_array_equal(same, rows)
    np.testing.assert_array_equal(layer.apply({}, x), x)  # outside nothing is dropped
    with pytest.raises(ModelError, match="drops nothing"), nn.keep_dropping():
        nn.Dropout(0.0, deterministic=True).apply({}, x)


def test_samples_of_a_run_vary_around_its_answer(tmp_path):
    options = {"epochs": 2, "batch_size": 8, "reporter": Silent()}
    run = cnn_jax.train(model=Dropping(), data=small_set(60), out=tmp_path / "run", **options)
    samples = run.dropout_samples("test", samples=200)
    again = run.dropout_samples("test", samples=2)
    np.testing.assert_array_equal(again[1].logits, samples[1].logits)
    other = run.dropout_samples("test", samples=1, seed=1)
    assert not np.array_equal(other[0].logits, samples[0].logits)
    logits = np.stack([s.logits for s in samples])
    assert (logits.std(axis=0) > 0).all()
    # What is dropped is scaled, and after it the model is linear: the mean is the plain answer.
    error = logits.std(axis=0) / np.sqrt(200)
    assert (np.abs(logits.mean(axis=0) - run.predictions("test").logits) < 5 * error + 1e-5).all()
    assert "Run.dropout_samples" in run.test_uses[-1]["command"]
    assert (evaluation.disagreement(samples).between > 0).all()
    assert (
        type(run.dropout_samples("validation", samples=1)[0]) is evaluation.CalibrationPredictions
    )
    with pytest.raises(RunError, match="1 sample or more"):
        run.dropout_samples(samples=0)
    with pytest.raises(RunError, match="no part 'tset'"):
        run.dropout_samples("tset")
