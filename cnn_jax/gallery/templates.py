"""From embeddings to templates: unit vectors, each with a quality, and their weighted mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cnn_jax.anomaly.neighbours import blocks
from cnn_jax.errors import DataError
from cnn_jax.evaluation import unit_embeddings

# Of the sum of weights: a mean that is shorter points nowhere but where rounding errors do.
SHORTEST = 1e-4


def unit_and_quality(
    embeddings: np.ndarray, dimension: int, quality: Sequence[float] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Directions of embeddings, and how much each is to count.

    Args:
      embeddings: floating `[N, D]`, N >= 1.
      dimension: D.
      quality: positive `[N]`; None for the length of each embedding, which margin losses such as
        MagFace (Meng et al. 2021) make grow with the quality of the image.

    Returns:
      float32 `[N, D]` of unit length, and float64 `[N]`.

    Raises:
      DataError: another shape or dtype, no embeddings, or a quality that is not positive.
      EvaluationError: an embedding that is not finite or zero.
    """
    x = np.asarray(embeddings)
    if x.ndim != 2 or x.dtype.kind != "f":
        raise DataError(
            f"embeddings are {x.dtype} {list(x.shape)}, not float32 [N, {dimension}]: give one "
            "vector for each image"
        )
    if not len(x):
        raise DataError("no images: give one or more")
    if x.shape[1] != dimension:
        raise DataError(
            f"embeddings have {x.shape[1]} numbers, and those of the gallery {dimension}: they are "
            "of another model"
        )
    units = np.empty(x.shape, np.float32)
    lengths = np.empty(len(x))
    for rows in blocks(len(x), 4 * dimension):
        exact = unit_embeddings(x[rows])
        units[rows] = exact
        lengths[rows] = np.einsum("nd,nd->n", exact, x[rows].astype(np.float64))
    if quality is None:
        return units, lengths
    given = np.asarray(quality, np.float64)
    if given.shape != (len(x),) or not (np.isfinite(given) & (given > 0)).all():
        raise DataError(f"quality is one positive number for each of the {len(x)} images")
    return units, given


def templates_of(units: np.ndarray, quality: np.ndarray, first: np.ndarray) -> np.ndarray:
    """One template for each identity: Σ qᵢ uᵢ / ‖Σ qᵢ uᵢ‖, summed in float64.

    With the length of embeddings for their quality, it is the direction of their plain mean.

    Args:
      units: float32 `[N, D]`, the images of an identity one after the other.
      quality: float64 `[N]`.
      first: int64 `[P]`, ascending from 0, the first image of each identity.

    Returns:
      float32 `[P, D]`, of unit length; zeros where images cancel out (see `SHORTEST`).
    """
    ends = np.append(first[1:], len(units))
    templates = np.empty((len(first), units.shape[1]), np.float32)
    most = int((ends - first).max(initial=1))
    for some in blocks(len(first), 2 * most * units.shape[1]):
        rows = slice(int(first[some][0]), int(ends[some][-1]))
        weighted = units[rows] * quality[rows, np.newaxis]
        sums = np.add.reduceat(weighted, first[some] - rows.start, axis=0)
        weights = np.add.reduceat(quality[rows], first[some] - rows.start)
        lengths = np.sqrt(np.einsum("pd,pd->p", sums, sums))
        kept = lengths > SHORTEST * weights
        # Zeros are like nobody: with a product of 0 they are no match for a threshold above it.
        templates[some] = np.where(kept, 1 / np.where(kept, lengths, 1), 0)[:, np.newaxis] * sums
    return templates


def without_each(units: np.ndarray, quality: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The template of each image's identity from its other images alone, float32 `[N, D]`.

    Arguments as of `templates_of`; zeros where there is no other image, or the others cancel out.
    """
    left = np.zeros_like(units)
    for start, end in zip(first, np.append(first[1:], len(units)), strict=True):
        if end - start < 2:
            continue
        weighted = units[start:end] * quality[start:end, np.newaxis]
        others = weighted.sum(axis=0, keepdims=True) - weighted
        weights = quality[start:end].sum() - quality[start:end]
        lengths = np.linalg.norm(others, axis=1)
        kept = lengths > SHORTEST * weights
        scale = np.where(kept, 1 / np.where(kept, lengths, 1), 0)
        left[start:end] = scale[:, np.newaxis] * others
    return left
