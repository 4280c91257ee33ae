"""How alike an image is to what a network has learned, so that what is neither is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax.evaluation import make_templates, unit_embeddings
from cnn_jax.recognising import Embedder
from cnn_jax.run import Run

_ROWS = 1024  # images read and embedded at a time


@dataclass(frozen=True, eq=False)
class Familiarity:
    """The highest cosine of an image's features with the mean features of a class.

    The network's own logits say little of it: it was never asked about what is no class.

    Attributes:
      embedder: of the network: what its last layer sees.
      means: float64 `[K, D]` of unit length: each class's training images.
    """

    embedder: Embedder
    means: np.ndarray

    @classmethod
    def of(cls, run: Run) -> Familiarity:
        """From a run's training images.

        Raises:
          ModelError: the network has no layer that could be asked.
          DataError: the data are no longer what the run has learned.
        """
        embedder, split = Embedder(run.classifier), run.dataset.splits["train"]
        features = _features(embedder, run, "train")
        names = np.array([f"{label:09}" for label in split.targets["label"].tolist()])
        return cls(embedder, make_templates(features, names, unit_first=True).embeddings)

    def of_part(self, run: Run, part: str) -> np.ndarray:
        """float64 `[N]`, of the images of one of the run's parts."""
        return self._of_features(_features(self.embedder, run, part))

    def of_files(self, files: Sequence[Path]) -> np.ndarray:
        """float64 `[N]`, of image files.

        Raises:
          DataError: a file cannot be decoded.
        """
        return self._of_features(self.embedder.files(files))

    def _of_features(self, features: np.ndarray) -> np.ndarray:
        found: np.ndarray = (unit_embeddings(features) @ self.means.T).max(axis=1)
        return found


def _features(embedder: Embedder, run: Run, part: str) -> np.ndarray:
    split = run.dataset.splits[part]
    found = [
        embedder(split.read_images(np.arange(start, min(start + _ROWS, len(split)))))
        for start in range(0, len(split), _ROWS)
    ]
    return np.concatenate(found)
