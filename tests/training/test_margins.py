"""Margins against mpmath, PyTorch in float64, and what the formulas promise."""

import functools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import QUICK

from cnn_jax.errors import ModelError, RecipeError
from cnn_jax.training.margins import Margin, adaface, angles, magface, margin_logits, norm_of

RNG = np.random.default_rng(0)
# SphereFace twice, CosFace, ArcFace, and any at once.
MARGINS = [(1, 0, 0), (1.35, 0, 0), (4, 0, 0), (1, 0, 0.35), (1, 0.5, 0), (0.9, 0.4, 0.15)]
MARGINS += [(2.7, 0.3, 0.1)]
GRID = np.linspace(0, math.pi, 401).astype(np.float32)
ROWS, SIZE = len(MARGINS) * 7, 5


@functools.partial(jax.jit, compiler_options=QUICK)
def psi_of(m):
    """psi on the grid."""
    theta = jnp.asarray(GRID)
    return Margin(*m)(theta, math.pi - theta)


@jax.jit
def slopes_of_all(x, w, m):
    def total(x, w):
        angle = angles(x, w)
        psi = Margin(*m)(*angle)
        return psi.sum(), (*angle, psi)

    (gx, gw), found = jax.grad(total, (0, 1), has_aux=True)(x, w)
    return *found, gx, gw


def slopes(x, w, m):
    """Angle, its supplement, psi, and its gradients, of each row; compiled for one shape."""
    rows, size = x.shape
    more = ((0, ROWS - rows), (0, SIZE - size))
    m = [np.pad(np.broadcast_to(np.float32(v), rows), more[0], constant_values=1) for v in m]
    found = slopes_of_all(np.pad(x, more), np.pad(w, more), tuple(m))
    *scalars, gx, gw = map(np.asarray, found)
    return *(v[:rows] for v in scalars), gx[:rows, :size], gw[:rows, :size]


def pairs(theta, size=SIZE):
    """Vectors of many lengths at these angles, up to rounding."""
    x = RNG.normal(size=(len(theta), size))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    across = RNG.normal(size=x.shape)
    across -= (across * x).sum(axis=1, keepdims=True) * x
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    w = np.cos(theta)[:, None] * x + np.sin(theta)[:, None] * across
    x, w = (v * 10 ** RNG.uniform(-3, 3, (len(theta), 1)) for v in (x, w))
    return x.astype(np.float32), w.astype(np.float32)


def exact_psi(x, w, m):
    """In 50 digits, from the definition."""
    m1, m2, m3 = m
    x, w = mpmath.matrix(x), mpmath.matrix(w)
    cosine = (x.T * w)[0] / mpmath.norm(x) / mpmath.norm(w)
    phi = m1 * mpmath.acos(cosine) + m2
    k = mpmath.floor(phi / mpmath.pi)
    return (-1) ** k * mpmath.cos(phi) - 2 * k - m3


def exact_gradient(x, w, m):
    """Central differences of both vectors."""
    found = []
    for which, vector in enumerate((x, w)):
        h = mpmath.norm(mpmath.matrix(vector)) * mpmath.mpf(10) ** -18
        gradient = []
        for place in range(len(vector)):
            ends = []
            for sign in (1, -1):
                moved = list(vector)
                moved[place] += sign * h
                ends.append(exact_psi(*((moved, w) if which == 0 else (x, moved)), m))
            gradient.append(float((ends[0] - ends[1]) / (2 * h)))
        found.append(gradient)
    return found


def test_gradients_are_exact_down_to_a_thousandth_of_a_radian_from_the_poles():
    theta = np.array([1e-3, math.pi - 1e-3, 3e-3, math.pi - 0.02, 0.4, 1.3, 2.3])
    theta, margins = np.repeat(theta, len(MARGINS)), np.tile(MARGINS, (len(theta), 1))
    x, w = pairs(theta)
    m = margins.T.astype(np.float32)
    _, _, psi, gx, gw = slopes(x, w, m)
    assert np.isfinite(gx).all() and np.isfinite(gw).all()
    worst = 0.0
    with mpmath.workdps(50):
        for row in range(len(theta)):
            own = [mpmath.mpf(float(v)) for v in m[:, row]]
            vectors = [[mpmath.mpf(float(v)) for v in of[row]] for of in (x, w)]
            assert abs(psi[row] - float(exact_psi(*vectors, own))) < 1e-6
            for found, expected in zip((gx, gw), exact_gradient(*vectors, own), strict=True):
                error = np.linalg.norm(found[row] - np.array(expected))
                worst = max(worst, error / np.linalg.norm(expected))
    assert worst <= 1e-5  # 1.6e-6 was measured


