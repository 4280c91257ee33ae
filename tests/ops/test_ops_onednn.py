"""The compiled kernels: against float64, in every role and context, and where they are missing."""

import functools
import os
import subprocess
import sys
import threading
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from cnn_jax import ops
from cnn_jax.errors import NativeError
from cnn_jax.ops.algorithms import onednn
from cnn_jax.ops.geometry import describe
from cnn_jax.ops.native import build, library
from cnn_jax.ops.native.problem import Role, as_problem, role_of

WHY_NOT = library.unavailable()
needs_kernels = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
NHWC = ("NHWC", "HWIO", "NHWC")


def normal(seed, shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def convolution(x, kernel, **options):
    """A stock convolution, for its shapes and its derivatives."""
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC, **options}
    return lax.conv_general_dilated(x, kernel, **options)


def all_roles(x, kernel, **options):
    """Operands and parameters of the forward convolution and of both its gradients."""
    stock = functools.partial(convolution, **options)
    y = stock(x, kernel)
    functions = (
        (stock, x, kernel),
        (lambda y, kernel: jax.linear_transpose(lambda x: stock(x, kernel), x)(y)[0], y, kernel),
        (lambda x, y: jax.linear_transpose(lambda kernel: stock(x, kernel), kernel)(y)[0], x, y),
    )
    for function, *operands in functions:
        (equation,) = (
            equation
            for equation in jax.make_jaxpr(function)(*operands).eqns
            if equation.primitive is lax.conv_general_dilated_p
        )
        shapes = [variable.aval.shape for variable in equation.invars]
        yield *(normal(i, shape, x.dtype) for i, shape in enumerate(shapes)), equation.params


def check(lhs, rhs, params, tolerance=1e-5):
    """Against the stock convolution in float64."""
    conv = describe(lhs, rhs, params)
    assert onednn.fits(conv)
    ours = jax.jit(functools.partial(onednn.apply, conv))(lhs, rhs)
    assert ours.dtype == conv.out_dtype
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(operand, np.float64)) for operand in (lhs, rhs)]
        exact = lax.conv_general_dilated_p.bind(*wide, **{**params, "preferred_element_type": None})
        exact = np.asarray(exact)
    np.testing.assert_allclose(
        np.asarray(ours, np.float64), exact, rtol=0, atol=tolerance * np.abs(exact).max()
    )


@needs_kernels
@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((3, 9, 8, 5), (3, 3, 5, 7), {}),
        ((1, 9, 8, 16), (3, 3, 16, 32), {}),
        ((4, 9, 8, 16), (1, 1, 16, 32), {"window_strides": (2, 2)}),
        ((2, 11, 12, 3), (7, 7, 3, 16), {"window_strides": (2, 2)}),
        ((2, 9, 8, 16), (3, 2, 16, 16), {"window_strides": (2, 1), "padding": ((0, 2), (1, 0))}),
        ((2, 11, 12, 16), (3, 3, 16, 16), {"rhs_dilation": (2, 3)}),
        ((3, 5, 4, 256), (3, 3, 256, 288), {}),  # a weight gradient cut by channels
        ((4, 9, 8, 16), (3, 3, 1, 16), {"feature_group_count": 16}),
        ((4, 9, 8, 32), (3, 3, 16, 32), {"feature_group_count": 2, "window_strides": (2, 2)}),
        (
            (4, 9, 8),
            (3, 8, 16),
            {"window_strides": (1,), "dimension_numbers": ("NWC", "WIO", "NWC")},
        ),
        (
            (2, 16, 6, 7, 5),
            (16, 16, 3, 3, 2),
            {"window_strides": (1, 2, 1), "dimension_numbers": ("NCDHW", "OIDHW", "NCDHW")},
        ),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_every_role_agrees_with_float64(x, kernel, options, dtype):
    operands = normal(0, x, dtype), normal(1, kernel, dtype)
    for lhs, rhs, params in all_roles(*operands, **options):
        if onednn.fits(describe(lhs, rhs, params)) or dtype == np.float32:
            check(lhs, rhs, params, 1e-5 if dtype == np.float32 else 1e-2)


