"""What a shift (or a turn) of the image does to features, to the answer and to accuracy.

A convolution is equivariant: if the image moves, its output moves. It is so exactly where shifts go
along a circle and so does its padding, and where a stride divides the shift. Zeros at the border
break it, and a stride breaks it for all other shifts, since what is finer than the new positions
is aliased (Zhang 2019, *Making convolutional networks shift-invariant again*). Invariance of the
answer follows only as far as equivariance holds, up to a pooling over all positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import rotate  # type: ignore[attr-defined]

from cnn_jax import nn
from cnn_jax.errors import EvaluationError, ModelError
from cnn_jax.evaluation import Estimate, bootstrap
from cnn_jax.evaluation.weighted import mean_statistic
from cnn_jax.principles.receptive_field import Field, receptive_fields

# `circular`: what leaves at one side enters at the other; `zero`: zeros enter; `crop`: a smaller
# part of the image is looked at, elsewhere.
Border = Literal["circular", "zero", "crop"]
Predict = Callable[[np.ndarray], np.ndarray]  # images [B, H, W, C] to logits [B, K]
_TOGETHER = 256  # images that are predicted at once


@dataclass(frozen=True)
class Equivariance:
    """How far a layer is from moving with the image.

    Attributes:
      error: ||F(Tx) - T'F(x)|| / ||F(x)||, over all images; T shifts the image along a circle, and
        T' the features by the nearest whole number of positions, of the one before and the one
        after that which fits the image better. Of outputs without positions T' does nothing.
      inside: the same over the positions that see no border, neither before nor after; NaN if
        there are none, or if the layer has no receptive field.
      stride: pixels between positions along each axis; (0, 0) for outputs without positions.
    """

    error: float
    inside: float
    stride: tuple[int, int]


def equivariance(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: Any,
    by: tuple[int, int],
    at: Sequence[str] | None = None,
) -> dict[str, Equivariance]:
    """The equivariance error of layers for one circular shift.

    Args:
      model, variables: as in evaluation, `model.apply(variables, image, train=False)`.
      images: float `[B, H, W, C]`, normalised.
      by: rows and columns that the image moves down and right; may be negative.
      at: paths as `nn.tap` has them; None for all whose output is one array of these images.

    Returns:
      Path -> error, in the order of `at` or of the variables.

    Raises:
      ModelError: an unknown path, or one whose output is no array of these images.
    """
    images = jnp.asarray(images)
    shapes = nn.tap_paths(model, variables, images, train=False)
    usable = {
        path
        for path, output in shapes.items()
        if hasattr(output, "ndim") and output.ndim in (2, 4) and len(output) == len(images)
    }
    paths = tuple(path for path in shapes if path in usable) if at is None else tuple(at)
    for path in paths:
        if path in shapes and path not in usable:
            raise ModelError(f"{path!r} gives no features [B, h, w, C] or [B, C] of these images")
    apply = jax.jit(lambda variables, x: nn.tap(model, variables, x, at=paths, train=False)[1])
    before, after = (apply(variables, x) for x in (images, jnp.roll(images, by, axis=(1, 2))))
    fields = receptive_fields(model, variables, images.shape[1:])
    found = {}
    for path in paths:
        one, other = (np.asarray(features[path], np.float64) for features in (before, after))
        found[path] = _error(one, other, by, images.shape[1:3], fields.get(path))
    return found


def _error(
    before: np.ndarray,
    after: np.ndarray,
    by: tuple[int, int],
    image_shape: Sequence[int],
    field: Field | None,
) -> Equivariance:
    size = (before**2).sum()
    if before.ndim == 2:
        error = float(np.sqrt(((after - before) ** 2).sum() / size))
        return Equivariance(error, float("nan"), (0, 0))
    sides = before.shape[1:3]
    # Without a field, as after adaptive sampling: as many pixels as there are to a position.
    strides = [max(1, round(image_shape[i] / sides[i])) for i in range(2)]
    if field is not None and 0 not in field.stride:
        strides = list(field.stride)
    whole = [sorted({by[i] // strides[i], -(-by[i] // strides[i])}) for i in range(2)]
    inside = np.zeros(sides, bool)
    exact = all(by[i] % strides[i] == 0 for i in range(2))
    if field is not None and exact:
        inside = _inside(field, sides, by, image_shape)
    squares, squares_inside = [], []
    for moved in itertools.product(*whole):
        wrong = (after - np.roll(before, moved, axis=(1, 2))) ** 2
        squares.append(wrong.sum(axis=(1, 2, 3)))
        # Where the features have moved to.
        squares_inside.append(wrong[:, np.roll(inside, moved, axis=(0, 1))].sum())
    of_inside = (before[:, inside] ** 2).sum()
    return Equivariance(
        float(np.sqrt(np.min(squares, axis=0).sum() / size)),
        float(np.sqrt(squares_inside[0] / of_inside)) if of_inside else float("nan"),
        (strides[0], strides[1]),
    )


def _inside(
    field: Field, sides: Sequence[int], by: tuple[int, int], image_shape: Sequence[int]
) -> np.ndarray:
    """bool `[h, w]`: positions whose field lies in the image, and does when it has moved."""
    along = []
    for i in range(2):
        first = field.start[i] + field.stride[i] * np.arange(sides[i])
        last = first + field.size[i] - 1
        along.append((first + min(by[i], 0) >= 0) & (last + max(by[i], 0) < image_shape[i]))
    return along[0][:, np.newaxis] & along[1]


def shift(images: np.ndarray, by: tuple[int, int], border: Border = "circular") -> np.ndarray:
    """Images `[B, H, W, C]` moved down and right by whole pixels.

    Raises:
      EvaluationError: an unknown border, or `crop`, which leaves no image of this size.
    """
    if border not in ("circular", "zero"):
        raise EvaluationError(f"border {border!r} must be circular or zero")
    moved = np.roll(images, by, axis=(1, 2))
    if border == "zero":
        for axis, step in enumerate(by, start=1):
            gone = [slice(None)] * images.ndim
            gone[axis] = slice(0, step) if step >= 0 else slice(step, None)
            moved[tuple(gone)] = 0
    return moved


def shift_consistency(
    predict: Predict,
    images: np.ndarray,
    *,
    largest: int,
    border: Border = "circular",
    draws: int = 5,
    seed: int = 0,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 1000,
) -> Estimate:
    """How often two shifts of one image get the same answer (Zhang 2019).

    Args:
      predict: from images, as they are given, to logits `[B, K]`.
      images: `[N, H, W, C]`.
      largest: shifts are whole pixels from 0 to `largest` along each axis, drawn uniformly and
        independently for each image, twice a draw. With `crop`, which is the published protocol, a
        part that is `largest` pixels smaller is cut out there.
      border: what enters the image.
      draws: pairs of shifts for each image.
      seed: of the shifts.
      groups, level, resamples: of the bootstrap, which resamples images or their groups.

    Returns:
      The share of pairs with the same likeliest class.

    Raises:
      EvaluationError: no images, no draws, a shift that is none, or as large as the image.
    """
    _check(images, largest)
    if draws < 1:
        raise EvaluationError(f"one draw of shifts at least is needed, not {draws}")
    rng = np.random.default_rng(seed)
    same = np.zeros(len(images))
    for _ in range(draws):
        answers = []
        for _ in range(2):
            offsets = rng.integers(0, largest + 1, (len(images), 2))
            moved = _each_shifted(images, offsets, largest, border)
            answers.append(_predicted(predict, moved).argmax(axis=1))
        same += answers[0] == answers[1]
    share = bootstrap(
        {"consistency": mean_statistic(same / draws)},
        len(images),
        groups,
        level=level,
        resamples=resamples,
        seed=seed,
    )["consistency"]
    return replace(share, percent=True)


def accuracy_by_shift(
    predict: Predict,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    largest: int,
    border: Literal["circular", "zero"] = "zero",
) -> np.ndarray:
    """float `[2 largest + 1, 2 largest + 1]`: accuracy under each shift, from up and left on.

    Args:
      predict: from images, as they are given, to logits `[B, K]`.
      images, labels: `[N, H, W, C]`, and the classes int `[N]`.
      largest: pixels along each axis, either way.
      border: what enters the image.

    Raises:
      EvaluationError: see `shift_consistency`; or as many labels as images are wanted.
    """
    _check(images, largest, labels)
    steps = range(-largest, largest + 1)

    def accuracy(y: int, x: int) -> float:
        answers = _predicted(predict, shift(images, (y, x), border)).argmax(axis=1)
        return float((answers == labels).mean())

    return np.array([[accuracy(y, x) for x in steps] for y in steps])


def turn(images: np.ndarray, degrees: float) -> np.ndarray:
    """Images `[B, H, W, C]` turned counterclockwise about their middle, of the same dtype.

    Linear between pixels; what enters is zero.
    """
    turned = rotate(images.astype(np.float32), degrees, axes=(2, 1), reshape=False, order=1)
    if np.issubdtype(images.dtype, np.integer):
        turned = np.rint(turned)
    return np.asarray(turned, images.dtype)


def accuracy_by_rotation(
    predict: Predict, images: np.ndarray, labels: np.ndarray, degrees: Sequence[float]
) -> np.ndarray:
    """float `[D]`: accuracy when all images are turned, as `turn` does.

    No layer of a usual network is made to be equivariant to it: what it withstands it has learned.

    Args:
      predict: from images, as they are given, to logits `[B, K]`.
      images, labels: `[N, H, W, C]`, and the classes int `[N]`.
      degrees: angles, one after the other.

    Raises:
      EvaluationError: no images, or as many labels as images are wanted.
    """
    _check(images, 1, labels)
    found = []
    for angle in degrees:
        answers = _predicted(predict, turn(images, angle)).argmax(axis=1)
        found.append(float((answers == labels).mean()))
    return np.array(found)


def aliasing_energy(features: Any, stride: int) -> np.ndarray:
    """float `[C]`: the share of a map's energy that a stride folds onto coarser structure.

    By the discrete Fourier transform: of all frequencies but zero, those that are not below half
    the new sampling rate, 1 / (2 stride), along both axes. White noise has about 1 - 1 / stride².

    Args:
      features: float `[B, h, w, C]`, before they are sampled.
      stride: of the sampling.

    Raises:
      ModelError: no such features, or a stride below 1.
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 4 or stride < 1:
        raise ModelError(
            f"aliasing is of features [B, h, w, C] and a stride of 1 or more, not of "
            f"{list(values.shape)} and {stride}"
        )
    power = (np.abs(np.fft.fft2(values, axes=(1, 2))) ** 2).sum(axis=0)
    power[0, 0] = 0
    # Integers, so that the limit itself is not a matter of rounding.
    steps = [np.minimum(np.arange(side), side - np.arange(side)) for side in values.shape[1:3]]
    low = [2 * stride * step < side for step, side in zip(steps, values.shape[1:3], strict=True)]
    kept = low[0][:, np.newaxis] & low[1]
    total = power.sum(axis=(0, 1))
    share: np.ndarray = power[~kept].sum(axis=0) / np.where(total > 0, total, 1)
    return share


