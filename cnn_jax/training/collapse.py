"""Have embeddings collapsed? What it looks like, and what helps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cnn_jax.errors import EvaluationError

# Mean cosine: angles of 8 degrees between images taken at random. At 0.96 a network may tell people
# apart that has not trained for long.
_SAME = 0.99
_LINE = 1.5  # effective rank
_ENOUGH = 2000  # images: more change no figure that counts, and take long


@dataclass(frozen=True)
class Collapse:
    """How far apart the embeddings of a batch lie.

    Attributes:
      mean_cosine: over all pairs; 1 where all are the same, near 0 where directions are used
        evenly.
      effective_rank: exp of the entropy of the shares of variance along the principal axes of the
        unit embeddings (Roy and Vetterli 2007); 1 on a line, D at most; 0 without variance.
    """

    mean_cosine: float
    effective_rank: float

    @property
    def one_point(self) -> bool:
        """Whether the embeddings are nearly one point."""
        return self.mean_cosine > _SAME

    @property
    def collapsed(self) -> bool:
        """Whether the embeddings are one point, or lie on a line."""
        return self.one_point or self.effective_rank < _LINE

    @property
    def message(self) -> str:
        """What was found, and what to do if it is a collapse."""
        figures = f"mean cosine {self.mean_cosine:.3f}, effective rank {self.effective_rank:.1f}"
        if self.one_point:
            return (
                f"the embeddings have collapsed to nearly one point ({figures}), where a triplet "
                "loss stays at its margin: mine semi-hard triplets or all of them instead of hard "
                "ones, lower the learning rate or warm up longer, put more images of more classes "
                "in a batch, or begin with a margin softmax"
            )
        if self.effective_rank < _LINE:
            return (
                f"the embeddings lie on a line ({figures}), which is right for two classes only: "
                "end the network in batch norm, take a margin softmax, or more classes in a batch"
            )
        return f"the embeddings have not collapsed ({figures})"


def collapse_notes(embeddings: np.ndarray, people: np.ndarray) -> list[str]:
    """What to say of a network that ends so, or nothing.

    Two people whom it tells apart lie on a line, as they should: of these only one point counts.

    Args:
      embeddings: `[N, D]` of any length; of more than 2,000 some, spread evenly, are looked at.
      people: `[N]`, who is on each image.

    Raises:
      EvaluationError: see `collapse_of`.
    """
    found = collapse_of(embeddings[:: -(-len(embeddings) // _ENOUGH)])
    pair = len(np.unique(people)) <= 2
    return [found.message] if found.one_point or (found.collapsed and not pair) else []


def collapse_of(embeddings: np.ndarray) -> Collapse:
    """The figures of a batch, on the host, in float64.

    Args:
      embeddings: `[n, D]` of any length, n at least 2; of different images, not all of a class.

    Raises:
      EvaluationError: another shape, or a value that is not finite.
    """
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise EvaluationError(f"embeddings must be [n, D] of 2 images or more, not {list(x.shape)}")
    if not np.isfinite(x).all():
        raise EvaluationError(
            "embeddings are not finite: the training has diverged; lower the learning rate"
        )
    n = len(x)
    largest = np.abs(x).max(axis=1, keepdims=True)
    x = x / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    z = x / np.where(length > 0, length, 1)
    # Vectors of zeros are one point, too.
    ones = (length > 0).sum()
    same = ((z.sum(axis=0) ** 2).sum() - ones + (n - ones) * (n - ones - 1)) / (n * (n - 1))
    variance = np.linalg.svd(z - z.mean(axis=0), compute_uv=False) ** 2
    if variance.sum() <= 1e-12 * n:
        return Collapse(float(same), 0.0)
    share = variance / variance.sum()
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum()
    return Collapse(float(same), float(np.exp(entropy)))
