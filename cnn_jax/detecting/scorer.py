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
from cnn_jax.pretraining import Pretrained
from cnn_jax.training.baselines import pixel_features

Method = Literal["neighbours", "mahalanobis", "pca", "padim", "patchcore", "autoencoder"]
OF_MAPS = ("padim", "patchcore")

# What each method fits; an autoencoder fits nothing beside its network.
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
      fitted: on the features of normal images; None where the score is the error of a network's
        reconstruction.
      network: whose features these are; None for pixels.
      at: paths of the network's maps that are looked at; none where it is one vector for an image.
    """

    fitted: anomaly.Fitted | None
    network: Pretrained | None = None
    at: tuple[str, ...] = ()

    def of(self, split: Split) -> np.ndarray:
        """Scores of all images of a split, read some at a time, float64 `[N]`."""
        if self.fitted is not None and not self.at:
            return self.fitted.score(_vectors(split, self.network))
        return np.concatenate([self._of_network(images) for images in _in_blocks(split)])

    def maps(self, split: Split) -> np.ndarray | None:
        """Where each image is anomalous, float32 `[N, H, W]` of the images' size.

        Maps of patches are enlarged and blurred as their papers do, in proportion to the height;
        see `anomaly.enlarged`. None where the score is of whole images: of vectors, or of volumes.
        """
        if (self.fitted is not None and not self.at) or len(split.image_shape) != 3:
            return None
        height, width, _ = split.image_shape
        return np.concatenate(
            [self._maps(images, (height, width)) for images in _in_blocks(split)]
        ).astype(np.float32)

    def _maps(self, images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        assert self.network is not None  # pixels are vectors
        if self.fitted is None:
            return self.network.reconstruction_errors(images)
        assert isinstance(self.fitted, anomaly.Padim | anomaly.PatchCore)
        maps = self.fitted.score_maps(_maps(images, self.network, self.at))
        return anomaly.enlarged(maps, size, sigma=_SIGMA * size[0] / _OF_HEIGHT)

    def _of_network(self, images: np.ndarray) -> np.ndarray:
        assert self.network is not None  # pixels are vectors
        if self.fitted is None:
            return self.network.reconstruction_error(images)
        return self.fitted.score(_maps(images, self.network, self.at))


def fit_scorer(
    method: Method, train: Split, network: Pretrained | None = None, *, k: int = 5
) -> Scorer:
    """Fit on normal images, which are read some at a time.

    Args:
      method: what is fitted; `autoencoder` fits nothing.
      train: the normal images.
      network: whose features are taken; None for pixels, of which there are no maps.
      k: of `neighbours`, as far as there are so many images.
    """
    if method == "autoencoder":
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
    function = pixel_features if network is None else network.embedding
    return np.concatenate([function(images) for images in _in_blocks(split)])


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
