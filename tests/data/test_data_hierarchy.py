"""Groups of classes as further targets."""

from __future__ import annotations

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data.hierarchy import parents
from cnn_jax.errors import DataError

LEVELS = ("parity", "half")
ANCESTORS = [("odd" if k % 2 else "even", "low" if k < 5 else "high") for k in range(10)]


def test_each_level_is_a_target_that_follows_from_the_label():
    digits = data.load("digits")
    grouped = data.group_classes(digits, LEVELS, ANCESTORS)
    assert grouped.digest == digits.digest and grouped.kinds["half"] == "class"
    for split in grouped.splits.values():
        label = split.targets["label"]
        for i, level in enumerate(LEVELS):
            names = grouped.classes[level]
            assert split.targets[level].dtype == np.int32
            found = [names[g] for g in split.targets[level].tolist()]
            assert found == [ANCESTORS[k][i] for k in label.tolist()]
    assert parents(grouped, "parity") == tuple(line[0] for line in ANCESTORS)
    assert "grouped by parity, half" in grouped.notes[-1]
    assert set(digits.kinds) == {"label"}


def test_what_groups_nothing_is_refused():
    digits = data.load("digits")
    with pytest.raises(DataError, match="target 'label' already: call the level otherwise"):
        data.group_classes(digits, ("label",), [("a",)] * 10)
    for name in ("image", "mask", "index", "valid"):
        with pytest.raises(DataError, match=f"a level cannot be called '{name}'"):
            data.group_classes(digits, ("half", name), ANCESTORS)
    for wrong in (ANCESTORS[:9], [*ANCESTORS[:9], ("odd",)]):
        with pytest.raises(DataError, match="10 classes and 2 levels needs as many lines"):
            data.group_classes(digits, LEVELS, wrong)
    images = np.arange(40 * 64, dtype=np.uint32).astype(np.uint8).reshape(40, 8, 8, 1)
    images[:, 0, 0, 0] = np.arange(40)
    several = data.from_arrays(images, np.ones((40, 3), np.float32))
    with pytest.raises(DataError, match="no one class for each image"):
        data.group_classes(several, LEVELS, ANCESTORS[:3])
