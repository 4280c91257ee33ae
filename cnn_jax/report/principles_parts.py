"""What the page of the principles shows: plain values and arrays, which know nothing of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnn_jax.evaluation import Estimate


@dataclass(frozen=True)
class SharedLayer:
    """What a convolution costs, and what layers that do not share would.

    Attributes:
      path: of the layer.
      kernel: such as `3 × 3, 16 to 32 channels`.
      parameters: of the convolution, of the locally connected and of the dense layer.
      multiply_adds: of the same.
    """

    path: str
    kernel: str
    parameters: tuple[int, int, int]
    multiply_adds: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Translation:
    """What shifts and turns of the image do.

    Attributes:
      images: how many were moved.
      few: of how many of them the figures by layer are.
      layers: (name, error for a shift by one pixel, error for a shift by the stride of the last
        maps, the same inside), see `principles.equivariance`.
      stride: pixels of the second shift.
      consistency: what enters the image -> how often two shifts get the same answer.
      largest: pixels of these shifts.
      by_shift: float `[2 r + 1, 2 r + 1]`, accuracy where zeros enter.
      degrees, by_angle: angles and the accuracy under each.
      aliasing: (name, stride that follows, share of energy that it folds).
      poolings: name -> distances by pixels of shift, see `principles.shift_distances`.
      pooled: the layer whose maps were pooled.
      outputs: distances of the network's own answer.
    """

    images: int
    few: int
    layers: Sequence[tuple[str, float, float, float]]
    stride: int
    consistency: Mapping[str, Estimate]
    largest: int
    by_shift: np.ndarray
    degrees: Sequence[float]
    by_angle: np.ndarray
    aliasing: Sequence[tuple[str, int, float]]
    poolings: Mapping[str, np.ndarray]
    pooled: str
    outputs: np.ndarray


@dataclass(frozen=True, eq=False)
class FieldOfLayer:
    """What one position of a layer sees.

    Attributes:
      path: of the layer.
      size, stride: of the theoretical field, rows and columns; None where there is none.
      sigma, r2: of the Gaussian of the effective field, trained, rows and columns; None where no
        pixel has an influence, or the layer gives no maps.
      untrained_sigma: the same as initialised.
      influence: float `[H, W]`, trained; None likewise.
    """

    path: str
    size: tuple[int, int] | None
    stride: tuple[int, int] | None
    sigma: tuple[float, float] | None = None
    r2: float | None = None
    untrained_sigma: tuple[float, float] | None = None
    influence: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit and what it answers to.

    Attributes:
      name: of the layer and the unit.
      selectivity: for one class, 0 to 1.
      patches: uint8 `[h, w, C]`, highest first.
      values: what the unit gave there.
      made: uint8 `[H, W, C]`, the image made for it.
      value: what the unit gives on that.
    """

    name: str
    selectivity: float
    patches: Sequence[np.ndarray]
    values: Sequence[float]
    made: np.ndarray
    value: float


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """What layers represent, from the pixels to the last.

    Attributes:
      layers: names, `pixels` first.
      probes: accuracy of a linear classifier on each, trained.
      untrained: the same where nothing but the classifier has learned.
      inputs: how many numbers each probe sees of an image.
      examples: how many train and test images the probes saw.
      cka: float `[L, L]`, between the layers, without the pixels.
      cka_of: what the columns are, such as `the same network`.
      selectivity: mean over the units, and that of classes dealt anew, or None, for each layer but
        the pixels.
      filters: float `[h, w, C, D]` of the first convolution, or None.
      gabor_r2, noise_r2: of its filters and of noise; empty where they were not fitted.
      units: some of them.
    """

    layers: Sequence[str]
    probes: Sequence[Estimate]
    untrained: Sequence[Estimate]
    inputs: Sequence[int]
    examples: tuple[int, int]
    cka: np.ndarray
    cka_of: str
    selectivity: Sequence[tuple[float, float] | None]
    filters: np.ndarray | None
    gabor_r2: np.ndarray
    noise_r2: np.ndarray
    units: Sequence[Unit]


@dataclass(frozen=True, eq=False)
class Learning:
    """How gradients reach the layers, and which units are at work.

    Attributes:
      activity: (name, share of values that are 0, dead units, units) of layers that end in a ReLU.
      gradients: (name, norm relative to the parameters as initialised, trained).
      error: of backpropagation against finite differences; None where the network cannot compute in
        float64.
    """

    activity: Sequence[tuple[str, float, int, int]]
    gradients: Sequence[tuple[str, float, float]]
    error: float | None


@dataclass(frozen=True, eq=False)
class PrinciplesPage:
    """Everything the page shows."""

    dataset: str
    model: str
    headline: str
    sharing: Sequence[SharedLayer]
    translation: Translation
    fields: Sequence[FieldOfLayer]
    hierarchy: Hierarchy
    learning: Learning
    facts: Sequence[tuple[str, str]]
    command: str
