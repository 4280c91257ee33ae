"""Segmentation masks that lie beside images: which belong to which, and reading them.

The masks of an image `x` are `x_mask.png`, `x_mask_1.png`, ... in its folder; or `x.png` where
the image is `x.jpg`; or a file of its name, with or without `_mask`, in a folder `masks` that
stands where the image's folder `images` stands; or in `ground_truth` where it is in `test`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cnn_jax.data.decode import Fit, mask_values, read_header, resize_values
from cnn_jax.data.reading import ImageList, some_of
from cnn_jax.data.sources import for_each
from cnn_jax.errors import DataError

BACKGROUND = "background"
# What the one region is called that a mask without named regions has.
LESION = "lesion"
# The folders that may stand beside each other.
IMAGES_FOLDER, MASKS_FOLDER = "images", "masks"
# Sets of defects, such as MVTec AD, keep the masks of `test/<class>/x.png` in
# `ground_truth/<class>/x_mask.png`, and none of those in which there is nothing to mark.
TEST_FOLDER, TRUTH_FOLDER = "test", "ground_truth"
# A mask is one byte a pixel.
MOST_REGIONS = 255

MASK_NAME = re.compile(r"(?P<stem>.+)_mask(_\d+)?")


def split_off(folder: Path, images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The images among some image files below a folder, and the masks; each in their order."""
    places = {image.parent for image in images}
    stems = {image.with_suffix("") for image in images}
    photos = {i.with_suffix("") for i in images if i.suffix.lower() in (".jpg", ".jpeg")}

    def is_mask(image: Path) -> bool:
        as_image = _as_image(image, folder)
        if as_image != image and as_image.parent in places:
            return True
        match = MASK_NAME.fullmatch(image.stem)
        if match is not None and image.with_name(match["stem"]) in stems:
            return True
        return image.suffix.lower() == ".png" and image.with_suffix("") in photos

    masks = [image for image in images if is_mask(image)]
    taken = set(masks)
    return [image for image in images if image not in taken], masks


def masks_among(files: Sequence[Path]) -> list[Path]:
    """Those of some image files that are masks of others among them."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        top = (
            file.parent.parent if file.parent.name in (IMAGES_FOLDER, MASKS_FOLDER) else file.parent
        )
        by_folder.setdefault(top, []).append(file)
    return [mask for folder, some in by_folder.items() for mask in split_off(folder, some)[1]]


def has_truth(folder: Path) -> bool:
    """Whether the masks of a test part lie in a folder of their own."""
    return all((folder / name).is_dir() for name in (TEST_FOLDER, TRUTH_FOLDER))


def masks_of(folder: Path, images: Sequence[Path], masks: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The masks of each image, sorted by name.

    Args:
      folder: below which all lie.
      images: image files.
      masks: files among which their masks are.

    Raises:
      DataError: a mask belongs to no image, or an image has none; a picture in which there is
        nothing needs a black one, lest a forgotten mask count as healthy.
    """
    listed = masks_beside(folder, images, masks)
    without = [
        image
        for image, own in zip(images, listed, strict=True)
        if not own and not _has_nothing(image, folder)
    ]
    if without:
        raise DataError(
            f"{len(without)} of {len(images)} images have no mask: {some_of(without)}. Where there "
            "is nothing to mark an image needs a black mask; see 'masks' in the README for names"
        )
    return listed


def masks_beside(
    folder: Path, images: Sequence[Path], masks: Sequence[Path]
) -> list[tuple[Path, ...]]:
    """As `masks_of`, but an image may have none.

    Raises:
      DataError: a mask belongs to no image.
    """
    stems = {image.with_suffix("") for image in images}
    found: dict[Path, list[Path]] = {}
    for mask in sorted(masks):
        match = MASK_NAME.fullmatch(mask.stem)
        names = {mask.with_suffix("")}
        if match is not None:
            names.add(mask.with_name(match["stem"]))
        of = {_as_image(name, folder) for name in names} & stems
        if not of:
            raise DataError(f"mask {str(mask)!r} belongs to no image: see 'masks' in the README")
        for name in of:
            found.setdefault(name, []).append(mask)
    return [tuple(found.get(image.with_suffix(""), ())) for image in images]


def _has_nothing(image: Path, folder: Path) -> bool:
    """Whether it is of a class without a folder beside those of the masks of a test part."""
    parts = image.relative_to(folder).parts
    return has_truth(folder) and not (folder / TRUTH_FOLDER / parts[1]).is_dir()


def _as_image(name: Path, folder: Path) -> Path:
    """A mask's path without suffix as that of its image: `masks` below the folder is `images`."""
    parts = name.relative_to(folder).parts
    if parts[0] == TRUTH_FOLDER:
        return folder.joinpath(TEST_FOLDER, *parts[1:])
    return folder.joinpath(*(IMAGES_FOLDER if part == MASKS_FOLDER else part for part in parts))


def read_masks(
    images: ImageList,
    masks: Sequence[tuple[Path, ...]],
    shape: tuple[int, int],
    fit: Fit,
    regions: Sequence[str],
    *,
    named: bool,
) -> tuple[np.ndarray, int]:
    """Masks uint8 `[N, H, W]`, brought to the shape as their images are; see `resize_values`.

    Args:
      images: the image files, whose size a mask must have.
      masks: the files of each; where several mark a pixel, the last counts.
      shape: (H, W).
      fit: as of the images.
      regions: what the values mean, the background first.
      named: whether the values of the files are numbers of regions; if not, each file has black
        and one other value.

    Returns:
      The masks, and how many lost a piece of a region outside of the crop.

    Raises:
      DataError: a mask cannot be read, is of another size than its image, or has values that are
        no region; names the first twenty.
    """
    values = np.zeros((len(masks), *shape), np.uint8)

    def read(index: int) -> bool:
        image = images[index]
        header = read_header(image)
        whole = np.zeros((header.height, header.width), np.uint8)
        for path in masks[index]:
            found = mask_values(path)
            if found.shape != whole.shape:
                raise DataError(
                    f"mask {str(path)!r} is {found.shape[1]}×{found.shape[0]}, but its image is "
                    f"{header.width}×{header.height} pixels: a mask has the size of its image"
                )
            found = _numbered(found, path, regions) if named else _binary(found, path)
            whole = np.where(found > 0, found, whole)
        values[index], pieces = resize_values(whole, shape, fit)
        return pieces > 0

    lost = for_each(read, len(masks))
    return values, sum(lost)


def _binary(values: np.ndarray, path: Path) -> np.ndarray:
    """uint8 `[H, W]` of 0 and 1."""
    others = np.unique(values[values > 0])
    if len(others) > 1:
        raise DataError(
            f"mask {str(path)!r} has {len(others)} values beside black ({some_of(others.tolist())})"
            ": a mask is black and one other value. Save it without smoothing, as PNG; or, where "
            "values are regions, name these in data.regions"
        )
    return (values > 0).astype(np.uint8)


def _numbered(values: np.ndarray, path: Path, regions: Sequence[str]) -> np.ndarray:
    """uint8 `[H, W]` of the numbers of regions."""
    if values.max(initial=0) >= len(regions):
        raise DataError(
            f"mask {str(path)!r} has the value {values.max()}, but data.regions names "
            f"{len(regions) - 1}: values are 0 (background) to {len(regions) - 1} ({regions[-1]})"
        )
    return values.astype(np.uint8)
