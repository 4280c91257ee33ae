"""An autoencoder: the image through a few numbers and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax import nn
from cnn_jax.errors import ModelError
from cnn_jax.models.compact import Stage
from cnn_jax.models.inputs import check_images


class Autoencoder(nn.Module):
    """A convolutional autoencoder whose reconstruction sees only the embedding (Masci et al. 2011).

    Of L levels, `encoder1` sees the whole image and each further one half of it, by stride; what
    `encoderL` finds is averaged to `grid` x `grid` and brought to the embedding by one dense layer.
    The way back mirrors it: dense, resized linearly to the lowest level, `decoderL`, and `up`
    doubles it level by level. There are no skip connections, which would let the image pass by.
    An odd side is halved to the next larger number and cropped when it is doubled: images may have
    any size, and the shapes of the parameters do not depend on it.

    It has no logits, so it is no model of `create`, whose models all classify.

    Attributes:
      widths: channels of each level, from the full image down.
      latent: D, the length of the embedding.
      grid: side of what the embedding is made from.
      units: convolutions of each encoder and each decoder.
      dtype: dtype of the computation; both outputs are float32 in any case.
      param_dtype: dtype of the parameters.
    """

    widths: Sequence[int] = (16, 32, 64)
    latent: int = 32
    grid: int = 4
    units: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> dict[str, jax.Array]:
        """What is left of an image, and what it was.

        Args:
          image: floating `[B, H, W, C]`.
          train: whether batches are normalised by their own statistics.

        Returns:
          `reconstruction` float32 `[B, H, W, C]` and `embedding` float32 `[B, D]`.

        Raises:
          ModelError: the images are not floating `[B, H, W, C]`, or a field makes no network.
        """
        check_images(image)
        self._check_fields()
        shared: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x, shapes = image, []
        for level, width in enumerate(self.widths, start=1):
            stride = 1 if level == 1 else 2
            x = Stage(width, self.units, stride, name=f"encoder{level}", **shared)(x, train=train)
            shapes.append(x.shape)
        x = nn.adaptive_avg_pool(x, self.grid).reshape(len(x), -1)
        embedding = nn.Dense(self.latent, name="embedding", **shared)(x)

        lowest = self.widths[-1]
        x = nn.relu(nn.Dense(self.grid**2 * lowest, name="expand", **shared)(embedding))
        x = x.reshape(-1, self.grid, self.grid, lowest)
        x = jax.image.resize(x, shapes[-1], "linear")
        for level in range(len(self.widths), 0, -1):
            width = self.widths[level - 1]
            if level < len(self.widths):
                doubled = self._double(width, f"up{level}")(x)
                x = doubled[tuple(slice(size) for size in shapes[level - 1])]
            x = Stage(width, self.units, 1, name=f"decoder{level}", **shared)(x, train=train)
        last = nn.Conv(
            image.shape[-1],
            (1, 1),
            dtype=jnp.float32,
            param_dtype=self.param_dtype,
            name="reconstruction",
        )
        return {
            "reconstruction": last(x.astype(jnp.float32)),
            "embedding": embedding.astype(jnp.float32),
        }

    def _double(self, width: int, name: str) -> nn.ConvTranspose:
        # Each pixel of the output is made from one tap of the kernel: its fan-in is C alone.
        return nn.ConvTranspose(
            width,
            (2, 2),
            strides=2,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=nn.initializers.he_normal(batch_axis=(0, 1)),
            name=name,
        )

    def _check_fields(self) -> None:
        if not self.widths or min(*self.widths, self.latent, self.grid, self.units) < 1:
            raise ModelError(
                f"widths={tuple(self.widths)} must name a level or more, and they and "
                f"latent={self.latent}, grid={self.grid} and units={self.units} must be positive"
            )
