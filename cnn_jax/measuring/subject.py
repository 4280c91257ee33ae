"""What is measured: the network of a run, trained and as initialised, and some of its images."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import models, nn
from cnn_jax.errors import RunError
from cnn_jax.principles.layers import Layer, layers, main_layers
from cnn_jax.run import Run
from cnn_jax.training.baselines import stratified_subset
from cnn_jax.training.state import purpose_key

_TOGETHER = 128  # images that go through the network at once
Part = tuple[np.ndarray, np.ndarray]  # images as they are kept, and classes


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and images.

    Attributes:
      run: finished, of one class for each image.
      fresh: variables as initialised with the run's seed.
      every: all layers, in order.
      main: those that figures are by.
      train, validation, test: images `[N, H, W, C]`, uint8 or float32 in 0..1, and classes `[N]`.
      groups: of the test images, or None.
    """

    run: Run
    fresh: Mapping[str, Any]
    every: Sequence[Layer]
    main: Sequence[Layer]
    train: Part
    validation: Part
    test: Part
    groups: np.ndarray | None

    @classmethod
    def of(cls, run: Run, *, images: int, train_images: int) -> Subject:
        """Read some images of each part, classes in their share, always the same ones.

        Args:
          run: finished.
          images: at most so many of validation and of test.
          train_images: at most so many of train.

        Raises:
          RunError: the run does not tell classes of two-dimensional images apart, has not finished,
            or has no validation or test part; or no images are wanted.
          DataError: the images cannot be read.
        """
        if run.regions or run.recognises or run.dataset.kinds["label"] != "class":
            raise RunError(
                f"{run.shown!r} does not tell classes of images apart: name a run that does"
            )
        if min(images, train_images) < 8:
            raise RunError(f"8 images of each part at least, not {images} and {train_images}")
        run.check_ended()
        dataset = run.dataset
        if len(dataset.image_shape) != 3:
            raise RunError(f"the images of {run.shown!r} are volumes, not [H, W, C]")
        if missing := {"train", "validation", "test"} - set(dataset.splits):
            raise RunError(f"{dataset.name!r} has no part {sorted(missing)[0]!r}")

        def some(name: str, most: int) -> tuple[np.ndarray, Part]:
            split = dataset.splits[name]
            labels = np.asarray(split.targets["label"])
            rows = stratified_subset(labels, most)
            # Folders list class after class: the first few must be of all.
            rows = np.random.default_rng(0).permutation(rows)
            return rows, (split.read_images(rows), labels[rows])

        for name, split in dataset.splits.items():
            if len(split) < 8:
                raise RunError(f"{dataset.name!r} has {len(split)} {name} images: 8 at least")
        shape = tuple(dataset.image_shape)
        fresh = models.initialize(
            run.model, purpose_key(jax.random.key(run.recipe.seed), "init"), shape
        )
        found = layers(run.model, fresh, shape)
        rows, test = some("test", images)
        groups = dataset.splits["test"].groups
        return cls(
            run=run,
            fresh=fresh,
            every=found,
            main=main_layers(found),
            train=some("train", train_images)[1],
            validation=some("validation", images)[1],
            test=test,
            groups=None if groups is None else groups[rows],
        )

    @property
    def trained(self) -> Mapping[str, Any]:
        """Variables of the evaluated state."""
        return self.run.variables

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.run.model

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return tuple(self.run.dataset.image_shape)

    @property
    def of_maps(self) -> list[Layer]:
        """Those of `main` that give maps `[h, w, C]`."""
        return [layer for layer in self.main if len(layer.outputs) == 3]

    def seen(self, images: np.ndarray) -> jax.Array:
        """Images as the network sees them, float32."""
        return self.run.classifier.preprocess(jnp.asarray(images))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of images as they are kept, `[N, K]`."""
        return self.run.classifier.logits(images)[1]

    def features(
        self, variables: Mapping[str, Any], images: np.ndarray, at: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Path -> features `[N, ...]` of images as they are kept."""
        parts = []
        for start in range(0, len(images), _TOGETHER):
            batch = images[start : start + _TOGETHER]
            short = _TOGETHER - len(batch) if start else 0  # one size, so that it compiles once
            padded = np.concatenate([batch, batch[:1].repeat(short, axis=0)]) if short else batch
            found = _tapped(self.model, tuple(at), variables, self.seen(padded))
            parts.append({path: np.asarray(each)[: len(batch)] for path, each in found.items()})
        return {path: np.concatenate([part[path] for part in parts]) for path in at}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tapped(model: nn.Module, at: tuple[str, ...], variables: Any, x: jax.Array) -> dict[str, Any]:
    return nn.tap(model, variables, x, at=at, train=False)[1]
