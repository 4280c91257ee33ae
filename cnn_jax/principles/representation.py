"""What layers represent: how alike two of them are, what units answer to, and which never do.

All are functions of features, as `nn.tap` gives them: images first, channels last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnn_jax.errors import EvaluationError


def linear_cka(one: Any, other: Any, *, unbiased: bool = True) -> float:
    """Linear centred kernel alignment of two layers on the same images (Kornblith et al. 2019).

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of K = X Xᵀ and L = Y Yᵀ: 1 if one is the other but for
    an orthogonal map and a scale. The plain estimate is high for few images and wide layers, even
    of noise; the unbiased one of HSIC (Song et al. 2012, eq. 5) is not, and may be negative.

    Args:
      one, other: `[N, ...]`, flattened after the first axis; widths may differ.
      unbiased: which estimate of HSIC; it needs 4 images, the plain one 2.

    Raises:
      EvaluationError: not the same number of images or too few, values that are not finite, or a
        layer that is the same for all images.
    """
    x, y = (np.asarray(each, np.float64) for each in (one, other))
    least = 4 if unbiased else 2
    if x.ndim < 2 or y.ndim < 2 or len(x) != len(y) or len(x) < least:
        raise EvaluationError(
            f"CKA compares two layers [N, ...] on the same images, {least} at least, not "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise EvaluationError("CKA needs finite features")
    # Centred first: the estimates do not change, and products do not cancel.
    flat = [each.reshape(len(each), -1) for each in (x, y)]
    grams = [(each - each.mean(axis=0)) @ (each - each.mean(axis=0)).T for each in flat]
    hsic = _hsic_unbiased if unbiased else _hsic_plain
    own = [hsic(gram, gram) for gram in grams]
    sizes = [float((gram**2).sum()) for gram in grams]
    if min(sizes) == 0 or min(own) <= 0:
        raise EvaluationError("CKA of a layer that is the same for all images is undefined")
    return float(hsic(*grams) / np.sqrt(own[0] * own[1]))


def _hsic_plain(k: np.ndarray, one: np.ndarray) -> float:
    return float((k * one).sum() / (len(k) - 1) ** 2)


def _hsic_unbiased(k: np.ndarray, one: np.ndarray) -> float:
    n = len(k)
    k, one = (each - np.diag(np.diag(each)) for each in (k, one))
    sums = k.sum(axis=0), one.sum(axis=0)
    together = (k * one).sum() + sums[0].sum() * sums[1].sum() / ((n - 1) * (n - 2))
    return float((together - 2 / (n - 2) * (sums[0] @ sums[1])) / (n * (n - 3)))


@dataclass(frozen=True, eq=False)
class Activity:
    """How often the units of a layer are at work.

    Attributes:
      active: float `[C]`, the share of images and positions at which a unit is above 0.
      dead: bool `[C]`, units that are above 0 nowhere: no image of these moves their weights.
      sparsity: the share of all values that are not above 0.
    """

    active: np.ndarray
    dead: np.ndarray
    sparsity: float


def activity(features: Any) -> Activity:
    """Sparsity and dead units of features after a ReLU.

    Args:
      features: `[N, ..., C]`.

    Raises:
      EvaluationError: no images or no unit.
    """
    values = _features(features)
    above = values.reshape(-1, values.shape[-1]) > 0
    active = above.mean(axis=0)
    return Activity(active, active == 0, float(1 - above.mean()))


def class_selectivity(features: Any, labels: Any) -> np.ndarray:
    """float `[C]`: how far each unit prefers one class (Morcos et al. 2018).

    (a - b) / (a + b), a the largest mean over the images of a class, b the mean of the means of all
    other classes: 0 for a unit that is as active for each, or never is; 1 for one that answers to a
    single class.

    Args:
      features: `[N, ..., C]`, 0 or more, as after a ReLU; means are over positions, too.
      labels: int `[N]`, two classes at least.

    Raises:
      EvaluationError: negative features, other numbers of labels, or fewer than two classes.
    """
    values, classes = _features(features), np.unique(labels)
    if len(np.shape(labels)) != 1 or len(labels) != len(values) or len(classes) < 2:
        raise EvaluationError(
            f"selectivity needs a label for each of {len(values)} images, of two classes at least, "
            f"not {list(np.shape(labels))} of {len(classes)}"
        )
    if values.min() < 0:
        raise EvaluationError("selectivity is of features that are 0 or more, as after a ReLU")
    per_image = values.reshape(len(values), -1, values.shape[-1]).mean(axis=1)
    means = np.stack([per_image[np.asarray(labels) == each].mean(axis=0) for each in classes])
    highest = means.max(axis=0)
    others = (means.sum(axis=0) - highest) / (len(classes) - 1)
    total = highest + others
    selectivity: np.ndarray = np.where(
        total > 0, (highest - others) / np.where(total > 0, total, 1), 0
    )
    return selectivity


def _features(features: Any) -> np.ndarray:
    values = np.asarray(features, np.float64)
    if values.ndim < 2 or not values.size:
        raise EvaluationError(f"features are [N, ..., C], not {list(values.shape)}")
    return values
