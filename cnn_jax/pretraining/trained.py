"""`Pretrained`: a network and the features it gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import nn
from cnn_jax.errors import DataError, ModelError
from cnn_jax.new_images import source_of
from cnn_jax.nn.interception import intercept_calls
from cnn_jax.training.member import Row
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.selfsupervised import reconstruction_of
from cnn_jax.training.synthetic import one_logit

_ROWS = 64  # images in a batch, at most


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network, for its features: pretrained here, or with weights from elsewhere.

    Attributes:
      model: the Linen module.
      variables: its parameters and other collections, NumPy arrays.
      preprocess: pixels to network input.
      image_shape: (H, W, C) of its images.
      objective: what it learned, or None for weights from elsewhere.
      history: a row for each epoch: loss and accuracy of training and validation; see
        `training.selfsupervised` for what they are.
    """

    model: nn.Module
    variables: Mapping[str, Any]
    preprocess: Preprocess
    image_shape: tuple[int, ...]
    objective: str | None = None
    history: tuple[Row, ...] = ()

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.image_shape))
        learned = f"{self.objective}, {len(self.history)} epochs" if self.objective else "given"
        return f"Pretrained({type(self.model).__name__}, {learned}, images {shape})"

    @classmethod
    def of(
        cls,
        model: nn.Module,
        variables: Mapping[str, Any],
        preprocess: Preprocess,
        image_shape: Sequence[int],
    ) -> Pretrained:
        """A network that was trained elsewhere, such as a run's `model` and `variables`."""
        return cls(model, jax.device_get(dict(variables)), preprocess, tuple(image_shape))

    def features(self, images: np.ndarray, at: Sequence[str]) -> dict[str, np.ndarray]:
        """What submodules of the network give.

        Args:
          images: uint8 `[N, H, W, C]`, or floating in 0..1; grey ones also `[N, H, W]`.
          at: paths, such as `("stage2", "stage3")`; see `nn.tap`.

        Returns:
          path -> float32 `[N, ...]`, in evaluation (running statistics, no dropout).

        Raises:
          DataError: no images, or not of the network's shape.
          ModelError: there is no such path; the error names those there are.
        """
        if isinstance(at, str):
            raise ModelError(f"at={at!r} must be a sequence of paths: at=({at!r},)")
        found: dict[str, np.ndarray] = self._of_all(images, self._tapped(tuple(at)))
        return {path: found[path] for path in at}  # jit has sorted them

    def embedding(self, images: np.ndarray) -> np.ndarray:
        """One vector for an image, float32 `[N, D]`: what the last layer sees.

        That is the output's `embedding`, where there is one, as of `Autoencoder` and of networks
        for faces; else what the submodule `head` is given, averaged over its positions. `nn.tap`
        gives the latter at the last stage (`stage3` of `compact`, `stage4` of residual networks),
        of pre-activation networks at `norm`, before the ReLU.

        Raises:
          DataError: as `features`.
          ModelError: the network has neither; take `features`.
        """
        found: np.ndarray = self._of_all(images, self._embedded)
        return found

    def reconstruction_error(self, images: np.ndarray) -> np.ndarray:
        """Mean squared error of each image's reconstruction, float64 `[N]`.

        Of normalised pixels: 1 is about the error of the mean colour of the training images.

        Raises:
          DataError: as `features`.
          ModelError: the network is no autoencoder.
        """
        errors = self.reconstruction_errors(images)
        return np.asarray(errors.reshape(len(errors), -1).mean(axis=1))

    def reconstruction_errors(self, images: np.ndarray) -> np.ndarray:
        """The same of each pixel, float64 `[N, H, W]`, or `[N, D, H, W]` of volumes.

        Raises:
          DataError: as `features`.
          ModelError: the network is no autoencoder.
        """
        both = self._of_all(images, self._reconstructed)
        error = both["reconstruction"].astype(np.float64) - both["image"]
        return np.asarray((error**2).mean(axis=-1))

    def defect_logits(self, images: np.ndarray) -> np.ndarray:
        """How much each pixel looks like part of a made defect, float64 `[N, H, W]`.

        Raises:
          DataError: as `features`.
          ModelError: the network does not give one logit for each pixel.
        """
        found: np.ndarray = self._of_all(images, self._of_pixels)
        return found.astype(np.float64)

    def _of_all(self, images: np.ndarray, function: Callable[[Any, Any], Any]) -> Any:
        """A compiled function of variables and images, in batches of one size."""
        if not isinstance(images, np.ndarray):
            raise DataError(f"images must be one array [N, H, W, C], not {type(images).__name__}")
        if images.dtype == np.float64:
            images = images.astype(np.float32)
        array, _ = source_of(images, self.image_shape, "crop")
        assert isinstance(array, np.ndarray)
        # A power of two: however many images come, few programs are compiled.
        rows = min(_ROWS, 1 << (len(array) - 1).bit_length())
        parts = []
        for start in range(0, len(array), rows):
            part = array[start : start + rows]
            missing = np.repeat(part[:1], rows - len(part), axis=0)
            found = jax.device_get(function(self._on_device, np.concatenate([part, missing])))
            parts.append(found)
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(array)], *parts)

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(dict(self.variables))

    @functools.cached_property
    def _programs(self) -> dict[tuple[str, ...], Callable[[Any, Any], Any]]:
        return {}

    def _tapped(self, at: tuple[str, ...]) -> Callable[[Any, Any], Any]:
        if at not in self._programs:

            def features(variables: Any, images: jax.Array) -> Any:
                seen = self.preprocess(images)
                _, found = nn.tap(self.model, variables, seen, at=at, train=False)
                return jax.tree.map(lambda x: x.astype(jnp.float32), found)

            self._programs[at] = jax.jit(features)
        return self._programs[at]

    @functools.cached_property
    def _embedded(self) -> Callable[[Any, Any], jax.Array]:
        def embedding(variables: Any, images: jax.Array) -> jax.Array:
            seen: list[jax.Array] = []

            def keep(
                call: Callable[..., Any],
                args: tuple[Any, ...],
                kwargs: dict[str, Any],
                module: Any,
            ) -> Any:
                if module.path == ("head",):
                    seen.append((*args, *kwargs.values())[0])
                return call(*args, **kwargs)

            with intercept_calls(keep):
                outputs = self.model.apply(variables, self.preprocess(images), train=False)
            if isinstance(outputs, Mapping) and "embedding" in outputs:
                seen.append(outputs["embedding"])
            if not seen:
                raise ModelError(
                    f"{type(self.model).__name__} has no submodule 'head' and gives no "
                    "'embedding': take features at a path"
                )
            x = seen[-1].astype(jnp.float32)
            return x if x.ndim == 2 else nn.global_avg_pool(x)

        return jax.jit(embedding)

    @functools.cached_property
    def _reconstructed(self) -> Callable[[Any, Any], dict[str, jax.Array]]:
        def both(variables: Any, images: jax.Array) -> dict[str, jax.Array]:
            image = self.preprocess(images)
            outputs = self.model.apply(variables, image, train=False)
            return {"image": image, "reconstruction": reconstruction_of(outputs)}

        return jax.jit(both)

    @functools.cached_property
    def _of_pixels(self) -> Callable[[Any, Any], jax.Array]:
        def logits(variables: Any, images: jax.Array) -> jax.Array:
            outputs = self.model.apply(variables, self.preprocess(images), train=False)
            return one_logit(outputs, images.shape[:-1])

        return jax.jit(logits)
