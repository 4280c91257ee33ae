"""Small layers that Flax lacks: stochastic depth, squeeze-and-excitation, a classifier head, and
PReLU with a slope for each channel."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from cnn_jax.errors import ModelError
from cnn_jax.ops import global_avg_pool


class StochasticDepth(linen.Module):
    """Drop the whole residual branch of an example at random (Huang et al. 2016).

    Examples that survive are scaled by 1 / (1 - rate), so that the expectation is unchanged.

    Attributes:
      rate: probability that an example's branch is dropped, 0 <= rate < 1.
      deterministic: drop nothing; may be given here or in the call, not both.
      rng_collection: name of the random stream.

    Raises:
      ModelError: the rate is not in [0, 1).
    """

    rate: float
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    @linen.compact
    def __call__(self, x: jax.Array, deterministic: bool | None = None) -> jax.Array:
        """`x` `[B, ...]` with whole examples set to zero, the others scaled."""
        check_rate(self.rate)
        drop = linen.Dropout(
            self.rate,
            broadcast_dims=tuple(range(1, x.ndim)),
            deterministic=self.deterministic,
            rng_collection=self.rng_collection,
        )
        return drop(x, deterministic=deterministic)


class SqueezeExcite(linen.Module):
    """Scale each channel by a gate that looks at the whole image (Hu et al. 2018).

    y = x · sigmoid(W₂ relu(W₁ mean(x))), with W₁ called `reduce` and W₂ `expand`.

    Attributes:
      reduction: how many times narrower the layer in between is.
      dtype, param_dtype: as in Flax.
    """

    reduction: int = 16
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, spatial axes, C]` to the same shape."""
        channels = x.shape[-1]
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        gate = global_avg_pool(x)
        narrow = max(1, channels // self.reduction)
        gate = linen.relu(linen.Dense(narrow, name="reduce", **shared)(gate))
        gate = linen.sigmoid(linen.Dense(channels, name="expand", **shared)(gate))
        return x * gate.reshape(x.shape[0], *(1,) * (x.ndim - 2), channels)


class ChannelPReLU(linen.Module):
    """y = max(0, x) + a min(0, x), with a slope a of each channel (He et al. 2015, Delving deep
    into rectifiers, eq. 1).

    Flax's `PReLU` has one slope for all channels, and that of PyTorch this one. The parameter is
    `negative_slope` `[C]`.

    Attributes:
      negative_slope_init: what each slope starts from.
      param_dtype: dtype of the parameter.
    """

    negative_slope_init: float = 0.25
    param_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` to the same shape, in the dtype of `x`."""
        start = linen.initializers.constant(self.negative_slope_init)
        slope = self.param("negative_slope", start, (x.shape[-1],), self.param_dtype)
        slope = slope.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x > 0, x, slope * x)


class ClassifierHead(linen.Module):
    """Global average pooling of what has spatial axes, dropout, a dense layer `logits`.

    In float32, or in float64 where the features are.

    Attributes:
      num_classes: K, the number of logits.
      dropout: probability that a feature is dropped in training, 0 <= dropout < 1.
      param_dtype: dtype of the parameters.

    Raises:
      ModelError: the rate is not in [0, 1).
    """

    num_classes: int
    dropout: float = 0.0
    param_dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Features `[B, C]` or `[B, spatial axes, C]` to logits `[B, K]`."""
        check_rate(self.dropout)
        x = x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
        x = global_avg_pool(x) if x.ndim > 2 else x
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        dense = linen.Dense(
            self.num_classes, dtype=x.dtype, param_dtype=self.param_dtype, name="logits"
        )
        return dense(x)


def check_rate(rate: float) -> None:
    """Raise `ModelError` unless 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise ModelError(f"rate {rate} must be at least 0 and less than 1")
