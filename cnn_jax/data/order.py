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


def identity_order(
    labels: np.ndarray, *, identities: int, images: int, seed: int, epoch: int
) -> np.ndarray:
    """int64 `[S P K]`: positions of S batches of P identities with K images each.

    What losses of pairs and triplets need (Hermans, Beyer & Leibe 2017, "In defense of the
    triplet loss for person re-identification", sec. 2). The K images of an identity follow each
    other. An epoch has S = ceil(n / (P K)) whole batches. The identities of a batch differ, and
    within an epoch two identities differ by at most one in how often they come, as two images of
    an identity do. The K images differ, too, where an identity has so many; one of fewer shows
    each of them equally often: a single image comes K times. A pure function of (labels, P, K,
    seed, epoch).

    Args:
      labels: int `[n]`, the identity of each image.
      identities: P, two or more, at most as many as there are.
      images: K, one or more; two or more for a loss that needs pairs.

    Raises:
      DataError: labels are not identities `[n]`, P or K do not fit, or as `epoch_order`.
    """
    check_identities(labels, identities, images)
    generator = _generator(seed, epoch)
    people, person_of = np.unique(labels, return_inverse=True)
    batches = -(-len(labels) // (identities * images))
    chosen = _dealt(np.arange(len(people)), batches, identities, generator).reshape(-1)
    order = np.empty((batches * identities, images), np.int64)
    by_person = np.split(
        np.argsort(person_of, kind="stable"), np.cumsum(np.bincount(person_of))[:-1]
    )
    for person, times in enumerate(np.bincount(chosen, minlength=len(people)).tolist()):
        if times:
            order[chosen == person] = _dealt(by_person[person], times, images, generator)
    return order.reshape(-1)


def check_identities(labels: np.ndarray, identities: int, images: int) -> None:
    """Raise `DataError` unless batches of `identities` x `images` can be made of `labels`."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            "batches of identities need one identity for each image, not labels of shape "
            f"{list(labels.shape)} and type {labels.dtype}"
        )
    count = len(np.unique(labels))
    if images < 1 or not 2 <= identities <= count:
        raise DataError(
            f"batches of {identities} identities with {images} images each cannot be made of "
            f"{count} identities: take 1 image or more of 2 to {count}"
        )


def _dealt(items: np.ndarray, rows: int, size: int, generator: np.random.Generator) -> np.ndarray:
    """int64 `[rows, size]`: items from shuffled decks, one deck after the other.

    All items come equally often, within one, over all rows and within each row.
    """
    dealt = np.empty((rows, size), np.int64)
    deck = items[:0]
    for row in dealt:
        row_items, deck = deck[:size], deck[size:]
        while len(row_items) < size:
            fresh = generator.permutation(items)
            # What the row has already comes last, that it need not have it twice.
            held = (fresh[:, None] == row_items[None, :]).sum(axis=1)
            fresh = fresh[np.argsort(held, kind="stable")]
            missing = size - len(row_items)
            row_items, deck = np.concatenate([row_items, fresh[:missing]]), fresh[missing:]
        row[:] = row_items
    return dealt


def _generator(seed: int, epoch: int) -> np.random.Generator:
    if not 0 <= seed < 2**64 or not 0 <= epoch < 2**64:
        raise DataError(f"seed and epoch must be non-negative integers, not {seed}, {epoch}")
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
