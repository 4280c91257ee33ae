"""What every model asks of its images."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cnn_jax.errors import ModelError


def check_images(image: jax.Array, *, volumes: bool = False) -> None:
    """Raise `ModelError` unless `image` is floating `[B, H, W, C]`.

    With `volumes` it may be `[B, D, H, W, C]` too.
    """
    if image.ndim != 4 and not (volumes and image.ndim == 5):
        wanted = "[B, H, W, C] or [B, D, H, W, C]" if volumes else "[B, H, W, C]"
        raise ModelError(f"images must be {wanted}, not {list(image.shape)}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ModelError(
            f"images must be floating-point, not {image.dtype}: convert and scale them first"
        )
