"""Improved residual networks for faces (Deng et al. 2019, ArcFace, sec. 3.1).

The blocks and the order of the layers are those of insightface's `arcface_torch`: batch norm
before the first convolution of a block and none after the sum, PReLU, and an embedding that sees
where in the face a feature lies. Padding is that of PyTorch's networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.inputs import check_images
from cnn_jax.models.resnet import Layers, Stage, check_stages


class IBlock(Layers):
    """y = x + norm(conv(prelu(norm(conv(norm(x)))))), two 3x3 convolutions; the last has the
    stride."""

    features: int = 64
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
        y = self.norm(train, name="norm1")(x)
        y = self.conv(self.features, 3, name="conv1")(y)
        y = self.norm(train, name="norm2")(y)
        y = nn.ChannelPReLU(param_dtype=self.param_dtype, name="prelu")(y)
        y = self.conv(self.features, 3, self.stride, name="conv2")(y)
        y = self.norm(train, name="norm3")(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, self.stride, name="projection")(x)
            x = self.norm(train, name="projection_norm")(x)
        return x + y


class IResNet(Layers, kw_only=True):
    """A residual network whose answer is an embedding, and logits from it.

    Stem, stages that halve the image and double the width, batch norm, and an `EmbeddingHead` that
    is given all positions of the last map. So that its parameters fit images of any size, the map
    is first pooled to `map_size` on each side (adaptive average pooling). That does nothing for
    images of the size that the network was created for, up to 112 pixels: there it is
    insightface's network, but for the bias of the dense layer and the untrained scale of the norm
    after it, which change nothing.

    Attributes:
      num_classes: K, the number of people.
      depths: number of blocks in each stage.
      width: channels of the first stage.
      embedding_size: D.
      first_stride: stride of the first stage: 2, or 1 for small images. `create` chooses it.
      map_size: positions along each side of the last map. `create` chooses it by the image size.
      sub_centres, scale: see `nn.CentreHead`.
      dropout: probability that a value of the last map is dropped in training.
      dtype: dtype of the computation; embedding and logits are float32 in any case.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    depths: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    embedding_size: int = 512
    first_stride: int = 2
    map_size: int = 7
    sub_centres: int = 1
    scale: float = 64.0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Images `[B, H, W, C]` to `embedding` float32 `[B, D]`, `centres` float32 `[K, S, D]`
        and `logits` float32 `[B, K]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        check_images(image)
        check_stages(self.depths, self.width)
        check_ends(self.first_stride, self.map_size)
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = self.conv(self.width, 3, name="stem")(image)
        x = self.norm(train, name="stem_norm")(x)
        x = nn.ChannelPReLU(param_dtype=self.param_dtype, name="stem_prelu")(x)
        for index, depth in enumerate(self.depths):
            block = partial(IBlock, features=self.width * 2**index, **shared)
            stride = self.first_stride if index == 0 else 2
            x = Stage(block, depth, stride, name=f"stage{index + 1}")(x, train=train)
        x = self.norm(train, name="norm")(x)
        x = nn.adaptive_avg_pool(x, self.map_size).reshape(x.shape[0], -1)
        head = nn.EmbeddingHead(
            self.num_classes,
            self.embedding_size,
            self.sub_centres,
            self.scale,
            self.dropout,
            self.param_dtype,
            name="head",
        )
        return head(x, train=train)


def check_ends(first_stride: int, map_size: int) -> None:
    """Raise `ModelError` unless both are at least 1."""
    if min(first_stride, map_size) < 1:
        raise ModelError(f"first_stride={first_stride} and map_size={map_size} must be at least 1")
