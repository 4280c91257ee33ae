"""Making the parts a data set lacks: stratified by class, never cutting a group.

A group (a patient, a scene, near-copies) goes to one part as a whole. Within that, classes
are dealt out in the manner of iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011,
"On the stratification of multi-label data"): the class with the fewest groups first, its
largest group first, each to the part that still wants most of what the group holds. Equal
groups come in the order of a hash of their name and the seed, so the order of the files does
not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from math import floor

import numpy as np

from cnn_jax.data.dataset import Split
from cnn_jax.data.reading import PARTS, counted
from cnn_jax.errors import DataError

WITHOUT_TEST = {"train": 0.70, "validation": 0.15, "test": 0.15}
TEST_FRACTION = WITHOUT_TEST["test"]
LARGEST_VALIDATION = 5000

# How the note begins that says that a given group lies in several given parts.
LEAK = "Leak: "
# How it begins where near-copies alone made the group, which stops no training.
NEAR_LEAK = "Leak by near-copies: "
# How the note begins that says which parts were made from the train part.
MADE = "The data has no "

# A class of so many groups or more is present in every part; a smaller one at least in train.
_GROUPS_FOR_EVERY_PART = 3
# But not in a part that is to have less than so much of a group of it: two per cent of five images
# of each of many people would be a fifth of them all.
_LEAST_WANTED = 0.25


def complete_splits(
    given: Mapping[str, Split], *, validation: float = 0.1, seed: int = 0
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """`train`, `validation` and `test`, and notes on what was made and what was found.

    Given parts are kept. `train` alone is split 70/15/15. A missing validation part is
    carved from train: the fraction `validation` of it, at most 5,000 images. A missing test
    part beside a validation part is 15 % of train. Groups that lie in several given parts
    are reported, not moved.

    Raises:
      DataError: no train part, `validation` outside 0..0.5, or too few groups to split.
    """
    if "train" not in given:
        raise DataError(f"a data set needs a part 'train'; this has {', '.join(given) or 'none'}")
    if not 0 < validation <= 0.5:
        raise DataError(f"validation must be a fraction over 0 and at most 0.5, not {validation}")
    fractions = _fractions(given, validation)
    parts = dict(given)
    notes = list(shared_groups(given))
    if len(fractions) > 1:
        parts |= _cut(given["train"], fractions, seed)
        counts = ", ".join(f"{len(parts[part])} {part}" for part in fractions)
        how = "stratified by class" if _is_class(given["train"]) else "at random"
        whole = "" if given["train"].groups is None else ", groups kept whole"
        notes.append(f"{MADE}{' or '.join(p for p in PARTS if p not in given)} part: ")
        notes[-1] += f"its train part is split {how}{whole} (seed {seed}) into {counts}."
    return {part: parts[part] for part in PARTS}, tuple(notes)


def assign_parts(
    ids: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None,
    fractions: Mapping[str, float],
    seed: int,
    *,
    rare_in_first: bool = True,
) -> np.ndarray:
    """str `[N]`: the part of each example; a pure function that ignores the examples' order.

    A class that has three groups or more, none shared with another class, is present in every
    part whose share of it is a quarter of a group or more; where groups mix classes that is
    attempted but cannot always be had.

    Args:
      ids: str `[N]`, unique.
      labels: int `[N]`; anything of another shape (multi-label) is split by group at random.
      groups: str `[N]`, or None when every example is its own group.
      fractions: part -> its share; they sum to 1.
      seed: another seed, another split.
      rare_in_first: whether classes of one or two groups go to the first part, so that there is
        something to learn from; else wherever there is room.
    """
    names, group_of = np.unique(ids if groups is None else groups, return_inverse=True)
    classes = labels if labels.ndim == 1 else np.zeros(len(ids), dtype=np.int64)
    _, class_of = np.unique(classes, return_inverse=True)
    n_classes = class_of.max() + 1
    codes, counts = np.unique(group_of * n_classes + class_of, return_counts=True)
    pairs = np.stack([codes // n_classes, codes % n_classes])
    shares = np.array(list(fractions.values()))
    part_of_group = _deal(pairs, counts, hashed_order(names, seed), shares, int(rare_in_first))
    return np.array(list(fractions), dtype=np.str_)[part_of_group[group_of]]


def hashed_order(names: np.ndarray, seed: int) -> np.ndarray:
    """int64 `[G]`: rank of each group by the hash of the seed and its name."""
    keys = [
        hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogatepass")).digest() for name in names
    ]
    rank = np.empty(len(keys), dtype=np.int64)
    rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return rank


def _deal(
    pairs: np.ndarray, counts: np.ndarray, rank: np.ndarray, fractions: np.ndarray, rare: int
) -> np.ndarray:
    """int64 `[G]`: the part of each group; a rare class is in the first `rare` parts.

    Column j of `pairs` int `[2, J]` is a group and a class it holds `counts[j]` examples of.
    """
    n_groups = np.bincount(pairs[1])
    holdings = _holdings(pairs, counts)
    totals = np.bincount(pairs[1], weights=counts)
    wanted = fractions[:, None] * totals
    needed = _parts_with_every_class(n_groups, fractions, rare)
    part_of = np.full(len(rank), -1, dtype=np.int64)
    done = np.zeros(len(n_groups), dtype=bool)
    by_class = np.split(np.argsort(pairs[1], kind="stable"), np.cumsum(n_groups)[:-1])
    # Classes too small for every part come last, so that they take no choice from the others.
    for k in np.lexsort((n_groups, n_groups < _GROUPS_FOR_EVERY_PART)):
        largest_first = np.lexsort((rank[pairs[0, by_class[k]]], -counts[by_class[k]]))
        groups = pairs[0, by_class[k]][largest_first]
        open_groups = groups[part_of[groups] < 0].tolist()
        missing = set(np.flatnonzero(needed[:, k]).tolist()) - set(part_of[groups].tolist())
        left_over, scale = wanted[:, done].sum(axis=1), totals[k] / totals
        for position, group in enumerate(open_groups):
            must_fill = len(open_groups) - position <= len(missing)
            allowed = sorted(missing) if must_fill else range(len(fractions))
            part = _most_wanting(allowed, holdings[group], wanted, scale, left_over)
            part_of[group] = part
            missing.discard(part)
            for held, count in holdings[group]:
                wanted[part, held] -= count
        done[k] = True
    return part_of


def _parts_with_every_class(n_groups: np.ndarray, fractions: np.ndarray, rare: int) -> np.ndarray:
    """bool `[parts, classes]`: whether a class must be in a part; none is left empty."""
    wanted = np.outer(fractions, n_groups)
    needed = (wanted >= _LEAST_WANTED) & (n_groups >= _GROUPS_FOR_EVERY_PART)
    empty = ~needed.any(axis=1)
    needed[empty, n_groups.argmax()] = n_groups.max() >= _GROUPS_FOR_EVERY_PART
    needed[:rare] = True
    return needed


def _most_wanting(
    allowed: Iterable[int],
    holding: list[tuple[int, int]],
    wanted: np.ndarray,
    scale: np.ndarray,
    left_over: np.ndarray,
) -> int:
    """The part that wants most, in whole examples, of what a group holds on average.

    `scale` `[K]` makes classes of different size count alike. Among equals the fractions
    decide, with what earlier classes left over.
    """
    size = sum(count for _, count in holding)

    def key(part: int) -> tuple[int, float]:
        want = sum(wanted[part, k] * scale[k] * count for k, count in holding) / size
        # The small number keeps 0.7 * 10, which is just below 7 in floating point, at 7.
        return floor(want + 1e-6), want + left_over[part]

    return max(allowed, key=key)


def _holdings(pairs: np.ndarray, counts: np.ndarray) -> list[list[tuple[int, int]]]:
    """For each group, its classes and how many examples of them it has."""
    holdings: list[list[tuple[int, int]]] = [[] for _ in range(pairs[0].max(initial=-1) + 1)]
    for group, k, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        holdings[group].append((k, count))
    return holdings


def _fractions(given: Mapping[str, Split], validation: float) -> dict[str, float]:
    """The shares into which the train part is cut."""
    if "test" not in given and "validation" not in given:
        return WITHOUT_TEST
    if "test" not in given:
        return {"train": 1 - TEST_FRACTION, "test": TEST_FRACTION}
    if "validation" not in given:
        share = min(validation, LARGEST_VALIDATION / len(given["train"]))
        return {"train": 1 - share, "validation": share}
    return {"train": 1.0}


def _cut(split: Split, fractions: Mapping[str, float], seed: int) -> dict[str, Split]:
    part_of = assign_parts(split.ids, split.targets["label"], split.groups, fractions, seed)
    together = 0 if split.groups is None else len(np.unique(split.groups))
    examples = counted(len(split), "example", "examples")
    groups = (
        f"in {counted(together, 'group', 'groups')} (equal images are one) " if together else ""
    )
    for part in fractions:
        if part not in part_of:
            raise DataError(
                f"{examples} {groups}are too few to cut a {part} part from: "
                "add examples, or give the parts yourself"
            )
    return {part: split.take(np.flatnonzero(part_of == part)) for part in fractions}


def _is_class(split: Split) -> bool:
    return split.targets["label"].ndim == 1


def shared_groups(given: Mapping[str, Split]) -> list[str]:
    """A note for each pair of given parts that share groups."""
    notes = []
    names = [part for part in PARTS if part in given]
    for position, first in enumerate(names):
        for second in names[position + 1 :]:
            a, b = given[first].groups, given[second].groups
            if a is None or b is None:
                continue
            shared = np.isin(b, a)
            if shared.any():
                count = len(np.unique(b[shared]))
                groups = "a group" if count == 1 else f"one of {count} groups"
                notes.append(
                    f"{LEAK}{shared.sum()} of {len(b)} {second} images share {groups} with a "
                    f"{first} image: figures on {second} are optimistic."
                )
    return notes


def leak_notes(given: Mapping[str, Split], grouped: Mapping[str, Split]) -> list[str]:
    """Notes on the groups that parts share: those given, and those made of near-copies."""
    known, found = shared_groups(given), shared_groups(grouped)
    return known + [NEAR_LEAK + note.removeprefix(LEAK) for note in found if note not in known]
