"""Templates: one embedding of a subject from those of several images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation.weighted import sums_by_bin


@dataclass(frozen=True, eq=False)
class Templates:
    """A gallery: one embedding for each name.

    Attributes:
      names: str `[G]`, ascending.
      embeddings: float64 `[G, D]` of length 1.
    """

    names: np.ndarray
    embeddings: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


def unit_embeddings(embeddings: np.ndarray) -> np.ndarray:
    """float64 `[N, D]`: each row divided by its Euclidean length.

    Raises:
      EvaluationError: not two axes, or a row of length 0 or that is not finite.
    """
    rows = np.asarray(embeddings, np.float64)
    if rows.ndim != 2:
        raise EvaluationError(f"embeddings are [images, dimensions], not {list(rows.shape)}")
    # By the largest entry first: squares of float64 overflow and vanish before their roots do.
    largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    bad = ~(np.isfinite(largest) & (largest > 0))[:, 0]
    if bad.any():
        raise EvaluationError(
            f"{int(bad.sum())} of {len(rows)} embeddings, such as row {int(bad.argmax())}, are 0 "
            "or not finite and have no direction: look at the images and at the network"
        )
    scaled = rows / largest
    return np.asarray(scaled / np.linalg.norm(scaled, axis=1, keepdims=True), np.float64)


def add_flipped(embeddings: np.ndarray, flipped: np.ndarray) -> np.ndarray:
    """float64 `[N, D]`: (f(x) + f(mirrored x)) / its length, the embedding of the protocols.

    The sum comes *before* normalising: normalising each first, as is often written, weights the
    two alike, where the longer (surer) of them should count more, and is another embedding.

    Args:
      embeddings: float `[N, D]` of the images, as the network gave them, not normalised.
      flipped: float `[N, D]`, the same of the images mirrored left to right.

    Raises:
      EvaluationError: shapes that differ, or a sum of length 0 or that is not finite.
    """
    a, b = np.asarray(embeddings, np.float64), np.asarray(flipped, np.float64)
    if a.shape != b.shape:
        raise EvaluationError(
            f"embeddings {list(a.shape)} and those of mirrored images {list(b.shape)} must be of "
            "the same images"
        )
    return unit_embeddings(a + b)


def make_templates(
    embeddings: np.ndarray,
    subjects: np.ndarray,
    *,
    quality: np.ndarray | None = None,
    media: np.ndarray | None = None,
    unit_first: bool = False,
) -> Templates:
    """One template for each subject: the normalised weighted sum of its embeddings.

    By default embeddings enter as the network gave them, so that images of which it is surer
    (longer embeddings) count more, as in the protocol of IJB-B and IJB-C.

    Args:
      embeddings: float `[N, D]`.
      subjects: str `[N]`, the subject (or template id) of each.
      quality: float `[N]`, not negative: weight of each image, such as a detector's score; None
        for 1.
      media: str `[N]`: frames of the same medium (a video) of a subject are averaged first, so
        that a long video counts as one picture; None where each image is its own medium.
      unit_first: normalise each embedding before it is weighted.

    Raises:
      EvaluationError: shapes that do not fit, a negative or infinite weight, or a subject whose
        embeddings cancel or all have weight 0.
    """
    unit = unit_embeddings(embeddings)  # which also checks them
    rows = unit if unit_first else np.asarray(embeddings, np.float64)
    n, subjects = len(rows), np.asarray(subjects, np.str_)
    weights = np.ones(n) if quality is None else np.asarray(quality, np.float64)
    of_media = np.arange(n) if media is None else np.asarray(media, np.str_)
    if not subjects.shape == weights.shape == of_media.shape == (n,):
        raise EvaluationError(f"{n} embeddings need as many subjects, qualities and media")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise EvaluationError("the quality of an image is a finite number of at least 0")
    names, subject = np.unique(subjects, return_inverse=True)
    _, medium = np.unique(of_media, return_inverse=True)
    # A medium of two subjects, such as a picture of both, is one for each.
    parts, part = np.unique(np.column_stack([subject, medium]), axis=0, return_inverse=True)
    part = part.reshape(-1)
    means = sums_by_bin(part, len(parts), weights) @ rows
    means /= np.bincount(part, minlength=len(parts))[:, np.newaxis]
    sums = sums_by_bin(parts[:, 0], len(names)) @ means
    empty = np.abs(sums).max(axis=1, initial=0.0) == 0
    if empty.any():
        raise EvaluationError(
            f"the embeddings of {str(names[empty.argmax()])!r} cancel or all have quality 0: "
            "give it another image"
        )
    return Templates(names, unit_embeddings(sums))
