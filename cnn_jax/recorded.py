"""`Recorded`: what runs, populations and sweeps have in common, a folder with a recipe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from cnn_jax import nn
from cnn_jax.data import Dataset
from cnn_jax.errors import RunError
from cnn_jax.recipe import Recipe, digest_of, read_toml
from cnn_jax.run_folder import RunFolder


class Recorded:
    """Something that was trained, or is being trained, in a folder of its own.

    Attributes:
      path: the folder.
      recipe: the resolved recipe that lies in it.
    """

    folder_type: ClassVar[type[RunFolder]] = RunFolder
    _folder: RunFolder

    def __init__(
        self,
        folder: RunFolder,
        *,
        model: nn.Module | None = None,
        data: Dataset | str | None = None,
    ) -> None:
        self._folder, self._model, self._data = folder, model, data
        self.path = folder.path
        values = read_toml(folder.recipe)
        self.recipe = Recipe.from_dict(values)
        if digest_of(values) != self.info["recipe_digest"]:
            raise RunError(
                f"{str(folder.recipe)!r} was changed after the run began: start a new run with "
                f"cnn-jax train {folder.recipe}, and put this one back as it was"
            )

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        model: nn.Module | None = None,
        data: Dataset | str | None = None,
    ) -> Self:
        """Open a folder.

        Args:
          path: the folder.
          model: the module, where it was your own.
          data: the data set, where it was your own; or the path to which it has moved.

        Raises:
          RunError: it is not there or is none of this kind.
        """
        return cls(cls.folder_type.open(path), model=model, data=data)

    @contextlib.contextmanager
    def _advised(self) -> Iterator[None]:
        """An interrupt, other than the clean stop of the training loop, says how to go on."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"go on with: {self._folder.go_on}")
            raise

    @property
    def shown(self) -> str:
        """The path as a person would type it."""
        return self._folder.shown

    @property
    def info(self) -> dict[str, Any]:
        """What the JSON file of the folder holds: data identity, environment, figures."""
        return self._folder.read_info()

    @property
    def status(self) -> str:
        """`running`, `interrupted`, `failed` or `finished`."""
        return str(self.info["status"])
