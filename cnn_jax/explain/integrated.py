"""Integrated gradients: what each pixel adds on the way from a baseline to the image."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.special import roots_legendre

from cnn_jax.errors import ModelError
from cnn_jax.explain.answers import Answers, answer_of, working_dtype
from cnn_jax.explain.chunks import AT_ONCE, add_up, cut

FIRST = 16  # steps that "auto" begins with


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["attributions", "gap", "steps"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class IntegratedGradients:
    """Attributions, and how far they are from adding up.

    Attributes:
      attributions: `[B, H, W, C]`, signed, in logits; float32, or float64 for images that are.
      gap: `[B]`, |sum A - (f(x) - f(x'))| / |f(x) - f(x')|: what is left of completeness. Where
        f(x) and f(x') are equal, but for rounding, it is over sum |A|, and 0 if that is 0.
      steps: int32, nodes on the path.
    """

    attributions: jax.Array
    gap: jax.Array
    steps: jax.Array


def integrated_gradients(
    logits: Answers,
    image: jax.Array,
    target: jax.Array,
    *,
    baseline: jax.Array | float = 0.0,
    steps: int | Literal["auto"] = 64,
    tolerance: float = 0.01,
    most: int = 1024,
    at_once: int = AT_ONCE,
) -> IntegratedGradients:
    """A = (x - x') times the integral over a from 0 to 1 of df/dx at x' + a (x - x').

    Sundararajan et al. 2017. They are complete: sum A = f(x) - f(x'). Networks that compute the
    same function have the same ones, and a pixel that f does not look at has 0. Of a network of
    ReLUs without biases, with x' = 0, they are `gradient_times_input`.

    The integral is taken at the n nodes of Gauss and Legendre, exact where f is a polynomial of
    at most degree 2n along the path. The gradient of a ReLU network jumps along it, and there
    the gap falls about as 1 / n: look at `gap`, or take `steps="auto"`.

    Pure, and may be jitted, with "auto" too.

    Args:
      logits: `[B, H, W, C]` to `[B, K]`; in evaluation, so that an image answers for itself.
      image: float `[B, H, W, C]`, as `logits` takes it.
      target: int32 `[B]`, the class of each image.
      baseline: x', a value or an array that broadcasts to the images: `[C]`, `[H, W, C]`,
        `[B, H, W, C]`; 0 is the mean of images that are normalised.
      steps: n; or "auto", which doubles it, from 16 on, until the largest gap of the images is
        at most `tolerance`, or n is `most`. It does not fail there: the gap says how it ended.
        Reverse mode does not go through "auto".
      tolerance, most: of "auto".
      at_once: images that `logits` is given at the same time, but for B if that is more.

    Raises:
      ModelError: images, targets or logits of another shape or kind, a class that is none (NaN
        under `jit`), a baseline that does not broadcast, or no steps.
    """
    answer = answer_of(logits, image, target)
    counts = _counts(steps, most)
    dtype = working_dtype(image)
    start = _baseline(baseline, image).astype(dtype)
    way = image.astype(dtype) - start
    ends = answer(image), answer(start.astype(image.dtype))
    change = ends[0] - ends[1]

    batch = image.shape[0]
    _, size = cut(counts[0], batch, at_once)
    places, shares, firsts, chunks = _table(counts, size)
    at, weight = (jnp.asarray(each, dtype) for each in (places, shares))

    def terms(indices: jax.Array) -> jax.Array:
        path = start[None] + at[indices][:, None, None, None, None] * way[None]
        x = path.reshape(-1, *image.shape[1:]).astype(image.dtype)
        weights = jnp.repeat(weight[indices], batch)
        found = jax.grad(lambda x: (weights * answer(x)).sum())(x)
        return found.astype(dtype).reshape(path.shape).sum(axis=0)

    def measured(attributions: jax.Array) -> jax.Array:
        left = jnp.abs(attributions.sum(axis=(1, 2, 3)) - change)
        rounding = 4 * jnp.finfo(dtype).eps * jnp.maximum(*map(jnp.abs, ends))
        mass = jnp.abs(attributions).sum(axis=(1, 2, 3))
        over = jnp.where(jnp.abs(change) > rounding, jnp.abs(change), mass)
        return jnp.where(left == 0, 0, left / jnp.where(left == 0, 1, over))

    if len(counts) == 1:
        attributions = way * add_up(terms, int(chunks[0]), size, int(firsts[0]))
        return IntegratedGradients(attributions, measured(attributions), jnp.int32(counts[0]))

    def going_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        level, _, gap = state
        return (level == 0) | ((level < len(counts)) & (gap.max() > tolerance))

    def finer(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        level = state[0]
        number, first = (jnp.asarray(each, jnp.int32)[level] for each in (chunks, firsts))
        attributions = way * add_up(terms, number, size, first)
        return level + 1, attributions, measured(attributions)

    begin = jnp.int32(0), jnp.zeros_like(way), jnp.zeros_like(change)
    level, attributions, gap = lax.while_loop(going_on, finer, begin)
    return IntegratedGradients(attributions, gap, jnp.asarray(counts, jnp.int32)[level - 1])


def _counts(steps: int | Literal["auto"], most: int) -> tuple[int, ...]:
    """The numbers of steps to try, one after the other."""
    if steps != "auto":
        if isinstance(steps, str) or steps < 1:
            raise ModelError(f"steps={steps!r} must be 'auto' or a number, at least 1")
        return (steps,)
    if most < 1:
        raise ModelError(f"most={most} steps must be at least 1")
    counts = [FIRST]
    while counts[-1] < most:
        counts.append(2 * counts[-1])
    return (*counts[:-1], most)


def _table(counts: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Nodes and weights on [0, 1] of all numbers of steps, where each begins, and its chunks.

    Those of a number are filled up to whole chunks with nodes in the middle that weigh nothing.
    """
    places: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    firsts: list[int] = []
    chunks: list[int] = []
    for count in counts:
        firsts.append(sum(len(each) for each in places))
        chunks.append(-(-count // size))
        filling = chunks[-1] * size - count
        nodes, weights = _legendre(count)
        places.append(np.pad((nodes + 1) / 2, (0, filling), constant_values=0.5))
        shares.append(np.pad(weights / 2, (0, filling)))
    return np.concatenate(places), np.concatenate(shares), firsts, chunks


@functools.lru_cache(maxsize=64)
def _legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss and Legendre on [-1, 1], float64."""
    nodes, weights = roots_legendre(count)
    return np.asarray(nodes), np.asarray(weights)


def _baseline(baseline: jax.Array | float, image: jax.Array) -> jax.Array:
    """A baseline for each image."""
    value = jnp.asarray(baseline, image.dtype)
    try:
        return jnp.broadcast_to(value, image.shape)
    except ValueError as error:
        raise ModelError(
            f"a baseline {list(value.shape)} does not broadcast to images {list(image.shape)}: "
            "give a value, [C], [H, W, C] or [B, H, W, C]"
        ) from error
