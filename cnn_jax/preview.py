"""What augmentation does to the training images of a data set, as a contact sheet."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import fields
from cnn_jax.assembly import make_augment
from cnn_jax.data import Dataset
from cnn_jax.errors import DataError
from cnn_jax.recipe import AugmentRecipe, Recipe
from cnn_jax.report import contact_sheet
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.state import purpose_key

# Examples on a sheet, and versions of each beside it.
EXAMPLES = 20
VERSIONS = 5


def show(recipe: Recipe, dataset: Dataset, path: str | os.PathLike[str]) -> Path:
    """Write a contact sheet of training images before and after augmentation.

    The versions are what the training step of the recipe would see: the same transforms
    with the same kind of keys, one step apart, in batches of the examples shown.

    Args:
      recipe: its `augment` and `seed` are used.
      dataset: with a train part of images (no volumes).
      path: the PNG; its folder is made if need be.

    Returns:
      The path.

    Raises:
      RecipeError: a transform does not fit the images.
      DataError: the images are volumes, or the file is there already, is no .png or cannot
        be written.
    """
    path = Path(path)
    check_place(path)
    if len(dataset.image_shape) != 3:
        raise DataError(f"a sheet shows images, not volumes of {list(dataset.image_shape)}")
    rows = _chosen(dataset)
    split = dataset.splits["train"]
    batch = {
        "image": Preprocess.to_unit(jnp.asarray(split.read_images(rows))),
        "label": jnp.asarray(split.targets["label"][rows]),
        "index": jnp.asarray(rows, jnp.int32),
    }
    versions, captions = _versions(recipe, batch, dataset.classes["label"])
    before = _pixels(batch["image"])
    strips = [
        contact_sheet.Strip(
            name if k == 0 or name != _name(dataset, rows[k - 1]) else "",
            before[k],
            versions[:, k],
            [line[k] for line in captions],
        )
        for k, name in enumerate(_name(dataset, row) for row in rows)
    ]
    sheet = contact_sheet.draw(_title(dataset, rows), _described(recipe.augment), strips)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            sheet.save(file, format="PNG", optimize=True)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def check_place(path: Path) -> None:
    """Refuse, before any work, a place where no sheet is written.

    Raises:
      DataError: the file is there already or is no .png.
    """
    if path.suffix.lower() != ".png":
        named = shlex.quote(f"{path}.png")
        raise DataError(f"{str(path)!r} must end in .png, as in --show {named}")
    if path.exists():
        raise DataError(f"{str(path)!r} is there already: name another, as in --show OTHER.png")


def _chosen(dataset: Dataset) -> np.ndarray:
    """Rows of the train part: as many of each class, first classes first, two at least."""
    label = dataset.splits["train"].targets["label"]
    main = label if label.ndim == 1 else label.argmax(axis=1)
    present = np.unique(main)[: EXAMPLES // 2]
    each = 2 * max(1, EXAMPLES // len(present) // 2)
    return np.concatenate([np.flatnonzero(main == k)[:each] for k in present])


def _versions(
    recipe: Recipe, batch: dict[str, jax.Array], classes: tuple[str, ...]
) -> tuple[np.ndarray, list[list[str]]]:
    """uint8 `[V, N, H, W, C]` and, for each, what is mixed in it."""
    augment = jax.jit(make_augment(recipe.augment, tuple(batch["image"].shape[1:])))
    key = jax.random.key(recipe.seed)
    images, captions = [], []
    for step in range(VERSIONS):
        epoch = jnp.asarray(step, jnp.int32)
        root = purpose_key(key, "flip")
        seen = augment(purpose_key(key, "augment", step), batch, root=root, epoch=epoch)
        images.append(_pixels(seen["image"]))
        captions.append(_captions(seen, classes))
    return np.stack(images), captions


def _captions(seen: dict[str, jax.Array], classes: tuple[str, ...]) -> list[str]:
    if "mix_share" not in seen:
        return [""] * len(seen["image"])
    mixed = np.asarray(seen["mix_label"])
    mixed = mixed if mixed.ndim == 1 else mixed.argmax(axis=1)
    shares = np.asarray(seen["mix_share"], np.float64)
    return [f"{100 * s:.0f} % of {classes[k]}" for s, k in zip(shares, mixed, strict=True)]


def _pixels(image: jax.Array) -> np.ndarray:
    return np.round(255 * np.asarray(image)).astype(np.uint8)


def _name(dataset: Dataset, row: int) -> str:
    """The class of a training example, or the names of its labels."""
    label, names = dataset.splits["train"].targets["label"][row], dataset.classes["label"]
    if np.ndim(label) == 0:
        return names[int(label)]
    return ", ".join(names[k] for k in np.flatnonzero(label >= 0.5)) or "none"


def _title(dataset: Dataset, rows: np.ndarray) -> str:
    shown = len({_name(dataset, row) for row in rows})
    height, width = dataset.image_shape[:2]
    return (
        f"{dataset.name}: {len(rows)} training images, {height} x {width} pixels, {shown} classes"
    )


def _described(augment: AugmentRecipe) -> str:
    """The fields that are switched on, as a person would type them."""
    off = AugmentRecipe(translate=0)
    on = {n: v for n in fields.names(augment) if (v := getattr(augment, n)) != getattr(off, n)}
    listed = ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in on.items())
    listed = listed.replace(" True", "")
    return f"framed: as stored; beside it {VERSIONS} augmented versions ({listed or 'none is on'})"
