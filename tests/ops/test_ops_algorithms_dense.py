"""Each algorithm of dense convolution against SciPy's correlation and stock in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from small import quick

from cnn_jax.ops.algorithms import banded, blocks, patches, phases, pointwise, taps, winograd
from cnn_jax.ops.algorithms import stock as stock_algorithm
from cnn_jax.ops.algorithms.dense_rule import dense
from cnn_jax.ops.geometry import describe

ALGORITHMS = {
    "banded": banded,
    "blocks": blocks,
    "patches": patches,
    "phases": phases,
    "pointwise": pointwise,
    "taps": taps,
    "winograd": winograd,
}
LAYOUTS = {1: "NWC WIO NWC", 2: "NHWC HWIO NHWC", 3: "NDHWC DHWIO NDHWC"}


def abstract(
    lhs, rhs, strides=None, padding=None, layout=None, dtype=np.float64, precision="default", **more
):
    """The convolution of two shapes, of stock's own parameters."""
    rank = len(lhs) - 2
    a, b = (jax.ShapeDtypeStruct(shape, dtype) for shape in (lhs, rhs))

    def convolve(a, b):
        numbers = tuple((layout or LAYOUTS[rank]).split())
        strides_, padding_ = strides or (1,) * rank, padding or ((0, 0),) * rank
        return lax.conv_general_dilated(
            a, b, strides_, padding_, dimension_numbers=numbers, precision=precision, **more
        )

    (equation,) = jax.make_jaxpr(convolve)(a, b).eqns
    return describe(a, b, equation.params)


def problem(lhs, rhs, **parameters):
    """The convolution, and its operands, drawn by seed."""
    conv = abstract(lhs, rhs, **parameters)
    rng = np.random.default_rng(0)
    return conv, *(jnp.asarray(rng.standard_normal(shape), conv.dtype) for shape in (lhs, rhs))


def stock(conv, lhs, rhs):
    return np.asarray(lax.conv_general_dilated_p.bind(lhs, rhs, **conv.params))


def applied(names, conv, lhs, rhs):
    """What each algorithm gives, as one program."""
    return quick(lambda a, b: {name: ALGORITHMS[name].apply(conv, a, b) for name in names})(
        lhs, rhs
    )


def agree(conv, lhs, rhs, names=ALGORITHMS, tolerance=1e-10):
    """Every algorithm that fits gives what stock gives; the names of those."""
    expected = stock(conv, lhs, rhs)
    fitting = [name for name in names if ALGORITHMS[name].fits(conv)]
    for name, found in applied(fitting, conv, lhs, rhs).items():
        assert (found.shape, found.dtype) == (conv.out_shape, conv.out_dtype), name
        np.testing.assert_allclose(found, expected, tolerance, tolerance, err_msg=name)
    return fitting


# By hand: what each must be able to compute. Weight gradients of NHWC images are laid out
# CHWN, IHWO, HWNC: batch and channels have changed roles.
GRADIENT = "CHWN IHWO HWNC"
CASES = {
    "3x3": (
        ((2, 9, 7, 3), (3, 3, 3, 4)),
        {"padding": ((1, 1), (1, 2))},
        "winograd patches taps banded",
    ),
    "cut": (
        ((2, 11, 9, 3), (3, 3, 3, 4)),
        {"padding": ((-1, 2), (1, -2))},
        "winograd patches banded",
    ),
    "nchw": (
        ((2, 3, 8, 6), (4, 3, 3, 3)),
        {"layout": "NCHW OIHW NCHW"},
        "winograd taps patches banded",
    ),
    "1-d": (((2, 9, 3), (3, 3, 4)), {"padding": ((1, 1),)}, "winograd taps banded"),
    "3-d": (((1, 5, 6, 4, 2), (3, 3, 3, 2, 3)), {}, "winograd patches banded"),
    "1x1, stride": (((2, 7, 5, 3), (1, 1, 3, 4)), {"strides": (2, 3)}, "pointwise taps"),
    "atrous": (
        ((2, 9, 9, 3), (3, 2, 3, 4)),
        {"rhs_dilation": (2, 3)},
        "taps patches blocks banded",
    ),
    "transposed": (
        ((2, 5, 4, 3), (3, 4, 3, 2)),
        {"lhs_dilation": (2, 3), "padding": ((2, 1), (-1, 3))},
        "phases taps patches banded",
    ),
    "transposed 1x1": (
        ((2, 5, 4, 3), (1, 1, 3, 2)),
        {"lhs_dilation": (2, 2), "padding": ((0, 1), (1, 0))},
        "phases pointwise",
    ),
    "dw 3x3": (
        ((5, 8, 6, 3), (5, 8, 6, 4)),
        {"padding": ((1, 1), (1, 1)), "layout": GRADIENT},
        "winograd blocks banded",
    ),
    "dw stride": (
        ((5, 9, 9, 3), (5, 4, 4, 4)),
        {"rhs_dilation": (2, 2), "layout": GRADIENT},
        "blocks taps banded",
    ),
    "dw 1x1": (((5, 6, 6, 3), (5, 6, 6, 4)), {"layout": GRADIENT}, "pointwise blocks"),
}


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_stock_in_float64(name):
    (shapes, parameters, must_fit) = CASES[name]
    with jax.enable_x64(True):
        assert set(must_fit.split()) <= set(agree(*problem(*shapes, **parameters)))


