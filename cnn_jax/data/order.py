"""The order in which an epoch visits the examples."""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import DataError


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """int64 `[n]`: a permutation of 0..n-1, a pure function of (n, seed, epoch).

    The counter-based generator Philox (Salmon et al. 2011, "Parallel random numbers: as
    easy as 1, 2, 3") takes (seed, epoch) as its key, so any epoch can be drawn without
    drawing those before it, and a resumed run sees what the first would have seen.

    Raises:
      DataError: a negative number, or a seed or epoch of 2**64 or more.
    """
    if n < 0:
        raise DataError(f"n must be a non-negative integer, not {n}")
    return _generator(seed, epoch).permutation(n)


def balanced_order(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """int64 `[n]`: positions at which each class that occurs comes equally often.

    An epoch has n places, shared out evenly among the classes (what does not go in evenly
    goes to classes drawn at random). A class fills its places with its examples in a random
    order, again and again if they are fewer: within an epoch two examples of a class differ
    by at most one in how often they come. A pure function of (labels, seed, epoch).

    Args:
      labels: int `[n]`, class indices.

    Raises:
      DataError: labels are not class indices `[n]`, or as `epoch_order`.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            "balanced sampling needs one class for each example, not labels of shape "
            f"{list(labels.shape)} and type {labels.dtype}"
        )
    generator = _generator(seed, epoch)
    classes = np.unique(labels)
    places = np.full(len(classes), len(labels) // len(classes))
    places[generator.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    chosen = []
    for k, count in zip(classes, places, strict=True):
        own = np.flatnonzero(labels == k)
        rounds = [generator.permutation(own) for _ in range(-(-count // len(own)))]
        chosen.append(np.concatenate(rounds)[:count])
    return generator.permutation(np.concatenate(chosen))


def _generator(seed: int, epoch: int) -> np.random.Generator:
    if not 0 <= seed < 2**64 or not 0 <= epoch < 2**64:
        raise DataError(f"seed and epoch must be non-negative integers, not {seed}, {epoch}")
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
