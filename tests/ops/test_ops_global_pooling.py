import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import quick

from cnn_jax import ops
from cnn_jax.errors import ModelError


def by_definition(x, bins, reduce):
    """PyTorch's rule, written out: bin i is floor(i n / o) to ceil((i + 1) n / o) - 1."""
    sizes = x.shape[1:-1]
    y = np.empty((x.shape[0], *bins, x.shape[-1]))
    for place in np.ndindex(*bins):
        box = tuple(
            slice(int(np.floor(i * n / o)), int(np.ceil((i + 1) * n / o)))
            for i, n, o in zip(place, sizes, bins, strict=True)
        )
        y[(slice(None), *place)] = reduce(x[(slice(None), *box)], tuple(range(1, x.ndim - 1)))
    return y


@settings(max_examples=8, deadline=None)
@given(
    axes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_adaptive_pools_follow_their_definition(axes, seed):
    sizes, bins = zip(*axes, strict=True)
    x = np.random.default_rng(seed).normal(size=(2, *sizes, 2)).astype(np.float32)
    both = quick(lambda x: (ops.adaptive_avg_pool(x, bins), ops.adaptive_max_pool(x, bins)))
    mean, largest = both(x)
    np.testing.assert_allclose(mean, by_definition(np.float64(x), bins, np.mean), atol=1e-6)
    np.testing.assert_array_equal(largest, by_definition(x, bins, np.max))


@pytest.mark.parity
@pytest.mark.parametrize("bins", [(5, 5), (3, 2), (9, 8)])
def test_adaptive_pools_are_those_of_pytorch(bins):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype(np.float32)
    channels_first = torch.from_numpy(x).permute(0, 3, 1, 2)
    for ours, name in (
        (ops.adaptive_avg_pool, "adaptive_avg_pool2d"),
        (ops.adaptive_max_pool, "adaptive_max_pool2d"),
    ):
        theirs = getattr(torch.nn.functional, name)(channels_first, bins)
        np.testing.assert_allclose(ours(x, bins), theirs.permute(0, 2, 3, 1), atol=1e-6)


@pytest.mark.parametrize("spatial", [(7,), (4, 5), (3, 4, 5)])
def test_global_pools(spatial):
    x = np.random.default_rng(0).normal(size=(2, *spatial, 3)).astype(np.float32)
    axes = tuple(range(1, x.ndim - 1))
    np.testing.assert_allclose(ops.global_avg_pool(x), np.float64(x).mean(axes), atol=1e-6)
    np.testing.assert_array_equal(ops.global_max_pool(x), x.max(axes))


@pytest.mark.parametrize("bins", [(2,), (0, 2), -1])
def test_bins_that_do_not_fit_are_refused(bins):
    with pytest.raises(ModelError, match="positive number for each of 2"):
        ops.adaptive_avg_pool(jnp.zeros((1, 4, 4, 1)), bins)


def test_an_image_without_positions_is_refused():
    with pytest.raises(ModelError, match="spatial axes"):
        ops.global_avg_pool(jnp.zeros((4, 3)))


def test_equal_largest_values_share_the_gradient():
    x = jnp.asarray([3.0, 3.0, 1.0, 2.0])[None, :, None]
    gradient = jax.grad(lambda x: ops.global_max_pool(x).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [0.5, 0.5, 0, 0])
    gradient = jax.grad(lambda x: ops.adaptive_max_pool(x, 2).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [0.5, 0.5, 0, 1])


@pytest.mark.parametrize("bins", [(2, 3), (3, 4)])
def test_the_gradient_of_a_mean_is_spread_over_its_bin(bins):
    weight = np.random.default_rng(0).normal(size=(1, *bins, 1)).astype(np.float32)
    gradient = jax.grad(lambda x: (weight * ops.adaptive_avg_pool(x, bins)).sum())(
        jnp.zeros((1, 6, 6, 1))
    )
    expected = np.zeros((6, 6))
    for i, j in np.ndindex(bins):
        rows, columns = (
            slice(k * 6 // n, -(-(k + 1) * 6 // n)) for k, n in zip((i, j), bins, strict=True)
        )
        box = expected[rows, columns]
        box += weight[0, i, j, 0] / box.size
    np.testing.assert_allclose(gradient[0, :, :, 0], expected, atol=1e-6)