@needs_kernels
@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_random_shapes_agree_wherever_they_fit(batch, size, kernel, channels, strides, dilation):
    operands = normal(0, (batch, *size, channels[0])), normal(1, (*kernel, *channels))
    for one in all_roles(*operands, window_strides=strides, rhs_dilation=dilation):
        if onednn.fits(describe(*one)):
            check(*one)


@pytest.mark.parametrize("stride", [1, 2])
def test_roles_are_known_by_lengths_and_layout(stride):
    x, kernel = normal(0, (4, 8, 8, 16)), normal(1, (3, 3, 16, 32))
    convs = [describe(*one) for one in all_roles(x, kernel, window_strides=(stride, stride))]
    assert [role_of(conv) for conv in convs] == [
        Role.FORWARD,
        Role.INPUT_GRADIENT,
        Role.WEIGHT_GRADIENT,
    ]
    assert [as_problem(conv).strides for conv in convs] == [(stride, stride)] * 3
    assert [as_problem(conv).weights for conv in convs] == [(1, 32, 16, 3, 3)] * 3


@pytest.mark.parametrize(
    "options",
    [
        {"padding": ((-1, 0), (0, 0))},
        {"window_strides": (2, 2), "lhs_dilation": (2, 2), "padding": ((1, 1), (1, 1))},
    ],
)
def test_what_onednn_has_not_does_not_fit(options):
    lhs, rhs, params = next(all_roles(normal(0, (2, 8, 8, 4)), normal(1, (3, 3, 4, 4)), **options))
    assert not onednn.fits(describe(lhs, rhs, params))


def test_float64_does_not_fit():
    with jax.enable_x64(True):
        lhs, rhs = (jnp.zeros(shape, jnp.float64) for shape in ((2, 8, 8, 4), (3, 3, 4, 4)))
        lhs, rhs, params = next(all_roles(lhs, rhs))
        assert not onednn.fits(describe(lhs, rhs, params))


def layer(x, kernel):
    return ops.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC)


def loss(kernel, x):
    with ops.use_algorithm("onednn"):
        return jnp.sum(jnp.square(layer(x, kernel)))


def expected(kernel, x):
    return jnp.sum(jnp.square(convolution(x, kernel)))


KERNEL, IMAGES = (3, 3, 16, 16), (4, 8, 8, 16)


