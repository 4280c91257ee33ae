"""Finding defects that were made by computer: a segmentation that needs no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from cnn_jax import ops
from cnn_jax.augment import example_keys
from cnn_jax.augment.defects import SMALLEST, some_damaged
from cnn_jax.errors import DataError, ModelError, RecipeError
from cnn_jax.training.selfsupervised import WithoutLabels
from cnn_jax.training.state import Batch as Rows
from cnn_jax.training.task import Batch, Hyper

# What the batch calls the pixels that were changed.
_CHANGED = "changed"


@dataclass(frozen=True)
class Synthetic(WithoutLabels):
    """Which pixels belong to a defect that was made in the image? See `augment.defects`.

    The model gives a logit for every pixel, `[B, H, W, 1]`. The loss of an image is the mean binary
    cross-entropy of its cells, squares of a few pixels, whose logit is the highest in them, and
    which are to be found where any of their pixels is: so the outline of what is large counts for
    no more than what is thin.

    Attributes:
      intact: share of the images that are left as they are.
      cell: side of a cell, in pixels.

    Raises:
      RecipeError: `intact` is not in 0..1, or `cell` is below 1.
    """

    whole_batch: ClassVar[bool] = True  # textures come from the next image of the batch

    intact: float = 0.3
    cell: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.intact <= 1:
            raise RecipeError(f"intact is a share of images, from 0 to 1, not {self.intact}")
        if self.cell < 1:
            raise RecipeError(f"a cell has a side of 1 pixel or more, not {self.cell}")

    @property
    def num_outputs(self) -> int:
        """1, of each pixel."""
        return 1

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """Images with and without a defect, and `changed` bool `[B, H, W]`; `mask` stays.

        The texture of a defect is that of the next valid image, of the last that of the first.

        Raises:
          DataError: volumes, or a side that is shorter than 8 pixels.
        """
        image = batch["image"]
        if image.ndim != 4 or min(image.shape[1:3]) < SMALLEST:
            raise DataError(
                f"defects are made in images [H, W, C] of {SMALLEST} pixels a side or more, not in "
                f"{list(image.shape[1:])}"
            )
        keys = example_keys(key, len(image))
        images, where = some_damaged(keys, image, batch.get("valid"), 1 - self.intact)
        return {**batch, "image": images, _CHANGED: where}

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean cross-entropy of the cells of each image, and weight 1, float32 `[B]`.

        Raises:
          ModelError: the model does not give one logit for each pixel.
        """
        logits, changed = self._cells(outputs, batch)
        error = optax.sigmoid_binary_cross_entropy(logits, changed).mean(axis=(1, 2))
        return error, jnp.ones_like(error)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """Dice of the cells whose logit is positive, float32 `[B]`; 1 where nothing is to find,
        and nothing is found."""
        logits, cells = self._cells(outputs, batch)
        found, changed = logits > 0, cells > 0
        both, either = (
            pixels.sum(axis=(1, 2), dtype=jnp.float32)
            for pixels in (found & changed, found | changed)
        )
        # |A| + |B| is |A and B| + |A or B|.
        return jnp.where(either > 0, 2 * both / jnp.maximum(both + either, 1), 1)

    def _cells(self, outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Logits and 0 or 1 of each cell, float32 `[B, h, w]`."""
        changed = batch[_CHANGED]
        both = jnp.stack([one_logit(outputs, changed.shape), changed.astype(jnp.float32)], axis=-1)
        side = (self.cell, self.cell)
        highest = ops.max_pool(both, side, side, "SAME")
        return highest[..., 0], highest[..., 1]

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """The logits."""
        return {"logits": outputs}


def one_logit(outputs: Any, shape: tuple[int, ...]) -> jax.Array:
    """float32 `[B, H, W]`.

    Raises:
      ModelError: the model does not give one for each pixel.
    """
    if not isinstance(outputs, jax.Array) or outputs.shape != (*shape, 1):
        found = list(getattr(outputs, "shape", [])) or type(outputs).__name__
        raise ModelError(
            f"finding defects takes one logit for each pixel, {[*shape, 1]}, and the model gives "
            f"{found}: take unet with num_classes=1"
        )
    return outputs[..., 0].astype(jnp.float32)
