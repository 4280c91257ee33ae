"""What is learned from images without labels: problems made from the images themselves.

Each task makes its problem in `prepare`, within the step: after augmentation, of images in 0..1.
An example draws with a key of its own, folded from its position in the global batch, so that
neither devices nor padding play a part.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.augment import Augment, colour, example_keys, pasting
from cnn_jax.augment.batch import beside
from cnn_jax.errors import DataError, EvaluationError, ModelError, RecipeError
from cnn_jax.nn.centres import unit
from cnn_jax.training.state import Batch as Rows
from cnn_jax.training.task import Batch, Classification, Hyper, embedding_of, logits_of


@runtime_checkable
class Preparing(Protocol):
    """A task that makes its problem from the images; the step calls it before it normalises."""

    @property
    def whole_batch(self) -> bool:
        """Whether the loss of an example hangs on the others, so that parts will not do."""
        ...

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """The batch that is learned from.

        Args:
          batch: `image` float32 `[B, H, W, C]` in 0..1.
          key: of this step.

        Returns:
          A batch of `n B` rows, of which rows `n i` to `n i + n - 1` come from row i.
        """
        ...


@dataclass(frozen=True)
class WithoutLabels:
    """What tasks without labels share."""

    whole_batch: ClassVar[bool] = False

    def score(self, predictions: Any) -> NoReturn:
        """There is none on the host: `pretraining` takes the mean of `loss` and `correct`.

        Raises:
          EvaluationError: always.
        """
        raise self._no_figures()

    def metrics(self, predictions: Any) -> NoReturn:
        """There are none.

        Raises:
          EvaluationError: always.
        """
        raise self._no_figures()

    def _no_figures(self) -> EvaluationError:
        return EvaluationError(
            f"{type(self).__name__} learns without labels and has no figures of its own: judge the "
            "features by what they are used for"
        )


@dataclass(frozen=True)
class _OfClasses(WithoutLabels, abc.ABC):
    """Cross-entropy of a class that `prepare` has made."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """K, the number of classes."""

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy with `hyper["label_smoothing"]`, and weight 1, float32 `[B]`.

        Raises:
          ModelError: the model has no logits, or of another number of classes.
        """
        found = logits_of(outputs).shape[1]
        if found != self.num_outputs:
            raise ModelError(
                f"{type(self).__name__} has {self.num_outputs} classes, but the model gives "
                f"{found} logits: make it with num_classes={self.num_outputs}"
            )
        return Classification(self.num_outputs).loss(outputs, batch, hyper, key=key)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """1 where the largest logit is the class."""
        return Classification(self.num_outputs).correct(outputs, batch)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """The logits."""
        return {"logits": logits_of(outputs)}


@dataclass(frozen=True)
class Rotation(_OfClasses):
    """By how many quarter turns was the image turned (Gidaris et al. 2018)?

    Class k of 4 is k quarter turns anticlockwise, each equally likely.
    """

    @property
    def num_outputs(self) -> int:
        """4."""
        return 4

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """Images turned in their plane, and the turn as `label` int32 `[B]`; `mask` stays.

        Raises:
          DataError: the images are not square.
        """
        image = batch["image"]
        height, width = image.shape[-3:-1]
        if height != width:
            raise DataError(
                f"rotation needs square images, not {height} x {width}: crop or resize them first, "
                "or learn another task"
            )
        keys = example_keys(key, len(image))
        turns = jax.vmap(lambda own: jax.random.randint(own, (), 0, 4))(keys)
        odd, half = (beside(chosen, image) for chosen in (turns % 2 == 1, turns >= 2))
        image = jnp.where(odd, jnp.rot90(image, 1, (-3, -2)), image)
        image = jnp.where(half, jnp.rot90(image, 2, (-3, -2)), image)
        return {**batch, "image": image, "label": turns}


