"""Tasks that compare the images of a batch with each other, to learn an embedding in which those
of one class are near each other.

A batch must hold several images of several classes, and is worked through whole. Evaluation is by
the embedding: verification and identification.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.errors import ModelError, RecipeError
from cnn_jax.nn.centres import unit
from cnn_jax.recipe import LossRecipe
from cnn_jax.training.state import Batch as Rows
from cnn_jax.training.task import Batch, Hyper, embedding_of

Mining = Literal["all", "hard", "semi-hard"]

_CLOSEST = 1e-6  # squared distance of unit vectors below which float32 has no direction

# What is usual, where a recipe does not say: 60 degrees, and the margin of Schroff et al. 2015.
_CONTRASTIVE_MARGIN, _TRIPLET_MARGIN = 1.0, 0.2


def hyper_of(recipe: LossRecipe) -> dict[str, float]:
    """The scalars that the losses of pairs read from the state; none without such a loss."""
    if recipe.pairs == "none":
        return {}
    if recipe.pairs == "supervised-contrastive":
        return {"pair_temperature": recipe.pair_temperature}
    usual = _CONTRASTIVE_MARGIN if recipe.pairs == "contrastive" else _TRIPLET_MARGIN
    return {"pair_margin": usual if recipe.pair_margin is None else recipe.pair_margin}


@dataclass(frozen=True)
class _OfPairs(abc.ABC):
    """What the losses have in common that compare the embeddings of a batch, on the unit sphere.

    `label` int32 `[B]` says which belong together; rows that are not `valid` are compared with
    none. The embedding is the model's `embedding`, or else its logits.
    """

    whole_batch: ClassVar[bool] = True

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """The batch as it is."""
        return batch

    @abc.abstractmethod
    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Loss and weight of each example, float32 `[B]`; the weight is 0 of one without
        company."""

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """1 where the nearest other row is of the class; float32 `[B]`."""
        cosine, same, other = _compared(outputs, batch)
        nearest = jnp.where(same | other, cosine, -jnp.inf).argmax(axis=1)
        found = jnp.take_along_axis(same, nearest[:, None], axis=1)[:, 0]
        return found.astype(jnp.float32)


@dataclass(frozen=True)
class ContrastivePairs(_OfPairs):
    """Hadsell et al. 2006, eq. 4, of every pair: d^2 / 2 of one class, else max(0, m - d)^2 / 2.

    The loss of an example is the mean over its pairs; d is the distance on the unit sphere, 0..2,
    and m is `hyper["pair_margin"]`.
    """

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The mean over an example's pairs, and 1, or 0 without a pair."""
        cosine, same, other = _compared(outputs, batch)
        apart = jnp.maximum(hyper["pair_margin"] - _distance(cosine), 0.0) ** 2 / 2
        # d^2 / 2 = 1 - cos, whose gradient needs no direction.
        pair = jnp.where(same, 1 - cosine, apart)
        return _mean_of(pair, same | other)


@dataclass(frozen=True)
class Triplet(_OfPairs):
    """max(0, d(a, p) - d(a, n) + m) of anchor, positive and negative (Schroff et al. 2015).

    d is the distance on the unit sphere, not squared, which collapses less (Hermans et al. 2017),
    and m is `hyper["pair_margin"]`.

    Attributes:
      mining: `all`, the mean over all triplets whose loss is not 0; `hard`, each anchor with its
        farthest positive and nearest negative (both Hermans et al. 2017); `semi-hard`, each pair
        of one class with the nearest negative that is farther than the positive, or else with
        the farthest.

    Raises:
      RecipeError: there is no such mining.
    """

    mining: Mining = "semi-hard"

    def __post_init__(self) -> None:
        if self.mining not in ("all", "hard", "semi-hard"):
            raise RecipeError(f"mining must be all, hard or semi-hard, not {self.mining!r}")

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The mean over an anchor's triplets, and how many they are."""
        cosine, same, other = _compared(outputs, batch)
        d, margin = _distance(cosine), hyper["pair_margin"]
        if self.mining == "hard":
            farthest = jnp.where(same, d, -jnp.inf).max(axis=1)
            nearest = jnp.where(other, d, jnp.inf).min(axis=1)
            usable = same.any(axis=1) & other.any(axis=1)
            gap = jnp.where(usable, farthest, 0.0) - jnp.where(usable, nearest, 0.0)
            loss = jnp.maximum(gap + margin, 0.0)
            return jnp.where(usable, loss, 0.0), usable.astype(jnp.float32)
        if self.mining == "semi-hard":
            harder = other[:, None, :] & (d[:, None, :] > d[:, :, None])
            nearest = jnp.where(harder, d[:, None, :], jnp.inf).min(axis=2)
            farthest = jnp.where(other, d, -jnp.inf).max(axis=1)
            negative = jnp.where(harder.any(axis=2), nearest, farthest[:, None])
            usable = same & other.any(axis=1)[:, None]
            loss = jnp.maximum(d - jnp.where(usable, negative, 0.0) + margin, 0.0)
            return _mean_of(loss, usable, count=True)
        loss = jnp.maximum(d[:, :, None] - d[:, None, :] + margin, 0.0)
        usable = same[:, :, None] & other[:, None, :] & (loss > 0)
        rows = len(d)
        return _mean_of(loss.reshape(rows, -1), usable.reshape(rows, -1), count=True)


@dataclass(frozen=True)
class SupervisedContrastive(_OfPairs):
    """Khosla et al. 2020, eq. 2: of each anchor the mean over its positives p of
    -log(exp(cos_ap / t) / sum_j exp(cos_aj / t)), j every other row; t is
    `hyper["pair_temperature"]`.
    """

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The mean over an anchor's positives, and 1, or 0 without one."""
        cosine, same, other = _compared(outputs, batch)
        similarity = cosine / hyper["pair_temperature"]
        others = same | other
        # A row without others compares with itself, so that no sum is empty.
        others |= _diagonal(cosine) & ~others.any(axis=1, keepdims=True)
        total = jax.nn.logsumexp(similarity, axis=1, where=others, keepdims=True)
        return _mean_of(total - similarity, same)


def _compared(outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cosines `[B, B]`; whether two different valid rows are of one class; or of two."""
    label = batch["label"]
    if label.ndim != 1:
        raise ModelError(f"labels must be [B], one class of each image, not {list(label.shape)}")
    z = unit(embedding_of(outputs))
    cosine = jnp.matmul(z, z.T, precision=lax.Precision.HIGHEST)
    valid = batch.get("valid", jnp.ones(len(z), bool))
    pair = valid[:, None] & valid[None, :] & ~_diagonal(cosine)
    alike = label[:, None] == label[None, :]
    return cosine, pair & alike, pair & ~alike


def _diagonal(square: jax.Array) -> jax.Array:
    row, column = (lax.broadcasted_iota(jnp.int32, square.shape, axis) for axis in (0, 1))
    return row == column


def _distance(cosine: jax.Array) -> jax.Array:
    """sqrt(2 - 2 cos), with a gradient of 0 where two are the same, and so no direction."""
    square = 2 - 2 * cosine
    apart = square > _CLOSEST
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)


def _mean_of(
    values: jax.Array, used: jax.Array, *, count: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Mean of the used values of each row, and 1, or their number; both 0 where there is none."""
    number = used.sum(axis=1).astype(jnp.float32)
    mean = jnp.where(used, values, 0.0).sum(axis=1) / jnp.maximum(number, 1)
    return mean, number if count else jnp.minimum(number, 1)
