"""AlexNet and VGG, as plain a stack of convolutions as there is.

AlexNet (Krizhevsky et al. 2012) in the form of Krizhevsky 2014, *One weird trick for parallelizing
convolutional neural networks*, one tower without local response normalisation; VGG after Simonyan
and Zisserman 2015. Layout and parameters are those of torchvision, so that the same weights give
the same outputs. Where an image is so small that a pooling would leave nothing it is left out, and
the last map is pooled to a fixed size, so that the parameters fit any image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.inputs import check_images


class DenseHead(nn.Module):
    """Two dense layers of 4096 units with dropout before the logits, on a map of fixed size.

    Attributes:
      num_classes: K.
      map_size: positions along each side that the map is pooled to; does nothing at the size the
        network was made for.
      width: units of a dense layer.
      dropout: probability that a unit is dropped in training.
      first: whether dropout comes before the dense layers, as in AlexNet, or after, as in VGG.
    """

    num_classes: int
    map_size: int
    width: int = 4096
    dropout: float = 0.5
    first: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Features `[B, H, W, C]` to logits float32 `[B, K]`."""
        # Channels first, as PyTorch flattens.
        x = nn.adaptive_avg_pool(x, self.map_size).transpose(0, 3, 1, 2).reshape(x.shape[0], -1)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        for name in ("dense1", "dense2"):
            x = drop(x) if self.first else x
            dense = nn.Dense(
                self.width,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=nn.initializers.he_normal(),
                name=name,
            )
            x = nn.relu(dense(x))
            x = x if self.first else drop(x)
        wide = jnp.float64 if self.dtype == jnp.float64 else jnp.float32
        logits = nn.Dense(self.num_classes, dtype=wide, param_dtype=self.param_dtype, name="logits")
        return logits(x.astype(wide))


class AlexNet(nn.Module):
    """Five convolutions, three of them followed by 3x3 maximum pooling by 2, and a dense head.

    Attributes:
      num_classes: K, the number of logits.
      small_stem: for small images: the first convolution is 5x5 and has no stride.
      width, dropout: of the head.
      dtype: dtype of the computation; logits are float32 at least.
      param_dtype: dtype of the parameters.
    """

    STEMS: ClassVar = {True: "5x5", False: "11x11 / 4"}

    num_classes: int
    small_stem: bool = False
    width: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits float32 `[B, K]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or smaller than 7 pixels without
            `small_stem`.
        """
        check_images(image)
        x = image
        # Features, side, stride, padding, and whether pooling follows.
        layers = (
            (64, 5, 1, 2, True) if self.small_stem else (64, 11, 4, 2, True),
            (192, 5, 1, 2, True),
            (384, 3, 1, 1, False),
            (256, 3, 1, 1, False),
            (256, 3, 1, 1, True),
        )
        if min(image.shape[1:3]) < layers[0][1] - 2 * layers[0][3]:
            raise ModelError(
                f"images of {list(image.shape[1:3])} pixels are too small for a first convolution "
                f"of {layers[0][1]}x{layers[0][1]}: take small_stem"
            )
        for number, (features, side, stride, padding, pooled) in enumerate(layers, start=1):
            x = nn.relu(_conv(self, features, side, stride, padding, f"conv{number}")(x))
            x = _pool(x, 3) if pooled else x
        logits: jax.Array = _head(self, 6, first=True)(x, train=train)
        return logits


class VGG(nn.Module):
    """Stages of 3x3 convolutions, each followed by 2x2 maximum pooling, and a dense head.

    Attributes:
      num_classes: K, the number of logits.
      depths: convolutions of each stage.
      widths: channels of each stage.
      batch_norm: whether each convolution is followed by batch norm ("VGG-16-BN").
      width, dropout: of the head.
      dtype: dtype of the computation; logits are float32 at least.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    depths: Sequence[int] = (2, 2, 3, 3, 3)
    widths: Sequence[int] = (64, 128, 256, 512, 512)
    batch_norm: bool = False
    width: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Images `[B, H, W, C]` to logits float32 `[B, K]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or there are not as many widths
            as depths.
        """
        check_images(image)
        if len(self.depths) != len(self.widths):
            raise ModelError(
                f"a VGG of {len(self.depths)} depths needs as many widths, not {len(self.widths)}"
            )
        x = image
        for stage, (depth, features) in enumerate(zip(self.depths, self.widths, strict=True), 1):
            for number in range(1, depth + 1):
                x = _conv(self, features, 3, 1, 1, f"stage{stage}_conv{number}")(x)
                if self.batch_norm:
                    norm = nn.BatchNorm(
                        use_running_average=not train,
                        momentum=0.9,
                        dtype=self.dtype,
                        param_dtype=self.param_dtype,
                        name=f"stage{stage}_norm{number}",
                    )
                    x = norm(x)
                x = nn.relu(x)
            x = _pool(x, 2)
        logits: jax.Array = _head(self, 7, first=False)(x, train=train)
        return logits


def _pool(x: jax.Array, side: int) -> jax.Array:
    """Maximum pooling by 2, unless nothing would be left."""
    return nn.max_pool(x, (side, side), (2, 2)) if min(x.shape[1:3]) >= side else x


def _conv(
    of: AlexNet | VGG, features: int, side: int, stride: int, padding: int, name: str
) -> nn.Conv:
    return nn.Conv(
        features,
        (side, side),
        strides=stride,
        padding=padding,
        dtype=of.dtype,
        param_dtype=of.param_dtype,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def _head(of: AlexNet | VGG, map_size: int, *, first: bool) -> DenseHead:
    return DenseHead(
        of.num_classes,
        map_size,
        of.width,
        of.dropout,
        first=first,
        dtype=of.dtype,
        param_dtype=of.param_dtype,
        name="head",
    )