@needs_kernels
def test_gradients_contain_the_call_and_agree():
    kernel, x = normal(0, KERNEL), normal(1, IMAGES)
    gradients = jax.jit(jax.grad(loss, (0, 1)))
    assert gradients.lower(kernel, x).as_text().count(library.kernels().target) == 3
    stock = jax.grad(expected, (0, 1))(kernel, x)
    for ours, theirs in zip(gradients(kernel, x), stock, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@needs_kernels
def test_scan_vmap_and_donation():
    kernel, x = normal(0, (3, *KERNEL)), normal(1, (3, *IMAGES))
    stock = jnp.stack([jax.grad(expected)(k, y) for k, y in zip(kernel, x, strict=True)])
    scanned = lax.scan(lambda c, one: (c, jax.grad(loss)(*one)), 0, (kernel, x))[1]
    np.testing.assert_allclose(scanned, stock, rtol=1e-4, atol=1e-3)
    mapped = jax.jit(jax.vmap(jax.grad(loss)), donate_argnums=0)(kernel, x)
    np.testing.assert_allclose(mapped, stock, rtol=1e-4, atol=1e-3)


@needs_kernels
def test_results_do_not_depend_on_threads_or_devices():
    kernel, x = normal(0, KERNEL), normal(1, IMAGES)
    gradient = jax.jit(jax.grad(loss))
    first = np.asarray(gradient(kernel, x))
    differing = []

    def work(device):
        placed = jax.device_put((kernel, x), device)
        results = [gradient(*placed) for _ in range(20)]
        differing.extend(one for one in results if not np.array_equal(one, first))

    threads = [threading.Thread(target=work, args=(d,)) for d in jax.devices() for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not differing


PROGRAM = """
import jax, jax.numpy as jnp
from cnn_jax import ops
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
def loss(kernel, x):
    return jnp.sum(ops.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))
print(jax.jit(jax.grad(loss))(jnp.ones((3, 3, 16, 16)), jnp.ones((2, 8, 8, 16))).sum())
"""


@needs_kernels
def test_a_program_from_the_compile_cache_finds_the_kernels(tmp_path):
    variables = {
        **os.environ,
        "CNN_JAX_CONVOLUTION": "onednn",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
    }
    printed = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert any((tmp_path / "programs").iterdir())
    assert printed[0] == printed[1] == f"{2 * (22**2) * 16 * 16:.1f}\n"


@pytest.fixture
def afresh(monkeypatch):
    """Nothing loaded before the test, and nothing of the test kept after it."""
    monkeypatch.delenv("CNN_JAX_ONEDNN", raising=False)
    caches = (library._load, onednn._has_kernel)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_without_the_extra_nothing_fits_and_the_reason_is_told(afresh, monkeypatch):
    def files(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "files", files)
    assert library.unavailable() == (
        "onednn-devel-cpu-gomp is not installed: pip install 'cnn_jax[onednn]'"
    )
    lhs, rhs, params = next(all_roles(normal(0, IMAGES), normal(1, KERNEL)))
    assert not onednn.fits(describe(lhs, rhs, params))
    with pytest.raises(NativeError, match="not installed"):
        onednn.apply(describe(lhs, rhs, params), lhs, rhs)


@pytest.mark.parametrize(
    ("command", "message"),
    [("no-such-compiler", "'no-such-compiler' does not run"), ("false", "'false' failed")],
)
def test_a_compiler_that_does_not_work_is_told(afresh, monkeypatch, tmp_path, command, message):
    headers = tmp_path / "oneapi/dnnl/dnnl.hpp"
    monkeypatch.setattr(build, "_installed", lambda package, name: headers)
    monkeypatch.setattr(metadata, "version", lambda package: "1")
    monkeypatch.setenv("CXX", command)
    assert message in library.unavailable()


def test_a_machine_without_a_compiler_is_told(afresh, monkeypatch, tmp_path):
    monkeypatch.setattr(build, "_installed", lambda package, name: tmp_path / "a/b/c/d")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert library.unavailable().startswith("no C++ compiler: install g++ or clang++")


def test_the_switch(afresh, monkeypatch):
    monkeypatch.setenv("CNN_JAX_ONEDNN", "off")
    assert library.unavailable() == "switched off by $CNN_JAX_ONEDNN"


def convolve(x, kernel):
    return ops.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@needs_kernels
def test_it_is_the_rule_where_it_can_be_used():
    x, kernel = normal(0, IMAGES), normal(1, KERNEL)
    (found,) = ops.explain(convolve, x, kernel, platform="cpu").convolutions
    assert found.algorithm == "onednn"
    assert "cnn_jax_onednn" in jax.jit(convolve).lower(x, kernel).as_text()


@needs_kernels
def test_a_program_for_elsewhere_holds_no_call_of_it():
    x, kernel = normal(0, IMAGES), normal(1, KERNEL)
    exported = jax.export.export(jax.jit(convolve))(x, kernel)
    assert "cnn_jax_onednn" not in exported.mlir_module()
    np.testing.assert_allclose(exported.call(x, kernel), convolve(x, kernel), atol=1e-4)


@needs_kernels
def test_a_program_over_devices_holds_no_call_of_it():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, kernel = jax.device_put(normal(0, (2, *IMAGES[1:])), rows), normal(1, KERNEL)
    assert "cnn_jax_onednn" not in jax.jit(convolve).lower(x, kernel).as_text()
