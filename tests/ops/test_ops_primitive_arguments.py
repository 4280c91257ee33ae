"""Every argument of our convolution, good and bad, against the stock one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from small import quick

from cnn_jax import ops

LAYOUT = ("NHWC", "HWIO", "NHWC")


def normal(shape, dtype=jnp.float32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 3, dtype)


def both(lhs, rhs, *arguments, **options):
    """The result of ours, once it is seen to be that of the stock one."""
    found, expected = (
        function(lhs, rhs, *arguments, **options)
        for function in (ops.conv_general_dilated, lax.conv_general_dilated)
    )
    assert jax.typeof(found) == jax.typeof(expected)
    step = float(jnp.finfo(found.dtype).eps) if jnp.issubdtype(found.dtype, jnp.inexact) else 0
    wide = np.complex128 if jnp.iscomplexobj(found) else np.float64
    found, expected = (np.asarray(one).astype(wide) for one in (found, expected))
    scale = max(np.abs(expected).max(initial=0), 1)
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=8 * step)
    return found


@st.composite
def convolutions(draw):
    """Shapes and every argument at random, in any layout; the output may be empty."""
    rank = draw(st.integers(1, 3))
    few = st.integers(1, 3)
    per_axis = st.lists(few, min_size=rank, max_size=rank)
    feature_groups, batch_groups = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]))
    batch, channels, out = draw(few), draw(few), draw(few)
    sizes = draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank))
    kernel, strides, lhs_dilation, rhs_dilation = (draw(per_axis) for _ in range(4))
    pair = st.tuples(st.integers(-1, 3), st.integers(-1, 3))
    padding = draw(
        st.sampled_from(["SAME", "VALID", "SAME_LOWER"])
        | st.lists(pair, min_size=rank, max_size=rank)
    )
    if not isinstance(padding, str):  # more is cut off than there is: lax refuses
        spread = [(n - 1) * d + 1 for n, d in zip(sizes, lhs_dilation, strict=True)]
        padding = [
            (low, high) if low + high + n >= 0 else (0, 0)
            for (low, high), n in zip(padding, spread, strict=True)
        ]
    axes = "DHW"[-rank:]
    specs = ["".join(draw(st.permutations(f"{two}{axes}"))) for two in ("NC", "OI", "NC")]
    lengths = dict(zip(axes, sizes, strict=True))
    lengths |= {"N": batch * batch_groups, "C": channels * feature_groups}
    kernels = dict(zip(axes, kernel, strict=True))
    kernels |= {"O": out * feature_groups * batch_groups, "I": channels}
    options = {
        "window_strides": strides,
        "padding": padding,
        # Named padding does not know of a spread input.
        "lhs_dilation": None if isinstance(padding, str) else lhs_dilation,
        "rhs_dilation": rhs_dilation,
        "dimension_numbers": tuple(specs),
        "feature_group_count": feature_groups,
        "batch_group_count": batch_groups,
    }
    shapes = [lengths[axis] for axis in specs[0]], [kernels[axis] for axis in specs[1]]
    return *shapes, options


@pytest.mark.heavy
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(convolutions())
def test_all_arguments_at_random(case):
    """Value and both gradients, in float64."""
    lhs_shape, rhs_shape, options = case
    with jax.enable_x64(True):
        lhs, rhs = normal(lhs_shape, jnp.float64), normal(rhs_shape, jnp.float64, seed=1)

        def everything(convolution):
            def run(lhs, rhs):
                out, pull = jax.vjp(lambda a, b: convolution(a, b, **options), lhs, rhs)
                return out, pull(out)

            return quick(run)(lhs, rhs)

        found, expected = everything(ops.conv_general_dilated), everything(lax.conv_general_dilated)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert jax.typeof(a) == jax.typeof(b)
            scale = max(float(np.abs(b).max(initial=0)), 1.0)
            np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=1e-13)


def test_by_hand():
    """1 2 3 4 with kernel 1 10: each output is the left value and ten times the right one."""
    x, k = jnp.asarray([[[1.0, 2.0, 3.0, 4.0]]]), jnp.asarray([[[1.0, 10.0]]])
    np.testing.assert_array_equal(both(x, k, (1,), "VALID"), [[[21, 32, 43]]])
    np.testing.assert_array_equal(both(x, k, (2,), [(1, 0)]), [[[10, 32]]])
    np.testing.assert_array_equal(both(x, k, (1,), "VALID", rhs_dilation=(2,)), [[[31, 42]]])
    spread = both(x, k, (1,), [(0, 0)], lhs_dilation=(2,))
    np.testing.assert_array_equal(spread, [[[1, 20, 2, 30, 3, 40]]])


@pytest.mark.parametrize(
    ("dtype", "preferred"),
    [
        ("bfloat16", None),
        ("bfloat16", "float32"),
        ("float16", "float32"),
        ("float32", None),
        ("float32", "float64"),
        ("float64", None),
        ("int8", "int32"),
        ("int32", None),
        ("uint8", "int32"),
        ("complex64", None),
    ],
)
def test_dtypes(dtype, preferred):
    with jax.enable_x64(True):
        x, k = normal((2, 5, 5, 4)), normal((3, 3, 4, 4), seed=1)
        if dtype == "uint8":
            x, k = abs(x), abs(k)
        options = {"dimension_numbers": LAYOUT, "preferred_element_type": preferred}
        both(x.astype(dtype), k.astype(dtype), (1, 2), "SAME", **options)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_keep_their_dtypes(dtype):
    """Sums asked for in float32; gradients as wide as the stock ones, to rounding."""
    x, k = normal((2, 4, 4, 2), dtype), normal((3, 3, 2, 2), dtype)

    def gradients(convolution):
        def loss(x, k):
            return convolution(
                x, k, (1, 1), "SAME", dimension_numbers=LAYOUT, preferred_element_type="float32"
            ).sum()

        return jax.grad(loss, (0, 1))(x, k)

    for a, b in zip(
        gradients(ops.conv_general_dilated), gradients(lax.conv_general_dilated), strict=True
    ):
        assert a.dtype == b.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(a.astype("float32"), b.astype("float32"), rtol=2e-2, atol=0.1)


@pytest.mark.parametrize("precision", [None, "highest", "default", ("highest", "default")])
def test_precision_reaches_value_and_gradients(precision):
    x, k = normal((1, 4, 4, 2)), normal((3, 3, 2, 2))

    def precisions(convolution):
        def loss(x):
            return convolution(
                x, k, (1, 1), "SAME", precision=precision, dimension_numbers=LAYOUT
            ).sum()

        equations = jax.make_jaxpr(jax.value_and_grad(loss))(x).eqns
        return [e.params["precision"] for e in equations if "precision" in e.params]

    with jax.default_matmul_precision("float32"):
        assert precisions(ops.conv_general_dilated) == precisions(lax.conv_general_dilated)
        assert len(precisions(ops.conv_general_dilated)) == 2


@pytest.mark.parametrize(
    ("lhs", "rhs", "options"),
    [
        ((0, 4, 4, 2), (3, 3, 2, 5), {}),
        ((2, 4, 4, 0), (3, 3, 0, 5), {}),
        ((2, 4, 4, 2), (3, 3, 2, 0), {}),
        ((2, 2, 2, 2), (3, 3, 2, 5), {"padding": "VALID"}),
        ((2, 0, 4, 2), (3, 3, 2, 5), {"padding": [(2, 2), (1, 1)]}),
    ],
    ids=["batch", "channels", "outputs", "positions", "height"],
)
def test_empty_arrays(lhs, rhs, options):
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT} | options
    both(normal(lhs), normal(rhs), **options)

    def gradients(convolution):
        return jax.grad(lambda x, k: convolution(x, k, **options).sum(), (0, 1))

    expected = gradients(lax.conv_general_dilated)(normal(lhs), normal(rhs))
    found = gradients(ops.conv_general_dilated)(normal(lhs), normal(rhs))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_numpy_weak_and_long_layouts():
    x, k = normal((2, 3, 4)), normal((5, 3, 2))
    both(np.asarray(x), np.asarray(k), [1], "VALID")
    both(jnp.full((2, 3, 4), 1.5), jnp.full((5, 3, 2), 0.5), (1,), "SAME")  # weakly typed
    numbers = lax.conv_dimension_numbers((4, 3, 2), (2, 3, 5), ("WCN", "WIO", "NWC"))
    both(x.T, k.T, np.asarray([2]), [[1, 0]], dimension_numbers=numbers)
    both(x.T, k.T, (2,), "SAME", None, None, ("WCN", "WIO", "NWC"), 1, 1, "highest", None, None)


GOOD = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": LAYOUT}
BAD = [
    ((2, 4, 4, 3), (3, 3, 2, 5), {}),
    ((2, 4, 4), (3, 3, 2, 5), {}),
    ((2, 4, 4, 2), (3, 3, 2), {}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"window_strides": (1,)}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"window_strides": (0, 1), "padding": [(1, 1), (1, 1)]}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"padding": "same as above"}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"padding": [(1, 1)]}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"padding": (1, 1)}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"padding": 1}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"padding": [(-3, -3), (0, 0)]}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"lhs_dilation": (0, 1), "padding": "VALID"}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"dimension_numbers": ("NHWC", "HWIO", "NHWX")}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"dimension_numbers": ("NHWC", "HWIO")}),
    ((2, 4, 4, 4), (3, 3, 2, 5), {"feature_group_count": 2}),
    ((2, 4, 4, 4), (3, 3, 2, 6), {"feature_group_count": 0}),
    ((3, 4, 4, 2), (3, 3, 2, 6), {"batch_group_count": 2}),
    ((4, 4, 4, 4), (3, 3, 2, 8), {"batch_group_count": 2, "feature_group_count": 2}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"preferred_element_type": "int32"}),
    ((2, 4, 4, 2), (3, 3, 2, 5), {"precision": "much"}),
]


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # lax, by a stride of 0
@pytest.mark.parametrize(("lhs", "rhs", "options"), BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_bad_arguments_raise_what_lax_raises(lhs, rhs, options, compiled):
    raised = []
    for convolution in (ops.conv_general_dilated, lax.conv_general_dilated):

        def run(x, k, convolution=convolution):
            return convolution(x, k, **(GOOD | options))

        with pytest.raises((TypeError, ValueError, RuntimeError)) as info:
            (jax.jit(run) if compiled else run)(normal(lhs), normal(rhs))
        message, *_ = str(info.value).split("at loc(")  # what follows is the place in the code
        raised.append((info.type, message))
    assert raised[0] == raised[1]


def test_operands_of_two_dtypes_and_no_arrays():
    x, k = normal((2, 4, 4, 2)), normal((3, 3, 2, 5))
    for operands in [(x, k.astype("bfloat16")), (x > 0, k), (x.astype("int32"), k)]:
        raised = []
        for convolution in (ops.conv_general_dilated, lax.conv_general_dilated):
            with pytest.raises(TypeError) as info:
                convolution(*operands, **GOOD)
            raised.append(str(info.value))
        assert raised[0] == raised[1]
    for nothing in (None, [[1.0]], "kernel"):
        with pytest.raises(TypeError):
            ops.conv_general_dilated(x, nothing, **GOOD)
