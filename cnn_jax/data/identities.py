"""Parts of disjoint people: figures on them are of people whom the network has never seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.folds import made_parts
from cnn_jax.data.groups import unite_groups
from cnn_jax.data.order import epoch_order
from cnn_jax.data.pooling import notes_without_parts, pool
from cnn_jax.data.reading import PARTS, counted
from cnn_jax.errors import DataError

_FEWEST_TO_TRAIN_ON = 2


def disjoint_identities(dataset: Dataset, *, validation: int, test: int, seed: int = 0) -> Dataset:
    """The data set dealt out anew, so that nobody is in two parts.

    A test part that the data came with is kept where its people are in no other part, as is then
    a validation part of which the same is true: so are sets of faces or products published. All
    else is pooled. Each person goes to one part with all of their images, and people who share a
    group or an equal image go together. Within a part examples are in the order of their ids, so
    that the result does not depend on how the parts were cut before. The classes stay: labels
    mean what they meant, and all splits of one data set have networks of one shape; people
    outside of the train part have no image to learn from, so that accuracy on the other parts
    means nothing: verify or identify there.

    Args:
      dataset: with train, validation and test parts; the target `label` is the person.
      validation, test: numbers of people, each at least 1; the others train. Of a part that is
        kept, `test` must be its number, and `validation` counts for nothing.
      seed: another seed, other people.

    Raises:
      DataError: labels that are no classes, or too few people, or groups that mix people so that
        the numbers cannot be had; of parts that are kept another number, or a group or an equal
        image in two.
    """
    if dataset.kinds["label"] != "class":
        raise DataError(
            f"{dataset.name!r} has {dataset.kinds['label']} labels: parts of disjoint people need "
            "one person for each image"
        )
    pooled = pool(dataset, PARTS, "deal out people before it is pooled")
    people = {"validation": validation, "test": test}
    labels = pooled.targets["label"]
    part_of = np.repeat(np.array(PARTS), [len(dataset.splits[part]) for part in PARTS])
    kept = _kept(dataset, labels, part_of)
    if "test" in kept and (count := len(np.unique(labels[part_of == "test"]))) != test:
        raise DataError(
            f"{dataset.name!r} came with a test part of {counted(count, 'person', 'people')}, none "
            f"of whom is in another part: {test} cannot be its number; take {count}, or pool the "
            "parts before"
        )
    wanted = {part: count for part, count in people.items() if part not in kept}
    if wanted:
        anew = ~np.isin(part_of, kept)
        groups = None if pooled.groups is None else pooled.groups[anew]
        part_of[anew] = identity_parts(labels[anew], wanted, seed=seed, groups=groups)
    if kept and pooled.groups is not None:
        _check_apart(pooled.groups, part_of, dataset.name)
    by_id = np.argsort(pooled.ids)
    splits = {part: pooled.take(by_id[part_of[by_id] == part]) for part in PARTS}
    if pooled.groups is not None and (pooled.groups == pooled.ids).all():
        splits = {part: replace(split, groups=None) for part, split in splits.items()}
    notes = notes_without_parts(dataset)
    shares = ", ".join(
        f"{len(np.unique(split.targets['label']))} {part}" for part, split in splits.items()
    )
    how = [f"{' and '.join(kept)} as given"] if kept else []
    how += [f"seed {seed}"] if wanted else []
    notes.append(f"Nobody is in two parts ({', '.join(how)}): {shares} people.")
    return dataset.replace(splits=splits, digest=dataset_digest(splits), notes=tuple(notes))


def _kept(dataset: Dataset, labels: np.ndarray, part_of: np.ndarray) -> tuple[str, ...]:
    """The parts the data came with that share nobody with any other."""
    found = tuple(
        part
        for part in ("validation", "test")
        if part not in made_parts(dataset)
        and not np.isin(labels[part_of == part], labels[part_of != part]).any()
    )
    return found if "test" in found else ()


def _check_apart(groups: np.ndarray, part_of: np.ndarray, name: str) -> None:
    pairs = np.unique(np.column_stack([groups, part_of]), axis=0)
    names, count = np.unique(pairs[:, 0], return_counts=True)
    if (shared := names[count > 1]).size:
        raise DataError(
            f"{name!r} keeps the parts that it came with, but "
            f"{counted(len(shared), 'group or image is', 'groups or images are')} in two of them, "
            f"such as {str(shared[0])!r}: take the copies out, or pool the parts before"
        )


def identity_parts(
    labels: np.ndarray,
    people: Mapping[str, int],
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """str `[N]`: the part of each example, `train` or one of `people`, by its person.

    People come in a random order, a pure function of their number and the seed, and fill the
    parts of `people`, the last one first; people who share a group come together, and are passed
    over by a part with too little room for all of them. The order of the examples does not
    matter.

    Args:
      labels: int `[N]`, the person on each image.
      people: part -> its number of people, at least 1 each.
      seed: see above.
      groups: str `[N]`, or None; examples of one group are never parted.

    Raises:
      DataError: labels that are no classes, fewer than two people left to train on, or people in
        groups so large that a part cannot have its number.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            "parts of disjoint people need one person for each image, not labels of shape "
            f"{list(labels.shape)} and type {labels.dtype}"
        )
    names, first, person_of = np.unique(labels, return_index=True, return_inverse=True)
    wanted = ", ".join(f"{count} {part}" for part, count in people.items())
    if min(people.values()) < 1 or sum(people.values()) + _FEWEST_TO_TRAIN_ON > len(names):
        raise DataError(
            f"{counted(len(names), 'person', 'people')} cannot be dealt out as {wanted} and "
            f"{_FEWEST_TO_TRAIN_ON} or more to train on: choose other numbers, at least 1 each"
        )
    together = unite_groups(np.arange(len(labels)).astype(np.str_), groups, labels)
    if together is None:  # every person has one image, and it is no copy
        together = labels
    _, cluster_of = np.unique(together[first], return_inverse=True)
    # Numbered by their first person, whatever the groups are called.
    _, clusters = np.unique(cluster_of, return_index=True)
    cluster_of = np.argsort(np.argsort(clusters))[cluster_of]
    sizes = np.bincount(cluster_of)
    order = epoch_order(len(sizes), seed=seed, epoch=0)
    part_of = np.full(len(sizes), "train", dtype=np.array(["train", *people]).dtype)
    for part, count in reversed(list(people.items())):
        room = count
        for cluster in order.tolist():
            if part_of[cluster] == "train" and sizes[cluster] <= room:
                part_of[cluster] = part
                room -= int(sizes[cluster])
        if room:
            raise DataError(
                f"people who share groups cannot be parted as {wanted}: the largest such group has "
                f"{sizes.max()} people; choose other numbers, or look at the groups"
            )
    return part_of[cluster_of][person_of]