def test_agrees_with_scipy():
    with jax.enable_x64(True):
        conv, lhs, rhs = problem((2, 8, 7, 3), (3, 3, 3, 2))
        expected = np.zeros(conv.out_shape)
        for n, c, o in itertools.product(range(2), range(3), range(2)):
            image, kernel = np.asarray(lhs)[n, ..., c], np.asarray(rhs)[..., c, o]
            expected[n, ..., o] += scipy.signal.correlate2d(image, kernel, "valid")
        names = ("winograd", "patches", "taps", "blocks", "banded")
        for name, found in applied(names, conv, lhs, rhs).items():
            np.testing.assert_allclose(found, expected, 1e-12, 1e-12, err_msg=name)


axis_of = st.fixed_dictionaries(
    {
        "n": st.integers(1, 9),
        "k": st.integers(1, 4),
        "stride": st.integers(1, 2),
        "lhs_dilation": st.integers(1, 3),
        "rhs_dilation": st.integers(1, 2),
        "low": st.integers(-1, 3),
        "high": st.integers(-1, 3),
    }
)


@given(axes=st.lists(axis_of, min_size=1, max_size=2), batch=st.integers(0, 3))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_shapes(axes, batch):
    for axis in axes:
        length = (axis["n"] - 1) * axis["lhs_dilation"] + 1 + axis["low"] + axis["high"]
        assume(length >= (axis["k"] - 1) * axis["rhs_dilation"] + 1)
        assume(axis["low"] >= -axis["n"] + 1)
    with jax.enable_x64(True):
        get = lambda key: tuple(axis[key] for axis in axes)  # noqa: E731
        agree(
            *problem(
                (batch, *get("n"), 2),
                (*get("k"), 2, 3),
                strides=get("stride"),
                padding=tuple(zip(get("low"), get("high"), strict=True)),
                lhs_dilation=get("lhs_dilation"),
                rhs_dilation=get("rhs_dilation"),
                layout=LAYOUTS[len(axes)],
            )
        )


