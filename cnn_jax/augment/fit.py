"""Which transforms fit which images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnn_jax.augment.blurring import blur_radius
from cnn_jax.augment.defects import SMALLEST
from cnn_jax.augment.patches import window_of
from cnn_jax.errors import RecipeError

if TYPE_CHECKING:
    from cnn_jax.augment.pipeline import Augment


def check(augment: Augment, image_shape: tuple[int, ...]) -> None:
    """Refuse transforms that do not fit images of shape (H, W, C) or (D, H, W, C).

    Raises:
      RecipeError: one line that names the field and says what to set it to.
    """
    volume = len(image_shape) == 4
    shown = list(image_shape)
    if volume and augment.policy != "none":
        raise RecipeError(f"augment.policy is for images, not volumes {shown}: set it to none")
    if not volume and augment.flip_depth:
        raise RecipeError(f"augment.flip_depth is for volumes, not images {shown}: set it to false")
    for name in ("saturation", "hue"):
        if getattr(augment, name) and (volume or image_shape[-1] != 3):
            raise RecipeError(f"augment.{name} needs RGB images, not {shown}: set it to 0")
    if augment.patch:
        window = window_of(image_shape, augment.patch)
        if window == image_shape[:-1]:
            raise RecipeError(
                f"augment.patch is {augment.patch}, but the images are only {shown}: set it to 0, "
                "which is the whole image"
            )
        image_shape = (*window, image_shape[-1])
        shown = list(image_shape)
    if augment.copy_paste and volume:
        raise RecipeError(f"augment.copy_paste is for images, not volumes {shown}: set it to 0")
    if augment.defects and (volume or min(image_shape[:-1]) < SMALLEST):
        raise RecipeError(
            f"augment.defects are made in images of {SMALLEST} pixels a side or more, not in "
            f"{shown}: set it to 0"
        )
    side, plane = min(image_shape[:-1]), min(image_shape[-3:-1])
    for name, pixels, most in (
        ("translate", augment.translate, side),
        ("cutout", augment.cutout, side),
        ("blur", blur_radius(augment.blur), plane),
    ):
        if pixels >= most:
            reach = "reaches" if name == "blur" else "is"
            raise RecipeError(
                f"augment.{name} {reach} {pixels} pixels, but the images are only {most} across"
            )
