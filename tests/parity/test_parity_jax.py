"""The cases that jax keeps for its own tests of convolution and pooling, computed by ours.

They come with every jax, in a module that is not public: with another version some of them
may be gone, which the counts below would show.
"""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from cnn_jax import ops

harnesses = pytest.importorskip("jax._src.internal_test_util.test_harnesses")

pytestmark = pytest.mark.parity

ALL = {harness.fullname: harness for harness in harnesses.all_harnesses}
CONVOLUTIONS = {name: one for name, one in ALL.items() if one.group_name == "conv_general_dilated"}


def pool_of(harness):
    """Our pool for a case of `reduce_window`, or None where it is none."""
    params = harness.params
    dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
    if dilated or not jnp.issubdtype(harness.dtype, jnp.floating):
        return None
    maximum = params["computation"] is lax.max and np.isneginf(params["init_value"])
    total = params["computation"] is lax.add and params["init_value"] == 0
    if not (maximum or total):
        return None
    windows = params["window_dimensions"], params["window_strides"], params["padding"]

    def pool(x):
        if maximum:
            return ops.max_pool(x[..., None], *windows)[..., 0]
        size = np.prod(windows[0]).astype(x.dtype)
        return ops.avg_pool(x[..., None], *windows)[..., 0] * size

    return pool


POOLS = {
    name: (one, pool_of(one))
    for name, one in ALL.items()
    if one.group_name in ("reduce_window_max", "reduce_window_add") and pool_of(one) is not None
}


def test_the_cases_are_there():
    assert len(CONVOLUTIONS) >= 100
    assert len(POOLS) >= 10


def assert_close(found, expected):
    assert jax.typeof(found) == jax.typeof(expected)
    exact = not jnp.issubdtype(found.dtype, jnp.inexact)
    tolerance = 0 if exact else 20 * float(jnp.finfo(found.dtype).eps)
    wide = np.complex128 if jnp.iscomplexobj(found) else np.float64
    found, expected = (np.asarray(one).astype(wide) for one in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    theirs = CONVOLUTIONS[name]
    ours = copy.copy(theirs)
    ours.fun = ops.conv_general_dilated
    operands = theirs.dyn_args_maker(np.random.RandomState(0))
    assert_close(jax.jit(ours.dyn_fun)(*operands), jax.jit(theirs.dyn_fun)(*operands))


FLOATS = [name for name, one in CONVOLUTIONS.items() if one.dtype == np.float32]


@pytest.mark.parametrize("name", FLOATS[::6])
def test_derivatives_of_convolution(name):
    """To the second order in both modes; a step of 1 is exact where the other is held."""
    harness = copy.copy(CONVOLUTIONS[name])
    harness.fun = ops.conv_general_dilated
    lhs, rhs = harness.dyn_args_maker(np.random.RandomState(0))
    compiled = jax.jit(harness.dyn_fun)
    with jax.numpy_rank_promotion("allow"):
        check = functools.partial(check_grads, order=2, modes=("fwd", "rev"), eps=1.0)
        check(lambda lhs: compiled(lhs, rhs), (lhs,), atol=1e-2, rtol=1e-2)
        check(lambda rhs: compiled(lhs, rhs), (rhs,), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", POOLS)
def test_pool(name):
    harness, pool = POOLS[name]
    (x,) = harness.dyn_args_maker(np.random.RandomState(0))[:1]
    expected = jax.jit(harness.dyn_fun)(*harness.dyn_args_maker(np.random.RandomState(0)))
    assert_close(jax.jit(pool)(x), expected)