@pytest.mark.parametrize("batch", [7, 8])
def test_blocks_that_do_not_divide_the_batch(batch, monkeypatch):
    """At most three examples a block: whole ones and a rest of one, or four blocks of two."""
    with jax.enable_x64(True):
        forward = problem((batch, 6, 6, 2), (3, 3, 2, 2))
        gradient = problem((batch, 6, 6, 2), (batch, 4, 4, 2), layout=GRADIENT)
        full = problem((batch, 6, 6, 2), (batch, 6, 6, 2), layout=GRADIENT)
        spread = problem((batch, 4, 4, 2), (3, 3, 2, 2), lhs_dilation=(2, 2))
        bytes_per_example = [
            (winograd, "BLOCK", forward, (6 * 4 + 24 * 2) * 8),
            (winograd, "GRADIENT", gradient, 6 * 4 * 8),
            (patches, "BLOCK", forward, 16 * 18 * 8),
            (blocks, "BLOCK", gradient, (72 + 32) * 8),
            (phases, "BLOCK", spread, 25 * 2 * 8),
            (pointwise, "BLOCK", full, (72 + 72) * 8),
        ]
        monkeypatch.setattr(pointwise, "LEAST_BYTES", 0)
        for algorithm, of, case, size in bytes_per_example:
            monkeypatch.setattr(algorithm, f"{of}_BYTES", 3 * size)
            apply = functools.partial(algorithm.apply, case[0])
            jaxpr = str(jax.make_jaxpr(apply)(*case[1:]))
            loops = jaxpr.count("scan[") + jaxpr.count("while[")
            assert loops > (algorithm is winograd), algorithm  # which has one within a block
            agree(*case, names=[algorithm.__name__.rpartition(".")[2]])


@pytest.mark.parametrize(
    ("batch", "lengths"), [(7, {3, 1}), (8, {2}), (9, {3}), (4, {2}), (3, {3}), (11, {3, 2})]
)
def test_blocks_are_even_unless_that_makes_them_small(batch, lengths):
    """A rest is a second program to compile."""
    seen = set()

    def one(conv, lhs, rhs):
        seen.add(lhs.shape[0])
        return stock_algorithm.apply(conv, lhs, rhs)

    conv, lhs, rhs = problem((batch, 5, 5, 1), (batch, 5, 5, 1), layout=GRADIENT, dtype=np.float32)
    jax.eval_shape(lambda a, b: blocks.sum_of_blocks(conv, a, b, 3, one), lhs, rhs)
    assert seen == lengths


def test_blocks_of_several_layers_share_no_constant():
    """XLA would keep it for the whole program, and copy it for each layer."""
    conv, lhs, rhs = problem((8, 16, 16, 8), (1, 1, 8, 8), dtype=np.float32)

    def layers(x):
        for _ in range(4):
            x = blocks.blocks_of_batch(conv, x, rhs, 2, lambda conv, x, kernel: jnp.sin(x))
        return x

    memory = jax.jit(layers).lower(lhs).compile().memory_analysis()
    # The layers' outputs, two at a time, and the block in work; with the constant, another.
    assert memory.temp_size_in_bytes < 2.5 * lhs.nbytes


@pytest.mark.parametrize(
    ("shapes", "layout"),
    [
        (((0, 9, 7, 3), (3, 3, 3, 4)), None),
        (((2, 9, 7, 0), (3, 3, 0, 4)), None),
        (((0, 8, 6, 3), (0, 6, 4, 4)), GRADIENT),
    ],
    ids=["no examples", "no channels", "gradient of no examples"],
)
def test_winograd_of_nothing(shapes, layout):
    assert agree(*problem(*shapes, layout=layout, dtype=np.float32), names=["winograd"])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sixteen_bits(dtype):
    """Sums in the wanted dtype; what would round between parts does not fit."""
    for more in ({}, {"preferred_element_type": np.dtype(np.float32)}):
        for kernel in ((1, 1), (3, 3)):
            case = problem((2, 8, 8, 4), (*kernel, 4, 4), dtype=dtype, **more)
            fitting = agree(*case, tolerance=0.05)
            assert set(fitting) == ({"patches", "pointwise"} if kernel == (1, 1) else {"patches"})


@pytest.mark.parametrize(
    "shapes",
    [((8, 16, 16, 64), (3, 3, 64, 64)), ((8, 16, 16, 64), (8, 14, 14, 64))],
    ids=["forward", "weight gradient"],
)
def test_winograd_is_nearly_as_exact_as_stock(shapes):
    """In float32, against float64: the largest error is within 10 times that of stock."""
    layout = GRADIENT if shapes[1][0] == 8 else None
    with jax.enable_x64(True):
        conv, lhs, rhs = problem(*shapes, layout=layout, dtype=np.float32)
        exact = problem(*shapes, layout=layout)[0]
        truth = stock(exact, lhs.astype(np.float64), rhs.astype(np.float64))
        by_stock = np.abs(stock(conv, lhs, rhs) - truth).max()
        by_winograd = np.abs(np.asarray(winograd.apply(conv, lhs, rhs)) - truth).max()
    assert by_winograd <= 10 * by_stock
    assert 0 < by_winograd <= 3e-5 * truth.std()


