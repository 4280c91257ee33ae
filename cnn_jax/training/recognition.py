"""What is learned of some people so that others can be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.data import Dataset, Split
from cnn_jax.errors import ModelError
from cnn_jax.evaluation import (
    EmbeddingPredictions,
    Estimate,
    recognition_metrics,
    recognition_score,
)
from cnn_jax.training.selfsupervised import Preparing
from cnn_jax.training.state import Batch as Rows
from cnn_jax.training.task import Batch, Hyper


class Learned(Protocol):
    """What the step minimises: `Classification`, `MarginSoftmax`, or a loss of pairs."""

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """As of `Task`."""
        ...

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """As of `Task`."""
        ...


@dataclass(frozen=True)
class Recognition:
    """Any loss whose network ends in an embedding, judged by people whom it has not seen.

    What is kept of each image is its embedding before it is normalised: of several views (see
    `views.views_of`) their mean, whose direction is that of the sum that the protocols take of an
    image and its mirror image.

    Attributes:
      learned: the loss, and what the training accuracy is of.
    """

    learned: Learned

    @property
    def whole_batch(self) -> bool:
        """Whether the loss compares all images of a batch."""
        return isinstance(self.learned, Preparing) and self.learned.whole_batch

    def prepare(self, batch: Rows, *, key: jax.Array) -> Rows:
        """The batch as the loss wants it."""
        return (
            self.learned.prepare(batch, key=key) if isinstance(self.learned, Preparing) else batch
        )

    def loss(
        self, outputs: Any, batch: Batch, hyper: Hyper, *, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Loss and weight of each example, float32 `[B]`."""
        return self.learned.loss(outputs, batch, hyper, key=key)

    def correct(self, outputs: Any, batch: Batch) -> jax.Array:
        """How right each example is among the people that are learned, float32 `[B]`."""
        return self.learned.correct(outputs, batch)

    def predictions(self, outputs: Any) -> dict[str, jax.Array]:
        """`embeddings` float32 `[B, D]`, as the network gives them.

        Raises:
          ModelError: it gives none.
        """
        found = outputs.get("embedding") if isinstance(outputs, Mapping) else None
        if found is None or jnp.ndim(found) != 2:
            raise ModelError(
                "to recognise people never seen the model must return a dict with an 'embedding' "
                "[B, D]: end it in nn.EmbeddingHead, or take a model with the option embedding_size"
            )
        return {"embeddings": found.astype(jnp.float32)}

    def score(self, predictions: EmbeddingPredictions) -> dict[str, float]:
        """`evaluation.recognition_score` of people held back.

        Raises:
          EvaluationError: the embeddings are not of a part to choose on.
        """
        return recognition_score(predictions)

    def metrics(self, predictions: EmbeddingPredictions) -> dict[str, Estimate]:
        """See `evaluation.recognition_metrics`."""
        return recognition_metrics(predictions)


def subjects_of(dataset: Dataset, split: Split) -> np.ndarray:
    """str `[N]`: the name of the class of each image of a split."""
    return np.asarray(dataset.classes["label"], np.str_)[split.targets["label"]]
