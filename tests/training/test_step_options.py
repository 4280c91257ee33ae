"""Accumulation, sharpness-aware steps, averages, recomputation: each against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import PLAIN, Linear, Tiny, batch_of, one, parts, small_set

from cnn_jax import nn
from cnn_jax.assembly import assemble_run
from cnn_jax.recipe import Recipe


class Plain(nn.Module):
    """Two convolutions without batch norm and dropout: what accumulation must not change."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.relu(nn.Conv(4, (3, 3), name="conv1")(image))
        x = nn.relu(nn.Conv(6, (3, 3), name="conv2")(x))
        return nn.Dense(self.num_classes, name="head")(nn.global_avg_pool(x))


def assert_close(a, b, **kwargs):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **kwargs)


@pytest.mark.heavy
@pytest.mark.parametrize("devices", [1, 2])
def test_accumulation_is_the_large_batch(devices):
    """To rounding, also where whole parts are padding, with weights and mixed labels."""
    changes = {
        "augment.mixup": 0.4,
        "augment.translate": 1,
        "loss.class_weights": [1.0, 3.0, 0.5],
        "train.devices": devices,
    }
    whole, run_whole, state_whole = parts(Plain(), changes)
    cut, run_cut, state_cut = parts(Plain(), {**changes, "train.accumulate": 4})
    for padding in (0, 3, 6):
        batch = one(batch_of(whole.dataset, np.arange(8 - padding), padding))
        state_whole, m_whole = run_whole(state_whole, {}, whole.placement.split(batch, axis=1))
        state_cut, m_cut = run_cut(state_cut, {}, cut.placement.split(batch, axis=1))
        assert_close(state_whole.params, state_cut.params, rtol=1e-5, atol=1e-6)
        assert_close(m_whole, m_cut, rtol=1e-5, atol=1e-6)


def test_with_batch_norm_accumulation_is_ghost_batch_norm():
    """Each part is normalised by itself; running statistics take the parts in turn, but not
    one that is all padding."""
    assembly, run, state = parts(Tiny(), {"train.accumulate": 3})
    params, stats = state.params, state.model_state["batch_stats"]["norm"]
    batch = batch_of(assembly.dataset, np.arange(2), 4)
    image = assembly.preprocess(batch["image"])
    activations = np.asarray(
        nn.Conv(4, (3, 3), use_bias=False).apply({"params": params["conv"]}, image), np.float64
    )
    mean, var = np.asarray(stats["mean"], np.float64), np.asarray(stats["var"], np.float64)
    for part in (activations[0:1], activations[1:2]):
        mean = 0.9 * mean + 0.1 * part.mean(axis=(0, 1, 2))
        var = 0.9 * var + 0.1 * part.var(axis=(0, 1, 2))
    state, _ = run(state, {}, one(batch))
    got = state.model_state["batch_stats"]["norm"]
    np.testing.assert_allclose(got["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got["var"], var, rtol=1e-3)


@pytest.mark.heavy
def test_accumulation_needs_less_memory():
    def temporary(accumulate):
        changes = {"train.accumulate": accumulate, "train.batch_size": 64}
        recipe = Recipe().override({**PLAIN, **changes})
        assembly = assemble_run(recipe, small_set(64, size=24), Plain())
        batch = one(batch_of(assembly.dataset, np.arange(64)))
        compiled = assembly.run_chunk.lower(assembly.initial_state(), {}, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(8) < 0.5 * temporary(1)


def test_the_rows_of_a_batch_divide_into_the_parts():
    assembly, _, _ = parts(Plain(), {"train.accumulate": 3, "train.devices": 2})
    item = next(assembly.feeds["train"].train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1))
    assert item["index"].shape == (1, 12)  # 8 rounded up to a multiple of 2 devices x 3 parts
    assert int(item["valid"].sum()) == 8


def test_a_sharpness_aware_step_takes_the_gradient_uphill():
    radius = 0.3
    assembly, run, state = parts(Linear(), {"optimizer.sam": radius})
    batch = batch_of(assembly.dataset, np.arange(8))
    x = np.asarray(assembly.preprocess(batch["image"]), np.float64).reshape(8, -1)
    y = np.eye(3)[np.asarray(batch["label"])]

    def gradient(kernel, bias):
        z = x @ kernel + bias
        p = np.exp(z - z.max(axis=1, keepdims=True))
        error = p / p.sum(axis=1, keepdims=True) - y
        return x.T @ error / 8, error.mean(axis=0)

    kernel, bias = np.asarray(state.params["head"]["kernel"], np.float64), np.zeros(3)
    g, h = gradient(kernel, bias)
    norm = np.sqrt((g**2).sum() + (h**2).sum())
    g, h = gradient(kernel + radius * g / norm, bias + radius * h / norm)
    state, metrics = run(state, {}, one(batch))
    np.testing.assert_allclose(state.params["head"]["kernel"], kernel - 0.1 * g, rtol=1e-4)
    np.testing.assert_allclose(state.params["head"]["bias"], -0.1 * h, rtol=1e-3, atol=1e-6)
    norm = np.sqrt((g**2).sum() + (h**2).sum())  # of the gradient that moved the parameters
    assert float(metrics["gradient_norm"][0]) == pytest.approx(norm, rel=1e-4)


def test_a_second_gradient_that_is_not_finite_is_seen_before_it_is_saved():
    assembly, run, state = parts(Linear(), {"optimizer.sam": 1e38})
    _, metrics = run(state, {}, one(batch_of(assembly.dataset, np.arange(8))))
    assert np.isfinite(metrics["loss"][0]) and not np.isfinite(metrics["gradient_norm"][0])


def test_the_average_follows_parameters_and_statistics():
    assembly, run, state = parts(Tiny(), {"train.ema": 0.3})
    averages = jax.tree.map(np.asarray, state.ema)
    assert_close(averages, state.variables, rtol=0)
    for t in range(4):
        state, _ = run(state, {}, one(batch_of(assembly.dataset, np.arange(8))))
        decay = min(0.3, (2 + t) / (11 + t))  # t + 1 steps are done
        new = jax.tree.map(np.asarray, state.variables)
        averages = jax.tree.map(lambda a, x, d=decay: d * a + (1 - d) * x, averages, new)
    assert_close(state.ema, averages, rtol=1e-5, atol=1e-6)
    assert state.evaluated["params"]["conv"]["kernel"] is state.ema["params"]["conv"]["kernel"]
    assert set(state.ema) == {"params", "batch_stats"}


def test_the_options_work_together_and_over_chunks():
    changes = {
        "train.accumulate": 2,
        "train.ema": 0.9,
        "train.remat": ["conv"],
        "optimizer.sam": 0.05,
        "optimizer.name": "muon",
        "optimizer.muon_steps": 2,
        "loss.focal": 2.0,
        "train.sampling": "balanced",
    }
    assembly, run, state = parts(Tiny(), changes, n=24)
    feed = assembly.feeds["train"]
    losses = []
    for epoch in range(8):
        for chunk in feed.train_chunks(seed=0, epoch=epoch, first_step=0, chunk_steps=1):
            state, metrics = run(state, feed.resident, chunk)
        losses.append(float(metrics["loss"][0]))
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert jnp.isfinite(state.ema["params"]["conv"]["kernel"]).all()
