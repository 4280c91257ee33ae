"""Integrated gradients against their axioms, and their nodes against polynomials."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quick

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.explain import gradient_times_input, integrated_gradients

SHAPE = (3, 4, 3, 2)
TARGET = np.array([1, 0, 2], np.int32)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def network(dtype, activate=nn.relu, bias=1.0):
    first, last = (jnp.asarray(draw(*s, seed=1), dtype) for s in ((24, 16), (16, 3)))
    shift = jnp.asarray(bias * draw(16, seed=2), dtype)
    return lambda x: activate(x.reshape(len(x), -1) @ first + shift[None]) @ last


def chosen(values):
    return np.asarray(values)[np.arange(len(TARGET)), TARGET]


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-10)])
def test_they_add_up_to_the_change_of_the_answer(dtype, atol):
    with jax.enable_x64(dtype == np.float64):
        f, x, start = (
            network(dtype, lambda x: jnp.tanh(x / 4)),
            jnp.asarray(draw(*SHAPE), dtype),
            jnp.asarray(draw(*SHAPE[1:], seed=5), dtype),
        )
        found = quick(lambda x: integrated_gradients(f, x, TARGET, baseline=start, steps=48))(x)
        assert found.attributions.dtype == found.gap.dtype == dtype and int(found.steps) == 48
        change = chosen(f(x)) - chosen(f(jnp.broadcast_to(start, SHAPE)))
        total = np.asarray(found.attributions).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(total, change, atol=atol)
        gap = abs(total - change) / abs(change)
        np.testing.assert_allclose(found.gap, gap, atol=atol)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("steps", [1, 3])
def test_of_a_network_without_biases_they_are_gradient_times_input(dtype, atol, steps):
    with jax.enable_x64(dtype == np.float64):
        f, x = network(dtype, bias=0.0), jnp.asarray(draw(*SHAPE), dtype)
        found = integrated_gradients(f, x, TARGET, steps=steps)
        by_image = gradient_times_input(f, x, TARGET)
        np.testing.assert_allclose(found.attributions, by_image, atol=atol)
        assert np.asarray(found.gap).max() < atol


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_they_are_exact_up_to_twice_the_steps_in_degree(steps):
    """Of f = sum w x^d, from x' on, they are w (x^d - x'^d), and no longer of one degree more."""
    with jax.enable_x64(True):
        w, x, start = draw(*SHAPE[1:], 3, seed=3), draw(*SHAPE), draw(*SHAPE, seed=4)
        for degree, exact in ((2 * steps, True), (2 * steps + 1, False)):

            def f(x, degree=degree):
                return jnp.einsum("bhwc,hwck->bk", x**degree, jnp.asarray(w))

            found = integrated_gradients(
                f, jnp.asarray(x), TARGET, baseline=jnp.asarray(start), steps=steps
            )
            terms = np.moveaxis(w, -1, 0)[TARGET] * (x**degree - start**degree)
            error = abs(np.asarray(found.attributions) - terms).max() / abs(terms).max()
            assert (error < 1e-12) if exact else (error > 1e-9)


def test_nodes_of_many_steps_are_those_of_gauss_and_legendre():
    """The integral of a^k is 1 / (k + 1), and the gradient of sum x^(k + 1) / (k + 1) is x^k."""
    with jax.enable_x64(True):
        x = jnp.ones((1, 1, 1, 1))
        for steps, power in ((64, 127), (1024, 900)):

            def f(x, power=power):
                return (x ** (power + 1)).sum(axis=(1, 2, 3))[:, None] / (power + 1)

            found = integrated_gradients(f, x, np.array([0]), steps=steps)
            np.testing.assert_allclose(
                found.attributions.squeeze() * (power + 1), 1, rtol=0, atol=1e-10
            )


def test_two_networks_of_one_function_have_the_same():
    """Each hidden unit cut into two halves, in another order, one more beside that does nothing."""
    with jax.enable_x64(True):
        first, last, x = draw(24, 5, seed=1), draw(5, 3, seed=2), jnp.asarray(draw(*SHAPE))
        order = [3, 1, 0, 4, 2, 2, 0, 1, 4, 3]
        wide = np.concatenate([2 * first[:, order], draw(24, 1, seed=6)], axis=1)
        out = np.concatenate([last[order] / 4, np.zeros((1, 3))])
        heats = [
            integrated_gradients(
                lambda x, a=a, b=b, shift=shift: nn.relu(x.reshape(len(x), -1) @ a - shift) @ b,
                x,
                TARGET,
                steps=20,
            ).attributions
            for a, b, shift in ((first, last, 0.3), (wide, out, 0.6))
        ]
        np.testing.assert_allclose(heats[0], heats[1], atol=1e-10)


def test_pixels_that_play_the_same_part_get_the_same_and_unseen_ones_nothing():
    with jax.enable_x64(True):
        x = draw(*SHAPE)
        x[:, 1, 1] = x[:, 0, 0]
        f = lambda x: jnp.stack(  # noqa: E731
            [
                jnp.sin(x[:, 0, 0] * x[:, 1, 1]).sum(axis=-1),
                jnp.exp(x[:, 0, 0] + x[:, 1, 1]).sum(axis=-1),
                (x[:, 0, 0].sum(axis=-1) + x[:, 1, 1].sum(axis=-1)) ** 3,
            ],
            axis=1,
        )
        heat = np.array(integrated_gradients(f, jnp.asarray(x), TARGET, steps=40).attributions)
        np.testing.assert_allclose(heat[:, 0, 0], heat[:, 1, 1], atol=1e-10)
        assert (heat[:, 0, 0] != 0).all()
        heat[:, 0, 0] = heat[:, 1, 1] = 0
        assert (heat == 0).all()


def test_a_pixel_alone_that_changes_the_answer_gets_the_change():
    """Sensitivity (a); here the gradient at the image is 0, for f is flat there."""
    f = lambda x: 1 - nn.relu(1 - x.sum(axis=(1, 2, 3)))[:, None]  # noqa: E731
    x = jnp.zeros((1, 3, 3, 1)).at[0, 1, 2, 0].set(2.0)
    found = quick(lambda x: integrated_gradients(f, x, np.array([0]), steps=200))(x)
    heat = np.array(found.attributions)
    np.testing.assert_allclose(heat[0, 1, 2, 0], 1, atol=0.01)
    np.testing.assert_allclose(found.gap, abs(heat.sum() - 1), atol=1e-5)
    heat[0, 1, 2, 0] = 0
    assert (heat == 0).all()
    assert float(abs(gradient_times_input(f, x, np.array([0]))).max()) == 0


def test_steps_are_doubled_until_the_gap_is_small():
    f = network(np.float32)
    x, start = (jnp.asarray(draw(*SHAPE, seed=seed), jnp.float32) for seed in (0, 8))

    @quick
    def auto(tolerance):
        return integrated_gradients(
            f, x, TARGET, baseline=start, steps="auto", tolerance=tolerance, most=100
        )

    @quick
    def by_steps():
        return {
            n: integrated_gradients(f, x, TARGET, baseline=start, steps=n)
            for n in (16, 32, 64, 100)
        }

    fixed = by_steps()
    gaps = {n: float(found.gap.max()) for n, found in fixed.items()}
    # Just above a gap it is enough, just below not; of 0 there is an end, and no error.
    for tolerance in (1.01 * gaps[16], 1.01 * gaps[32], 0.99 * min(gaps.values()), 0.0):
        found = auto(tolerance)
        enough = [n for n, gap in gaps.items() if gap <= tolerance]
        steps = int(found.steps)
        assert steps == (enough[0] if enough else 100)
        np.testing.assert_allclose(found.attributions, fixed[steps].attributions, atol=1e-5)
        np.testing.assert_allclose(found.gap, fixed[steps].gap, atol=1e-5)
    few = integrated_gradients(f, x, TARGET, steps="auto", most=5, tolerance=0.0)
    assert int(few.steps) == 5


def test_where_the_answer_does_not_change_the_gap_is_over_the_mass():
    x = jnp.asarray(draw(*SHAPE), jnp.float32)
    same = integrated_gradients(network(np.float32), x, TARGET, baseline=x, steps=4)
    assert (np.asarray(same.attributions) == 0).all() and (np.asarray(same.gap) == 0).all()
    # Two pixels that cancel: sum A = 0 = f(x) - f(x').
    both = jnp.zeros((1, 2, 1, 1)).at[0, :, 0, 0].set(jnp.array([0.7, 0.3]))
    f = lambda x: (0.3 * x[:, 0] - 0.7 * x[:, 1]).reshape(-1, 1)  # noqa: E731
    found = integrated_gradients(f, both, np.array([0]), steps=4)
    np.testing.assert_allclose(np.asarray(found.attributions).ravel(), [0.21, -0.21], atol=1e-6)
    assert float(found.gap[0]) < 1e-5
    # A bump on the way, of which the one node sees the far side alone: all of A is gap.
    bump = lambda x: nn.relu(0.2 - jnp.abs(x - 0.4)).reshape(-1, 1)  # noqa: E731
    one = jnp.ones((1, 1, 1, 1))
    missed = integrated_gradients(bump, one, np.array([0]), steps=1)
    assert float(missed.gap[0]) == 1 and float(missed.attributions.sum()) == -1


def test_chunks_and_baselines_of_any_shape():
    f, x = network(np.float32), jnp.asarray(draw(*SHAPE), jnp.float32)

    @quick
    def found(x):
        def of(start, at_once):
            return integrated_gradients(
                f, x, TARGET, steps=11, baseline=start, at_once=at_once
            ).attributions

        starts = [jnp.full(shape, 0.5) for shape in ((2,), SHAPE[1:], SHAPE)]
        return [of(0.5, n) for n in (1000, 1, 12)] + [of(start, 32) for start in starts]

    whole, *others = found(x)
    for other in others:
        np.testing.assert_allclose(other, whole, atol=1e-5)
    with pytest.raises(ModelError, match=r"baseline \[3\] does not broadcast to images"):
        integrated_gradients(f, x, TARGET, baseline=jnp.zeros(3))


def test_one_can_train_on_them():
    """Reverse mode goes through the loop over steps."""
    f, x = network(np.float32, jnp.tanh), jnp.asarray(draw(*SHAPE), jnp.float32)

    def size(scale):
        found = integrated_gradients(lambda x: f(x * scale), x, TARGET, steps=6, at_once=3)
        return (found.attributions**2).sum()

    value = quick(size)
    change = value(jnp.float32(1.01)) - value(jnp.float32(0.99))
    slope = quick(jax.grad(size))(jnp.float32(1.0))
    np.testing.assert_allclose(slope, change / 0.02, rtol=1e-2)


@pytest.mark.parametrize("steps", [0, -3, "many"])
def test_steps_that_are_none_are_refused(steps):
    x = jnp.zeros(SHAPE)
    with pytest.raises(ModelError, match="must be 'auto' or a number, at least 1"):
        integrated_gradients(network(np.float32), x, TARGET, steps=steps)
    with pytest.raises(ModelError, match="most=0"):
        integrated_gradients(network(np.float32), x, TARGET, steps="auto", most=0)
