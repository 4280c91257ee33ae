import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small import fused, quick

from cnn_jax import ops
from cnn_jax.errors import ModelError

# shape, window, strides, padding
CASES = [
    ((2, 9, 3), (3,), (2,), "SAME"),
    ((2, 7, 8, 3), (2, 3), None, "VALID"),
    ((2, 8, 8, 3), (2, 2), (2, 2), "VALID"),
    ((2, 7, 8, 3), (3, 3), (2, 2), ((1, 1), (0, 1))),
    ((2, 7, 8, 3), (2, 1), (3, 4), ((0, 4), (3, 0))),  # gaps, and windows in the padding
    ((2, 4, 5, 6, 2), (2, 2, 2), (2, 1, 2), "SAME"),
    ((7, 8, 3), (3, 3), (2, 2), "SAME"),  # no batch axis
    ((2, 3, 7, 8, 3), (3, 3), (2, 2), "VALID"),  # two batch axes
    ((0, 7, 8, 3), (3, 3), (2, 2), "VALID"),
    ((1, 9, 9, 1), (5, 5), (1, 2), "SAME"),  # one axis after the other
    ((2, 9, 10, 1), (5, 5), (5, 5), ((0, 1), (1, 0))),  # tiles
    ((2, 5, 6, 1), (5, 6), None, "VALID"),  # one window alone
    ((1, 5, 40, 1), (5, 36), (2, 2), "SAME"),  # too long to unroll
]


