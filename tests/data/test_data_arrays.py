import numpy as np
import pytest

from cnn_jax.data import from_arrays
from cnn_jax.errors import DataError

N = 40
IMAGES = np.arange(N * 6, dtype=np.uint8).reshape(N, 2, 3)
LABELS = np.arange(N) % 4


def test_arrays_are_split_and_kept_together():
    dataset = from_arrays(
        IMAGES, LABELS, classes=["a", "b", "c", "d"], ids=[f"x{i}" for i in range(N)]
    )
    assert dataset.image_shape == (2, 3, 1) and dataset.classes["label"] == ("a", "b", "c", "d")
    assert [len(split) for split in dataset.splits.values()] == [28, 6, 6]
    for split in dataset.splits.values():
        where = [int(name[1:]) for name in split.ids]
        np.testing.assert_array_equal(split.images[..., 0], IMAGES[where])
        np.testing.assert_array_equal(split.targets["label"], LABELS[where])


def test_given_parts_are_kept():
    floats = (IMAGES / np.float32(255)).astype(np.float32)
    dataset = from_arrays(
        floats, LABELS, validation=(floats[:5], LABELS[:5]), test=(floats[:7], LABELS[:7])
    )
    assert [len(split) for split in dataset.splits.values()] == [N, 5, 7]
    assert dataset.splits["train"].images.dtype == np.float32
    carved = from_arrays(floats, LABELS, validation=0.25, test=(floats[:7], LABELS[:7]))
    assert [len(split) for split in carved.splits.values()] == [30, 10, 7]


def test_groups_are_kept_whole():
    dataset = from_arrays(IMAGES, LABELS, groups=np.arange(N) // 4)
    groups = [set(split.groups) for split in dataset.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10


def test_soft_and_multilabel_targets():
    soft = np.full((N, 4), 0.25)
    assert from_arrays(IMAGES, soft).kinds["label"] == "soft"
    several = np.ones((N, 3), np.float32)
    several[::2, 1] = 0
    dataset = from_arrays(IMAGES, several)
    assert dataset.kinds["label"] == "multilabel" and dataset.classes["label"] == ("0", "1", "2")
    assert dataset.splits["train"].targets["label"].dtype == np.float32


BAD_FLOATS = np.full((N, 2, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float64), LABELS, "images are float64"),
        (IMAGES.astype(np.int64), LABELS, "images are int64"),
        (IMAGES.astype(np.float32), LABELS, "outside 0..1"),
        (BAD_FLOATS, LABELS, "not finite"),
        (IMAGES[:0], LABELS[:0], "at least one image"),
        (IMAGES[:, 0], LABELS, "have shape"),
        (IMAGES, LABELS[:-1], "40 images but 39 labels"),
        (IMAGES, LABELS - 1, "count from 0"),
        (IMAGES, LABELS.astype(np.float32), "not integers"),
        (IMAGES, np.array(["a"] * N), "not integers"),
        (IMAGES, np.full((N, 2), np.nan), "not finite"),
        (IMAGES, np.full((N, 2), 0.3), "sum to 1"),
        (IMAGES, np.zeros(N, np.int64), "of one class"),
    ],
)
def test_unfit_arrays_are_named(images, labels, message):
    with pytest.raises(DataError, match=message):
        from_arrays(images, labels)


def test_unfit_names_are_named():
    with pytest.raises(DataError, match=r"outside 0\.\.1"):
        from_arrays(IMAGES, LABELS, classes=["a", "b"])
    with pytest.raises(DataError, match="ids repeat"):
        from_arrays(IMAGES, LABELS, ids=["same"] * N)
    with pytest.raises(DataError, match="40 images but 3 groups"):
        from_arrays(IMAGES, LABELS, groups=[1, 2, 3])
    with pytest.raises(DataError, match="different shapes"):
        from_arrays(IMAGES, LABELS, test=(IMAGES, np.ones((N, 2))))
    with pytest.raises(DataError, match="image shapes differ"):
        from_arrays(IMAGES, LABELS, test=(IMAGES[:, :1], LABELS))
