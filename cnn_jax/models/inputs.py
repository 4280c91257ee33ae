"""What every model asks of its images."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.errors import ModelError


def check_images(image: jax.Array) -> None:
    """Raise `ModelError` unless `image` is floating `[B, H, W, C]`."""
    if image.ndim != 4:
        raise ModelError(f"images must be [B, H, W, C], not {list(image.shape)}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ModelError(
            f"images must be floating-point, not {image.dtype}: convert and scale them first"
        )
