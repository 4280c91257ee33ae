"""Our convolution where it may run: eagerly, over devices, exported to other platforms."""

import functools
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small import quick

from cnn_jax import ops

OPTIONS = {
    "window_strides": (2, 2),
    "padding": "SAME",
    "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
}


def of(convolution):
    """A value that changes with every entry of images and kernel, and its gradients."""

    def loss(x, k):
        return jnp.sum(jnp.sin(convolution(x, k, **OPTIONS)))

    return jax.value_and_grad(loss, (0, 1))


def images_and_kernel(batch=4):
    rng = np.random.default_rng(0)
    shapes = (batch, 6, 6, 4), (3, 3, 4, 8)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def assert_close(found, expected):
    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

    jax.tree.map(close, found, expected)


@pytest.fixture(scope="module")
def expected():
    return quick(of(lax.conv_general_dilated))(*images_and_kernel())


def test_eagerly(expected):
    assert_close(of(ops.conv_general_dilated)(*images_and_kernel()), expected)


def test_without_jit(expected):
    with jax.disable_jit():
        assert_close(of(ops.conv_general_dilated)(*images_and_kernel()), expected)


def test_eager_calls_compile_once(caplog):
    x, k = images_and_kernel()

    def compiled(images):
        caplog.clear()
        with jax.log_compiles():
            ops.conv_general_dilated(images, k, **OPTIONS)
        return "Compiling" in caplog.text

    assert compiled(x[:3, :5])
    assert not compiled(x[:3, :5])


def test_numpy_operands_and_committed_ones(expected):
    x, k = images_and_kernel()
    assert_close(of(ops.conv_general_dilated)(np.asarray(x), np.asarray(k)), expected)
    second = jax.devices()[1]
    value, _ = of(ops.conv_general_dilated)(*jax.device_put((x, k), second))
    assert value.devices() == {second}


@pytest.mark.parametrize("sharded", [("batch",), (None, "batch")], ids=["batch", "height"])
def test_inputs_over_two_devices(expected, sharded):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    x, k = images_and_kernel()
    x = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*sharded)))
    k = jax.device_put(k, NamedSharding(mesh, PartitionSpec()))
    assert_close(quick(of(ops.conv_general_dilated))(x, k), expected)


def test_explicit_sharding(expected):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Explicit,))
    x, k = images_and_kernel()
    with jax.set_mesh(mesh):
        x = jax.device_put(x, PartitionSpec("batch"))
        k = jax.device_put(k, PartitionSpec())
        ours, stock = (
            jax.typeof(convolution(x, k, **OPTIONS))
            for convolution in (ops.conv_general_dilated, lax.conv_general_dilated)
        )
        assert ours == stock
        gradients = of(ops.conv_general_dilated)
        assert jax.typeof(gradients(x, k)[1][0]) == jax.typeof(x)
        assert_close(quick(gradients)(x, k), expected)


def test_shard_map(expected):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    batch, whole = PartitionSpec("batch"), PartitionSpec()

    def step(x, k):
        value, gradients = of(ops.conv_general_dilated)(x, k)
        return lax.psum(value, "batch"), gradients

    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(batch, whole), out_specs=(whole, (batch, whole))
    )
    assert_close(quick(mapped)(*images_and_kernel()), expected)


def test_members_inside_shard_map():
    """Two networks, each on a device of its own, and two on each."""
    mesh = jax.make_mesh((2,), ("member",), axis_types=(AxisType.Auto,))
    x, k = (jnp.stack([one, 2 * one, -one, one]) for one in images_and_kernel(2))

    def population(convolution):
        return jax.vmap(of(convolution))

    member = PartitionSpec("member")
    mapped = jax.shard_map(
        population(ops.conv_general_dilated), mesh=mesh, in_specs=member, out_specs=member
    )
    assert_close(quick(mapped)(x, k), population(lax.conv_general_dilated)(x, k))


