"""How well near-copies are found, against groups that were given.

    python -m experiments.near_copies DATA...

Each DATA is a folder with a groups.csv. Of the pairs of images that the search puts into one
group: how many share a given group (precision), and how many of the pairs of given groups
are among them (recall). The thresholds of the search were chosen on such sets.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_jax import data
from cnn_jax.errors import DataError


def precision_and_recall(path: str) -> tuple[float, float]:
    """Of pairs in one group of the search, against the groups of the data set.

    Raises:
      DataError: the data set has no groups.
    """
    dataset = data.load(path)
    found = data.find_near_duplicates(dataset).groups.groups + data.find_duplicates(dataset).groups
    given: dict[str, Any] = {}
    for name, split in dataset.splits.items():
        if split.groups is None:
            raise DataError(f"the {name} part of {path!r} has no groups: give a groups.csv")
        given.update(zip(map(str, split.ids), split.groups, strict=True))
    pairs = {
        frozenset((a.id, b.id)) for group in found for a in group for b in group if a.id < b.id
    }
    right = sum(len({given[i] for i in pair}) == 1 for pair in pairs)
    sizes = np.unique(list(given.values()), return_counts=True)[1]
    return right / len(pairs), right / float((sizes * (sizes - 1) // 2).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="DATA")
    for path in parser.parse_args(arguments).data:
        precision, recall = precision_and_recall(path)
        print(f"{path}: precision {precision:.3f}, recall {recall:.3f}")


if __name__ == "__main__":
    main()
