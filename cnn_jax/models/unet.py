"""U-Nets: one answer for every pixel, of images and of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.compact import Norm, Stage
from cnn_jax.models.inputs import check_images
from cnn_jax.nn.layers import check_rate


class PixelHead(nn.Module):
    """A 1x1 convolution `logits` in float32: a classifier of every pixel.

    Attributes:
      num_classes: R, the number of logits of a pixel.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Features `[B, spatial axes, C]` to logits float32 `[B, spatial axes, R]`."""
        conv = nn.Conv(
            self.num_classes,
            (1,) * (x.ndim - 2),
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.he_normal(),
            name="logits",
        )
        return conv(x.astype(jnp.float32))


class UNet(nn.Module):
    """A U-Net (Ronneberger et al. 2015), in three dimensions that of Çiçek et al. (2016).

    Of L levels, `encoder1` sees the whole image and each further one half of it, by max
    pooling; from `encoderL`, `up` doubles it level by level, and each `decoder` sees that and
    what the encoder of its level found. Unlike the paper's, convolutions are padded, so that
    the answer is as large as the image, and have a norm. An odd side is halved to the next
    larger number and cropped when it is doubled: images may have any size.

    Attributes:
      num_classes: R, the number of regions, the background among them.
      widths: channels of each level, from the full image down; two levels or more.
      units: convolutions of each encoder and each decoder.
      dropout: probability that a channel of the lowest level is dropped in training, as a whole
        map (Tompson et al. 2015: neighbouring pixels are too alike to be dropped singly).
      stride: of a convolution `stem` before all else; the answer is enlarged to the image again,
        linearly. 2 takes about a quarter of the time (an eighth of volumes) and cannot draw what
        is thinner than that; 1 for none.
      norm: `batch`; or `group` (Wu & He 2018), which is the same in training and evaluation, for
        batches of few images. See `compact.Block`.
      dtype: dtype of the computation; logits are float32 in any case.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    widths: Sequence[int] = (16, 32, 64, 128)
    units: int = 2
    dropout: float = 0.0
    stride: int = 1
    norm: Norm = "batch"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits of every pixel.

        Args:
          image: floating, images `[B, H, W, C]` or volumes `[B, D, H, W, C]`. Parameters fit one
            of the two: the number of spatial axes is that of the first call.
          train: whether batches are normalised by their own statistics, and channels dropped.

        Returns:
          float32 `[B, H, W, R]` or `[B, D, H, W, R]`.

        Raises:
          ModelError: the images are neither, or not floating, or a field makes no network.
        """
        check_images(image, volumes=True)
        self._check_fields()
        axes = range(1, image.ndim - 1)
        twos = (2,) * len(axes)
        x = image
        if self.stride > 1:
            x = self._stem(axes)(x)
        skips = []
        for level, width in enumerate(self.widths, start=1):
            if level > 1:
                skips.append(x)
                x = nn.max_pool(x, twos, twos, "SAME")
            x = self._stage(width, f"encoder{level}")(x, train=train)
        x = nn.Dropout(self.dropout, broadcast_dims=tuple(axes), deterministic=not train)(x)
        for level in range(len(skips), 0, -1):
            skip, width = skips[level - 1], self.widths[level - 1]
            doubled = self._double(width, axes, f"up{level}")(x)
            cropped = doubled[tuple(slice(size) for size in skip.shape[:-1])]
            x = jnp.concatenate([skip, cropped], axis=-1)
            x = self._stage(width, f"decoder{level}")(x, train=train)
        logits = PixelHead(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        if self.stride == 1:
            return logits
        return jax.image.resize(logits, (*image.shape[:-1], self.num_classes), "linear")

    def _stem(self, axes: range) -> nn.Conv:
        return nn.Conv(
            self.widths[0],
            (2 * self.stride - 1,) * len(axes),
            strides=self.stride,
            padding="SAME",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.he_normal(),
            name="stem",
        )

    def _stage(self, width: int, name: str) -> Stage:
        return Stage(
            width,
            self.units,
            stride=1,
            norm_kind=self.norm,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )

    def _double(self, width: int, axes: range, name: str) -> nn.ConvTranspose:
        # Each pixel of the output is made from one tap of the kernel: its fan-in is C alone.
        kernel_init = nn.initializers.he_normal(batch_axis=tuple(axis - 1 for axis in axes))
        return nn.ConvTranspose(
            width,
            (2,) * len(axes),
            strides=2,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=kernel_init,
            name=name,
        )

    def _check_fields(self) -> None:
        if len(self.widths) < 2 or min(*self.widths, self.units, self.stride) < 1:
            raise ModelError(
                f"widths={tuple(self.widths)} must name two levels or more, and they, "
                f"units={self.units} and stride={self.stride} must be positive"
            )
        if self.norm not in get_args(Norm):
            raise ModelError(f"norm {self.norm!r} must be one of {', '.join(get_args(Norm))}")
        check_rate(self.dropout)