def operations(convolution, arguments, platform, kind=""):
    """Operations with their types and attributes, less the names of values."""
    lowered = jax.jit(convolution).trace(*arguments).lower(lowering_platforms=(platform,))
    lines = [re.sub(r"%\w+", "%", line) for line in lowered.as_text().splitlines()]
    return sorted(line for line in lines if f"stablehlo.{kind}" in line)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_accelerators_the_program_is_the_stock_one(platform):
    ours, stock = (
        operations(of(convolution), images_and_kernel(), platform)
        for convolution in (ops.conv_general_dilated, lax.conv_general_dilated)
    )
    assert ours == stock
    assert sum("stablehlo.convolution" in line for line in ours) == 3


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_accelerators_members_are_convolved_as_stock_does(platform):
    members = [jnp.stack([one, one]) for one in images_and_kernel()]
    ours, stock = (
        operations(jax.vmap(of(convolution)), members, platform, "convolution")
        for convolution in (ops.conv_general_dilated, lax.conv_general_dilated)
    )
    assert ours == stock
    assert len(ours) == 3


def test_one_export_for_three_platforms(expected):
    function = jax.jit(of(ops.conv_general_dilated))
    exported = export.export(function, platforms=("cpu", "cuda", "tpu"))(*images_and_kernel())
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert_close(exported.call(*images_and_kernel()), expected)


OTHERS = {
    "depthwise": lambda x: ops.depthwise_conv(x, jnp.ones((3, 3, 1, 4)), 2),
    "transposed": lambda x: ops.conv_transpose(x, jnp.ones((3, 3, 4, 2)), (2, 2), "SAME"),
    "local": lambda x: ops.conv_general_dilated_local(
        x,
        jnp.ones((6, 6, 36, 2)),
        (1, 1),
        "VALID",
        (3, 3),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "blur": lambda x: ops.blur_pool(x, 2),
    "adaptive_avg": lambda x: ops.adaptive_avg_pool(x, 3),
    "adaptive_max": lambda x: ops.adaptive_max_pool(x, 3),
    "global_avg": ops.global_avg_pool,
    "global_max": ops.global_max_pool,
}


@pytest.mark.parametrize("name", OTHERS)
def test_gradients_of_the_other_operations_are_exported(name):
    """Convolutions and poolings have tests of their own."""
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    gradient = jax.jit(jax.grad(lambda x: (OTHERS[name](x) ** 2).sum()))
    exported = export.export(gradient, platforms=("cpu", "cuda", "tpu"))(x)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(exported.call(x), gradient(x), rtol=1e-4, atol=1e-5)


def test_export_of_any_batch_and_size(expected):
    b, h = export.symbolic_shape("b, 2*h")
    x, k = images_and_kernel()
    shape = jax.ShapeDtypeStruct((b, h, h, 4), x.dtype)
    exported = export.export(jax.jit(of(ops.conv_general_dilated)))(shape, k)
    assert_close(exported.call(x, k), expected)
    assert exported.call(x[:1, :4, :4], k)[1][0].shape == (1, 4, 4, 4)


def test_export_of_gradients_of_any_number_of_examples():
    x, k = images_and_kernel()

    def each(convolution):
        gradients = of(convolution)
        return jax.vmap(lambda k, x: gradients(x[None], k)[1][1], (None, 0))

    (b,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
    exported = export.export(jax.jit(each(ops.conv_general_dilated)))(k, shape)
    assert_close(exported.call(k, x), each(lax.conv_general_dilated)(k, x))


def test_another_thread_has_its_own_choice():
    x, k = images_and_kernel()
    reasons = []

    def look():
        function = functools.partial(ops.conv_general_dilated, **OPTIONS)
        reasons.append(ops.explain(function, x, k, platform="cpu").convolutions[0].reason)

    with ops.use_algorithm("stock"):
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
    assert reasons[0] == "it was asked for"
    assert reasons[1] != "it was asked for"
