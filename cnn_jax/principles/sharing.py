"""Parameter sharing: what a convolution is beside layers that do not share their weights.

A convolution is a linear map of the image, so it is a matrix: a block Toeplitz one, in which the
same few weights stand in every row, moved on. A locally connected layer has the same zeros and a
weight of its own for every entry, a dense layer no zeros. What is shared is a gradient, too: that
of a shared weight is the sum of those that its copies would have (LeCun 1989, *Generalization and
network design strategies*).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnn_jax.errors import ModelError

Padding = Literal["SAME", "VALID"]
Kind = Literal["convolution", "locally connected", "dense"]


@dataclass(frozen=True)
class Cost:
    """What a layer costs, without its bias.

    Attributes:
      parameters: numbers that are learned.
      multiply_adds: multiplications of a forward pass of one image, of which each goes into a sum;
        products with padding are counted, as they are computed.
    """

    parameters: int
    multiply_adds: int


def costs(
    image_shape: Sequence[int],
    features: int,
    kernel_size: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    padding: Padding = "SAME",
) -> dict[Kind, Cost]:
    """Parameters and multiply-adds of three layers with the same input and output.

    Args:
      image_shape: (H, W, C) of the input.
      features: channels of the output.
      kernel_size, strides, padding: of the convolution, along height and width; the locally
        connected layer has the same windows, the dense one sees everything.

    Raises:
      ModelError: a number below 1, an unknown padding, or no window fits the image.
    """
    height, width, channels = image_shape
    rows = _starts(height, kernel_size[0], strides[0], padding)
    columns = _starts(width, kernel_size[1], strides[1], padding)
    if min(features, channels) < 1:
        raise ModelError(f"{channels} channels in and {features} out: one at least of each")
    positions = len(rows) * len(columns)
    window = math.prod(kernel_size) * channels * features
    dense = height * width * channels * positions * features
    return {
        "convolution": Cost(window, positions * window),
        "locally connected": Cost(positions * window, positions * window),
        "dense": Cost(dense, dense),
    }


def convolution_matrix(
    kernel: np.ndarray,
    image_shape: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    padding: Padding = "SAME",
) -> np.ndarray:
    """The matrix T of a convolution: `T @ image.ravel()` is its output, raveled.

    Args:
      kernel: `[h, w, C, D]`, not turned around, as networks have it.
      image_shape: (H, W) or (H, W, C) of the input.
      strides, padding: along height and width.

    Returns:
      float64 `[H' W' D, H W C]`: the row (y, x, d) has at (y s + i - p, x s + j - p, c) the weight
      (i, j, c, d), p what is padded before, and zeros elsewhere.

    Raises:
      ModelError: as `costs`; or the kernel has other axes or channels.
    """
    height, width = image_shape[:2]
    if kernel.ndim != 4 or (len(image_shape) == 3 and image_shape[2] != kernel.shape[2]):
        raise ModelError(
            f"a kernel {list(kernel.shape)} is no [h, w, C, D] for images {list(image_shape)}"
        )
    rows = _starts(height, kernel.shape[0], strides[0], padding)
    columns = _starts(width, kernel.shape[1], strides[1], padding)
    channels, features = kernel.shape[2:]
    matrix = np.zeros((len(rows), len(columns), features, height, width, channels))
    for (y, top), (x, left) in itertools.product(enumerate(rows), enumerate(columns)):
        for i, j in np.ndindex(*kernel.shape[:2]):
            if 0 <= top + i < height and 0 <= left + j < width:
                matrix[y, x, :, top + i, left + j] = kernel[i, j].T
    return matrix.reshape(len(rows) * len(columns) * features, height * width * channels)


def _starts(size: int, length: int, stride: int, padding: Padding) -> list[int]:
    """Where the windows along one axis begin; before 0 in the padding."""
    if min(size, length, stride) < 1:
        raise ModelError(f"size {size}, kernel {length} and stride {stride} must be 1 or more")
    if padding == "SAME":
        count = -(-size // stride)
        before = max(0, (count - 1) * stride + length - size) // 2
    elif padding == "VALID":
        count, before = (size - length) // stride + 1, 0
    else:
        raise ModelError(f"padding {padding!r} must be SAME or VALID")
    if count < 1:
        raise ModelError(f"a kernel of {length} does not fit into {size} pixels without padding")
    return [position * stride - before for position in range(count)]
