"""Recomputed submodules: nothing changes but what is kept for the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import nn
from cnn_jax.errors import ModelError


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        for k in range(2):
            x = nn.Conv(4, (3, 3), use_bias=False, name=f"conv{k}")(x)
            x = nn.BatchNorm(use_running_average=not train, name=f"norm{k}")(x)
            x = nn.Dropout(0.3, deterministic=not train)(nn.gelu(x))
        return x


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        for k in range(2):
            x = Block(name=f"block{k}")(x, train=train)
        return nn.Dense(3, name="head")(nn.global_avg_pool(x))


IMAGE = jnp.asarray(np.random.default_rng(0).random((6, 8, 8, 2)), jnp.float32)
VALID = jnp.arange(6) < 4
VARIABLES = quick(Net().init, static_argnames="train")(jax.random.key(0), IMAGE, train=False)


def forward(patterns):
    def loss(params):
        with nn.recompute(patterns), nn.mask_padding(VALID):
            outputs, updated = Net().apply(
                {**VARIABLES, "params": params},
                IMAGE,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(1)},
            )
        return (outputs**2).sum(), updated

    return loss


def kept_bytes(patterns):
    def backward(params):
        return jax.vjp(forward(patterns), params, has_aux=True)[1]

    kept = jax.eval_shape(backward, VARIABLES["params"])
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(kept))


def test_outputs_statistics_and_gradients_are_the_same():
    def run(patterns):
        return quick(jax.value_and_grad(forward(patterns), has_aux=True))(VARIABLES["params"])

    # A submodule in another that matches, one alone, and a whole block.
    kept, again = run(()), run(("block1/norm.", "block0", "block0/conv0"))
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_less_is_kept():
    parameters = sum(x.nbytes for x in jax.tree.leaves(VARIABLES))
    all_blocks, one, none = (kept_bytes(p) for p in (("block[0-9]",), ("block0",), ()))
    assert all_blocks < one < none
    # Of the blocks themselves only what goes in: the images, and the output of the first.
    assert all_blocks - 2 * parameters < 4 * (IMAGE.nbytes + 2 * IMAGE.nbytes)
    assert none > 3 * all_blocks


def test_what_matches_nothing_is_an_error():
    with pytest.raises(ModelError, match=r"'blok' matches no submodule; the paths are block0"):
        jax.eval_shape(forward(("block0", "blok")), VARIABLES["params"])
    with pytest.raises(ModelError, match="no regular expression"):
        forward(("(",))(VARIABLES["params"])
