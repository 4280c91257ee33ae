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
from cnn_jax.models.faces import FaceNetwork
from cnn_jax.models.resnet import Layers, Stage


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


class IResNet(FaceNetwork, kw_only=True):
    """A residual network whose answer is an embedding, and logits from it.

    Stem, stages that halve the image and double the width, batch norm, and an `EmbeddingHead` that
    is given all positions of the last map. So that its parameters fit images of any size, the map
    is first pooled to `map_size` on each side (adaptive average pooling). That does nothing for
    images of the size that the network was created for, up to 112 pixels: there it is
    insightface's network, but for the bias of the dense layer and the untrained scale of the norm
    after it, which change nothing.

    Attributes:
      depths: number of blocks in each stage.
      first_stride: of the first stage.
      num_classes, width, embedding_size, map_size, sub_centres, scale, dropout, dtype,
        param_dtype: see `FaceNetwork`.
    """

    depths: Sequence[int] = (2, 2, 2, 2)

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """Images `[B, H, W, C]` to `embedding` float32 `[B, D]`, `centres` float32 `[K, S, D]`
        and `logits` float32 `[B, K]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        self.check(image)
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = self.conv(self.width, 3, name="stem")(image)
        x = self.norm(train, name="stem_norm")(x)
        x = nn.ChannelPReLU(param_dtype=self.param_dtype, name="stem_prelu")(x)
        for index, depth in enumerate(self.depths):
            block = partial(IBlock, features=self.width * 2**index, **shared)
            stride = self.first_stride if index == 0 else 2
            x = Stage(block, depth, stride, name=f"stage{index + 1}")(x, train=train)
        x = self.norm(train, name="norm")(x)
        return self.head(nn.adaptive_avg_pool(x, self.map_size), train=train)
