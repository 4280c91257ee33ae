"""An exported network: its weights in `model.safetensors`, all else it needs in `model.json`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from cnn_jax.errors import RunError
from cnn_jax.recipe import Recipe
from cnn_jax.run_folder import write_text
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.whole_files import whole_file

_WEIGHTS, _DESCRIPTION = "model.safetensors", "model.json"

# The kind of a network that segments; those of one that classifies are `data.TargetKind`.
MASKS = "masks"


@dataclass(frozen=True, eq=False)
class Exported:
    """What every exported network has.

    Attributes:
      recipe: of the run.
      variables: parameters and other collections of the model.
      preprocess: pixels to network input.
      image_shape: (H, W, C) or (D, H, W, C).
      described: all of `model.json`, with what only this kind of network has.
    """

    recipe: Recipe
    variables: Mapping[str, Any]
    preprocess: Preprocess
    image_shape: tuple[int, ...]
    described: Mapping[str, Any]


def is_one(folder: str | os.PathLike[str]) -> bool:
    """Whether a network was exported to this folder."""
    return (Path(folder) / _WEIGHTS).exists()


def kind_of(folder: str | os.PathLike[str]) -> str:
    """`masks`, or the kind of the labels, of what was exported to a folder.

    Raises:
      RunError: its description is missing or damaged.
    """
    with reading(folder):
        return str(_described(Path(folder))["kind"])


def write(
    folder: str | os.PathLike[str],
    *,
    recipe: Recipe,
    variables: Mapping[str, Any],
    preprocess: Preprocess,
    image_shape: tuple[int, ...],
    described: Mapping[str, Any],
) -> Path:
    """Write both files, and return the path of the weights.

    Args:
      folder: made where it is not there.
      recipe, variables, preprocess, image_shape: see `Exported`.
      described: its `kind`, and plain values for JSON that only such a network has.

    Raises:
      RunError: the folder has such files already, or cannot be written.
    """
    import safetensors.numpy

    folder = Path(folder)
    weights = folder / _WEIGHTS
    if weights.exists() or (folder / _DESCRIPTION).exists():
        raise RunError(f"a model is in {str(folder)!r} already: choose another folder")
    content = safetensors.numpy.save(flattened(variables), {"recipe": recipe.to_toml()})
    description = {
        "schema": 1,
        "sha256": hashlib.sha256(content).hexdigest(),
        "recipe": recipe.to_dict(),
        **described,
        "image_shape": list(image_shape),
        "preprocess": asdict(preprocess),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(weights) as file:
            file.write(content)
            write_text(folder / _DESCRIPTION, json.dumps(description, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    return weights


def read(folder: str | os.PathLike[str]) -> Exported:
    """What `write` wrote; within `reading`, which says what is wrong with it."""
    import safetensors.numpy

    folder = Path(folder)
    described = _described(folder)
    content = (folder / _WEIGHTS).read_bytes()
    if hashlib.sha256(content).hexdigest() != described["sha256"]:
        raise RunError(f"{str(folder / _WEIGHTS)!r} is not what was exported: damaged")
    tensors = safetensors.numpy.load(content)
    return Exported(
        recipe=Recipe.from_dict(described["recipe"]),
        variables=unflattened(tensors),
        preprocess=Preprocess.from_dict(described["preprocess"]),
        image_shape=tuple(int(n) for n in described["image_shape"]),
        described=described,
    )


def flattened(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The variables of a model by their paths, such as `params/head/kernel`, in C order."""
    flat = flax.traverse_util.flatten_dict(jax.device_get(dict(variables)), sep="/")
    # `ascontiguousarray` would make scalars one-dimensional.
    return {name: np.asarray(leaf, order="C") for name, leaf in flat.items()}


def unflattened(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables that `flattened` took apart."""
    return dict(flax.traverse_util.unflatten_dict(dict(flat), sep="/"))


@contextlib.contextmanager
def reading(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever is wrong with a file that is read within is one `RunError`.

    Raises:
      RunError: a file is missing or damaged, or the folder is that of a run.
    """
    import safetensors

    folder = Path(folder)
    if (folder / "run.json").exists() and not (folder / _DESCRIPTION).exists():
        raise RunError(
            f"{str(folder)!r} is a run folder: use cnn_jax.Run.load, or export it first with "
            f"cnn-jax export {shlex.quote(str(folder))} FOLDER"
        )
    try:
        yield
    except KeyError as error:
        raise RunError(f"cannot read a model from {str(folder)!r}: no {error}") from error
    except (
        *(OSError, ValueError, TypeError, AttributeError),
        safetensors.SafetensorError,
    ) as error:
        raise RunError(f"cannot read a model from {str(folder)!r}: {error}") from error


def _described(folder: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads((folder / _DESCRIPTION).read_text("utf-8"))
    return described