def test_the_gradient_goes_to_its_limit_where_plain_autodiff_has_none():
    for theta in (1e-5, 1e-7):
        x = np.array([[3.0, 0.0, 0.0]], np.float32)
        w = np.array([[2.0, 2 * theta, 0.0]], np.float32)
        *_, gx, gw = slopes(x, w, (1, 0.5, 0))
        # sin(theta + m) / |x|, towards the centre.
        np.testing.assert_allclose(gx[0], [0, math.sin(theta + 0.5) / 3, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gw[0, 1], -math.sin(theta + 0.5) / 2, rtol=1e-5)


def test_without_a_direction_the_gradient_is_zero():
    x = np.array([[3, 1, 2], [3, 1, 2], [0.3, 0.1, 0.7], [0, 0, 0], [1, 2, 3], [1e-31, 0, 0]])
    w = np.array([[3, 1, 2], [-6, -2, -4], [0.9, 0.3, 2.1], [1, 2, 3], [0, 0, 0], [1, 1, 1]])
    x, w = x.astype(np.float32), w.astype(np.float32)
    w[2] = x[2] * np.float32(4)
    theta, supplement, psi, gx, gw = slopes(x, w, (1, 0.5, 0.1))
    expected = np.array([0, math.pi, 0, math.pi / 2, math.pi / 2, math.pi / 2])
    np.testing.assert_allclose(theta, expected, atol=1e-7)
    np.testing.assert_allclose(supplement, math.pi - expected, atol=3e-7)
    assert not np.any(gx) and not np.any(gw)
    np.testing.assert_allclose(psi[3:], math.cos(math.pi / 2 + 0.5) - 0.1, rtol=1e-6)


def test_forward_and_backward_mode_agree_and_members_of_a_population_are_alone():
    x, w = pairs(np.array([1e-3, 0.7, 3.1]))

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both_ways(x, w):
        modes = (jax.jacfwd(angles)(x, w)[0], jax.jacrev(angles)(x, w)[0])
        # Two members with the centres swapped in the second.
        members = jax.vmap(angles)(jnp.stack([x, x]), jnp.stack([w, w[::-1]]))
        return modes, members, [angles(x, w), angles(x, w[::-1])]

    (forward, backward), members, alone = both_ways(x, w)
    np.testing.assert_allclose(forward, backward, rtol=1e-5, atol=1e-9)
    for member in (0, 1):
        for found, expected in zip(members, alone[member], strict=True):
            np.testing.assert_allclose(found[member], expected, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.1, 6), st.floats(-1, 3), st.floats(-1, 1))
def test_psi_falls_without_steps_and_is_the_formula_where_the_cosine_falls(m1, m2, m3):
    psi = np.asarray(psi_of(tuple(np.float32(v) for v in (m1, m2, m3))))
    steps = np.diff(psi)
    assert (steps <= 2e-6).all() and psi[-1] < psi[0]
    assert (steps >= -m1 * np.diff(GRID) - 5e-6).all()  # the slope is -m1 |sin|
    phi = m1 * GRID.astype(np.float64) + m2
    usual = (phi >= 0) & (phi <= math.pi)
    np.testing.assert_allclose(psi[usual], np.cos(phi[usual]) - m3, atol=4e-6)


def test_the_published_margins():
    for margin, expected in [
        (Margin.sphereface(), np.cos(1.35 * GRID)),
        (Margin.cosface(), np.cos(GRID) - 0.35),
        (Margin.arcface(), np.cos(GRID + 0.5)),
    ]:
        psi = psi_of(tuple(np.float32(v) for v in (margin.m1, margin.m2, margin.m3)))
        np.testing.assert_allclose(psi[:200], expected[:200], atol=1e-6)
    with pytest.raises(RecipeError, match="m1 must be positive, not 0"):
        Margin.sphereface(0.0)


