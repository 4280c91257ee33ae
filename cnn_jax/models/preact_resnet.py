"""Residual networks with pre-activation (He et al. 2016, Identity mappings), narrow and wide.

Wide residual networks (Zagoruyko & Komodakis 2016) are the same with a wider first stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax

from cnn_jax import nn
from cnn_jax.models.inputs import check_images
from cnn_jax.models.resnet import Layers, Stage, Stem, check_stages


class PreactBlock(Layers):
    """y = x + f(relu(norm(x))) with f two 3x3 convolutions; the sum is never rectified."""

    features: int = 64
    stride: int = 1
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H / stride, W / stride, features]`."""
        y = nn.relu(self.norm(train, name="norm1")(x))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = self.conv(self.features, 1, self.stride, name="projection")(y)
        y = self.conv(self.features, 3, self.stride, name="conv1")(y)
        y = nn.relu(self.norm(train, name="norm2")(y))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + self.conv(self.features, 3, name="conv2")(y)


class PreactResNet(Layers, kw_only=True):
    """A pre-activation residual network: stem, stages, a last norm and ReLU, head.

    Attributes:
      num_classes: K, the number of logits.
      depths: number of blocks in each stage.
      stem_width: channels of the stem.
      width: channels of the first stage; each further one has twice as many.
      small_stem: 3x3 at full resolution, instead of 7x7 and pooling that quarter the image.
      block_dropout: probability that an activation between a block's convolutions is dropped.
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
    stem_width: int = 64
    width: int = 64
    small_stem: bool = False
    block_dropout: float = 0.0
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
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        stem = Stem(
            features=self.stem_width, small=self.small_stem, activate=False, name="stem", **shared
        )
        x = stem(image, train=train)
        for index, depth in enumerate(self.depths):
            features = self.width * 2**index
            block = partial(PreactBlock, features=features, dropout=self.block_dropout, **shared)
            stage = Stage(block, depth, 1 if index == 0 else 2, name=f"stage{index + 1}")
            x = stage(x, train=train)
        x = nn.relu(self.norm(train, name="norm")(x))
        head = nn.classifier_head(
            self.num_classes,
            self.embedding_size,
            sub_centres=self.sub_centres,
            scale=self.scale,
            dropout=self.dropout,
            param_dtype=self.param_dtype,
        )
        return head(x, train=train)
