"""The step against NumPy, and its laws: padding, devices, chunks, donation, compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import Linear, Tiny, batch_of, one, parts, small_set

from cnn_jax.assembly import assemble_run
from cnn_jax.recipe import Recipe
from cnn_jax.training.feed import Feed
from cnn_jax.training.state import purpose_key
from cnn_jax.training.step import gather_batch, make_run_chunk


def test_a_step_of_logistic_regression_is_the_textbooks():
    assembly, run, state = parts(Linear())
    batch = batch_of(assembly.dataset, np.arange(8))
    mean, std = assembly.preprocess.mean[0], assembly.preprocess.std[0]
    x = ((np.asarray(batch["image"]) / 255.0 - mean) / std).reshape(8, -1)
    kernel = np.asarray(state.params["head"]["kernel"], np.float64)
    z = x @ kernel
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = p - np.eye(3)[np.asarray(batch["label"])]
    gradient = {"kernel": x.T @ error / 8, "bias": error.mean(axis=0)}
    state, metrics = run(state, {}, one(batch))
    np.testing.assert_allclose(
        state.params["head"]["kernel"], kernel - 0.1 * gradient["kernel"], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        state.params["head"]["bias"], -0.1 * gradient["bias"], rtol=1e-4, atol=1e-6
    )
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    assert float(metrics["gradient_norm"][0]) == pytest.approx(norm, rel=1e-4)
    assert float(metrics["loss"][1]) == 8.0
    assert int(state.step) == 1


def test_padded_rows_change_nothing():
    """Neither loss nor gradient nor batch statistics; whatever the padded rows hold."""
    changes = {"train.dtype": "float32", "optimizer.momentum": 0.9}
    assembly, run, state = parts(Tiny(), changes)
    assert assembly.feeds["train"].padded
    other = assembly.initial_state()
    rows = np.arange(5)
    a, m_a = run(state, {}, one(batch_of(assembly.dataset, rows)))
    b, m_b = run(other, {}, one(batch_of(assembly.dataset, rows, padding=3)))
    for x, y in zip(
        jax.tree.leaves((a.variables, m_a)), jax.tree.leaves((b.variables, m_b)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


def test_class_weights_are_normalised_over_the_batch():
    assembly, run, state = parts(Linear(), {"loss.class_weights": [1.0, 3.0, 0.0]})
    batch = batch_of(assembly.dataset, np.arange(8))
    _, metrics = run(state, {}, one(batch))
    labels = np.asarray(batch["label"])
    assert float(metrics["loss"][1]) == pytest.approx(np.array([1.0, 3.0, 0.0])[labels].sum())


def test_two_devices_do_what_one_does():
    one_device, run_one, state_one = parts(Tiny(), {"train.devices": 1})
    two, run_two, state_two = parts(Tiny(), {"train.devices": 2})
    for _ in range(2):
        batch = one(batch_of(one_device.dataset, np.arange(8)))
        state_one, _ = run_one(state_one, {}, one_device.placement.split(batch, axis=1))
        state_two, _ = run_two(state_two, {}, two.placement.split(batch, axis=1))
    for x, y in zip(
        jax.tree.leaves(state_one.variables), jax.tree.leaves(state_two.variables), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-6)


def test_a_chunk_is_its_steps_one_after_the_other():
    assembly, run, state = parts(Tiny(), n=24)
    other = assembly.initial_state()
    feed = assembly.feeds["train"]
    (whole,) = feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=3)
    state, metrics = run(state, feed.resident, whole)
    totals = []
    for chunk in feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1):
        other, m = run(other, feed.resident, chunk)
        totals.append(float(m["loss"][0]))
    assert float(metrics["loss"][0]) == pytest.approx(sum(totals), rel=1e-4)
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_one_step_is_not_put_in_a_loop():
    """XLA's CPU backend computes weight gradients 30 times slower in one."""
    assembly, run, state = parts(Tiny(), n=24)
    feed = assembly.feeds["train"]
    chunk = next(feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1))
    jaxpr = str(jax.make_jaxpr(lambda *a: run(*a))(state, feed.resident, chunk))
    assert "scan" not in jaxpr


def test_the_state_is_donated():
    assembly, run, state = parts(Tiny())
    batch = one(batch_of(assembly.dataset, np.arange(8)))
    compiled = run.lower(state, {}, batch).compile()
    size = sum(x.nbytes for x in jax.tree.leaves(state) if x.dtype == jnp.float32)
    # Every byte of the state is updated in place: there is no second copy.
    assert compiled.memory_analysis().alias_size_in_bytes >= size
    kernel = state.params["conv"]["kernel"]
    run(state, {}, batch)
    assert kernel.is_deleted()


def test_augmentation_and_dropout_follow_from_seed_and_step_alone():
    changes = {"augment.translate": 1, "augment.mixup": 0.3}
    assembly, run, _ = parts(Tiny(), changes)
    batch = one(batch_of(assembly.dataset, np.arange(8)))
    losses = [float(run(assembly.initial_state(), {}, batch)[1]["loss"][0]) for _ in range(2)]
    assert losses[0] == losses[1]
    later = assembly.initial_state().replace(step=jnp.int32(1))
    assert float(run(later, {}, batch)[1]["loss"][0]) != losses[0]


def test_bfloat16_computes_in_bfloat16_and_keeps_parameters_in_float32():
    recipe = Recipe().override(
        {"train.dtype": "bfloat16", "model.options.widths": [4], "model.options.units": 1}
    )
    assembly = assemble_run(recipe, small_set())
    state = assembly.initial_state()
    batch = one(batch_of(assembly.dataset, np.arange(8)))
    jaxpr = str(jax.make_jaxpr(lambda s, b: assembly.run_chunk(s, {}, b))(state, batch))
    assert "bf16" in jaxpr
    state, metrics = assembly.run_chunk(state, {}, batch)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    assert np.isfinite(float(metrics["loss"][0]))


def test_purposes_and_steps_have_keys_of_their_own():
    root = jax.random.key(0)
    keys = [
        purpose_key(root, purpose, step)
        for purpose in ("augment", "dropout", "loss", "init")
        for step in (None, 0, 1)
    ]
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == len(keys)


def test_a_batch_takes_rows_of_what_is_resident():
    resident = {"image": jnp.arange(5) * 10}
    batch = gather_batch(resident, {"index": jnp.array([3, 1]), "valid": jnp.array([True, False])})
    assert batch["image"].tolist() == [30, 10]


def test_make_run_chunk_takes_any_pure_step():
    """An NNX model, or anything else, only has to be a function."""
    dataset = small_set()
    feed = Feed(dataset.splits["train"], 8, parts(Linear())[0].placement, memory_limit=2**30)

    def step(state, batch):
        total = jnp.where(batch["valid"], batch["label"], 0).sum()
        return state + total, {"label": (total, batch["valid"].sum())}

    run = make_run_chunk(step)
    state = jnp.int32(0)
    for chunk in feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=3):
        state, _ = run(state, feed.resident, chunk)
    assert int(state) == int(dataset.splits["train"].targets["label"].sum())
