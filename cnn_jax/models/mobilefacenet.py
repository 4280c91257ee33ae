"""MobileFaceNet (Chen et al. 2018, MobileFaceNets: efficient CNNs for accurate real-time face
verification on mobile devices, table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.faces import FaceNetwork
from cnn_jax.models.resnet import Layers, Stage

# The rows of table 1 that are bottlenecks: expansion, width as a multiple of the first, stride.
_ROWS = ((2, 1, 2), (4, 2, 2), (2, 2, 1), (4, 2, 2), (2, 2, 1))


class Unit(Layers):
    """A convolution without bias, batch norm, and PReLU unless it is linear.

    A depthwise one is called with as many channels as it gives.
    """

    features: int = 64
    size: int = 3
    stride: int = 1
    depthwise: bool = False
    linear: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
        if self.depthwise:
            conv: nn.Module = nn.DepthwiseConv(
                (self.size, self.size),
                strides=self.stride,
                padding=self.size // 2,
                use_bias=False,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=nn.initializers.he_normal(),
                name="conv",
            )
        else:
            conv = self.conv(self.features, self.size, self.stride, name="conv")
        x = self.norm(train, name="norm")(conv(x))
        if self.linear:
            return x
        return nn.ChannelPReLU(param_dtype=self.param_dtype, name="prelu")(x)


class Bottleneck(Layers):
    """1x1 to `expansion` times the channels, 3x3 depthwise, linear 1x1; a residual where the
    stride is 1 and the channels stay."""

    features: int = 64
    expansion: int = 2
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        wide = self.expansion * x.shape[-1]
        y = Unit(features=wide, size=1, name="expand", **shared)(x, train=train)
        y = Unit(features=wide, stride=self.stride, depthwise=True, name="depthwise", **shared)(
            y, train=train
        )
        y = Unit(features=self.features, size=1, linear=True, name="project", **shared)(
            y, train=train
        )
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileFaceNet(FaceNetwork, kw_only=True):
    """A small network whose answer is an embedding, and logits from it.

    The last map is not averaged: a depthwise convolution of its size weighs every position
    ("global depthwise convolution", sec. 3.2). So that its kernel fits images of any size, the
    map is first pooled to `map_size` on each side (adaptive average pooling), which does nothing
    for images of the size that the network was created for, up to 112 pixels.

    Attributes:
      depths: bottlenecks in each of the five rows of table 1.
      width: channels of the stem; the last map has eight times as many.
      embedding_size: D; 128 in the paper.
      first_stride: of the stem.
      num_classes, map_size, sub_centres, scale, dropout, dtype, param_dtype: see `FaceNetwork`.
    """

    depths: Sequence[int] = (5, 1, 6, 1, 2)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Images `[B, H, W, C]` to `embedding` float32 `[B, D]`, `centres` float32 `[K, S, D]`
        and `logits` float32 `[B, K]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        self.check(image)
        if len(self.depths) != len(_ROWS):
            raise ModelError(f"depths={tuple(self.depths)} must be {len(_ROWS)} numbers")
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        stem = Unit(features=self.width, stride=self.first_stride, name="stem", **shared)
        x = stem(image, train=train)
        x = Unit(features=self.width, depthwise=True, name="stem_depthwise", **shared)(
            x, train=train
        )
        rows = enumerate(zip(self.depths, _ROWS, strict=True), start=1)
        for row, (depth, (expansion, multiple, stride)) in rows:
            block = partial(
                Bottleneck, features=multiple * self.width, expansion=expansion, **shared
            )
            x = Stage(block, depth, stride, name=f"stage{row}")(x, train=train)
        x = Unit(features=8 * self.width, size=1, name="last", **shared)(x, train=train)
        x = nn.adaptive_avg_pool(x, self.map_size)
        weigh = nn.DepthwiseConv(
            (self.map_size, self.map_size),
            padding="VALID",
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name="global_conv",
            **shared,
        )
        x = self.norm(train, name="global_norm")(weigh(x))
        return self.head(x, train=train)
