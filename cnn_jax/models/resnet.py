"""Residual networks (He et al. 2016, Deep residual learning for image recognition).

Padding is that of PyTorch's networks (1 on both sides of a 3x3, also with a stride), so
that the same weights give the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.inputs import check_images

# He et al. 2015, with the fan of the backward pass: what PyTorch's networks start from.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Layers(nn.Module):
    """What the modules of this file share: the dtypes, and how they convolve and normalise."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def conv(self, features: int, size: int, stride: int = 1, *, name: str) -> nn.Conv:
        """A square convolution without bias, padded so that stride 1 keeps the size."""
        return nn.Conv(
            features,
            (size, size),
            strides=stride,
            padding=size // 2,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=he_fan_out,
            name=name,
        )

    def norm(self, train: bool, *, name: str, zero_scale: bool = False) -> nn.BatchNorm:
        """Batch norm; with `zero_scale` its branch starts as nothing (Goyal et al. 2017)."""
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
            name=name,
        )


class Stem(Layers):
    """The first layers: a 3x3 convolution, or ImageNet's 7x7 and pooling, each by 2."""

    NAMES: ClassVar = {True: "3x3", False: "7x7 / 2, max pool / 2"}

    features: int = 64
    small: bool = True
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H, W, features]`, or a quarter of H and W."""
        if self.small:
            x = self.conv(self.features, 3, name="conv")(x)
        else:
            x = self.conv(self.features, 7, stride=2, name="conv")(x)
        if self.activate:
            x = nn.relu(self.norm(train, name="norm")(x))
        if self.small:
            return x
        return nn.max_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])


class BasicBlock(Layers):
    """y = relu(x + f(x)) with f two 3x3 convolutions."""

    features: int = 64
    stride: int = 1
    zero_init: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
        y = self.conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(train, name="norm1")(y))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.norm(train, name="norm2", zero_scale=self.zero_init)(y)
        if x.shape != y.shape:
            x = self.conv(self.features, 1, self.stride, name="projection")(x)
            x = self.norm(train, name="projection_norm")(x)
        return nn.relu(x + y)


class BottleneckBlock(Layers):
    """y = relu(x + f(x)) with f 1x1, 3x3 and 1x1, the last four times as wide.

    The stride is on the 3x3 (version 1.5), where it skips no pixel.
    """

    features: int = 64
    stride: int = 1
    zero_init: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, 4 * features]`."""
        y = self.conv(self.features, 1, name="conv1")(x)
        y = nn.relu(self.norm(train, name="norm1")(y))
        y = self.conv(self.features, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(train, name="norm2")(y))
        y = self.conv(4 * self.features, 1, name="conv3")(y)
        y = self.norm(train, name="norm3", zero_scale=self.zero_init)(y)
        if x.shape != y.shape:
            x = self.conv(4 * self.features, 1, self.stride, name="projection")(x)
            x = self.norm(train, name="projection_norm")(x)
        return nn.relu(x + y)


class Stage(nn.Module):
    """Blocks of one width, of which the first may halve the image.

    Attributes:
      block: makes a block from `stride` and `name`.
      depth: number of blocks.
      stride: of the first block.
    """

    block: Callable[..., nn.Module]
    depth: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to the width of the blocks."""
        for index in range(self.depth):
            stride = self.stride if index == 0 else 1
            x = self.block(stride=stride, name=f"block{index + 1}")(x, train=train)
        return x


class ResNet(Layers, kw_only=True):
    """A residual network: stem, stages that double the width and halve the image, head.

    Attributes:
      num_classes: K, the number of logits.
      depths: number of blocks in each stage.
      block: `basic` or `bottleneck`.
      width: channels of the first stage (before a bottleneck's factor of four).
      small_stem: 3x3 at full resolution, instead of 7x7 and pooling that quarter the image.
      zero_init: whether each branch starts as nothing, so that the network starts shallow.
      dropout: probability that a pooled channel is dropped in training.
      embedding_size: D of the embedding that the logits are made from, for margin losses; 0 for
        none. See `nn.EmbeddingHead`.
      sub_centres, scale: of the head with an embedding; see `nn.CentreHead`.
      dtype: dtype of the computation; logits are float32 at least.
      param_dtype: dtype of the parameters.
    """

    STEMS: ClassVar = Stem.NAMES

    num_classes: int
    depths: Sequence[int] = (2, 2, 2, 2)
    block: Literal["basic", "bottleneck"] = "basic"
    width: int = 64
    small_stem: bool = False
    zero_init: bool = True
    dropout: float = 0.0
    embedding_size: int = 0
    sub_centres: int = 1
    scale: float = 64.0

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> Any:
        """Images `[B, H, W, C]` to logits float32 `[B, K]`, or with `embedding_size` to a dict of
        `embedding`, `centres` and `logits`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        check_images(image)
        check_stages(self.depths, self.width)
        if self.block not in ("basic", "bottleneck"):
            raise ModelError(f"block {self.block!r} must be 'basic' or 'bottleneck'")
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        stem = Stem(features=self.width, small=self.small_stem, name="stem", **shared)
        x = stem(image, train=train)
        block_class = BasicBlock if self.block == "basic" else BottleneckBlock
        for index, depth in enumerate(self.depths):
            features = self.width * 2**index
            block = partial(block_class, features=features, zero_init=self.zero_init, **shared)
            stage = Stage(block, depth, 1 if index == 0 else 2, name=f"stage{index + 1}")
            x = stage(x, train=train)
        head = nn.classifier_head(
            self.num_classes,
            self.embedding_size,
            sub_centres=self.sub_centres,
            scale=self.scale,
            dropout=self.dropout,
            param_dtype=self.param_dtype,
        )
        return head(x, train=train)


def check_stages(depths: Sequence[int], width: int) -> None:
    """Raise `ModelError` unless there is a stage, and all depths and the width are positive."""
    if not depths or min(depths) < 1 or width < 1:
        raise ModelError(f"depths={tuple(depths)} and width={width} must be positive")
