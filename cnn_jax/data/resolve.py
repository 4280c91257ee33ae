"""What is done about equal images, and groups, that lie in several parts of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.duplicates import Duplicates, find_duplicates
from cnn_jax.data.groups import keep_near_copies_together
from cnn_jax.data.pooling import notes_without_parts, pool, pooled_groups
from cnn_jax.data.reading import counted, some_of
from cnn_jax.data.splits import LEAK, NEAR_LEAK, complete_splits, leak_notes, shared_groups
from cnn_jax.errors import DataError

Policy = Literal["stop", "drop-train", "regroup", "keep"]


def resolve_duplicates(
    dataset: Dataset, policy: Policy = "stop", *, split_seed: int = 0
) -> Dataset:
    """The data set a network may be trained on: no train image lies in another part.

    Train images equal to a validation image leave train, whatever the policy. Equal images
    within a part stay; a note says how many have different labels. What is done is a note
    of the data set that is returned, and its digest is that of what is left. A data set
    without equal images and shared groups comes back as it is.

    Args:
      dataset: any data set.
      policy: what is done about test images equal to a train or validation image, and about
        groups (patients, scenes; see `Split`) that lie in two parts. `stop` raises, but not
        for groups that near-copies alone have made, which are notes.
        `drop-train` takes the copies, and the images of such groups, out of train (and, for
        the test part, out of validation); the test part, and so the comparison with published
        figures, stays. `regroup` pools all images and splits them anew 70/15/15, equal ones
        and groups kept whole. `keep` moves nothing.
      split_seed: seed of the splits that `regroup` makes.

    Raises:
      DataError: test images occur in train or validation, or two parts share a group, and the
        policy is `stop`; an unknown policy; or no train or validation image would be left.
    """
    if policy not in get_args(Policy):
        raise DataError(f"duplicates must be one of {', '.join(get_args(Policy))}, not {policy!r}")
    if policy == "regroup" and (pooled := _pooled_if_shared(dataset)) is not None:
        dataset = _regroup(dataset, pooled, split_seed)
    found = find_duplicates(dataset)
    leaked = found.between("test", "train", "validation")
    shared = shared_groups(dataset.splits)
    if policy == "stop" and leaked:
        raise DataError(_stop_message(dataset, [example.id for example in leaked]))
    if policy == "stop" and (given := _shared_as_given(dataset)):
        raise DataError(_stop_message_of_groups(dataset, given))
    notes = []
    dropped = {"train": _positions(found, "train", "validation"), "validation": set[int]()}
    if leaked:
        what = f"{len(leaked)} of {len(dataset.splits['test'])} test images equal a train or "
        what += "validation image"
    if leaked and policy == "keep":
        notes.append(f"{what} and were kept: figures on test are optimistic.")
    if leaked and policy == "drop-train":
        copies = {part: _positions(found, part, "test") for part in ("train", "validation")}
        counts = " and ".join(f"{len(some)} from {part}" for part, some in copies.items())
        notes.append(f"{what}: the copies were dropped, {counts}.")
        dropped = {part: dropped[part] | copies[part] for part in copies}
    if shared and policy in ("keep", "stop"):
        said = {note.replace(NEAR_LEAK, LEAK) for note in dataset.notes}
        notes += [note for note in shared if note not in said]
    elif shared:
        parted = _in_shared_groups(dataset.splits)
        counts = " and ".join(f"{len(some)} from {part}" for part, some in parted.items() if some)
        notes.append(f"{_shared_worded(shared)}: images of those groups were dropped, {counts}.")
        dropped = {part: dropped[part] | parted[part] for part in parted}
        # What was said of the groups is no longer true.
        dataset = dataset.replace(
            notes=tuple(n for n in dataset.notes if not n.startswith((LEAK, NEAR_LEAK)))
        )
    notes += _notes_on_train(dataset, found, dropped["train"])
    return _without(dataset, dropped, notes)


def _notes_on_train(dataset: Dataset, found: Duplicates, dropped: set[int]) -> list[str]:
    """What was dropped for the validation part, and the labels that conflict in what is left."""
    notes = []
    validation = len(found.between("validation", "train"))
    if validation:
        copies = len(_positions(found, "train", "validation"))
        notes.append(
            f"{validation} of {len(dataset.splits['validation'])} validation images equal a train "
            f"image: {counted(copies, 'copy was', 'copies were')} dropped from train."
        )
    left = [
        group
        for group in found.conflicting(["train"])
        # Equal images are dropped together, so the first one stands for all.
        if group[0].index not in dropped
    ]
    if left:
        images = sum(len(group) for group in left)
        sets = counted(len(left), "set", "sets")
        notes.append(f"Equal train images with different labels: {images} images in {sets}.")
    return notes


def group_near_duplicates(dataset: Dataset) -> Dataset:
    """The data set with near-copies in one group each; no example moves.

    Raises:
      DataError: more images than are searched (see `near_duplicates`).
    """
    splits, notes = keep_near_copies_together(dataset.splits)
    leaks = [note for note in leak_notes(dataset.splits, splits) if note not in dataset.notes]
    return dataset.replace(splits=splits, notes=(*dataset.notes, *notes, *leaks))


def _positions(found: Duplicates, part: str, other: str) -> set[int]:
    return {example.index for example in found.between(part, other)}


def _in_shared_groups(splits: Mapping[str, Split]) -> dict[str, set[int]]:
    """The positions in train and validation whose group lies in a part that comes after it."""
    found: dict[str, set[int]] = {}
    for part, later in {"train": ("validation", "test"), "validation": ("test",)}.items():
        groups = splits[part].groups
        others = [some for name in later if (some := splits[name].groups) is not None]
        found[part] = set()
        if groups is not None and others:
            found[part] |= set(np.flatnonzero(np.isin(groups, np.concatenate(others))).tolist())
    return found


def _shared_as_given(dataset: Dataset) -> list[str]:
    """Notes on the groups that parts share, but for those that near-copies alone have made."""
    if any(note.startswith(NEAR_LEAK) for note in dataset.notes):
        return [note for note in dataset.notes if note.startswith(LEAK)]
    return shared_groups(dataset.splits)


def _shared_worded(shared: list[str]) -> str:
    """Which parts share groups, from the notes on them."""
    return "; ".join(note.removeprefix(LEAK).partition(":")[0] for note in shared)


def _stop_message_of_groups(dataset: Dataset, shared: list[str]) -> str:
    return (
        f"in {dataset.name!r} {_shared_worded(shared)}: figures would be optimistic. Choose "
        "--duplicates drop-train (take the images of those groups out of the earlier part), "
        "--duplicates regroup (pool all images and split them anew, groups kept whole) or "
        "--duplicates keep (go on as it is)"
    )


def _stop_message(dataset: Dataset, ids: list[str]) -> str:
    of = f"{len(ids)} of {len(dataset.splits['test'])} test images of {dataset.name!r}"
    return (
        f"{of} {'is' if len(ids) == 1 else 'are'} also in "
        f"train or validation ({some_of(ids)}): figures on test would be optimistic. Choose "
        "--duplicates drop-train (take the copies out of train and validation), "
        "--duplicates regroup (pool all images and split them anew, copies together) or "
        "--duplicates keep (go on as it is)"
    )


def _without(dataset: Dataset, dropped: Mapping[str, set[int]], notes: list[str]) -> Dataset:
    """The data set without the examples at the positions, and with the notes."""
    splits = dict(dataset.splits)
    for part, positions in dropped.items():
        if not positions:
            continue
        stay = np.delete(np.arange(len(splits[part])), sorted(positions))
        if not len(stay):
            raise DataError(
                f"every {part} image of {dataset.name!r} equals one of another part, or is of a "
                "group that lies there: none would be left; --duplicates regroup makes parts anew"
            )
        splits[part] = splits[part].take(stay)
    if not notes:
        return dataset
    changed = any(dropped.values())
    return dataset.replace(
        splits=splits,
        digest=dataset_digest(splits) if changed else dataset.digest,
        notes=(*dataset.notes, *notes),
    )


def _pooled_if_shared(dataset: Dataset) -> Split | None:
    """All examples, in groups; None if no group lies in two parts, nor a test image in another."""
    splits = dataset.splits
    part = np.repeat(list(splits), [len(split) for split in splits.values()])
    _, groups = pooled_groups(splits)
    leaked = np.isin(groups[part == "test"], groups[part != "test"]).any()
    if not leaked and not shared_groups(splits):
        return None
    return pool(dataset, tuple(splits), "choose --duplicates drop-train")


def _regroup(dataset: Dataset, pooled: Split, seed: int) -> Dataset:
    splits, _ = complete_splits({"train": pooled}, seed=seed)
    counts = ", ".join(f"{len(split)} {part}" for part, split in splits.items())
    note = (
        f"Test images or groups were also in another part: all {len(pooled)} images "
        f"were pooled and split anew, groups and equal images kept whole (seed {seed}), into "
        f"{counts}."
    )
    # What was said of the parts as they were is no longer true.
    kept = notes_without_parts(dataset)
    return dataset.replace(splits=splits, digest=dataset_digest(splits), notes=(*kept, note))
