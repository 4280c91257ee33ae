"""`Augment`: the transforms of a recipe, in order, on a whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from cnn_jax.augment import transforms
from cnn_jax.errors import RecipeError

Batch = dict[str, jax.Array]


def example_keys(key: jax.Array, batch_size: int) -> jax.Array:
    """One key per example, `[B]`, folded from the position in the global batch.

    What happens to an example then depends on neither the number of devices nor the
    padding behind it.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))


@dataclass(frozen=True)
class Augment:
    """Random shifts, mirroring, cutout and mixup; see `AugmentRecipe` for the fields.

    Calling it maps `(key, batch)` to a batch of the same shapes. `image` is float32
    `[B, H, W, C]` in 0..1; geometry acts on `mask` too. Mixup adds `mix_label` and
    `mix_share` (float32 `[B]`, the share of the second label).
    """

    translate: int = 0
    padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False
    cutout: int = 0
    mixup: float = 0.0

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Refuse transforms that do not fit images of shape (H, W, C).

        Raises:
          RecipeError: a volume, or a shift or a square as large as the image.
        """
        active = self.translate or self.flip or self.cutout
        if active and len(image_shape) != 3:
            raise RecipeError(
                f"augment works on [H, W, C] images, not {list(image_shape)}: set "
                "augment.translate and augment.cutout to 0 and augment.flip to false"
            )
        side = min(image_shape[:2])
        for name, pixels in (("translate", self.translate), ("cutout", self.cutout)):
            if pixels >= side:
                raise RecipeError(
                    f"augment.{name} is {pixels} pixels, but the images are only {side} across"
                )

    def __call__(self, key: jax.Array, batch: Batch) -> Batch:
        """The augmented batch."""
        keys = example_keys(key, batch["image"].shape[0])
        if self.translate:
            batch = transforms.translate(_purpose(keys, 0), batch, self.translate, self.padding)
        if self.flip:
            batch = transforms.flip(_purpose(keys, 1), batch)
        if self.cutout:
            batch = transforms.cutout(_purpose(keys, 2), batch, self.cutout)
        if self.mixup:
            batch = transforms.mixup(_purpose(keys, 3), batch, self.mixup)
        return batch


def _purpose(keys: jax.Array, number: int) -> jax.Array:
    """A key per example that only one transform uses: adding one never changes another."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
