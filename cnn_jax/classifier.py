"""`Classifier`: a trained network with all it needs to name what is in a picture."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from cnn_jax import data, exported, models, nn
from cnn_jax.data.reading import some_of
from cnn_jax.errors import DataError, EvaluationError, ModelError, RunError
from cnn_jax.evaluation import Predictions, log_probabilities
from cnn_jax.new_images import answers_for
from cnn_jax.programs import shared
from cnn_jax.recipe import Recipe
from cnn_jax.training.devices import Placement, place
from cnn_jax.training.evaluate import EvalStep
from cnn_jax.training.preprocess import Preprocess
from cnn_jax.training.step import LinenApply, make_eval_step
from cnn_jax.training.task import Classification

EMBEDDING_SIZE = 128  # of a model that has none of its own, for margin losses

if TYPE_CHECKING:
    from cnn_jax.decision import PredictionSets
    from cnn_jax.new_images import Images


@dataclass(frozen=True, eq=False)
class Classified:
    """Answers for N images.

    Attributes:
      ids: path of each image, or its position.
      classes: K class names.
      log_probabilities: float64 `[N, K]`, calibrated with the run's temperature.
      kind: `class`, `multilabel` or `soft`.
      sets: bool `[N, K]`, the classes that cannot be ruled out, or None where that was not asked.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    log_probabilities: np.ndarray
    kind: str = "class"
    sets: np.ndarray | None = None

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{label} {100 * p:.1f} %"
            for label, p in zip(self.labels[:3], self.confidence[:3], strict=True)
        )
        more = ", ..." if len(self) > 3 else ""
        return f"Classified({len(self)} of {len(self.classes)} classes: {shown}{more})"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def probabilities(self) -> np.ndarray:
        """float64 `[N, K]`."""
        return np.exp(self.log_probabilities)

    @property
    def labels(self) -> list[str]:
        """Name of the most probable class of each image."""
        return [self.classes[k] for k in self.probabilities.argmax(axis=1)]

    @property
    def confidence(self) -> np.ndarray:
        """Probability of that class, float64 `[N]`."""
        return self.probabilities.max(axis=1)

    @property
    def for_a_human(self) -> np.ndarray:
        """bool `[N]`: images whose set is not a single class.

        Raises:
          EvaluationError: there are no sets.
        """
        if self.sets is None:
            raise EvaluationError("there are no prediction sets: ask for them with a coverage")
        single: np.ndarray = self.sets.sum(axis=1) == 1
        return ~single

    def with_sets(self, sets: PredictionSets, temperature: float) -> Classified:
        """The same answers with their prediction sets.

        Args:
          sets: calibrated on the network's own validation predictions.
          temperature: what these answers' logits were divided by; the sets are of undivided ones.
        """
        p = np.exp(log_probabilities(self.log_probabilities * temperature, "class"))
        return replace(self, sets=sets.of(p))

    def by_folder(self) -> Predictions:
        """The answers beside the class that each file's folder names; calibrated already.

        Raises:
          DataError: a folder is no class, or an image may have several.
        """
        if self.kind == "multilabel":
            raise DataError("images of this network may have several labels, a folder names one")
        folders = [Path(path).absolute().parent.name for path in self.ids]
        unknown = sorted(set(folders) - set(self.classes))
        if unknown:
            raise DataError(
                f"{some_of(unknown)} among the images' folders is no class of this network: "
                f"name each folder for one of {some_of(self.classes)}"
            )
        return Predictions(
            split="images",
            ids=np.asarray(self.ids, dtype=np.str_),
            targets=np.array([self.classes.index(name) for name in folders], np.int32),
            logits=self.log_probabilities,
            classes=self.classes,
        )


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model, its variables, and how pictures become its input.

    Attributes:
      recipe: of the run; names the model.
      model: the Linen module.
      variables: its parameters and other collections.
      preprocess: pixels to network input.
      classes: class names.
      kind: `class`, `multilabel` or `soft`.
      image_shape: (H, W, C) that images are brought to.
      temperature: divides the logits; fitted on validation data.
    """

    recipe: Recipe
    model: nn.Module
    variables: Mapping[str, Any]
    preprocess: Preprocess
    classes: tuple[str, ...]
    kind: Literal["class", "multilabel", "soft"]
    image_shape: tuple[int, ...]
    temperature: float = 1.0

    def __repr__(self) -> str:
        name = self.recipe.model.name.removeprefix("custom:")
        shape = "×".join(map(str, self.image_shape))
        return (
            f"Classifier({name}, {len(self.classes)} classes, images {shape}, "
            f"temperature {self.temperature:.3g})"
        )

    def predict(self, images: Images) -> Classified:
        """Class probabilities of images.

        Args:
          images: uint8 `[N, H, W, C]` (or `[N, H, W]` for grey ones), or float32 in 0..1; or a
            list of paths of files, of uint8 arrays `[H, W, C]` or `[H, W]`, or of Pillow
            images, of any size, which are decoded and fitted as the training images were.

        Raises:
          DataError: no images, a wrong shape, or a file that cannot be decoded.
        """
        ids, logits = self.logits(images)
        answers = log_probabilities(logits / self.temperature, self.kind)
        return Classified(ids, self.classes, answers, self.kind)

    def logits(self, images: Images) -> tuple[tuple[str, ...], np.ndarray]:
        """Ids and logits float32 `[N, K]`, before any calibration; otherwise as `predict`.

        Raises:
          ModelError: the network was trained to recognise people who are none of its classes.
        """
        if self.recipe.data.unseen_identities:
            raise ModelError(
                "this network was trained to recognise people it has not seen, not to name those "
                "of its classes: enrol images with 'cnn-jax gallery enrol'"
            )
        return answers_for(
            images, self.image_shape, self.recipe, self._placement, self._eval_step, self._on_device
        )

    @functools.cached_property
    def _eval_step(self) -> EvalStep:
        apply, task = LinenApply(self.model), Classification(len(self.classes))
        views = self.recipe.train.views
        return shared(make_eval_step, self.model, apply, task, self.preprocess, views)

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
            described={
                "kind": self.kind,
                "classes": list(self.classes),
                "temperature": self.temperature,
            },
        )

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, model: nn.Module | None = None) -> Classifier:
        """Read what `save` wrote.

        Args:
          folder: with `model.safetensors` and `model.json`.
          model: the module, if it is not one of ours.

        Raises:
          RunError: a file is missing or damaged, the folder is that of a run, or the network
            segments.
        """
        loading = f"cnn_jax.Classifier.load({str(folder)!r}, "
        with exported.reading(folder):
            found = exported.read(folder)
            if found.described["kind"] == exported.MASKS:
                raise RunError(
                    f"the network in {str(folder)!r} segments: read it with cnn_jax.Segmenter.load"
                )
            kind, classes = found.described["kind"], tuple(found.described["classes"])
            temperature = float(found.described["temperature"])
            if kind not in get_args(data.TargetKind) or not 0 < temperature < math.inf:
                raise ValueError(f"kind {kind!r} or temperature {temperature}")
            return cls(
                recipe=found.recipe,
                model=model or build_model(found.recipe, len(classes), found.image_shape, loading),
                variables=found.variables,
                preprocess=found.preprocess,
                classes=classes,
                kind=kind,
                image_shape=found.image_shape,
                temperature=temperature,
            )


def build_model(
    recipe: Recipe,
    num_outputs: int,
    image_shape: tuple[int, ...],
    loading: str = "cnn_jax.train(",
) -> nn.Module:
    """The module a recipe names.

    Args:
      recipe: of the run.
      num_outputs: number of logits.
      image_shape: (H, W, C) or (D, H, W, C).
      loading: the call in Python that would take a module of one's own, up to that argument.

    Raises:
      ModelError: there is none of that name, its options do not fit, or it gives no embedding
        where there is a margin, or people never seen.
      RunError: the recipe is of a module of the user's own.
    """
    import jax.numpy as jnp

    if recipe.model.name.startswith("custom:"):
        name = recipe.model.name.removeprefix("custom:")
        raise RunError(
            f"this run trained {name}, a module of your own: give it as model=, in Python: "
            f"{loading}model={name}(...))"
        )
    embeds = recipe.loss.margin != "none" or recipe.data.unseen_identities > 0
    if embeds and "scale" in recipe.model.options:
        raise ModelError(
            "where a network embeds, its head has the scale of the loss: set loss.scale, not the "
            "model's"
        )
    model = models.create(
        recipe.model.name,
        num_classes=num_outputs,
        image_size=min(image_shape[:-1]),
        dtype=jnp.bfloat16 if recipe.train.dtype == "bfloat16" else jnp.float32,
        **recipe.model.options,
    )
    if not embeds:
        return model
    size = getattr(model, "embedding_size", None)
    if size is None:
        raise ModelError(
            f"{recipe.model.name} makes no embedding, which loss.margin and "
            "data.unseen_identities need: take a model with the option embedding_size"
        )
    return model.clone(embedding_size=size or EMBEDDING_SIZE, scale=recipe.loss.scale)
