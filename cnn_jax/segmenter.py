"""`Segmenter`: a trained network with all it needs to mark what is in a picture."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax import exported, nn
from cnn_jax.assembly import evaluating
from cnn_jax.classifier import build_model
from cnn_jax.data.decode import restore_values
from cnn_jax.errors import DataError, RunError
from cnn_jax.new_images import answers_for, sizes_of
from cnn_jax.programs import shared
from cnn_jax.recipe import Recipe
from cnn_jax.training.devices import Placement, place
from cnn_jax.training.evaluate import EvalStep
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.segmentation import Segmentation
from cnn_jax.training.step import make_eval_step
from cnn_jax.whole_files import whole_file

if TYPE_CHECKING:
    from cnn_jax.new_images import Images

# Colours of the regions 1, 2, ... in a mask file of several (Okabe and Ito's, for all eyes).
_COLOURS = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)


@dataclass(frozen=True, eq=False)
class Segmented:
    """Masks of N images.

    Attributes:
      ids: path of each image, or its position.
      regions: R names, the background first.
      masks: uint8 `[H, W]` (of volumes `[D, H, W]`) of each, as large as its image (upright,
        where EXIF turns it); the number of the region of each pixel.
      highest: float64 `[N, R - 1]`, the highest probability of each region at any pixel.
    """

    ids: tuple[str, ...]
    regions: tuple[str, ...]
    masks: tuple[np.ndarray, ...]
    highest: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        marked = int((self.shares.sum(axis=1) > 0).sum())
        return f"Segmented({len(self)} images, {marked} with {', '.join(self.regions[1:])})"

    @property
    def shares(self) -> np.ndarray:
        """float64 `[N, R - 1]`: share of the image's area that each region has."""
        return np.array(
            [[(mask == r).mean() for r in range(1, len(self.regions))] for mask in self.masks]
        ).reshape(len(self), len(self.regions) - 1)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write `NAME_mask.png` for each image, and return the paths.

        The values of the pixels are the numbers of the regions, shown as black and white or, of
        several regions, in colours; `data.load` reads them as masks.

        Raises:
          DataError: as `mask_paths`, before anything is written; or it cannot be written, or these
            are volumes.
        """
        from PIL import Image

        folder = Path(folder)
        paths = mask_paths(folder, self.ids)
        if self.masks and self.masks[0].ndim != 2:
            raise DataError("masks of volumes are no pictures: save `masks` as arrays (np.savez)")
        colours = (_COLOURS * len(self.regions))[: len(self.regions) - 1]
        if len(colours) == 1:
            colours = ((255, 255, 255),)
        palette = [0, 0, 0, *(value for colour in colours for value in colour)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path, mask in zip(paths, self.masks, strict=True):
                picture = Image.fromarray(mask).convert("L")
                picture.putpalette(palette)
                with whole_file(path) as file:
                    picture.save(file, format="PNG")
        except OSError as error:
            raise DataError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
        return paths


def mask_paths(folder: str | os.PathLike[str], ids: Sequence[str]) -> list[Path]:
    """Where `Segmented.save` writes the masks of images with these ids.

    `NAME_mask.png`; where images of several folders have one name, with that of the folder before.

    Raises:
      DataError: two would still have one name, or one is there already.
    """
    stems = [Path(name).stem for name in ids]
    if len(set(stems)) < len(stems):
        stems = [f"{Path(name).parent.name}_{Path(name).stem}" for name in ids]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise DataError(f"two masks would be '{twice[0]}_mask.png': predict their images apart")
    paths = [Path(folder) / f"{stem}_mask.png" for stem in stems]
    for path in paths:
        if path.exists():
            raise DataError(f"{str(path)!r} is there already: choose another folder for the masks")
    return paths


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A model, its variables, and how pictures become its input.

    Where it was trained on patches (`augment.patch`) it answers for whole images of
    `image_shape` by overlapping windows of the patches' size; see `training.windows`. These are
    part of it, saved or not: the recipe and the shape say where they lie.

    Attributes:
      recipe: of the run; names the model.
      model: the Linen module.
      variables: its parameters and other collections.
      preprocess: pixels to network input.
      regions: R names, the background first.
      image_shape: (H, W, C) that images are brought to.
    """

    recipe: Recipe
    model: nn.Module
    variables: Mapping[str, Any]
    preprocess: Preprocess
    regions: tuple[str, ...]
    image_shape: tuple[int, ...]

    def __repr__(self) -> str:
        name = self.recipe.model.name.removeprefix("custom:")
        shape = "×".join(map(str, self.image_shape))
        return f"Segmenter({name}, {', '.join(self.regions[1:])}, images {shape})"

    def segment(self, images: Images) -> Segmented:
        """Masks of images, each as large as its image.

        Args:
          images: as of `Classifier.predict`. What `data.fit` cuts off an image that is not of
            the network's shape is background in its mask.

        Raises:
          DataError: no images, a wrong shape, or a file that cannot be decoded.
        """
        ids, p = self.probabilities(images)
        # Ties and rounding as of `MaskPredictions.predicted`.
        background = 1 - p.sum(axis=-1, dtype=np.float64)
        best = np.where(p.max(axis=-1) > background, p.argmax(axis=-1) + 1, 0).astype(np.uint8)
        masks = tuple(best)
        if sizes := sizes_of(images):
            fit = self.recipe.data.fit
            masks = tuple(
                mask if mask.shape == size else restore_values(mask, size, fit)
                for mask, size in zip(best, sizes, strict=True)
            )
        highest = p.max(axis=tuple(range(1, p.ndim - 1))).astype(np.float64)
        return Segmented(ids, self.regions, masks, highest)

    def probabilities(self, images: Images) -> tuple[tuple[str, ...], np.ndarray]:
        """Ids, and of the regions but the background float16 `[N, H, W, R - 1]`.

        At the network's size; arguments and errors as of `segment`.
        """
        return answers_for(
            images, self.image_shape, self.recipe, self._placement, self._eval_step, self._on_device
        )

    @functools.cached_property
    def _eval_step(self) -> EvalStep:
        apply = evaluating(self.recipe, self.model, self.image_shape)
        task = Segmentation(self.regions)
        return shared(make_eval_step, self.model, apply, task, self.preprocess, "one")

    @functools.cached_property
    def _placement(self) -> Placement:
        return place(self.recipe.train.devices)

    @functools.cached_property
    def _on_device(self) -> Any:
        return self._placement.replicate(dict(self.variables))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `model.safetensors` and, beside it, `model.json` with all the rest.

        Raises:
          RunError: the folder has such files already, or cannot be written.
        """
        return exported.write(
            folder,
            recipe=self.recipe,
            variables=self.variables,
            preprocess=self.preprocess,
            image_shape=self.image_shape,
            described={"kind": exported.MASKS, "regions": list(self.regions)},
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, model: nn.Module | None = None) -> Segmenter:
        """Read what `save` wrote; its masks are those of the run, bit for bit.

        Args:
          folder: with `model.safetensors` and `model.json`.
          model: the module, if it is not one of ours.

        Raises:
          RunError: a file is missing or damaged, the folder is that of a run, or the network
            classifies.
        """
        loading = f"cnn_jax.Segmenter.load({str(folder)!r}, "
        with exported.reading(folder):
            found = exported.read(folder)
            if found.described["kind"] != exported.MASKS:
                raise RunError(
                    f"the network in {str(folder)!r} classifies: read it with "
                    "cnn_jax.Classifier.load"
                )
            regions = tuple(found.described["regions"])
            if len(regions) < 2:
                raise ValueError(f"{len(regions)} regions, where there is a background and others")
            return cls(
                recipe=found.recipe,
                model=model or build_model(found.recipe, len(regions), found.image_shape, loading),
                variables=found.variables,
                preprocess=found.preprocess,
                regions=regions,
                image_shape=found.image_shape,
            )
