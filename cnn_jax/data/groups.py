"""Groups of examples that no split may part: those given, made larger by copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from cnn_jax.data.dataset import Split
from cnn_jax.data.duplicates import pixel_keys
from cnn_jax.data.near_duplicates import LONGEST_CHAIN, near_groups
from cnn_jax.data.reading import counted

# How the note ends on equal images within the part that parts are cut from.
COPIES_STAY = "train images equal another train image: they stay in one part."


def unite_groups(
    ids: np.ndarray, groups: np.ndarray | None, *labellings: np.ndarray
) -> np.ndarray | None:
    """The groups, united where examples share a value in one of the labellings.

    Args:
      ids: str `[N]`, unique.
      groups: str `[N]`, or None when every example is its own group.
      *labellings: arrays `[N]` of any sortable type, such as the keys of the pixels.

    Returns:
      str `[N]`: the connected components, each named by the smallest of the groups (or else
      ids) it unites; `groups` itself where nothing is united.
    """
    names, group_of = np.unique(ids if groups is None else groups, return_inverse=True)
    edges = [np.empty((2, 0), dtype=np.int64)]
    for labelling in labellings:
        _, first, codes = np.unique(labelling, return_index=True, return_inverse=True)
        edges.append(np.stack([group_of, group_of[first[codes]]]))
    rows, columns = np.concatenate(edges, axis=1)
    if (rows == columns).all():
        return groups
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(len(names),) * 2)
    _, component = connected_components(graph, directed=False)
    # Names are sorted, so the first of each component is its smallest.
    _, smallest = np.unique(component, return_index=True)
    return names[smallest[component]][group_of]


def keep_copies_together(train: Split) -> tuple[Split, tuple[str, ...]]:
    """The part with its equal images in one group each, and a note if there are any.

    Without equal images, or where they share a group already, the part stays as it is.
    """
    keys = pixel_keys(train)
    groups = unite_groups(train.ids, train.groups, keys)
    if groups is train.groups:
        return train, ()
    _, counts = np.unique(keys, return_counts=True)
    copies = counts[counts > 1].sum()
    note = f"{copies} {COPIES_STAY}"
    return replace(train, groups=groups), (note,)


def keep_near_copies_together(
    splits: Mapping[str, Split],
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The parts with near-copies and equal images in one group each, and a note on them.

    Raises:
      DataError: more images than are searched (see `near_duplicates`).
    """
    ids, given = pooled_names(splits)
    labels, cut = near_groups(splits)
    keys = np.concatenate([pixel_keys(split) for split in splits.values()])
    alone = np.char.add("alone ", np.arange(len(ids)).astype(np.str_))
    near = np.where(labels >= 0, labels.astype(np.str_), alone)
    groups = unite_groups(ids, given, keys, near)
    sizes = np.unique(labels[labels >= 0], return_counts=True)[1]
    notes = (_near_note(sizes, cut),)
    if groups is given or groups is None:
        return dict(splits), notes
    ends = np.cumsum([len(split) for split in splits.values()])[:-1]
    parts = zip(splits.items(), np.split(groups, ends), strict=True)
    return {name: replace(split, groups=some) for (name, split), some in parts}, notes


def _near_note(sizes: np.ndarray, cut: int) -> str:
    """What is said of groups of near-copies of these sizes, and of the pairs cut apart."""
    if not len(sizes):
        return "Near-copies: none."
    found = counted(len(sizes), "group", "groups")
    note = f"{sizes.sum()} images have near-copies: {found}, the largest of {sizes.max()}"
    if cut:
        note += (
            f" (more than {LONGEST_CHAIN} images that all look alike were cut into groups around "
            f"single images: {cut} pairs may be parted; see --audit)"
        )
    return f"{note}."


def pooled_names(splits: Mapping[str, Split]) -> tuple[np.ndarray, np.ndarray]:
    """str `[N]` each: ids and groups of all parts in order.

    Ids that repeat get the name of their part in front; an example without a given group is
    its own, by its id.
    """
    part = np.repeat(list(splits), [len(split) for split in splits.values()])
    ids = np.concatenate([split.ids for split in splits.values()])
    if len(np.unique(ids)) < len(ids):
        ids = np.char.add(np.char.add(part, "/"), ids)
    groups = [
        ids[part == name] if split.groups is None else split.groups
        for name, split in splits.items()
    ]
    return ids, np.concatenate(groups)
