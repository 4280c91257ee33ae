"""Detectors on maps of features: where an image differs from normal ones, and how far.

A map `[h, w, D]` has a feature of D channels for each of h x w patches of an image. Detectors
are fitted on maps of normal images only. `score_maps` gives a score for each patch and `score`
one for the image, higher for what is more anomalous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from cnn_jax import ops
from cnn_jax.anomaly.coreset import PROJECTED, greedy_coreset
from cnn_jax.anomaly.inputs import check_maps
from cnn_jax.anomaly.neighbours import blocks, nearest
from cnn_jax.errors import DataError


def embed(maps: Sequence[Any], neighbourhood: int = 3) -> np.ndarray:
    """Feature maps of several layers as one, each patch seeing its neighbourhood.

    Each map is averaged over windows of `neighbourhood` x `neighbourhood` patches, where what lies
    beyond the border counts as zero (PatchCore; Roth et al. 2022, eq. 1-2 with the mean, and the
    padding of published implementations); then it is resized bilinearly to the size of the
    first, and all are put side by side.

    Args:
      maps: of the same N images, floating `[N, h_i, w_i, D_i]`, the finest first.
      neighbourhood: side of the window, odd; 1 for none.

    Returns:
      float32 `[N, h, w, D]`, h and w of the first map, D the sum of the D_i.

    Raises:
      DataError: no maps, other numbers of images, features that are not finite, or a window
        without a middle.
    """
    if not maps:
        raise DataError("no feature maps to put together: give those of one layer or more")
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise DataError(f"a neighbourhood of {neighbourhood} has no middle: give 1, 3, 5, ..")
    found = [check_maps(one, f"layer {i}").astype(np.float32) for i, one in enumerate(maps)]
    if len({len(one) for one in found}) > 1:
        raise DataError(
            f"maps of {', '.join(str(len(one)) for one in found)} images: give those of the same "
            "images from each layer"
        )
    n, h, w, _ = found[0].shape
    channels = sum(one.shape[-1] for one in found)
    out = np.empty((n, h, w, channels), np.float32)
    for rows in blocks(n, 2 * h * w * channels):
        parts = [_averaged(one[rows], neighbourhood, (h, w)) for one in found]
        out[rows] = np.concatenate([np.asarray(part) for part in parts], axis=-1)
    return out


@partial(jax.jit, static_argnums=(1, 2))
def _averaged(maps: jax.Array, side: int, size: tuple[int, int]) -> jax.Array:
    if side > 1:
        border = (side // 2, side // 2)
        maps = ops.avg_pool(maps, (side, side), padding=(border, border))
    shape = (maps.shape[0], *size, maps.shape[-1])
    # No anti-aliasing: maps that are larger than the first are sampled, as elsewhere.
    return jax.image.resize(maps, shape, "bilinear", antialias=False)


@dataclass(frozen=True, eq=False)
class Padim:
    """A Gaussian for each position of a map (PaDiM; Defard et al. 2021).

    Attributes:
      channels: int64 `[d]`, ascending, those that were drawn.
      shape: h, w and D of the maps it was fitted on.
      mean: float64 `[h, w, d]`.
      factor: float64 `[h, w, d, d]`, lower triangular, L of each covariance L Lᵀ: 8 h w d² bytes.
    """

    channels: np.ndarray
    shape: tuple[int, int, int]
    mean: np.ndarray
    factor: np.ndarray

    def score_maps(self, maps: Any) -> np.ndarray:
        """sqrt((x - μ)ᵀ Σ⁻¹ (x - μ)) at each position, float64 `[M, h, w]` (§ 3.3).

        Args:
          maps: floating `[M, h, w, D]`, as those it was fitted on.

        Raises:
          DataError: maps of another shape, or features that are not finite.
        """
        x = check_maps(maps, "the images to score", self.shape)
        h, w, _ = self.shape
        d = len(self.channels)
        out = np.empty(x.shape[:3])
        for rows in blocks(len(x), 4 * h * w * d):
            centred = np.moveaxis(x[rows][..., self.channels] - self.mean, 0, -1)
            white = _solved(self.factor.reshape(-1, d, d), centred.reshape(h * w, d, -1))
            out[rows] = np.sqrt(np.einsum("pdm,pdm->mp", white, white)).reshape(-1, h, w)
        return out

    def score(self, maps: Any, /) -> np.ndarray:
        """The largest score of a map, float64 `[M]`; as `score_maps`."""
        return self.score_maps(maps).max(axis=(1, 2))


def fit_padim(maps: Any, *, channels: int = 100, epsilon: float = 0.01, seed: int = 0) -> Padim:
    """Mean and covariance of the features of normal images at each position.

    Σ = Σ_n (x_n - μ)(x_n - μ)ᵀ / (N - 1) + ε I (eq. 1), of d channels drawn at random, which
    serve about as well as all of them or their principal components (§ 4.1 and 5.1 there).

    Args:
      maps: floating `[N, h, w, D]` of normal images, N >= 2, such as of `embed`.
      channels: d, how many channels are drawn; all where there are no more.
      epsilon: what is added to each variance, in squared units of the features.
      seed: of the draw.

    Raises:
      DataError: fewer than two images, features that are not finite, or channels or epsilon not
        positive.
    """
    x = check_maps(maps, "the normal images")
    n, h, w, dimensions = x.shape
    if n < 2:
        raise DataError("one normal image shows no variance: give two or more")
    if channels < 1 or not epsilon > 0:
        raise DataError(f"channels = {channels} and epsilon = {epsilon} must be positive")
    d = min(channels, dimensions)
    drawn = np.sort(np.random.default_rng(seed).choice(dimensions, d, replace=False))
    mean, factor = np.empty((h * w, d)), np.empty((h * w, d, d))
    positions = x.reshape(n, h * w, dimensions)
    for some in blocks(h * w, 4 * (n * d + d * d)):
        # [positions, N, d]: a position's images next to each other.
        here = np.moveaxis(positions[:, some][..., drawn], 0, 1).astype(np.float64, order="C")
        mean[some] = here.mean(axis=1)
        here -= mean[some, np.newaxis]
        covariance = np.swapaxes(here, 1, 2) @ here / (n - 1)
        covariance += epsilon * np.eye(d)
        factor[some] = np.linalg.cholesky(covariance)
    return Padim(drawn, (h, w, dimensions), mean.reshape(h, w, d), factor.reshape(h, w, d, d))


def _solved(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """L⁻¹ b of each lower triangular L `[P, d, d]` and b `[P, d, M]`, float64.

    Forward substitution, a row of all positions at a time: a call of a library for each position
    waits longer for its threads than it computes.
    """
    found = np.array(right)
    for row in range(right.shape[1]):
        known = factor[:, row : row + 1, :row] @ found[:, :row]
        found[:, row] -= known[:, 0]
        found[:, row] /= factor[:, row, row, np.newaxis]
    return found


@dataclass(frozen=True, eq=False)
class PatchCore:
    """Distances to a memory of normal patches (Roth et al. 2022).

    Attributes:
      memory: float `[K, D]`.
      positions: int64 `[K]`, which patches of the normal images were remembered, in row-major
        order of image, row and column.
      neighbours: b of the paper's re-weighting of the image score; None for none.
    """

    memory: np.ndarray
    positions: np.ndarray
    neighbours: int | None

    def score_maps(self, maps: Any) -> np.ndarray:
        """The distance of each patch to the nearest remembered one, float64 `[M, h, w]`; exact.

        Args:
          maps: floating `[M, h, w, D]`; of any height and width.

        Raises:
          DataError: another number of channels, or features that are not finite.
        """
        return self._nearest(maps)[0]

    def score(self, maps: Any, /) -> np.ndarray:
        """The score of the most anomalous patch, float64 `[M]` (eq. 6).

        With `neighbours` b it is re-weighted (eq. 7): with m the most anomalous patch, m* its
        nearest in the memory, and N_b(m*) the b nearest of the memory to m*, itself among them,

            score = (1 - exp ||m - m*|| / Σ_{m' in N_b(m*)} exp ||m - m'||) ||m - m*||.

        Less is taken off where the neighbours of m* are far from m: where m* is itself rare. The
        exponentials make that depend on the units of the features; where distances are large it
        nears 1 or takes nearly all.

        Raises:
          DataError: as `score_maps`.
        """
        distances, found, x = self._nearest(maps)
        flat = distances.reshape(len(x), -1)
        worst, images = flat.argmax(axis=1), np.arange(len(x))
        largest = flat[images, worst]
        if self.neighbours is None:
            return largest
        patches = x.reshape(len(x), -1, x.shape[-1])[images, worst].astype(np.float64)
        closest = found.reshape(len(x), -1)[images, worst]
        around = nearest(self.memory[closest], self.memory, self.neighbours)[1]
        # Of copies of m* any may come first; it is itself one of the b in any case.
        absent = ~(around == closest[:, np.newaxis]).any(axis=1)
        around[absent, 0] = closest[absent]
        apart = self.memory[around] - patches[:, np.newaxis]
        further = np.sqrt(np.einsum("mbd,mbd->mb", apart, apart)) - largest[:, np.newaxis]
        # The share of m*, with the common factor exp ||m - m*|| taken out of the sum: no other
        # is nearer, so that further >= 0 and only e^0 .. e^∞ are left; 1 / ∞ is 0.
        with np.errstate(over="ignore"):
            share = 1 / np.exp(np.maximum(further, 0)).sum(axis=1)
        return (1 - share) * largest

    def _nearest(self, maps: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distances and positions in the memory `[M, h, w]`, and the checked maps."""
        x = check_maps(maps, "the images to score")
        d = self.memory.shape[1]
        check_maps(x, "the images to score", (*x.shape[1:3], d))
        distances, found = nearest(x.reshape(-1, d), self.memory)
        return distances.reshape(x.shape[:3]), found.reshape(x.shape[:3]), x


def fit_patchcore(
    maps: Any,
    *,
    share: float = 0.1,
    projected: int | None = PROJECTED,
    neighbours: int | None = None,
    seed: int = 0,
) -> PatchCore:
    """Remember a coreset of the patches of normal images: see `greedy_coreset`.

    Args:
      maps: floating `[N, h, w, D]` of normal images, such as of `embed`.
      share: of the patches to remember, rounded down but at least one; 1 for all, without a
        search. The paper has 0.25, 0.1 and 0.01.
      projected: dimensions in which the coreset is searched; None for an exact search.
      neighbours: b of the image score's re-weighting, 2 or more; None for none. With fewer
        patches in the memory it is so many.
      seed: of the search.

    Raises:
      DataError: features that are not finite, or share, projected or neighbours out of range.
    """
    x = check_maps(maps, "the normal images")
    if not 0 < share <= 1:
        raise DataError(f"a share of the patches is above 0 and at most 1, not {share}")
    if neighbours is not None and neighbours < 2:
        raise DataError(f"re-weighting needs 2 neighbours or more, not {neighbours}")
    patches = x.reshape(-1, x.shape[-1])
    size = max(1, int(share * len(patches) + 1e-9))
    if neighbours is not None and size < 2:
        raise DataError(f"re-weighting needs a memory of 2 patches or more, not {size}")
    if size == len(patches):
        positions = np.arange(size)
    else:
        positions = greedy_coreset(patches, size, projected=projected, seed=seed).positions
    b = None if neighbours is None else min(neighbours, size)
    return PatchCore(patches[positions], positions, b)
