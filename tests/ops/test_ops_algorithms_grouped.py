"""Depthwise and grouped algorithms against the stock convolution in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax
from small import quick

from cnn_jax.ops.algorithms import each_group, shifted, stock, tap_sums
from cnn_jax.ops.algorithms.grouped_rule import grouped
from cnn_jax.ops.algorithms.members import UNROLLED, each_member
from cnn_jax.ops.geometry import describe

CHANNELS_LAST = {
    1: ("NWC", "WIO", "NWC"),
    2: ("NHWC", "HWIO", "NHWC"),
    3: ("NDHWC", "DHWIO", "NDHWC"),
}


def of_kind(kind, images, kernel, dtype=jnp.float32, **options):
    """The convolution itself or that of one of its gradients, by the rules of jax."""
    rank = len(images) - 2
    options = {"dimension_numbers": CHANNELS_LAST[rank], "window_strides": (1,) * rank, **options}
    x, k = (jax.ShapeDtypeStruct(shape, dtype) for shape in (images, kernel))
    forward = functools.partial(lax.conv_general_dilated, **options)

    def gradient(x, k):
        function = (lambda x: forward(x, k)) if kind == "input" else (lambda k: forward(x, k))
        out = forward(x, k)
        return jax.linear_transpose(function, x if kind == "input" else k)(out)

    jaxpr = jax.make_jaxpr(forward if kind == "forward" else gradient)(x, k)
    *_, equation = [e for e in jaxpr.eqns if e.primitive is lax.conv_general_dilated_p]
    return describe(*(variable.aval for variable in equation.invars), equation.params)


def operands(conv):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in (conv.lhs_shape, conv.rhs_shape)]


def check(algorithm, conv, tolerance=1e-5):
    """Against the stock convolution of the same, rounded numbers in float64."""
    assert algorithm.fits(conv)
    lhs, rhs = (jnp.asarray(x, conv.dtype) for x in operands(conv))
    found = quick(functools.partial(algorithm.apply, conv))(lhs, rhs)
    assert (found.shape, found.dtype) == (conv.out_shape, conv.out_dtype)
    with jax.enable_x64(True):
        params = {**conv.params, "preferred_element_type": None}
        lhs, rhs = (jnp.asarray(np.asarray(x, np.float64)) for x in (lhs, rhs))
        exact = np.asarray(lax.conv_general_dilated_p.bind(lhs, rhs, **params))
    scale = np.abs(exact).max() + 1
    np.testing.assert_allclose(np.asarray(found, np.float64) / scale, exact / scale, atol=tolerance)


ALGORITHM = {"forward": shifted, "input": shifted, "weights": tap_sums}
KINDS = list(ALGORITHM)


@st.composite
def cases(draw):
    rank = draw(st.integers(1, 3))

    def some(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    channels, multiplier = draw(st.integers(2, 4)), draw(st.integers(1, 2))
    options = {
        "window_strides": some(1, 3),
        "padding": list(zip(some(-2, 3), some(-2, 3), strict=True)),
        "lhs_dilation": some(1, 3),
        "rhs_dilation": some(1, 2),
        "feature_group_count": channels,
    }
    images = (draw(st.integers(1, 3)), *some(3, 11), channels)
    kernel = (*some(1, 3), 1, channels * multiplier)
    return images, kernel, options


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(cases())
def test_depthwise_of_any_shape(kind, case):
    images, kernel, options = case
    try:
        conv = of_kind(kind, images, kernel, **options)
    except (TypeError, ValueError, IndexError, ZeroDivisionError):  # no room for a window
        assume(False)
    assume(0 not in (*conv.lhs_shape, *conv.out_shape))
    check(ALGORITHM[kind], conv)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [7, 17, 24])  # one strip; three uneven ones; three even ones
def test_depthwise_in_blocks_of_examples_and_strips_of_rows(kind, rows, monkeypatch):
    monkeypatch.setattr(tap_sums, "BLOCK_BYTES", 1)
    conv = of_kind(kind, (6, rows, 9, 3), (3, 3, 1, 3), padding="SAME", feature_group_count=3)
    check(ALGORITHM[kind], conv)


@pytest.mark.parametrize("algorithm", [shifted, tap_sums, each_group])
@pytest.mark.parametrize("layout", [("NCHW", "OIHW", "NCHW"), ("HNWC", "IHOW", "CNWH")])
def test_any_layout(algorithm, layout):
    shapes = [
        tuple(dict(zip(names, lengths, strict=True))[name] for name in spec)
        for spec, names, lengths in (
            (layout[0], "NHWC", (2, 7, 8, 3)),
            (layout[1], "HWIO", (3, 2, 1, 6)),
        )
    ]
    for kind in KINDS:
        conv = of_kind(
            kind,
            *shapes,
            padding="SAME",
            window_strides=(2, 1),
            feature_group_count=3,
            dimension_numbers=layout,
        )
        if algorithm.fits(conv):
            check(algorithm, conv)
        else:
            assert algorithm is not each_group
            assert algorithm is not ALGORITHM[kind]


@pytest.mark.parametrize("unrolled", [32, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_wider_groups(kind, unrolled, monkeypatch):
    monkeypatch.setattr(each_group, "UNROLLED", unrolled)
    options = {"padding": "SAME", "window_strides": (2, 1), "feature_group_count": 3}
    conv = of_kind(kind, (4, 7, 8, 9), (3, 3, 3, 6), **options)
    check(each_group, conv)
    if kind != "weights":
        check(shifted, conv)


def test_each_group_of_examples():
    conv = of_kind("forward", (4, 5, 5, 3), (3, 3, 3, 6), padding="SAME", batch_group_count=2)
    check(each_group, conv)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "preferred", "tolerance"),
    [
        (jnp.bfloat16, None, 4e-3),
        (jnp.float16, None, 5e-4),
        (jnp.bfloat16, jnp.float32, 1e-6),  # sums are not rounded to bfloat16 on the way
    ],
)
def test_short_numbers_are_summed_in_float32(kind, dtype, preferred, tolerance):
    options = {"padding": "SAME", "feature_group_count": 4}
    conv = of_kind(kind, (8, 16, 16, 4), (3, 3, 1, 4), dtype, **options)
    params = {**conv.params, "preferred_element_type": preferred}
    shapes = (jax.ShapeDtypeStruct(s, dtype) for s in (conv.lhs_shape, conv.rhs_shape))
    check(ALGORITHM[kind], describe(*shapes, params), tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_summed_in_float64(kind):
    options = {"padding": "SAME", "feature_group_count": 3}
    with jax.enable_x64(True):
        conv = of_kind(kind, (2, 9, 9, 3), (3, 3, 1, 3), jnp.float64, **options)
        check(ALGORITHM[kind], conv, 1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_under_vmap_and_scan(kind):
    conv = of_kind(kind, (2, 7, 7, 3), (3, 3, 1, 3), padding="SAME", feature_group_count=3)
    apply = functools.partial(ALGORITHM[kind].apply, conv)
    lhs, rhs = (jnp.asarray(np.stack([x, 2 * x]), jnp.float32) for x in operands(conv))
    expected = jnp.stack([stock.apply(conv, a, b) for a, b in zip(lhs, rhs, strict=True)])
    np.testing.assert_allclose(jax.vmap(apply)(lhs, rhs), expected, atol=2e-4)
    _, scanned = lax.scan(lambda _, pair: (None, apply(*pair)), None, (lhs, rhs))
    np.testing.assert_allclose(scanned, expected, atol=2e-4)


@pytest.mark.parametrize("members", [1, 3, UNROLLED + 1])
def test_each_member(members):
    conv = of_kind("forward", (2, 5, 5, 3), (3, 3, 3, 4), padding="SAME")
    rng = np.random.default_rng(0)
    lhs, rhs = (
        jnp.asarray(rng.normal(size=(members, *shape)), jnp.float32)
        for shape in (conv.lhs_shape, conv.rhs_shape)
    )
    one = functools.partial(stock.apply, conv)
    expected = [one(a, b) for a, b in zip(lhs, rhs, strict=True)]
    found = jax.jit(lambda lhs, rhs: each_member(lhs, rhs, one))(lhs, rhs)
    np.testing.assert_allclose(found, jnp.stack(expected), atol=1e-5)


def test_weights_do_not_see_what_no_window_meets():
    """Windows by step 2 meet 22 of 23 rows; strips for 11 windows reach beyond them."""
    conv = of_kind(
        "weights",
        (1, 23, 9, 2),
        (2, 2, 1, 2),
        padding="VALID",
        window_strides=(2, 2),
        feature_group_count=2,
    )
    lhs, rhs = (jnp.asarray(x, jnp.float32) for x in operands(conv))
    lhs = lhs.at[:, -1].set(jnp.inf).at[:, :, -1].set(jnp.inf)
    assert jnp.isfinite(tap_sums.apply(conv, lhs, rhs)).all()


def test_what_does_not_fit():
    dense = of_kind("forward", (2, 5, 5, 16), (3, 3, 16, 4), padding="SAME")
    options = {"padding": "SAME", "feature_group_count": 4}
    empty = of_kind("forward", (0, 5, 5, 4), (3, 3, 1, 4), **options)
    whole = of_kind("forward", (2, 5, 5, 4), (3, 3, 1, 4), jnp.int32, **options)
    large = of_kind("forward", (2, 40, 40, 4), (31, 31, 1, 4), **options)
    for conv in (dense, empty, whole, large):
        assert not shifted.fits(conv)
        assert not tap_sums.fits(conv)
    pairs = of_kind("weights", (2, 5, 5, 8), (3, 3, 2, 4), **options)
    assert not tap_sums.fits(pairs)
    assert not each_group.fits(dense)


RESNEXT = ((16, 28, 28, 256), (3, 3, 8, 256))
MOBILENET = ((16, 14, 14, 512), (3, 3, 1, 512))
WIDE = ((16, 56, 56, 96), (31, 31, 1, 96))
PAIRS = ((16, 28, 28, 128), (3, 3, 2, 128))
VOLUMES = ((32, 13, 11, 4, 16), (4, 4, 4, 8, 32))
FEATURES = ((8, 22, 32, 4), (5, 5, 1, 128))  # 32 of each channel, 25 terms
TINY = ((1, 4, 4, 8), (3, 3, 2, 8))


@pytest.mark.parametrize(
    ("shapes", "groups", "names"),
    [
        (MOBILENET, 512, ("shifted", "shifted", "tap_sums")),
        (RESNEXT, 32, ("each_group",) * 3),
        (WIDE, 96, ("each_group",) * 3),  # 961 expressions would take minutes to compile
        (PAIRS, 64, ("shifted", "shifted", "each_group")),
        (TINY, 4, ("stock",) * 3),
        (VOLUMES, 2, ("stock",) * 3),
        (FEATURES, 4, ("stock", "each_group", "tap_sums")),
        (((8, 9, 9, 1), (3, 3, 1, 4)), 1, ("stock",) * 3),
    ],
)
def test_rule(shapes, groups, names):
    """Forward, input gradient, weight gradient."""
    convs = [of_kind(kind, *shapes, padding="SAME", feature_group_count=groups) for kind in KINDS]
    assert tuple(map(grouped, convs)) == names


def test_images_spread_by_zeros_are_not_left_to_xlas_loop():
    """The input gradients of strided convolutions, of two groups and in three dimensions."""
    for shapes in (VOLUMES, ((1, 19, 10, 128), (7, 7, 64, 2))):
        strided = of_kind(
            "input",
            *shapes,
            padding="SAME",
            window_strides=(2,) * (len(shapes[0]) - 2),
            feature_group_count=2,
        )
        assert grouped(strided) in ("shifted", "each_group")
