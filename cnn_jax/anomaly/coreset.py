"""A few of many features, such that every other lies near one of them."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.anomaly.neighbours import blocks, centre_and_scale, scaled
from cnn_jax.errors import DataError

# Dimensions that PatchCore projects to before it searches.
PROJECTED = 128


@dataclass(frozen=True, eq=False)
class Coreset:
    """Features chosen one after the other, each the farthest from those before it.

    Attributes:
      positions: int64 `[K]`, in the order they were chosen; none occurs twice.
      radii: float64 `[K]`, the largest distance of any feature to the nearest of the first
        1, 2, .. K chosen, in the space that was searched; never increasing.
    """

    positions: np.ndarray
    radii: np.ndarray


def greedy_coreset(
    features: np.ndarray, size: int, *, projected: int | None = None, seed: int = 0
) -> Coreset:
    """Greedy k-centre: the covering radius is at most twice the smallest there is.

    Gonzalez (1985): from any start on, whatever is farthest from the chosen is chosen next. It
    needs size × P distances and P numbers of memory.

    Without `projected` the start is the feature nearest to their mean, and distances are of the
    features themselves, in float32: features that are equally far but for its rounding may be
    chosen in another order on another device. With it the search is that of PatchCore (Roth et
    al. 2022, alg. 1): distances are of a Gaussian random projection to so many dimensions, which
    by Johnson and Lindenstrauss (1984) keeps those of P features within a factor 1 ± e where it
    has some 8 ln(P) / e² dimensions, and the start is drawn at random. The bound of 2 is then of
    the projected distances. Where the features have no more dimensions they are not projected.

    Args:
      features: float32 or float64 `[P, D]`.
      size: how many to choose, 1..P.
      projected: dimensions to search in, such as 128; None for an exact search.
      seed: of the projection and the start.

    Raises:
      DataError: a size or a number of dimensions out of range.
    """
    count, dimensions = features.shape
    if not 1 <= size <= count:
        raise DataError(f"a coreset of {size} of {count} features: choose 1..{count}")
    if projected is not None and projected < 1:
        raise DataError(f"features are projected to 1 or more dimensions, not {projected}")
    generator = np.random.default_rng(seed)
    centre, scale = centre_and_scale(features)
    if projected is not None and projected < dimensions:
        matrix = generator.normal(size=(dimensions, projected)) / np.sqrt(projected)
        points = np.empty((count, projected), np.float32)
        for rows in blocks(count, 2 * dimensions):
            points[rows] = (features[rows] - centre) / scale @ matrix
    else:
        points = scaled(features, centre, scale)
    if projected is None:
        first = int(np.einsum("pd,pd->p", points, points, dtype=np.float64).argmin())
    else:
        first = int(generator.integers(count))
    on_device, chosen = jnp.asarray(points), jnp.asarray(first)
    squared = jnp.full(count, jnp.inf, jnp.float32)
    positions, farthest = [], []
    for _ in range(size):
        positions.append(chosen)
        squared, chosen, largest = _add_centre(on_device, squared, chosen)
        farthest.append(largest)
    # Nothing is fetched before the end, so that the device never waits for the host.
    radii = scale * np.sqrt(np.maximum(np.array(jax.device_get(farthest), np.float64), 0))
    return Coreset(np.array(jax.device_get(positions), np.int64), radii)


@jax.jit
def _add_centre(
    points: jax.Array, squared: jax.Array, centre: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Squared distances to the nearest centre, with one more; the farthest point, and how far.

    Those of centres are -1, so that none is chosen again, even where only copies are left. The
    differences are squared and summed: |a|² - 2 a·b + |b|² would not be 0 for a copy.
    """
    new = ((points - points[centre][jnp.newaxis]) ** 2).sum(axis=1)
    squared = jnp.minimum(squared, new).at[centre].set(-1)
    farthest = squared.argmax()
    return squared, farthest, squared[farthest]
