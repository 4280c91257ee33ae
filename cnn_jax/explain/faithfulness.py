"""Does a map tell which pixels the answer hangs on? Deletion, insertion and ROAD, with controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter, sobel  # type: ignore[attr-defined]
from scipy.sparse.linalg import spsolve

from cnn_jax.errors import EvaluationError
from cnn_jax.evaluation import Estimate, bootstrap
from cnn_jax.evaluation.weighted import mean_statistic

# Images [N, H, W, C] to the probability of each one's class [N].
Probability = Callable[[np.ndarray], np.ndarray]

_NEIGHBOURS = [
    (dy, dx, 1 / 6 if 0 in (dy, dx) else 1 / 12)
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
    if (dy, dx) != (0, 0)
]


@dataclass(frozen=True, eq=False)
class Curve:
    """What becomes of the answer while pixels are replaced, in the order of a map.

    Attributes:
      fractions: float64 `[S + 1]`, of the pixels that are replaced, from 0 to 1.
      probability: float64 `[N, S + 1]`, of each image's class.
      area: float64 `[N]`, the mean height of each curve, by the trapezium rule.
    """

    fractions: np.ndarray
    probability: np.ndarray
    area: np.ndarray


def deletion(
    probability: Probability,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    fill: float | np.ndarray = 0.0,
    steps: int = 16,
    seed: int = 0,
) -> Curve:
    """Pixels are set to a fill, the highest of the map first (Petsiuk et al. 2018).

    The better a map, the faster the answer falls: the smaller the area. Of pixels that are equal in
    the map, a random one comes first, the same whatever the method.

    Args:
      probability: of the class that was explained.
      images: float `[N, H, W, C]`, as `probability` takes them.
      maps: float `[N, H, W]`, signed.
      fill: a value, or one for each channel `[C]`.
      steps: how many times pixels are replaced.
      seed: of the order of equal pixels.

    Raises:
      EvaluationError: maps of another size, or values that are not finite; or no steps.
    """
    return _curve(
        probability, images, np.broadcast_to(fill, images.shape), maps, steps=steps, seed=seed
    )


def insertion(
    probability: Probability,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    sigma: float | None = None,
    steps: int = 16,
    seed: int = 0,
) -> Curve:
    """Pixels of the image replace those of its blur, the highest of the map first.

    The better a map, the faster the answer comes back: the larger the area.

    Args:
      probability, images, maps, steps, seed: as `deletion`.
      sigma: of the Gaussian blur, pixels; None for a tenth of the shorter side.

    Raises:
      EvaluationError: as `deletion`.
    """
    images = np.asarray(images)
    width = min(images.shape[1:3]) / 10 if sigma is None else sigma
    blurred = gaussian_filter(images, (0, width, width, 0))
    return _curve(probability, blurred, images, maps, steps=steps, seed=seed)


def road(
    probability: Probability,
    images: np.ndarray,
    maps: np.ndarray,
    *,
    fractions: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    noise: float = 0.01,
    seed: int = 0,
) -> np.ndarray:
    """float64 `[N]`: remove and debias, (least relevant first - most relevant first) / 2.

    Rong et al. 2022, *A consistent and efficient evaluation strategy for attribution methods*. What
    is removed is filled by noisy linear imputation, so that the shape of what is gone says little.
    The difference of the probabilities is averaged over `fractions`; 0 is no better than any order.

    Args:
      probability, images, maps: as `deletion`.
      fractions: of the pixels that are removed, each above 0 and below 1.
      noise: deviation of what is added to imputed pixels.
      seed: of the noise and of the order of equal pixels.

    Raises:
      EvaluationError: as `deletion`; or a fraction out of range.
    """
    images, order = np.asarray(images, np.float64), _order(images, maps, seed)
    if not len(fractions) or not all(0 < fraction < 1 for fraction in fractions):
        raise EvaluationError(f"fractions must lie between 0 and 1, not {list(fractions)}")
    pixels = order.shape[1]
    if pixels < 2:
        raise EvaluationError("images of one pixel have nothing to fill it from: two at least")
    found = np.zeros(len(images))
    for fraction in fractions:
        gone = min(max(1, round(fraction * pixels)), pixels - 1)
        least, most = (
            probability(_without(images, part, noise, seed).astype(np.float32))
            for part in (order[:, pixels - gone :], order[:, :gone])
        )
        found += (np.asarray(least) - np.asarray(most)) / 2
    return found / len(fractions)


def imputed(image: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """float64 `[H, W, C]`: pixels that are gone as the weighted mean of their neighbours.

    1/6 for each beside, above or below, 1/12 for the diagonal ones, of what there is at the border;
    all are solved for at once.

    Args:
      image: `[H, W, C]`.
      gone: bool `[H, W]`, not all.
    """
    height, width = gone.shape
    rows, columns = np.nonzero(gone)
    number = np.full(gone.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    right = np.zeros((len(rows), image.shape[2]))
    total = np.zeros(len(rows))
    at, of, weights = [], [], []
    for dy, dx, weight in _NEIGHBOURS:
        y, x = rows + dy, columns + dx
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        total += weight * inside
        here = np.flatnonzero(inside)
        there = number[y[here], x[here]]
        unknown = there >= 0
        at.append(here[unknown])
        of.append(there[unknown])
        weights.append(np.full(unknown.sum(), -weight))
        known = here[~unknown]
        right[known] += weight * image[y[known], x[known]]
    everyone = np.arange(len(rows))
    matrix = sparse.csc_matrix(
        (
            np.concatenate([*weights, total]),
            (np.concatenate([*at, everyone]), np.concatenate([*of, everyone])),
        ),
        shape=(len(rows), len(rows)),
    )
    filled = np.array(image, np.float64)
    filled[rows, columns] = np.asarray(spsolve(matrix, right)).reshape(right.shape)
    return filled


def edges(images: np.ndarray) -> np.ndarray:
    """float64 `[N, H, W]`: how steep the image is, by Sobel's filter: a control, no explanation."""
    grey = np.asarray(images, np.float64).mean(axis=-1)
    return np.hypot(sobel(grey, axis=1), sobel(grey, axis=2))


