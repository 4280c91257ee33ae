"""A small all-convolutional network: the house's first choice for small images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.inputs import check_images

Norm = Literal["batch", "group"]
# How a stage halves the image: every second position of a convolution; or a convolution at all
# positions, and then blur pooling (Zhang 2019) or adaptive polyphase sampling (Chaman & Dokmanić
# 2021), of which a shift of the image changes less, or nothing.
Downsample = Literal["stride", "blur", "polyphase"]
Padding = Literal["zero", "circular"]
MOST_GROUPS = 8  # of channels, for group norm: two a group in the narrowest U-Net


class Block(nn.Module):
    """Convolution, norm, ReLU; padded so that stride s divides every side by s.

    Attributes:
      features: number of output channels.
      stride, size: of the convolution, along every axis.
      norm_kind: `batch`, or `group` (Wu & He 2018), which looks at each example by itself: 8
        groups of channels, or as many of them as divide the channels.
      downsample, padding: how the stride is made, and what lies beyond the border: see `Compact`.
      dtype, param_dtype: as in Flax.
    """

    features: int
    stride: int = 1
    size: int = 3
    norm_kind: Norm = "batch"
    downsample: Downsample = "stride"
    padding: Padding = "zero"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, spatial axes, C]` to `[B, ceil(each / stride), features]`."""
        y = nn.relu(self._norm(self._conv(x), train))
        if self.stride == 1 or self.downsample == "stride":
            return y
        if self.downsample == "polyphase":
            return nn.adaptive_polyphase(y, self.stride)
        length, beside = 2 * self.stride - 1, self.stride - 1
        if self.padding == "zero":
            return nn.blur_pool(y, self.stride, length)
        border = [(0, 0), *[(beside, beside)] * (y.ndim - 2), (0, 0)]
        inside = (slice(beside, -beside, self.stride),) * (y.ndim - 2)
        return nn.blur_pool(jnp.pad(y, border, mode="wrap"), 1, length)[:, *inside]

    def _conv(self, x: jax.Array) -> jax.Array:
        axes = x.ndim - 2
        stride = self.stride if self.downsample == "stride" else 1
        # Of an even size, one more after than before where it has no stride.
        low = self.size // 2 if self.size % 2 else (self.size - stride) // 2
        high = self.size // 2 if self.size % 2 else (self.size - stride + 1) // 2
        around = [(low, high)] * axes
        if self.padding == "circular":
            x = jnp.pad(x, [(0, 0), *around, (0, 0)], mode="wrap")
            around = [(0, 0)] * axes
        conv = nn.Conv(
            self.features,
            (self.size,) * axes,
            strides=stride,
            padding=around,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name="conv",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        return conv(x)

    def _norm(self, x: jax.Array, train: bool) -> jax.Array:
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.norm_kind == "batch":
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm", **shared)
            normed: jax.Array = norm(x)
            return normed
        groups = math.gcd(self.features, MOST_GROUPS)
        # Exact variance and epsilon as in the house's batch norm.
        options = {"epsilon": 1e-5, "use_fast_variance": False, **shared}
        group_norm = nn.GroupNorm(groups, name="norm", **options)
        # Flax lets bfloat16 meet float32 statistics, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            grouped: jax.Array = group_norm(x)
        return grouped


class Stage(nn.Module):
    """Blocks of one width, of which the first may shrink the image."""

    features: int
    units: int
    stride: int
    size: int = 3
    norm_kind: Norm = "batch"
    downsample: Downsample = "stride"
    padding: Padding = "zero"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, spatial axes, C]` to `[B, ceil(each / stride), features]`."""
        for index in range(self.units):
            block = Block(
                self.features,
                stride=self.stride if index == 0 else 1,
                size=self.size if index == 0 else 3,
                norm_kind=self.norm_kind,
                downsample=self.downsample,
                padding=self.padding,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"block{index + 1}",
            )
            x = block(x, train=train)
        return x


class Compact(nn.Module):
    """Stages of convolutions, average pooling, one dense layer (all-convolutional:
    Springenberg et al. 2015, Striving for simplicity).

    Attributes:
      num_classes: K, the number of logits.
      widths: channels of each stage; each stage after the first halves the image.
      units: convolutions in each stage, or one number for all.
      stem_stride: stride of the first convolution: 1 for a 3x3 one, an even s for one of
        2s x 2s. `create` chooses it by the image size.
      pooled_size: positions along each side that the last map is averaged to: 1 for global average
        pooling; more tell where in the image a feature lies, as in faces cropped alike.
      downsample: `stride`, convolutions at every s-th position; or convolutions at all of them, at
        s² times the cost of that layer, and then `blur` pooling (2s - 1 wide), or `polyphase`:
        adaptive polyphase sampling, which needs sides that can be divided so often. Parameters
        are the same.
      padding: `zero`; or `circular`, the image goes on at its other side. With it, `polyphase` and
        a `pooled_size` of 1 no circular shift changes the answer.
      dropout: probability that a pooled value is dropped in training.
      embedding_size: D of the embedding that the logits are made from, for margin losses; 0 for
        none. See `nn.EmbeddingHead`.
      sub_centres, scale: of the head with an embedding; see `nn.CentreHead`.
      dtype: dtype of the computation; logits are float32 at least.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    widths: Sequence[int] = (32, 64, 128)
    units: int | Sequence[int] = 2
    stem_stride: int = 1
    pooled_size: int = 1
    downsample: Downsample = "stride"
    padding: Padding = "zero"
    dropout: float = 0.0
    embedding_size: int = 0
    sub_centres: int = 1
    scale: float = 64.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> Any:
        """Images `[B, H, W, C]` to logits float32 `[B, K]`, or with `embedding_size` to a dict of
        `embedding`, `centres` and `logits`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        check_images(image)
        units = self._units()
        x = image
        for index, width in enumerate(self.widths):
            stem = index == 0
            stage = Stage(
                width,
                units[index],
                stride=self.stem_stride if stem else 2,
                size=2 * self.stem_stride if stem and self.stem_stride > 1 else 3,
                downsample=self.downsample,
                padding=self.padding,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"stage{index + 1}",
            )
            x = stage(x, train=train)
        if self.pooled_size != 1:
            x = nn.adaptive_avg_pool(x, self.pooled_size).reshape(x.shape[0], -1)
        head = nn.classifier_head(
            self.num_classes,
            self.embedding_size,
            sub_centres=self.sub_centres,
            scale=self.scale,
            dropout=self.dropout,
            param_dtype=self.param_dtype,
        )
        return head(x, train=train)

    def _units(self) -> tuple[int, ...]:
        units = self.units
        units = (units,) * len(self.widths) if isinstance(units, int) else tuple(units)
        if not self.widths or len(units) != len(self.widths) or min(*self.widths, *units) < 1:
            raise ModelError(
                f"widths={tuple(self.widths)} and units={self.units} must be positive, "
                "and units one number or one for each width"
            )
        for name, known in (("downsample", Downsample), ("padding", Padding)):
            if getattr(self, name) not in get_args(known):
                choice = ", ".join(get_args(known))
                raise ModelError(f"{name}={getattr(self, name)!r} must be one of {choice}")
        if self.stem_stride != 1 and (self.stem_stride < 1 or self.stem_stride % 2):
            raise ModelError(f"stem_stride={self.stem_stride} must be 1 or even")
        return units