def with_ties(shape):
    """Small whole numbers: many windows hold their largest value several times."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 4, shape), jnp.float32)


def distinct(shape):
    return jnp.asarray(np.random.default_rng(0).permutation(np.prod(shape)), jnp.float32).reshape(
        shape
    )


def outputs_and_gradients(pool, x):
    """As one program: operation by operation there are dozens to compile."""

    @quick
    def both(x):
        y, pull_back = jax.vjp(pool, x)
        return y, pull_back(jnp.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape))[0]

    return both(x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("shape", "window", "strides", "padding"), CASES)
def test_max_pool_and_its_gradient_are_flaxs_ties_included(shape, window, strides, padding, dtype):
    x = with_ties(shape).astype(dtype)
    ours, theirs = (
        outputs_and_gradients(lambda x, f=f: f(x, window, strides, padding), x)
        for f in (ops.max_pool, flax.linen.max_pool)
    )
    assert ours[0].dtype == ours[1].dtype == dtype
    np.testing.assert_array_equal(ours[0], theirs[0])
    # Sums over overlapping windows round in another order.
    np.testing.assert_allclose(
        *(np.float32(g) for g in (ours[1], theirs[1])), rtol=4 * jnp.finfo(dtype).eps
    )


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize(("shape", "window", "strides", "padding"), CASES)
def test_avg_pool_and_its_gradient_are_flaxs(shape, window, strides, padding, count_include_pad):
    if window == (2, 1) and not count_include_pad:
        pytest.skip("windows in the padding hold nothing: 0 / 0")
    x = with_ties(shape)
    arguments = (window, strides, padding, count_include_pad)
    ours = outputs_and_gradients(lambda x: ops.avg_pool(x, *arguments), x)
    # Flax divides by a NumPy integer, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = outputs_and_gradients(lambda x: flax.linen.avg_pool(x, *arguments), x)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_avg_pool_keeps_bfloat16_and_sums_in_float32():
    x = jnp.ones((1, 32, 32, 2), jnp.bfloat16)
    y = quick(lambda x: ops.avg_pool(x, (32, 32), (32, 32), "SAME", count_include_pad=False))(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y.astype(jnp.float32), 1)


def test_gradients_of_pools_by_hand():
    x = jnp.asarray([[1.0, 3.0], [2.0, 0.0]])[None, :, :, None]
    largest = jax.grad(lambda x: ops.max_pool(x, (2, 2)).sum())(x)
    np.testing.assert_array_equal(largest[0, :, :, 0], [[0, 1], [0, 0]])
    mean = jax.grad(lambda x: ops.avg_pool(x, (2, 2)).sum())(x)
    np.testing.assert_array_equal(mean[0, :, :, 0], np.full((2, 2), 0.25))


def test_gradients_of_ties_infinities_and_nan_by_hand():
    inf, nan = np.inf, np.nan
    x = jnp.asarray([2, 1, 2, -inf, -inf, -inf, 0, nan, 5])[None, :, None]
    y, gradient = outputs_and_gradients(lambda x: ops.max_pool(x, (3,), (3,)), x)
    np.testing.assert_array_equal(y.ravel(), [2, -inf, nan])
    np.testing.assert_array_equal(gradient.ravel(), [1, 0, 0, 2, 0, 0, 0, 3, 0])
    # Padding is not chosen beside -inf.
    x = jnp.full((1, 2, 1), -inf)
    gradient = jax.grad(lambda x: ops.max_pool(x, (3,), (3,), [(1, 0)]).sum())(x)
    np.testing.assert_array_equal(gradient.ravel(), [1, 0])


def test_negative_padding_crops():
    x = distinct((2, 6, 7, 2))
    pool = outputs_and_gradients(lambda x: ops.max_pool(x, (2, 2), None, [(-1, 0), (1, -2)]), x)
    crop = outputs_and_gradients(
        lambda x: ops.max_pool(x[:, 1:, :-2], (2, 2), None, [(0, 0), (1, 0)]), x
    )
    for a, b in zip(pool, crop, strict=True):
        np.testing.assert_array_equal(a, b)


def energy(pool):
    return lambda x: (pool(x, (3, 3), (2, 2), "SAME") ** 3).sum()


@pytest.mark.parametrize(
    "derivative",
    [
        jax.hessian,
        lambda f: jax.jacrev(jax.grad(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
        lambda f: jax.grad(lambda x: jax.jvp(f, (x,), (x,))[1]),
        lambda f: jax.jacfwd(jax.hessian(f)),
        lambda f: lambda x: jax.linearize(f, x)[1](x),
        lambda f: jax.grad(jax.checkpoint(f)),
    ],
)
def test_derivatives_of_all_kinds_are_the_stock_ones(derivative):
    x = distinct((1, 3, 4, 1)) / 8
    ours, theirs = (quick(derivative(energy(f)))(x) for f in (ops.max_pool, flax.linen.max_pool))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_tangents_follow_the_value_that_gets_the_gradient():
    x = with_ties((2, 7, 8, 3))
    tangent = jnp.sin(distinct(x.shape))

    def pool(x):
        return ops.max_pool(x, (3, 3), (2, 2), "SAME")

    _, pushed = jax.jvp(pool, (x,), (tangent,))
    y, pull_back = jax.vjp(pool, x)
    weight = jnp.cos(distinct(y.shape))
    np.testing.assert_allclose(
        (pushed * weight).sum(), (tangent * pull_back(weight)[0]).sum(), rtol=1e-4
    )


def test_max_pool_under_vmap_and_scan():
    x = with_ties((2, 3, 2, 5, 6, 3))
    gradient = jax.grad(energy(ops.max_pool))
    one = quick(gradient)
    alone = np.stack([np.stack([one(b) for b in a]) for a in x])
    np.testing.assert_array_equal(quick(jax.vmap(jax.vmap(gradient)))(x), alone)
    across = quick(jax.vmap(jax.vmap(gradient, 0, 1), 1, 2))(x)
    np.testing.assert_array_equal(np.moveaxis(across, (1, 2), (0, 1)), alone)
    np.testing.assert_array_equal(quick(lambda x: jax.lax.map(gradient, x))(x[0]), alone[0])


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_sharded_batches(axis_type):
    x = with_ties((4, 7, 8, 3))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        for pool in (ops.max_pool, ops.avg_pool):
            gradient = jax.jit(jax.grad(energy(pool)))
            assert gradient(sharded).sharding.spec[0] == "data"
            np.testing.assert_allclose(gradient(sharded), gradient(x), rtol=1e-5)


def test_gradients_are_exported_for_all_platforms_and_any_batch():
    (batch,) = jax.export.symbolic_shape("b")
    x = with_ties((2, 7, 8, 3))
    for pool in (ops.max_pool, ops.avg_pool):
        gradient = jax.grad(energy(pool))
        exported = jax.export.export(jax.jit(gradient), platforms=("cpu", "cuda", "tpu"))(
            jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
        )
        np.testing.assert_allclose(exported.call(x), gradient(x), rtol=1e-5)


def test_the_backward_pass_keeps_a_byte_for_each_window():
    x = jnp.zeros((8, 32, 32, 16))
    y, pull_back = jax.vjp(lambda x: ops.max_pool(x, (3, 3), (2, 2), "SAME"), x)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull_back))
    assert y.size <= kept < 1.01 * y.size


def test_no_scatter_and_no_large_program():
    def compiled(window):
        gradient = jax.grad(lambda x: ops.max_pool(x, window, None, "SAME").sum())
        return jax.jit(gradient).lower(jnp.zeros((1, 64, 64, 1))).as_text()

    small, large = compiled((3, 3)), compiled((13, 13))
    assert "select_and_scatter" not in small + large
    assert len(large) < 4 * len(small)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((4, 4), ((2, 2),), "spatial axes"),
        ((4, 4), ((),), "spatial axes"),
        ((1, 4, 4, 1), ((2, 2), (2,)), "one entry for each"),
        ((1, 4, 4, 1), ((2, 2), (2, 2), [(1, 1)]), "one entry for each"),
        ((1, 4, 4, 1), ((2, 2), (2, 2), "CAUSAL"), "'SAME', 'VALID'"),
        ((1, 4, 4, 1), ((2, 0),), r"window \(2, 0\) .* 1 or more"),
        ((1, 4, 4, 1), ((2, 2), (-1, 1)), "1 or more"),
        ((1, 4, 4, 1), ((5, 2),), r"window \(5, 2\) does not fit into images \[4, 4\]"),
        ((1, 2, 1), ((2,), (9,), [(5, 0)]), "touches images"),
    ],
)
def test_arguments_that_do_not_fit(shape, arguments, message):
    for pool in (ops.max_pool, ops.avg_pool):
        with pytest.raises(ModelError, match=message):
            pool(jnp.zeros(shape), *arguments)


def test_integers_are_refused():
    with pytest.raises(ModelError, match="uint8"):
        ops.avg_pool(jnp.zeros((1, 4, 4, 1), jnp.uint8), (2, 2))


@pytest.mark.parametrize(
    ("window", "strides"), [((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 3), None)]
)
@pytest.mark.parametrize("shape", [(2, 13, 10, 4), (5, 33, 20, 8), (3, 17, 31, 33)])
def test_gradients_find_values_that_the_program_computes_twice(shape, window, strides):
    """XLA may round what is pooled otherwise where the gradient looks for it: as for users."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def pooled(pool, x):
        mean = x.mean((0, 1, 2), keepdims=True)
        deviation = jnp.sqrt(((x - mean) ** 2).mean((0, 1, 2), keepdims=True) + 1e-5)
        y = pool(jax.nn.relu((x - mean) / deviation * 1.1 + 0.1), window, strides, "SAME")
        return (y * jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)).sum()

    ours, theirs = (
        fused(jax.grad(lambda x, f=f: pooled(f, x)))(x) for f in (ops.max_pool, flax.linen.max_pool)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