def test_adaface_and_magface_as_their_authors_compute_them():
    norm = RNG.uniform(0, 130, 12).astype(np.float32)
    valid = np.arange(12) < 9
    # AdaFace's head.py with t_alpha = 1, of the valid rows.
    cut = np.clip(norm.astype(np.float64), 1e-3, 100)
    z = (cut - cut[:9].mean()) / (cut[:9].std(ddof=1) + 1e-3)
    z = np.clip(0.333 * z, -1, 1)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def margins(norm, valid):
        clear, (quality, g) = adaface(norm, valid), magface(norm)
        return clear.m2, clear.m3, quality.m2, g

    m2, m3, quality, g = margins(norm, valid)
    np.testing.assert_allclose(m2, -0.4 * z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m3, 0.4 + 0.4 * z, rtol=1e-5, atol=1e-6)
    alone = margins(norm, np.arange(12) < 1)[0]
    assert np.isfinite(alone).all() and alone[0] == 0
    a = np.clip(norm.astype(np.float64), 10, 110)
    np.testing.assert_allclose(quality, (0.8 - 0.45) / 100 * (a - 10) + 0.45, rtol=1e-5)
    np.testing.assert_allclose(g, a / 110**2 + 1 / a, rtol=1e-5)


def test_the_norm_of_any_vector():
    x = np.array([[3, 4], [0, 0], [3e30, -4e30], [6e-30, 8e-30]], np.float32)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def both(x):
        return norm_of(x), jax.grad(lambda x: norm_of(x).sum())(x)

    norm, back = both(x)
    np.testing.assert_allclose(norm, [5, 0, 5e30, 1e-29], rtol=1e-6)
    expected = [[0.6, 0.8], [0, 0], [0.6, -0.8], [0.6, 0.8]]
    np.testing.assert_allclose(back, expected, rtol=1e-5)


@functools.partial(jax.jit, static_argnames="straight_through", compiler_options=QUICK)
def logits_and_slopes(x, centres, label, upstream, straight_through=False):
    def logits(x, centres):
        return margin_logits(x, centres, label, Margin.arcface(), straight_through=straight_through)

    found, back = jax.vjp(logits, x, centres)
    return found, *back(upstream)


@pytest.mark.parity
@pytest.mark.parametrize("straight_through", [False, True])
def test_arcface_as_in_pytorch_and_the_gradient_of_insightface(straight_through):
    torch = pytest.importorskip("torch")
    x, centres = RNG.normal(size=(6, 4)), RNG.normal(size=(3, 2, 4))
    label, upstream = np.array([0, 1, 2, 0, 1, 2]), RNG.normal(size=(6, 3))
    x, centres, upstream = (v.astype(np.float32) for v in (x, centres, upstream))

    tx, tc = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (x, centres))
    unit = torch.nn.functional.normalize
    cosine = 1 * torch.einsum("bd,ksd->bks", unit(tx, dim=1), unit(tc, dim=2)).amax(dim=2)
    index = torch.arange(6)
    if straight_through:
        # arcface_torch/losses.py: in place, where autograd does not look.
        with torch.no_grad():
            angle = cosine.arccos_()
            angle[index, label] += 0.5
            cosine.cos_()
        logits = cosine * 64
    else:
        target = torch.cos(torch.arccos(cosine[index, label]) + 0.5)
        logits = 64 * cosine.index_put((index, torch.tensor(label)), target)
    logits.backward(torch.tensor(upstream, dtype=torch.float64))

    found, gx, gc = logits_and_slopes(
        x, centres, label.astype(np.int32), upstream, straight_through=straight_through
    )
    np.testing.assert_allclose(found, logits.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gx, tx.grad, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gc, tc.grad, rtol=1e-4, atol=1e-5)


def test_a_class_is_as_near_as_its_nearest_sub_centre():
    x = np.array([[1, 0.1, 0, 0], [-0.2, 1, 0, 0]] * 3, np.float32)
    centres = np.array([[[1], [-1]], [[2], [3]], [[0], [0]]]) * np.eye(4)[[[0, 0], [1, 1], [2, 3]]]
    label, upstream = np.array([0, 1] * 3, np.int32), np.eye(3, dtype=np.float32)[[0, 1] * 3]
    found, _, back = logits_and_slopes(x, centres.astype(np.float32), label, upstream)
    np.testing.assert_allclose(found[0, 0], 64 * math.cos(math.atan(0.1) + 0.5), rtol=1e-5)
    touched = np.abs(back).max(axis=2) > 0
    assert touched.tolist() == [[True, False], [True, False], [False, False]]
    found = logits_and_slopes(x, -centres.astype(np.float32), label, upstream)
    touched = np.abs(found[2]).max(axis=2) > 0
    assert touched.tolist() == [[False, True], [True, False], [False, False]]


def test_shapes_that_do_not_fit():
    with pytest.raises(ModelError, match=r"embeddings \[2, 3\] and centres \[4, 1, 5\]"):
        margin_logits(jnp.ones((2, 3)), jnp.ones((4, 1, 5)), jnp.zeros(2, jnp.int32), Margin())