def test_winograd_leaves_the_highest_precision_to_others():
    shapes, more = ((2, 8, 8, 4), (3, 3, 4, 4)), {"dtype": np.float32}
    assert winograd.fits(abstract(*shapes, precision="default", **more))
    assert not winograd.fits(abstract(*shapes, precision="highest", **more))


RULES = [
    ((128, 32, 32, 64), (1, 1, 64, 128), {}, "pointwise"),
    ((128, 32, 32, 8), (1, 1, 8, 16), {}, "stock"),
    ((128, 34, 34, 64), (3, 3, 64, 64), {}, "winograd"),
    ((1, 34, 34, 64), (3, 3, 64, 64), {}, "winograd"),
    ((1, 18, 18, 64), (3, 3, 64, 64), {}, "stock"),
    ((128, 34, 34, 64), (128, 32, 32, 64), {"layout": GRADIENT}, "winograd"),
    ((128, 33, 33, 64), (3, 3, 64, 128), {"strides": (2, 2)}, "stock"),
    ((128, 16, 16, 128), (3, 3, 128, 64), {"lhs_dilation": (2, 2)}, "phases"),
    (
        (128, 33, 33, 64),
        (128, 16, 16, 128),
        {"rhs_dilation": (2, 2), "layout": GRADIENT},
        "blocks",
    ),
    ((128, 28, 28, 1), (5, 5, 1, 6), {}, "banded"),
    ((1, 28, 28, 1), (5, 5, 1, 6), {}, "stock"),
    ((8, 32, 32, 3), (3, 3, 3, 8), {}, "banded"),
    ((8, 32, 32, 3), (3, 3, 3, 16), {}, "stock"),
    ((1, 32, 32, 3), (3, 3, 3, 8), {}, "stock"),  # 30 rows do not pay for the matrix
    ((128, 28, 28, 1), (5, 5, 1, 32), {}, "stock"),
    ((128, 33, 33, 3), (3, 3, 3, 8), {"strides": (2, 2)}, "banded"),
    ((128, 33, 33, 6), (3, 3, 6, 8), {"strides": (2, 2)}, "stock"),
    ((128, 32, 32, 1), (128, 28, 28, 6), {"layout": GRADIENT}, "banded"),
    ((32, 32, 32, 1), (32, 28, 28, 6), {"layout": GRADIENT}, "stock"),
    ((128, 34, 34, 3), (3, 3, 3, 64), {}, "stock"),
    # 64 and 32 rows in each of Winograd's products, and 32 and 16 of a weight gradient's.
    ((16, 9, 9, 128), (3, 3, 128, 128), {}, "stock"),
    ((24, 9, 9, 128), (3, 3, 128, 128), {}, "winograd"),
    ((8, 9, 9, 256), (3, 3, 256, 256), {}, "winograd"),
    ((4, 9, 9, 256), (3, 3, 256, 256), {}, "stock"),
    ((8, 9, 9, 128), (8, 7, 7, 128), {"layout": GRADIENT}, "winograd"),
    ((4, 9, 9, 128), (4, 7, 7, 128), {"layout": GRADIENT}, "stock"),
    # Many input channels, and one kernel entry to a phase.
    ((128, 16, 16, 256), (3, 3, 256, 64), {"lhs_dilation": (2, 2)}, "stock"),
    ((128, 16, 16, 128), (2, 2, 128, 64), {"lhs_dilation": (2, 2)}, "stock"),
]


@pytest.mark.parametrize(("lhs", "rhs", "more", "name"), RULES)
def test_the_rule_names_an_algorithm_that_fits(lhs, rhs, more, name):
    conv = abstract(lhs, rhs, dtype=np.float32, **more)
    assert dense(conv) == name
    assert name == "stock" or ALGORITHMS[name].fits(conv)
    assert dense(abstract(lhs, rhs, dtype=jnp.bfloat16, **more)) == "stock"
