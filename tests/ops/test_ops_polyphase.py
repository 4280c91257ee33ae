"""Adaptive polyphase sampling: against loops in NumPy, and the law it was made for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import quick

from cnn_jax import ops
from cnn_jax.errors import ModelError


def by_loops(x, stride, order):
    found = []
    for image in x:
        phases = itertools.product(range(stride), repeat=image.ndim - 1)
        parts = [image[tuple(slice(start, None, stride) for start in phase)] for phase in phases]
        found.append(max(parts, key=lambda part: (np.abs(part) ** order).sum()))
    return np.stack(found)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 2), st.integers(2, 3), st.sampled_from([1.0, 2.0, 3.5]), st.data())
def test_it_takes_the_largest_component(axes, stride, order, draw):
    sides = [stride * draw.draw(st.integers(1, 3)) for _ in range(axes)]
    rng = np.random.default_rng(draw.draw(st.integers(0, 999)))
    x = rng.normal(size=(3, *sides, 2))
    with jax.enable_x64(True):
        largest = quick(lambda x: ops.adaptive_polyphase(x, stride, order=order))
        found = np.asarray(largest(jnp.asarray(x)))
    np.testing.assert_array_equal(found, by_loops(x, stride, order))


def test_what_moves_stays_the_same_and_no_strided_slice_does():
    x = np.random.default_rng(0).normal(size=(4, 12, 9, 3)).astype(np.float32)
    largest = quick(lambda x: ops.adaptive_polyphase(x, 3))
    whole = np.asarray(largest(jnp.asarray(x)))
    for shift in itertools.product(range(3), range(4)):
        moved = np.asarray(largest(jnp.asarray(np.roll(x, shift, (1, 2)))))
        for a, b in zip(moved, whole, strict=True):
            places = itertools.product(range(4), range(3))
            assert any((np.roll(b, place, (0, 1)) == a).all() for place in places)
    moved = np.roll(x, 1, axis=1)[:, ::3, ::3]
    assert not any((np.roll(x[:, ::3, ::3], n, 1) == moved).all() for n in range(4))


def test_the_gradient_goes_to_what_was_taken():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    gradient = jax.grad(lambda x: ops.adaptive_polyphase(x).sum())(x)
    wanted = np.zeros((4, 4))
    wanted[1::2, 1::2] = 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], wanted)


def test_ties_dtypes_and_bad_input():
    constant = jnp.ones((2, 4, 4, 1), jnp.bfloat16)
    assert ops.adaptive_polyphase(constant).dtype == jnp.bfloat16
    assert ops.adaptive_polyphase(constant, 1) is constant
    for shape, stride, message in [
        ((1, 5, 4, 1), 2, r"multiples of 2, not \[5, 4\]"),
        ((1, 4, 4, 1), 0, "must be positive"),
        ((4, 4), 2, r"\[B, spatial axes, C\]"),
    ]:
        with pytest.raises(ModelError, match=message):
            ops.adaptive_polyphase(jnp.zeros(shape), stride)
    with pytest.raises(ModelError, match="must be positive"):
        ops.adaptive_polyphase(jnp.zeros((1, 4, 4, 1)), order=0)
    with pytest.raises(ModelError, match="uint8"):
        ops.adaptive_polyphase(jnp.zeros((1, 4, 4, 1), jnp.uint8))
