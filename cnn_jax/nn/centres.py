"""Heads that compare an embedding with centres on the unit sphere, for margin losses."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax

from cnn_jax.errors import ModelError
from cnn_jax.nn.batch_norm import BatchNorm
from cnn_jax.nn.layers import ClassifierHead, check_rate
from cnn_jax.ops import global_avg_pool

SMALLEST_NORM = 1e-30  # a vector without a larger component has no direction
LARGEST = 2.0**126  # a power of two above it would be infinite


def rescaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors times powers of two, so that their squares neither overflow nor vanish.

    Args:
      x: `[..., D]`; bfloat16 and float16 become float32.

    Returns:
      y float32 `[..., D]`, its largest component in 3/4 to 3/2, or up to 4 where x is above 1e38,
      and s float32 `[..., 1]`, a constant to autodiff, with x = s y exactly (subnormal components
      count as 0). Where no component is above 1e-30, y is 0, s is 1, and the gradient is zero.
    """
    x = x.astype(jnp.float32)
    largest = lax.stop_gradient(jnp.abs(x).max(axis=-1, keepdims=True))
    direction = largest > SMALLEST_NORM
    # Without mantissa: rounds to a power of two.
    scale = lax.reduce_precision(jnp.clip(largest, SMALLEST_NORM, LARGEST), 8, 0)
    scale = jnp.where(direction, scale, jnp.ones_like(scale))
    return jnp.where(direction, x, jnp.zeros_like(x)) / scale, scale


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1, float32 `[..., D]`; 0, with a zero gradient, where x has no direction.

    Any finite x will do, however long: see `rescaled`.
    """
    y, _ = rescaled(x)
    square = (y**2).sum(axis=-1, keepdims=True)
    # All components but one may be 0, so a square is 0 only where there is no direction.
    return y * lax.rsqrt(jnp.where(square > 0, square, jnp.ones_like(square)))


def cosines(embedding: jax.Array, centres: jax.Array) -> jax.Array:
    """Cosine of each embedding and each sub-centre, float32 `[B, K, S]`.

    Args:
      embedding: `[B, D]`.
      centres: `[K, S, D]`.
    """
    # Matrix units would round cosines to three digits, which the scale makes large.
    return jnp.einsum(
        "bd,ksd->bks", unit(embedding), unit(centres), precision=lax.Precision.HIGHEST
    )


class CentreHead(linen.Module):
    """Logits from cosines: z_k = s max_j cos(x, w_kj), without a bias (Deng et al. 2020,
    Sub-center ArcFace; with one sub-centre Wang et al. 2017, NormFace).

    A margin is no part of it: see `training.margin_softmax.MarginSoftmax`, which is the loss.

    Attributes:
      num_classes: K.
      sub_centres: S, centres of each class; with several, mislabelled and odd images gather
        round a centre of their own.
      scale: s.
      param_dtype: dtype of the parameter `centres`.
    """

    num_classes: int
    sub_centres: int = 1
    scale: float = 64.0
    param_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, embedding: jax.Array) -> dict[str, jax.Array]:
        """Embeddings `[B, D]` to `embedding` as given, float32 `[B, D]`, `centres` float32
        `[K, S, D]`, of any length, and `logits` float32 `[B, K]`.

        Raises:
          ModelError: a field makes no head, or the embedding is not `[B, D]`.
        """
        if self.num_classes < 1 or self.sub_centres < 1 or not 0 < self.scale < math.inf:
            raise ModelError(
                f"num_classes={self.num_classes}, sub_centres={self.sub_centres} and "
                f"scale={self.scale} must be positive"
            )
        if embedding.ndim != 2:
            raise ModelError(
                f"an embedding is [B, D], not {list(embedding.shape)}: pool the features first"
            )
        size = embedding.shape[1]
        # Of about unit length, so that the learning rate is that of a turn on the sphere.
        centres = self.param(
            "centres",
            linen.initializers.normal(size**-0.5),
            (self.num_classes, self.sub_centres, size),
            self.param_dtype,
        ).astype(jnp.float32)
        embedding = embedding.astype(jnp.float32)
        logits = self.scale * cosines(embedding, centres).max(axis=2)
        return {"embedding": embedding, "centres": centres, "logits": logits}


class EmbeddingHead(linen.Module):
    """Pooled features to an embedding, and the embedding to a `CentreHead` called `centre`.

    embedding = norm(W dropout(pool(x))), with W called `embedding`, without a bias, and batch
    norm, as at the end of the networks of Deng et al. 2019 (ArcFace, sec. 3.1). It keeps
    embeddings apart; it has no scale, so that no component rules the angle.

    Attributes:
      num_classes: K.
      embedding_size: D.
      sub_centres, scale: see `CentreHead`.
      dropout: probability that a feature is dropped in training, 0 <= dropout < 1.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    embedding_size: int
    sub_centres: int = 1
    scale: float = 64.0
    dropout: float = 0.0
    param_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Features `[B, C]` or `[B, spatial axes, C]` to the outputs of `CentreHead`.

        Raises:
          ModelError: `embedding_size` is below 1, or the rate is not in [0, 1).
        """
        if self.embedding_size < 1:
            raise ModelError(f"embedding_size={self.embedding_size} must be at least 1")
        check_rate(self.dropout)
        x = x.astype(jnp.float32)
        x = global_avg_pool(x) if x.ndim > 2 else x
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        shared: dict[str, Any] = {"dtype": jnp.float32, "param_dtype": self.param_dtype}
        x = linen.Dense(self.embedding_size, use_bias=False, name="embedding", **shared)(x)
        options = {"momentum": 0.9, "use_scale": False, "name": "norm", **shared}
        x = BatchNorm(use_running_average=not train, **options)(x)
        head = CentreHead(
            self.num_classes, self.sub_centres, self.scale, self.param_dtype, name="centre"
        )
        return head(x)


def classifier_head(
    num_classes: int,
    embedding_size: int,
    *,
    sub_centres: int = 1,
    scale: float = 64.0,
    dropout: float = 0.0,
    param_dtype: Any = jnp.float32,
) -> ClassifierHead | EmbeddingHead:
    """The head of a network that classifies: by an embedding where `embedding_size` is not 0,
    else by one dense layer; both are called `head`, with features and `train`."""
    shared: dict[str, Any] = {"dropout": dropout, "param_dtype": param_dtype, "name": "head"}
    if not embedding_size:
        return ClassifierHead(num_classes, **shared)
    return EmbeddingHead(num_classes, embedding_size, sub_centres, scale, **shared)