@dataclass(frozen=True)
class CutPaste(_OfClasses):
    """Was a part of the image cut out and pasted elsewhere (Li et al. 2021)?

    Class 0 is the image as it is; 1 has a rectangle of 2 to 15 % of its area, of an aspect ratio
    log-uniform in [0.3, 1 / 0.3], copied to another place; 2, with `scar`, a thin one that leans
    by up to 45 degrees (of which only the outline leans, not the pixels in it). Classes are
    equally likely. Sides and places are whole pixels, and pieces lie inside the image.

    Attributes:
      jitter: the pasted pixels' brightness and contrast, and of RGB images saturation, too,
        change by factors in [1 - x, 1 + x], the hue by as much of the colour circle either way;
        0 for none. The contrast's mean grey is that of the image.
      scar: whether there is class 2.

    Raises:
      RecipeError: `jitter` is not in 0..0.5.
    """

    jitter: float = 0.1
    scar: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.jitter <= 0.5:
            raise RecipeError(f"jitter must be from 0 to 0.5, not {self.jitter}")

    @property
    def num_outputs(self) -> int:
        """2, or 3 with scars."""
        return 3 if self.scar else 2

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """Images with and without a pasted part, and `label` int32 `[B]`; `mask` stays.

        In a volume the part goes through all slices.

        Raises:
          DataError: a side is shorter than 4 pixels.
        """
        image = batch["image"]
        height, width = image.shape[-3:-1]
        if min(height, width) < pasting.SMALLEST:
            raise DataError(
                f"images of {height} x {width} are too small to cut and paste in: every side must "
                f"have {pasting.SMALLEST} pixels or more"
            )
        keys = example_keys(key, len(image))

        def drawn(own: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            of_kind, of_patch, of_scar = (jax.random.fold_in(own, n) for n in range(3))
            kind = jax.random.randint(of_kind, (), 0, self.num_outputs)
            inside, shift = pasting.patch(of_patch, height, width)
            if self.scar:
                scar, scar_shift = pasting.scar(of_scar, height, width)
                inside = jnp.where(kind == 2, scar, inside)
                shift = jnp.where(kind == 2, scar_shift, shift)
            return kind, inside & (kind > 0), shift

        kind, inside, shift = jax.vmap(drawn)(keys)
        # A piece never leaves the image, so what comes round its border is not in it.
        moved = jax.vmap(lambda x, by: jnp.roll(x, (by[0], by[1]), (-3, -2)))(image, shift)
        moved = self._jittered(keys, {"image": moved})["image"]
        inside = inside.reshape(len(inside), *(1,) * (image.ndim - 4), height, width, 1)
        return {**batch, "image": jnp.where(inside, moved, image), "label": kind}

    def _jittered(self, keys: jax.Array, batch: Rows) -> Rows:
        most = self.jitter
        if not most:
            return batch
        changes: list[tuple[colour.Change, int]] = [(colour.brightness, 1), (colour.contrast, 1)]
        if batch["image"].shape[-1] == 3:
            changes += [(colour.saturation, 1), (colour.hue, 0)]
        for number, (change, centre) in enumerate(changes, start=3):
            own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
            batch = colour.jitter(own, batch, change, centre - most, centre + most)
        return batch


@dataclass(frozen=True)
class Contrastive(WithoutLabels):
    """Which other row is a view of the same image (SimCLR, Chen et al. 2020)?

    NT-Xent: loss_i = -log(exp(s_ip / t) / sum_j exp(s_ij / t)), s the cosine of two embeddings, p
    the partner of row i, j every other valid row of the batch. The embedding is the model's
    `embedding`, or else its logits.

    Attributes:
      augment: makes the two views.
      temperature: t.
      num_outputs: length of the embedding where it is the logits.

    Raises:
      RecipeError: the temperature is not positive, or `augment` mixes images or has the
        alternating flip, which shows an image the same way twice.
    """

    augment: Augment
    temperature: float = 0.5
    num_outputs: int = 64

    whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RecipeError(f"temperature must be positive, not {self.temperature}")
        augment = self.augment
        for name, given in (
            ("mixup", augment.mixup),
            ("cutmix", augment.cutmix),
            ("flip alternating", augment.flip == "alternating"),
        ):
            if given:
                raise RecipeError(f"augment.{name} makes no views to compare: leave it out")

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """Two views of each image: rows 2 i and 2 i + 1 of every array come from row i."""
        first, second = (self.augment(jax.random.fold_in(key, view), batch) for view in (0, 1))
        # Neighbours, not halves: a batch split over devices stays where it is.
        return {
            name: jnp.stack([first[name], second[name]], axis=1).reshape(-1, *first[name].shape[1:])
            for name in first
        }

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """NT-Xent and weight, float32 `[2 B]`; the weight is 0 where there is no other image."""
        similarity, others, partner = self._compared(outputs, batch)
        matched = jnp.where(partner, similarity, jnp.zeros_like(similarity)).sum(axis=1)
        # Of differences, so that no digits are lost where the partner stands out.
        loss = jax.nn.logsumexp(similarity - matched[:, None], axis=1, where=others)
        return loss, (others.sum(axis=1) > 1).astype(jnp.float32)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """1 where the nearest other row is the partner; float32 `[2 B]`."""
        similarity, others, partner = self._compared(outputs, batch)
        nearest = jnp.where(others, similarity, -jnp.inf).argmax(axis=1)
        return (nearest == partner.argmax(axis=1)).astype(jnp.float32)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """`embedding` float32 `[B, D]` of unit length."""
        return {"embedding": unit(embedding_of(outputs))}

    def _compared(self, outputs: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Cosines over t, `[2 B, 2 B]`; which columns count for a row; which is its partner."""
        z = unit(embedding_of(outputs))
        # Matrix units would round cosines to three digits, which a small t makes large.
        similarity = jnp.matmul(z, z.T, precision=lax.Precision.HIGHEST) / self.temperature
        row, column = (lax.broadcasted_iota(jnp.int32, similarity.shape, a) for a in (0, 1))
        # A padded row has its partner all the same, so that no sum is empty.
        partner = column == (row ^ 1)
        valid = batch.get("valid", jnp.ones(len(z), bool))
        return similarity, (valid[None, :] & (row != column)) | partner, partner


@dataclass(frozen=True)
class Reconstruction(WithoutLabels):
    """What did the image look like? The loss of an autoencoder.

    The model's output holds `reconstruction` `[B, H, W, C]`, of the normalised image that it was
    given; the loss is the mean of the squared error over the image.
    """

    @property
    def num_outputs(self) -> int:
        """0: there are no logits."""
        return 0

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """The batch as it is."""
        return batch

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Mean squared error and weight 1, float32 `[B]`.

        Raises:
          ModelError: the model gives no `reconstruction` of the image's shape.
        """
        error = _squared_error(outputs, batch)
        return error, jnp.ones_like(error)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """Share of the image's variance that is explained, R² cut to 0..1; float32 `[B]`.

        The variance is about the mean of each channel; of an image without any the share is 1
        where the error is exactly 0, else 0.
        """
        image = batch["image"]
        pixels = tuple(range(1, image.ndim - 1))
        variance = image.var(axis=pixels).mean(axis=-1)
        tiny = jnp.finfo(jnp.float32).tiny
        return jnp.clip(1 - _squared_error(outputs, batch) / jnp.maximum(variance, tiny), 0, 1)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """`reconstruction` float32 `[B, H, W, C]`."""
        return {"reconstruction": reconstruction_of(outputs)}


def reconstruction_of(outputs: Any) -> jax.Array:
    """The reconstruction in a model's output, float32.

    Raises:
      ModelError: there is none.
    """
    found = outputs.get("reconstruction") if isinstance(outputs, Mapping) else None
    if found is None:
        raise ModelError(
            "the model must return a dict with 'reconstruction' [B, H, W, C]: take an autoencoder"
        )
    return found.astype(jnp.float32)


def _squared_error(outputs: Any, batch: Batch) -> jax.Array:
    """Mean over each image; `[B]`."""
    image, found = batch["image"], reconstruction_of(outputs)
    if found.shape != image.shape:
        raise ModelError(
            f"the model reconstructs {list(found.shape)} from images {list(image.shape)}: both "
            "must have one shape"
        )
    return ((found - image) ** 2).mean(axis=tuple(range(1, image.ndim)))
