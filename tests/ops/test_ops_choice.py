import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import ModelError
from cnn_jax.ops import choice

X = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32)
K = jax.ShapeDtypeStruct((1, 1, 4, 6), jnp.float32)


def convolve(x, k):
    return ops.conv_general_dilated(
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def gradients(x, k):
    return jax.grad(lambda x, k: convolve(x, k).sum(), (0, 1))(x, k)


def reasons(function, *arguments, platform="cpu"):
    explained = ops.explain(function, *arguments, platform=platform).convolutions
    return [(one.algorithm, one.reason) for one in explained]


@pytest.mark.parametrize("name", sorted(ops.ALGORITHMS))
def test_wanted_where_it_fits_and_in_derivatives(name):
    """Each algorithm on shapes that it may or may not fit: results stay the same."""
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=one.shape), jnp.float32) for one in (X, K)]
    expected = gradients(*arrays)
    with ops.use_algorithm(name):
        found = reasons(gradients, X, K)
        results = jax.jit(gradients)(*arrays)
    assert all(
        algorithm == name if reason == "it was asked for" else algorithm != name
        for algorithm, reason in found
    )
    for a, b in zip(results, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_stock_is_wanted_within_the_block_alone():
    asked = ("stock", "it was asked for")
    with ops.use_algorithm("stock"):
        assert set(reasons(gradients, X, K)) == {asked}
        pull = jax.jit(lambda x, k: jax.vjp(convolve, x, k)[1](convolve(x, k)))
        inside = jax.make_jaxpr(lambda x, k: convolve(x, k))(X, K)
    assert asked not in reasons(convolve, X, K)
    # Traced inside, it keeps what was wanted there; traced outside, it does not.
    assert asked in reasons(jax.extend.core.jaxpr_as_fun(inside), X, K)
    assert asked not in reasons(pull, X, K)


def test_the_nearer_wish_goes_first(monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "stock")
    assert reasons(convolve, X, K) == [("stock", "it was asked for")]
    with pytest.raises(RuntimeError), ops.use_algorithm("stock"):
        raise RuntimeError
    monkeypatch.setenv(choice.VARIABLE, "")
    assert reasons(convolve, X, K) != [("stock", "it was asked for")]


def test_unknown_algorithms(monkeypatch):
    message = r"use_algorithm: no algorithm 'abacus'; there are .*stock"
    with pytest.raises(ModelError, match=message), ops.use_algorithm("abacus"):
        pass
    monkeypatch.setenv(choice.VARIABLE, "abacus")
    with pytest.raises(ModelError, match=r"\$CNN_JAX_CONVOLUTION: no algorithm 'abacus'"):
        jax.eval_shape(lambda x, k: convolve(x, k), X, K)


@pytest.mark.parametrize("platform", ["cuda", "tpu", "rocm"])
def test_elsewhere_the_vendor_decides(platform):
    assert reasons(convolve, X, K, platform=platform) == [
        ("stock", f"on {platform} convolution is left to the vendor's library")
    ]


def test_nothing_to_compute():
    empty = jax.ShapeDtypeStruct((0, 8, 8, 4), jnp.float32)
    assert reasons(convolve, empty, K) == [("stock", "there is nothing to compute")]
