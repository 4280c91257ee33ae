"""From images to scores: what a detector looks at, and how far that is from normal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from cnn_jax import anomaly, nn
from cnn_jax.data import Split
from cnn_jax.errors import ModelError
from cnn_jax.pretraining import Objective, Pretrained
from cnn_jax.training.baselines import pixel_features

Method = Literal[
    "neighbours", "mahalanobis", "pca", "padim", "patchcore", "autoencoder", "synthetic"
]
OF_MAPS = ("padim", "patchcore")

# Those that are a network and nothing else -> what it learns.
OF_NETWORK: dict[str, Objective] = {"autoencoder": "reconstruction", "synthetic": "synthetic"}

# What the others fit.
FITTED: dict[str, type[anomaly.Fitted]] = {
    "neighbours": anomaly.Neighbours,
    "mahalanobis": anomaly.Mahalanobis,
    "pca": anomaly.Reconstruction,
    "padim": anomaly.Padim,
    "patchcore": anomaly.PatchCore,
}

# Of the Gaussian that blurs maps, in pixels of images of this height.
_SIGMA, _OF_HEIGHT = 4.0, 224

# Images in memory at a time: so many, and of so many pixel values, of which a network makes more.
_IMAGES_AT_ONCE = 1024
_VALUES_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Scorer:
    """What scores images, higher for what is more anomalous.

    Attributes:
      fitted: on the features of normal images; None where the network itself tells: by the error
        of its reconstruction, or by the highest logit of a defect.
      network: whose features these are; None for pixels.
      at: paths of the network's maps that are looked at; none where it is one vector for an image.
    """

    fitted: anomaly.Fitted | None
    network: Pretrained | None = None
    at: tuple[str, ...] = ()

    def of(self, split: Split) -> np.ndarray:
        """Scores of all images of a split, read some at a time, float64 `[N]`."""
        if self.fitted is not None and not self.at:  # of all at once, which is faster
            return self.fitted.score(_vectors(split, self.network))
        return np.concatenate([self.look(images)[0] for images in _in_blocks(split)])

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores of some images, and the maps that they come from.

        Args:
          images: uint8 `[N, H, W, C]`, as many as memory holds what a network makes of them.

        Returns:
          float64 `[N]`; and float64 `[N, h, w]`, smaller than the images where the maps are of
          patches, or None where the score is of whole images.
        """
        if self.fitted is not None and not self.at:
            return self.fitted.score(_vector(images, self.network)), None
        assert self.network is not None  # pixels are vectors
        if self.fitted is None and self.network.objective == "synthetic":
            logits = self.network.defect_logits(images)
            return logits.max(axis=(1, 2)), logits
        if self.fitted is None:
            errors = self.network.reconstruction_errors(images)
            return errors.reshape(len(errors), -1).mean(axis=1), errors
        assert isinstance(self.fitted, anomaly.Padim | anomaly.PatchCore)
        features = _maps(images, self.network, self.at)
        maps = self.fitted.score_maps(features)
        if isinstance(self.fitted, anomaly.PatchCore) and self.fitted.neighbours is not None:
            return self.fitted.score(features), maps
        return maps.max(axis=(1, 2)), maps

    def maps(self, split: Split) -> np.ndarray | None:
        """Where each image is anomalous, float32 `[N, H, W]` of the images' size.

        See `drawn`. None where the score is of whole images, or of volumes.
        """
        if self.of_whole or len(split.image_shape) != 3:
            return None
        height, width, _ = split.image_shape
        found = []
        for images in _in_blocks(split):
            maps = self.look(images)[1]
            assert maps is not None  # it is not of whole images
            found.append(self.drawn(maps, (height, width)))
        return np.concatenate(found)

    @property
    def of_whole(self) -> bool:
        """Whether scores are of whole images, so that there are no maps."""
        return self.fitted is not None and not self.at

    def drawn(self, maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Maps of `look` at the size of their images, float32 `[N, H, W]`.

        Those of patches are enlarged and blurred as their papers do, in proportion to the height;
        see `anomaly.enlarged`.
        """
        if self.fitted is None:
            return maps.astype(np.float32)
        sigma = _SIGMA * size[0] / _OF_HEIGHT
        return anomaly.enlarged(maps, size, sigma=sigma).astype(np.float32)


def fit_scorer(
    method: Method, train: Split, network: Pretrained | None = None, *, k: int = 5
) -> Scorer:
    """Fit on normal images, which are read some at a time.

    Args:
      method: what is fitted; nothing where it is of a network alone.
      train: the normal images.
      network: whose features are taken; None for pixels, of which there are no maps.
      k: of `neighbours`, as far as there are so many images.
    """
    if method in OF_NETWORK:
        return Scorer(None, network)
    if method in OF_MAPS:
        assert network is not None
        at = _stages(network)
        maps = np.concatenate([_maps(images, network, at) for images in _in_blocks(train)])
        fitted = anomaly.fit_padim(maps) if method == "padim" else anomaly.fit_patchcore(maps)
        return Scorer(fitted, network, at)
    known = _vectors(train, network)
    if method == "mahalanobis":
        return Scorer(anomaly.fit_mahalanobis(known), network)
    if method == "pca":
        return Scorer(anomaly.fit_reconstruction(known), network)
    # Those of pixels are of unit length already.
    alike = network is not None
    nearest = anomaly.fit_neighbours(known, k=min(k, len(known)), unit_length=alike)
    return Scorer(nearest, network)


def _vectors(split: Split, network: Pretrained | None) -> np.ndarray:
    """One vector for an image, float32 `[N, D]`."""
    return np.concatenate([_vector(images, network) for images in _in_blocks(split)])


def _vector(images: np.ndarray, network: Pretrained | None) -> np.ndarray:
    return pixel_features(images) if network is None else network.embedding(images)


def _maps(images: np.ndarray, network: Pretrained, at: tuple[str, ...]) -> np.ndarray:
    found = network.features(images, at)
    return anomaly.embed([found[path] for path in at])


def _in_blocks(split: Split) -> Iterator[np.ndarray]:
    """The images of a split, as many at a time as memory is sure to hold."""
    most = max(1, _VALUES_AT_ONCE // math.prod(split.image_shape))
    # A power of two, so that the batches of a network are full.
    size = min(_IMAGES_AT_ONCE, 1 << (most.bit_length() - 1))
    for start in range(0, len(split), size):
        yield split.read_images(np.arange(start, min(start + size, len(split))))


def _stages(network: Pretrained) -> tuple[str, ...]:
    """Paths of the two smallest sizes of maps that the network's own stages give, large first.

    Of stages with maps of one size the last by name: what comes after a stage is nearer to what
    the network was trained for.
    """
    shape = jax.ShapeDtypeStruct((1, *network.image_shape), np.float32)
    by_size: dict[int, str] = {}
    for path, output in nn.tap_paths(network.model, network.variables, shape).items():
        if getattr(output, "ndim", 0) == 4 and "/" not in path:
            by_size[output.shape[1] * output.shape[2]] = path
    if not by_size:
        raise ModelError(f"no stage of {type(network.model).__name__} gives maps [B, h, w, C]")
    return tuple(by_size[size] for size in sorted(by_size, reverse=True)[-2:])
