"""Retrieval: how many of the images nearest to an image show the same product, or person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.embedding_predictions import EmbeddingPredictions
from cnn_jax.evaluation.estimate import Estimate
from cnn_jax.evaluation.intervals import bootstrap
from cnn_jax.evaluation.templates import unit_embeddings
from cnn_jax.evaluation.weighted import mean_statistic

# 32 MB of float64 at a time.
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Retrieved:
    """What the search for each image found.

    Attributes:
      queries: positions of the images that were searched for: those of which there is another.
      relevant: int64 `[Q]`: R, how many others there are.
      precision_at_1, r_precision, map_at_r: float64 `[Q]`, of each search.
    """

    queries: np.ndarray
    relevant: np.ndarray
    precision_at_1: np.ndarray
    r_precision: np.ndarray
    map_at_r: np.ndarray


def retrieve(
    predictions: EmbeddingPredictions, gallery: EmbeddingPredictions | None = None
) -> Retrieved:
    """Search for each image, by cosine, among all others, or in a gallery.

    Of equal cosines those of other subjects come first, so that a network that cannot tell images
    apart gains nothing by it.

    Args:
      predictions: the images that are searched for.
      gallery: what is searched, such as one image for each product; None for the same images, less
        the one that is searched for.

    Raises:
      EvaluationError: an embedding of no length, dimensions that differ, or no image of whose
        subject there is another.
    """
    unit = unit_embeddings(predictions.embeddings)
    known = predictions if gallery is None else gallery
    others = unit if gallery is None else unit_embeddings(known.embeddings)
    if unit.shape[1] != others.shape[1]:
        raise EvaluationError(
            f"embeddings of {unit.shape[1]} and of {others.shape[1]} dimensions are not of one "
            "network"
        )
    same_place = gallery is None
    subjects, count = np.unique(known.subjects, return_counts=True)
    how_many = dict(zip(subjects.tolist(), count.tolist(), strict=True))
    relevant = np.array([how_many.get(name, 0) - same_place for name in predictions.subjects])
    queries = np.flatnonzero(relevant > 0)
    if not len(queries):
        raise EvaluationError(
            f"no image of {predictions.split!r} has another of the same subject to be found"
        )
    figures = np.zeros((3, len(queries)))
    chunk = max(1, _NUMBERS_AT_ONCE // len(others))
    for start in range(0, len(queries), chunk):
        rows = queries[start : start + chunk]
        cosine = np.round(unit[rows] @ others.T, 12)
        if same_place:
            cosine[np.arange(len(rows)), rows] = -np.inf
        own = predictions.subjects[rows, np.newaxis] == known.subjects
        figures[:, start : start + len(rows)] = _figures(cosine, own, relevant[rows])
    return Retrieved(queries, relevant[queries], *figures)


def _figures(cosine: np.ndarray, own: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """float64 `[3, Q]`: precision at 1, R-precision and MAP@R."""
    most = int(relevant.max())
    # By cosine, and of equal ones those of others first.
    order = np.lexsort((own, -cosine), axis=1)[:, :most]
    hit = np.take_along_axis(own, order, axis=1).astype(np.float64)
    place = np.arange(1, most + 1)
    counted = place <= relevant[:, np.newaxis]
    hit *= counted
    precision = np.cumsum(hit, axis=1) / place
    return np.stack(
        [hit[:, 0], hit.sum(axis=1) / relevant, (precision * hit).sum(axis=1) / relevant]
    )


def retrieval_metrics(
    predictions: EmbeddingPredictions,
    gallery: EmbeddingPredictions | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Means over the images that are searched for, with intervals over subjects.

    R of a search is the number of images there are to be found. `precision_at_1` is the share of
    searches whose first image is right; `r_precision` the share of right ones among the first R;
    `map_at_r` (Musgrave et al. 2020) the mean over the first R places of the precision up to there
    where that one is right, and 0 where it is wrong: unlike R-precision it is higher where right
    ones come first.

    Args:
      predictions, gallery: see `retrieve`.
      level, resamples, seed: of the bootstrap, which draws subjects; the gallery stays.

    Raises:
      EvaluationError: see `retrieve`.
    """
    found = retrieve(predictions, gallery)
    values = {
        "precision_at_1": found.precision_at_1,
        "r_precision": found.r_precision,
        "map_at_r": found.map_at_r,
    }
    return bootstrap(
        {name: mean_statistic(each) for name, each in values.items()},
        len(found.queries),
        predictions.subjects[found.queries],
        level=level,
        resamples=resamples,
        seed=seed,
    )
