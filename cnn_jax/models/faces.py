"""What the networks for faces share: the fields of their ends, and the head."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.inputs import check_images
from cnn_jax.models.resnet import Layers, check_stages


class FaceNetwork(Layers, kw_only=True):
    """A network whose answer is an embedding that sees where in the face a feature lies.

    Attributes:
      num_classes: K, the number of people.
      depths: number of blocks in each stage.
      width: channels of the first stage.
      embedding_size: D.
      first_stride: of the first layers: 2, or 1 for small images. `create` chooses it.
      map_size: positions along each side of the last map. `create` chooses it by the image size.
      sub_centres, scale: see `nn.CentreHead`.
      dropout: probability that a value of what the embedding is made from is dropped in training.
      dtype: dtype of the computation; embedding and logits are float32 in any case.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    depths: Sequence[int] = ()
    width: int = 64
    embedding_size: int = 512
    first_stride: int = 2
    map_size: int = 7
    sub_centres: int = 1
    scale: float = 64.0
    dropout: float = 0.0

    def check(self, image: jax.Array) -> None:
        """Raise `ModelError` for what are no images, or fields that make no network."""
        check_images(image)
        check_stages(self.depths, self.width)
        if min(self.first_stride, self.map_size) < 1:
            raise ModelError(
                f"first_stride={self.first_stride} and map_size={self.map_size} must be at least 1"
            )

    def head(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """The last map `[B, ...]`, all positions of it, to `embedding` float32 `[B, D]`,
        `centres` float32 `[K, S, D]` and `logits` float32 `[B, K]`."""
        head = nn.EmbeddingHead(
            self.num_classes,
            self.embedding_size,
            self.sub_centres,
            self.scale,
            self.dropout,
            self.param_dtype,
            name="head",
        )
        return head(x.reshape(x.shape[0], -1), train=train)
