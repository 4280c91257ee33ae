"""Our convolution under every transformation of jax, against the stock one under the same."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from small import quick

from cnn_jax import ops

LAYOUT = ("NHWC", "HWIO", "NHWC")
PLAIN = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT}
ODD = {
    "window_strides": (2, 1),
    "padding": [(1, 2), (0, -1)],
    "lhs_dilation": (1, 2),
    "rhs_dilation": (2, 1),
    "dimension_numbers": LAYOUT,
    "feature_group_count": 2,
}
STOCK = re.compile(r"(?<!cnn_jax_)conv_general_dilated\b")


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def both(transform, *arguments, tolerance=2e-5, **options):
    """Compare, and see that what was compiled is made of our primitive alone."""
    ours, stock = (
        transform(functools.partial(function, **options))
        for function in (ops.conv_general_dilated, lax.conv_general_dilated)
    )
    program = str(jax.make_jaxpr(ours)(*arguments))
    assert ops.CONVOLUTION in program
    assert not STOCK.search(program)
    found, expected = quick(ours)(*arguments), quick(stock)(*arguments)
    assert jax.tree.map(jax.typeof, found) == jax.tree.map(jax.typeof, expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(jnp.abs(b).max()))
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


def loss(f):
    return lambda x, k: jnp.sum(jnp.sin(f(x, k)))


def gradients(f):
    return jax.grad(loss(f), (0, 1))


def along(x, k):
    return jnp.cos(x), jnp.sin(k)


def jvp(f):
    return lambda x, k: jax.jvp(f, (x, k), along(x, k))


def grad_of_jvp(f):
    return jax.grad(lambda x, k: jvp(loss(f))(x, k)[1], (0, 1))


def third_derivative(f):
    def curvature(x, k):
        tangents = jvp(gradients(f))(x, k)[1]
        return sum(jnp.vdot(a, b) for a, b in zip(tangents, along(x, k), strict=True))

    return jax.grad(curvature, (0, 1))


def linear_transpose(f):
    def both_operands(x, k):
        out = jnp.cos(f(x, k))
        return (
            jax.linear_transpose(lambda x: f(x, k), x)(out),
            jax.linear_transpose(lambda k: f(x, k), k)(out),
        )

    return both_operands


def scanned(f):
    def total(x, k):
        def step(carry, scale):
            return carry + loss(f)(x * scale, k), None

        return lax.scan(step, 0.0, jnp.arange(3.0))[0]

    return jax.grad(total, (0, 1))


def looped(f):
    """Forward mode through `fori_loop` and `while_loop`."""

    def total(x, k):
        y = lax.fori_loop(0, 3, lambda i, x: x + jnp.sum(f(x, k)), x)
        return lax.while_loop(
            lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] + f(y, k)), (0, f(y, k))
        )

    return lambda x, k: jax.jvp(lambda x: total(x, k)[1], (0.01 * x,), (x,))


def branched(f):
    def either(x, k):
        return lax.cond(jnp.sum(x) > 0, loss(f), lambda x, k: loss(f)(2 * x, k), x, k)

    return lambda x, k: (jax.grad(either, (0, 1))(x, k), jax.grad(either, (0, 1))(-x, k))


def inside_custom_rules(f):
    @jax.custom_vjp
    def reverse(x, k):
        return f(x, k)

    reverse.defvjp(lambda x, k: jax.vjp(f, x, k), lambda pull, cotangent: pull(cotangent))

    @jax.custom_jvp
    def forward(x, k):
        return f(x, k)

    forward.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return lambda x, k: (gradients(reverse)(x, k), gradients(forward)(x, k), jvp(forward)(x, k))


TRANSFORMS = {
    "value": lambda f: f,
    "jvp": jvp,
    "vjp": lambda f: lambda x, k: jax.vjp(f, x, k)[1](jnp.cos(f(x, k))),
    "linearize": lambda f: lambda x, k: jax.linearize(f, x, k)[1](*along(x, k)),
    "jvp of grad": lambda f: jvp(gradients(f)),
    "grad of jvp": grad_of_jvp,
    "hessian": lambda f: jax.hessian(loss(f), (0, 1)),
    "third derivative": third_derivative,
    "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)), (0, 1)),
    "linear_transpose": linear_transpose,
    "scan": scanned,
    "cond": branched,
    "custom rules": inside_custom_rules,
}


@pytest.mark.parametrize("options", [PLAIN, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transformation(transform, options):
    channels = 4 // options.get("feature_group_count", 1)
    both(transform, *arrays((1, 4, 3, 4), (2, 2, channels, 2)), **options)


def test_loops_in_forward_mode():
    both(looped, *arrays((1, 4, 3, 2), (2, 2, 2, 2)), **PLAIN)


def test_operand_with_itself():
    """A symmetric use: both cotangents flow into one array."""
    options = {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)]}
    (x,) = arrays((2, 2, 3, 3))
    both(lambda f: jax.value_and_grad(lambda x: jnp.sum(f(x, jnp.sin(x)) ** 3)), x, **options)


X, K = (2, 5, 4, 4), (2, 3, 2, 6)  # without the axis of the vmap
GROUPED = {**ODD, "lhs_dilation": None}
AXES = [(0, None), (None, 0), (0, 0), (2, None), (None, 4), (4, 1), (3, 3)]


def with_axis(shape, axis, size=3):
    return shape if axis is None else (*shape[:axis], size, *shape[axis:])


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_vmap(axes):
    """Over either operand or both, with grad inside and grad outside."""

    def transform(f):
        mapped = jax.vmap(f, axes, out_axes=axes[0] or 0)
        return lambda x, k: (
            mapped(x, k),
            jax.vmap(gradients(f), axes)(x, k),
            gradients(mapped)(x, k),
            jvp(mapped)(x, k),
        )

    both(transform, *arrays(with_axis(X, axes[0]), with_axis(K, axes[1])), **GROUPED)


@pytest.mark.parametrize("inner", [(0, 0), (0, None), (None, 0)], ids=str)
@pytest.mark.parametrize("outer", [(0, 0), (1, None), (None, 2)], ids=str)
def test_nested_vmap(outer, inner):
    """Also a vmap over members of a vmap, with gradients in between."""
    shapes = [
        with_axis(with_axis(shape, axis, 2), more, 3)
        for shape, axis, more in zip((X, K), inner, outer, strict=True)
    ]

    def transform(f):
        return jax.vmap(gradients(lambda x, k: jax.vmap(f, inner)(x, k)), outer)

    both(transform, *arrays(*shapes), **GROUPED)


def test_three_vmaps_and_groups_of_examples():
    options = {"window_strides": (1,), "padding": "VALID", "batch_group_count": 2}
    x, k = arrays((2, 3, 2, 4, 3, 6), (2, 3, 2, 4, 3, 2))

    def transform(f):
        return jax.vmap(jax.vmap(jax.vmap(gradients(f), (0, 0)), (1, 1)), (0, 0))

    both(transform, x, k, **options)


def test_gradients_of_each_example():
    """64 examples, 64 weight gradients: one program of moderate size, not 64 convolutions."""
    x, k = arrays((64, 6, 6, 4), (3, 3, 4, 8))

    def per_example(f):
        return jax.vmap(jax.grad(lambda k, x: loss(f)(x[None], k)), (None, 0))

    both(lambda f: lambda x, k: per_example(f)(k, x), x, k, **PLAIN)
    ours = per_example(functools.partial(ops.conv_general_dilated, **PLAIN))
    operations = jax.jit(ours).lower(k, x).as_text().count("stablehlo.")
    few = jax.jit(ours).lower(k, x[:8]).as_text().count("stablehlo.")
    assert operations <= 2 * few