def _each_shifted(
    images: np.ndarray, offsets: np.ndarray, largest: int, border: Border
) -> np.ndarray:
    """Each image shifted by its own offset, `[N, 2]`, or cut out there."""
    if border == "crop":
        height, width = (side - largest for side in images.shape[1:3])
        each = zip(images, offsets.tolist(), strict=True)
        return np.stack([image[y : y + height, x : x + width] for image, (y, x) in each])
    return np.concatenate(
        [shift(images[i : i + 1], (int(y), int(x)), border) for i, (y, x) in enumerate(offsets)]
    )


def _predicted(predict: Predict, images: np.ndarray) -> np.ndarray:
    """Logits of all images, a batch after the other, of one size so that it compiles once."""
    found = []
    for start in range(0, len(images), _TOGETHER):
        batch = images[start : start + _TOGETHER]
        short = _TOGETHER - len(batch) if start else 0
        padded = np.concatenate([batch, batch[:1].repeat(short, axis=0)]) if short else batch
        found.append(np.asarray(predict(padded))[: len(batch)])
    return np.concatenate(found)


def _check(images: np.ndarray, largest: int, labels: np.ndarray | None = None) -> None:
    if np.ndim(images) != 4 or not len(images):
        raise EvaluationError(f"shifts are of images [N, H, W, C], not {list(np.shape(images))}")
    if not 1 <= largest < min(images.shape[1:3]):
        raise EvaluationError(
            f"the largest shift must be between 1 and {min(images.shape[1:3]) - 1} pixels for "
            f"these images, not {largest}"
        )
    if labels is not None and len(labels) != len(images):
        raise EvaluationError(f"{len(images)} images have {len(labels)} labels")
