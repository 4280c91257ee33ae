"""LeNet-5 (LeCun et al. 1998, Gradient-based learning applied to document recognition)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.models.inputs import check_images

FIELD = 32  # LeCun centred digits of 20 x 20 pixels in a field of 32 x 32
MAP = 5  # two convolutions and two poolings later


class LeNet5(nn.Module):
    """LeNet-5 with tanh and average pooling: 61,706 parameters for 10 classes of grey images.

    As it is usually rebuilt: full connections between the feature maps, and a dense layer
    instead of radial basis functions. Smaller images are centred in 32 x 32 zeros, as MNIST
    was; for larger ones the last feature maps are pooled to 5 x 5 (adaptive average
    pooling, which does nothing at 32 x 32), so that the parameters fit any size.

    Attributes:
      num_classes: K, the number of logits.
      embedding_size: D of the embedding that the logits are made from, for margin losses; 0 for
        none. See `nn.EmbeddingHead`.
      sub_centres, scale: of the head with an embedding; see `nn.CentreHead`.
      dtype: dtype of the computation; logits are float32 at least.
      param_dtype: dtype of the parameters.
    """

    num_classes: int
    embedding_size: int = 0
    sub_centres: int = 1
    scale: float = 64.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> Any:
        """Images `[B, H, W, C]` to logits float32 `[B, K]`; `train` changes nothing. With
        `embedding_size` to a dict of `embedding`, `centres` and `logits`; its batch norm trains.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`.
        """
        check_images(image)
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = _centre(image)
        for name, features in (("conv1", 6), ("conv2", 16)):
            x = nn.tanh(nn.Conv(features, (5, 5), padding="VALID", name=name, **shared)(x))
            x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.adaptive_avg_pool(x, MAP).reshape(x.shape[0], -1)
        for name, features in (("dense1", 120), ("dense2", 84)):
            x = nn.tanh(nn.Dense(features, name=name, **shared)(x))
        if self.embedding_size:
            of_centres = nn.EmbeddingHead(
                self.num_classes,
                self.embedding_size,
                self.sub_centres,
                self.scale,
                param_dtype=self.param_dtype,
                name="head",
            )
            return of_centres(x, train=train)
        wide = jnp.float64 if self.dtype == jnp.float64 else jnp.float32
        head = nn.Dense(self.num_classes, dtype=wide, param_dtype=self.param_dtype, name="head")
        return head(x)


def _centre(image: jax.Array) -> jax.Array:
    """Zeros around `[B, H, W, C]`, as far as H and W are below 32."""
    missing = [max(0, FIELD - size) for size in image.shape[1:3]]
    sides = [(total // 2, total - total // 2) for total in missing]
    return jnp.pad(image, [(0, 0), *sides, (0, 0)])