def random_maps(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """float64 `[N, H, W]`: noise: a control, no explanation."""
    return np.random.default_rng(seed).random(np.shape(images)[:3])


def paired_gain(
    one: np.ndarray,
    other: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The mean of `one - other` over images, with its interval over images or their groups.

    Args:
      one, other: float `[N]`, such as areas of a method and of a control.
      groups, level, seed: of the bootstrap.

    Raises:
      EvaluationError: other numbers of images.
    """
    if np.shape(one) != np.shape(other) or np.ndim(one) != 1:
        raise EvaluationError(f"{np.shape(one)} and {np.shape(other)} are not of the same images")
    statistic = mean_statistic(np.subtract(one, other))
    found = bootstrap({"gain": statistic}, len(one), groups, level=level, seed=seed)["gain"]
    return replace(found, difference=True)


def pointing_game(
    maps: np.ndarray,
    evidence: np.ndarray,
    *,
    tolerance: int = 0,
    groups: np.ndarray | None = None,
    level: float = 0.95,
) -> Estimate:
    """How often the highest pixel lies on the evidence (Zhang et al. 2018, the pointing game).

    Where several are highest, the share of them that does: a map that is the same everywhere gets
    what chance would.

    Args:
      maps: float `[N, H, W]`.
      evidence: bool `[N, H, W]`, somewhere in each image.
      tolerance: pixels along each axis by which it may miss.
      groups, level: of the interval.

    Raises:
      EvaluationError: other shapes, or an image without evidence.
    """
    maps, evidence = np.asarray(maps, np.float64), np.asarray(evidence, bool)
    if maps.ndim != 3 or maps.shape != evidence.shape or tolerance < 0:
        raise EvaluationError(
            f"maps {list(maps.shape)} and evidence {list(evidence.shape)} must be [N, H, W], and "
            f"the tolerance {tolerance} 0 or more"
        )
    if not evidence.any(axis=(1, 2)).all():
        raise EvaluationError("there is an image without evidence")
    near = evidence
    for axis in (1, 2):
        steps = [step for step in range(-tolerance, tolerance + 1) if step]
        near = np.logical_or.reduce([near, *(_moved(near, step, axis) for step in steps)])
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    hits = (highest & near).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    found = bootstrap({"hits": mean_statistic(hits)}, len(hits), groups, level=level)["hits"]
    return replace(found, percent=True)


def _moved(mask: np.ndarray, step: int, axis: int) -> np.ndarray:
    """Along an axis; what leaves is gone."""
    moved = np.roll(mask, step, axis)
    border = [slice(None)] * mask.ndim
    border[axis] = slice(0, step) if step > 0 else slice(step, None)
    moved[tuple(border)] = False
    return moved


def _order(images: np.ndarray, maps: np.ndarray, seed: int) -> np.ndarray:
    """int `[N, H W]`: pixels of each image from the highest of its map down."""
    values = np.asarray(maps, np.float64)
    if values.ndim != 3 or values.shape != np.shape(images)[:3] or not np.isfinite(values).all():
        raise EvaluationError(
            f"maps must be finite [N, H, W] of images {list(np.shape(images))}, not "
            f"{list(values.shape)}"
        )
    flat = values.reshape(len(values), -1)
    ties = np.random.default_rng(seed).random(flat.shape)
    return np.lexsort((ties, -flat), axis=1)


def _curve(
    probability: Probability,
    before: np.ndarray,
    after: np.ndarray,
    maps: np.ndarray,
    *,
    steps: int,
    seed: int,
) -> Curve:
    """While pixels of `before` are replaced by those of `after`."""
    if steps < 1:
        raise EvaluationError(f"one step at least is needed, not {steps}")
    order = _order(before, maps, seed)
    count, pixels = order.shape
    fractions = np.linspace(0, 1, steps + 1)
    shape = (count, pixels, before.shape[-1])
    old, new = before.reshape(shape), np.asarray(after).reshape(shape)
    found = []
    for fraction in fractions:
        mixed = np.array(old)
        chosen = order[:, : round(fraction * pixels), np.newaxis]
        np.put_along_axis(mixed, chosen, np.take_along_axis(new, chosen, axis=1), axis=1)
        found.append(np.asarray(probability(mixed.reshape(before.shape)), np.float64))
    values = np.stack(found, axis=1)
    area = np.asarray(np.trapezoid(values, fractions, axis=1))
    return Curve(fractions, values, area)


def _without(images: np.ndarray, gone: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Images whose pixels `gone`, `[N, P]`, are imputed, with noise there."""
    rng = np.random.default_rng(seed)
    found = []
    for image, pixels in zip(images, gone, strict=True):
        mask = np.zeros(image.shape[:2], bool)
        mask.flat[pixels] = True
        filled = imputed(image, mask)
        filled[mask] += noise * rng.normal(size=(mask.sum(), image.shape[2]))
        found.append(filled)
    return np.stack(found)
