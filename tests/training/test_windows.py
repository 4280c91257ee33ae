"""Sliding windows against a plain loop in NumPy, and their laws."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import models
from cnn_jax.errors import ModelError
from cnn_jax.training.windows import importance, slide, window_starts

OVERLAPS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.875])


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 200), st.integers(1, 70), OVERLAPS)
def test_starts_cover_every_pixel_evenly_and_as_few_as_can(length, window, overlap):
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0 and starts[-1] == max(0, length - window)
    assert {p for s in starts for p in range(s, s + window)} >= set(range(length))
    gaps = np.diff(starts)
    step = max(1, window - math.ceil(window * overlap))
    if len(gaps):
        assert gaps.min() >= 1 and gaps.max() <= step and np.ptp(gaps) <= 1
        assert (len(gaps) - 1) * step < length - window


def test_starts_are_those_of_nnunet_and_not_of_rounding():
    assert window_starts(110, 64, 0.5) == (0, 23, 46)  # the example of its source
    assert window_starts(19, 10, 0.7) == (0, 3, 6, 9)
    assert window_starts(193, 100, 0.07) == (0, 93)
    assert window_starts(3, 2, 0.99) == (0, 1)


def test_weights_are_a_gaussian_of_an_eighth_of_the_window():
    found = importance((5, 8))
    assert found.dtype == jnp.float32
    for i, j in itertools.product(range(5), range(8)):
        z = ((i - 2) / (5 / 8)) ** 2 + ((j - 3.5) / (8 / 8)) ** 2
        assert float(found[i, j]) == pytest.approx(np.exp(-z / 2), rel=1e-5)
    for window in ((1,), (2, 3), (64, 64, 64)):
        weights = importance(window)
        assert weights.shape == window
        assert np.exp(-8 * len(window)) < weights.min() <= weights.max() <= 1


@st.composite
def problems(draw):
    rank = draw(st.sampled_from([2, 3]))
    most = 13 if rank == 2 else 7
    sides = draw(st.lists(st.integers(1, most), min_size=rank, max_size=rank))
    window = draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank))
    return tuple(sides), tuple(window), draw(OVERLAPS)


@pytest.mark.heavy
@settings(max_examples=18, deadline=None, derandomize=True)
@given(problems())
def test_what_looks_at_single_pixels_sees_no_windows(problem):
    """Whose weights therefore sum to one everywhere: the first region is one."""
    sides, window, overlap = problem

    def predict(x):
        return jnp.concatenate([jnp.ones_like(x[..., :1]), jnp.sin(3 * x)], axis=-1)

    image = images(2, *sides, 2)
    found = jax.jit(lambda x: slide(predict, x, window, overlap=overlap))(image)
    assert found.shape == (2, *sides, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, predict(image), rtol=1e-6, atol=1e-6)


def ramp(window):
    """Position-dependent weights of two regions, float64."""
    places = np.indices(window).sum(axis=0)[..., None]
    return np.concatenate([places / 10, np.cos(places)], axis=-1)


@pytest.mark.parametrize(
    ("sides", "window", "overlap"),
    [
        ((11, 14), (5, 6), 0.5),
        ((4, 14), (5, 6), 0.3),  # padded along one axis
        ((13, 3), (4, 6), 0.75),
        ((5, 9, 7), (4, 4, 3), 0.5),
        ((2, 9, 7), (5, 4, 3), 0.25),
    ],
)
def test_it_is_the_plain_loop_over_windows(sides, window, overlap):
    image = np.asarray(images(2, *sides, 1), np.float64)
    short = [max(0, w - n) for n, w in zip(sides, window, strict=True)]
    low = [n // 2 for n in short]
    pads = [(0, 0), *((a, n - a) for a, n in zip(low, short, strict=True)), (0, 0)]
    padded = np.pad(image, pads)
    total = np.zeros((*padded.shape[:-1], 2))
    weight = np.zeros(padded.shape)
    grid = [window_starts(n, w, overlap) for n, w in zip(padded.shape[1:-1], window, strict=True)]
    centred = [(np.arange(w) - (w - 1) / 2) / (w / 8) for w in window]
    gaussian = np.exp(-sum(z**2 for z in np.meshgrid(*centred, indexing="ij")) / 2)[..., None]
    for corner in itertools.product(*grid):
        box = (slice(None), *(slice(s, s + w) for s, w in zip(corner, window, strict=True)))
        total[box] += gaussian * (padded[box] * ramp(window) + ramp(window) ** 2)
        weight[box] += gaussian
    inside = (slice(None), *(slice(a, a + n) for a, n in zip(low, sides, strict=True)))
    expected = (total / weight)[inside]

    def predict(x):
        weights = jnp.asarray(ramp(window), jnp.float32)[None]
        return x * weights + weights**2

    found = jax.jit(lambda x: slide(predict, x, window, overlap=overlap))(images(2, *sides, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_one_window_over_the_image_is_the_network_bit_for_bit():
    model = models.UNet(num_classes=2, widths=(2, 3), units=1)
    image = images(1, 6, 7, 1)
    variables = models.initialize(model, jax.random.key(0), (6, 7, 1))

    def predict(x):
        return model.apply(variables, x)

    @jax.jit
    def answers(image):
        padded = jnp.pad(image, [(0, 0), (1, 1), (0, 1), (0, 0)])
        expected = predict(image), predict(padded)[:, 1:7, :7]
        return expected, tuple(slide(predict, image, window) for window in ((6, 7), (8, 8)))

    for direct, slid in zip(*answers(image), strict=True):
        np.testing.assert_array_equal(slid, direct)


def test_it_compiles_once_and_its_program_does_not_grow():
    calls = []

    def predict(x):
        calls.append(x.shape)
        return x.astype(jnp.bfloat16)

    run = jax.jit(lambda x: slide(predict, x, (4, 4)))
    programs = [run.lower(images(1, side, side, 1)).as_text() for side in (9, 90)]
    assert len({program.count("\n") for program in programs}) == 1
    assert len(calls) < 5  # to learn R, and to trace the loop
    for image in (images(1, 9, 9, 1), images(1, 9, 9, 1) + 1):
        assert run(image).dtype == jnp.float32
    assert run._cache_size() == 1 and set(calls) == {(1, 4, 4, 1)}


def test_gradients_go_through_it():
    image = images(1, 7, 9, 1)
    weight = images(1, 7, 9, 1) ** 2

    def loss(slope):
        return (weight * slide(lambda x: slope * x, image, (4, 4))).sum()

    gradient = jax.jit(jax.grad(loss))(jnp.float32(2))
    np.testing.assert_allclose(gradient, (weight * image).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        ((4,), {}, r"window=\(4,\) must have a number for each spatial axis"),
        ((4, 4, 4), {}, r"which here are \[1, 8, 8, 1\]"),
        ((4, 0), {}, r"window=\(4, 0\) must be 1 pixel or more"),
        ((), {}, "must be 1 pixel or more"),
        ((4, 4), {"overlap": 1.0}, "overlap=1.0 must be at least 0 and less than 1"),
        ((4, 4), {"overlap": -0.1}, "overlap=-0.1"),
        ((4, 4), {"overlap": math.nan}, "overlap=nan"),
    ],
)
def test_windows_that_make_no_sense_are_refused(window, options, message):
    with pytest.raises(ModelError, match=message):
        slide(lambda x: x, jnp.zeros((1, 8, 8, 1)), window, **options)


@pytest.mark.parametrize("window", [(4, 4), (8, 8)])
@pytest.mark.parametrize(
    ("predict", "made"),
    [
        (lambda x: x.mean(axis=(1, 2)), r"\[1, 1\]"),
        (lambda x: x[:, 1:], r"\[1, [37], [48], 1\]"),
        (lambda x: {"logits": x}, "no array"),
    ],
)
def test_networks_that_do_not_answer_for_every_pixel_are_refused(window, predict, made):
    with pytest.raises(ModelError, match=rf"every pixel: of .* it made {made}, not \[1, "):
        slide(predict, jnp.zeros((1, 8, 8, 1)), window)


def test_lengths_that_make_no_sense_are_refused():
    for length, window in ((0, 4), (4, 0)):
        with pytest.raises(ModelError, match=f"length={length} and window={window}"):
            window_starts(length, window, 0.5)
