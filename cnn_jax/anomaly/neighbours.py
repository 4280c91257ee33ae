"""The nearest of many features, exactly: found by matrix products, proven by a bound.

The distance of two features as a sum of squared differences is exact but slow; as
|a|² - 2 a·b + |b|² it is a matrix product, fast on any device, but in float32 the difference of
large numbers. Here the product proposes a few neighbours more than are asked for, their
distances are computed anew in float64, and the bound on the rounding of float32 says whether a
neighbour could have been missed. Where it could, as among copies, that query is searched again
by products in float64. So results do not depend on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import DataError

# 120 MB of float32 at a time.
NUMBERS_AT_ONCE = 30_000_000

# Neighbours proposed beyond those asked for, so that the bound has a gap to fit in.
_SPARE = 4

# Half a unit in the last place of float32.
_ROUNDING = 2.0**-24


def nearest(
    queries: np.ndarray, references: np.ndarray, k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest references of each query by Euclidean distance, nearest first.

    Args:
      queries: float32 or float64 `[M, D]`.
      references: float32 or float64 `[N, D]`.
      k: how many, 1..N.

    Returns:
      Distances float64 `[M, k]` and positions int64 `[M, k]` among the references. The distances
      are of full float64 precision, and they are the smallest ones but for the rounding of
      squared distances: among more neighbours than are proposed that differ by less than some
      1e-8 of the spread of the features, a farther one may be taken for the nearest. Which of
      such neighbours are taken is not promised, but it is always the same.

    Raises:
      DataError: k out of range.
    """
    n, m = len(references), len(queries)
    if not 1 <= k <= n:
        raise DataError(f"of {n} features the k nearest are wanted, and k = {k}: take 1..{n}")
    proposed = min(n, k + _SPARE)
    centre, scale = centre_and_scale(references)
    near = scaled(references, centre, scale)
    squares = _squares(near)
    on_device, squares_on_device = jnp.asarray(near), jnp.asarray(squares, jnp.float32)
    distances, positions = np.empty((m, k)), np.empty((m, k), np.int64)
    for rows in blocks(m, max(n, 4 * proposed * references.shape[1])):
        asked = scaled(queries[rows], centre, scale)
        values, found = map(np.asarray, _propose(asked, on_device, squares_on_device, proposed))
        distances[rows], positions[rows] = _refined(queries[rows], references, found, k)
        own = _squares(asked)
        # What was not proposed is at least so far away; squared, in units of the scale.
        beyond = own - values[:, -1] - _bound(own, squares.max(), references.shape[1])
        sure = np.isfinite(values).all(axis=1) & ((distances[rows, -1] / scale) ** 2 < beyond)
        if proposed < n and not sure.all():
            doubtful = np.flatnonzero(~sure) + rows.start
            distances[doubtful], positions[doubtful] = _in_float64(
                queries[doubtful], references, centre, k
            )
    return distances, positions


def blocks(count: int, numbers_each: int) -> Iterator[slice]:
    """Slices of `count` rows, each of at most `NUMBERS_AT_ONCE` numbers (or one row)."""
    size = max(1, NUMBERS_AT_ONCE // numbers_each)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@partial(jax.jit, static_argnums=3)
def _propose(
    queries: jax.Array, references: jax.Array, squares: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """2 a·b - |b|² of those for which it is largest, float32 `[B, count]`; and their positions."""
    products = jnp.matmul(queries, references.T, precision="highest")
    return jax.lax.top_k(2 * products - squares[jnp.newaxis], count)


def _bound(own: np.ndarray, largest: float, dimensions: int) -> np.ndarray:
    """By how much a squared distance of `_propose` may be off, float64 `[B]`.

    With u half a unit in the last place: rounded coordinates move a distance by u (|a| + |b|), a
    product of D terms is off by D u |a| |b| at most in whatever order it is summed (Higham 2002,
    §3.1), and the last two operations add a rounding each.
    """
    lengths, longest = np.sqrt(own), np.sqrt(largest)
    products = 2.02 * dimensions * lengths * longest
    return _ROUNDING * (products + 4 * (lengths + longest) ** 2)


def _in_float64(
    queries: np.ndarray, references: np.ndarray, centre: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` by products in float64 on the host, for the few that float32 cannot decide."""
    proposed = min(len(references), k + _SPARE)
    distances, positions = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for rows in blocks(len(queries), 2 * max(len(references), 4 * proposed * len(centre))):
        asked = queries[rows] - centre
        scores = np.empty((len(asked), len(references)))
        for some in blocks(len(references), 2 * len(centre)):
            near = references[some] - centre
            scores[:, some] = np.einsum("nd,nd->n", near, near) - 2 * asked @ near.T
        found = np.argpartition(scores, proposed - 1, axis=1)[:, :proposed]
        distances[rows], positions[rows] = _refined(queries[rows], references, found, k)
    return distances, positions


def _refined(
    queries: np.ndarray, references: np.ndarray, found: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of those found, by differences in float64; of ties the first first."""
    found = np.sort(found, axis=1)
    apart = np.subtract(references[found], queries[:, np.newaxis], dtype=np.float64)
    distances = np.sqrt(np.einsum("qcd,qcd->qc", apart, apart))
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(found, order, axis=1)


def centre_and_scale(features: np.ndarray) -> tuple[np.ndarray, float]:
    """The mean float64 `[D]` of features `[N, D]`, and how far any coordinate lies from it.

    Distances do not change with the origin, and roundings are least about the centre. The scale
    keeps squares within the range of float32. It is 1 where all features are the same.
    """
    centre = features.mean(axis=0, dtype=np.float64)
    reach = np.maximum(features.max(axis=0) - centre, centre - features.min(axis=0))
    return centre, float(reach.max()) or 1.0


def scaled(values: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """(values - centre) / scale, computed in float64 and rounded once, float32 `[N, D]`."""
    out = np.empty(values.shape, np.float32)
    with np.errstate(over="ignore"):  # an infinity is told apart later
        for rows in blocks(len(values), 2 * values.shape[1]):
            out[rows] = (values[rows] - centre) / scale
    return out


def _squares(values: np.ndarray) -> np.ndarray:
    """float64 `[N]`: squared lengths of rows float32 `[N, D]`."""
    return np.einsum("nd,nd->n", values, values, dtype=np.float64)
