"""`Augment`: the transforms of a recipe, in order, on a whole batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax

from cnn_jax.augment import (
    affine,
    blurring,
    colour,
    copying,
    covering,
    defects,
    fit,
    mixing,
    moving,
    patches,
    trivial,
)
from cnn_jax.augment.batch import Batch, Purpose, keys_for
from cnn_jax.errors import RecipeError
from cnn_jax.recipe import AugmentRecipe

# The keys `[B]` for a purpose; drawn when asked for, so that what is off costs nothing.
Keys = Callable[[Purpose], jax.Array]


@dataclass(frozen=True)
class Augment(AugmentRecipe):
    """The fields of the recipe as transforms: geometry, colour, covering, defects, mixing.

    Calling it maps `(key, batch)` to a batch of the same shapes, or of patches. `image` is float32
    `[B, H, W, C]` or `[B, D, H, W, C]` in 0..1 and stays in that range; geometry acts on
    `mask` too. Mixup and CutMix add `mix_label` and `mix_share` (float32 `[B]`, the share
    of the second label).

    What happens to an example depends on the key, its position in the global batch and
    itself; with mixup and CutMix also on its partner, with copies and defects on the next. Devices,
    padding and how the batch is cut up afterwards play no part. The slices of a volume are
    treated alike in their plane; `translate` and `cutout` act along all three axes.
    """

    # Unlike a recipe, nothing is on that is not asked for.
    translate: int = 0
    padding: Literal["zero", "reflect"] = "zero"

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Refuse transforms that do not fit images of shape (H, W, C) or (D, H, W, C).

        Raises:
          RecipeError: colour for images that are not RGB, the policy for a volume, depth
            for an image, or a shift, square or blur as large as the image.
        """
        fit.check(self, image_shape)

    def __call__(
        self,
        key: jax.Array,
        batch: Batch,
        *,
        root: jax.Array | None = None,
        epoch: jax.Array | None = None,
    ) -> Batch:
        """The augmented batch.

        Args:
          key: of this step.
          batch: see above; the alternating flip also needs `index`.
          root: for the alternating flip, a key that stays the same for the whole run.
          epoch: for the alternating flip, int32 scalar, from 0.

        Raises:
          RecipeError: the alternating flip without root, epoch or index.
        """
        keys = functools.partial(keys_for, key, batch["image"].shape[0])
        if self.patch:
            batch = patches.patch(keys(Purpose.PATCH), batch, self.patch, self.patch_marked)
        batch = self._geometry(keys, batch, root, epoch)
        batch = self._values(keys, batch)
        if self.copy_paste:
            batch = copying.copy_paste(keys(Purpose.COPY_PASTE), batch, self.copy_paste)
        if self.defects:
            batch = defects.add_defects(keys(Purpose.DEFECTS), batch, self.defects)
        return self._mixing(keys, batch)

    def _geometry(
        self, keys: Keys, batch: Batch, root: jax.Array | None, epoch: jax.Array | None
    ) -> Batch:
        maps = self._maps(keys, batch)
        if maps:
            batch = affine.apply(batch, maps, self.padding)
        if self.translate:
            own = keys(Purpose.TRANSLATE)
            batch = moving.translate(own, batch, self.translate, self.padding)
        if self.flip == "alternating":
            if root is None or epoch is None or "index" not in batch:
                raise RecipeError("an alternating flip needs root=, epoch= and batch['index']")
            batch = moving.alternating_flip(root, epoch, batch)
        elif self.flip:
            batch = moving.flip(keys(Purpose.FLIP), batch)
        if self.flip_vertical:
            batch = moving.flip(keys(Purpose.FLIP_VERTICAL), batch, -2)
        if self.flip_depth:
            batch = moving.flip(keys(Purpose.FLIP_DEPTH), batch, -3)
        return batch

    def _maps(self, keys: Keys, batch: Batch) -> list[affine.Map]:
        """Everything that is one resampling, in the order in which it acts on the image."""
        height, width = batch["image"].shape[-3:-1]
        maps = []
        if self.crop:
            own = keys(Purpose.CROP)
            maps.append(affine.crop(own, height, width, self.crop, self.crop_ratio))
        if self.shear:
            maps.append(affine.shear(keys(Purpose.SHEAR), self.shear))
        if self.scale:
            maps.append(affine.scale(keys(Purpose.SCALE), self.scale))
        if self.rotate:
            maps.append(affine.rotate(keys(Purpose.ROTATE), self.rotate))
        if self.policy == "trivial":
            operation, strength = trivial.draw(keys(Purpose.POLICY))
            maps.append(trivial.geometry(operation, strength, height, width))
        return maps

    def _values(self, keys: Keys, batch: Batch) -> Batch:
        if self.policy == "trivial":
            batch = trivial.colour(*trivial.draw(keys(Purpose.POLICY)), batch)
        for purpose, change, most, centre in (
            (Purpose.BRIGHTNESS, colour.brightness, self.brightness, 1),
            (Purpose.CONTRAST, colour.contrast, self.contrast, 1),
            (Purpose.SATURATION, colour.saturation, self.saturation, 1),
            (Purpose.HUE, colour.hue, self.hue, 0),
        ):
            if most:
                own = keys(purpose)
                batch = colour.jitter(own, batch, change, centre - most, centre + most)
        if self.blur:
            batch = blurring.blur(keys(Purpose.BLUR), batch, self.blur)
        if self.noise:
            batch = blurring.noise(keys(Purpose.NOISE), batch, self.noise)
        if self.cutout:
            batch = covering.cutout(keys(Purpose.CUTOUT), batch, self.cutout)
        if self.erase:
            batch = covering.erase(keys(Purpose.ERASE), batch, self.erase)
        return batch

    def _mixing(self, keys: Keys, batch: Batch) -> Batch:
        mixes = []
        if self.mixup:
            mixes.append(mixing.mixup(keys(Purpose.MIXUP), batch, self.mixup))
        if self.cutmix:
            mixes.append(mixing.cutmix(keys(Purpose.CUTMIX), batch, self.cutmix))
        if len(mixes) == 2:
            return mixing.either(keys(Purpose.MIXUP_OR_CUTMIX), *mixes)
        return mixes[0] if mixes else batch
