"""A small all-convolutional network: the house's first choice for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.inputs import check_images


class Block(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    features: int
    stride: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`."""
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = nn.Conv(
            self.features,
            (3, 3),
            strides=self.stride,
            padding=1,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
            **shared,
        )
        norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm", **shared)
        return nn.relu(norm(conv(x)))


class Stage(nn.Module):
    """Blocks of one width, of which the first may halve the image."""

    features: int
    units: int
    stride: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`."""
        for index in range(self.units):
            block = Block(
                self.features,
                stride=self.stride if index == 0 else 1,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"block{index + 1}",
            )
            x = block(x, train=train)
        return x


class Compact(nn.Module):
    """Stages of 3x3 convolutions, global average pooling, one dense layer.

    Attributes:
      num_classes: K, the number of logits.
      widths: channels of each stage; each stage after the first halves the image.
      units: convolutions in a stage.
      dropout: probability that a pooled channel is dropped in training.
      dtype: dtype of the computation; logits are float32 in any case.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    widths: Sequence[int] = (32, 64, 128)
    units: int = 2
    dropout: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits float32 `[B, K]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        check_images(image)
        if not self.widths or min(self.widths) < 1 or self.units < 1:
            raise ModelError(f"widths={tuple(self.widths)} and units={self.units} must be positive")
        x = image
        for index, width in enumerate(self.widths):
            stage = Stage(
                width,
                self.units,
                stride=1 if index == 0 else 2,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"stage{index + 1}",
            )
            x = stage(x, train=train)
        head = nn.ClassifierHead(
            self.num_classes, self.dropout, param_dtype=self.param_dtype, name="head"
        )
        return head(x, train=train)
