import numpy as np
import pytest

from cnn_jax.data import balanced_order, epoch_order
from cnn_jax.errors import DataError


def test_it_is_a_permutation_that_depends_on_seed_and_epoch_only():
    order = epoch_order(1000, seed=3, epoch=7)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(1000))
    assert (epoch_order(1000, seed=3, epoch=7) == order).all()
    assert (epoch_order(1000, seed=7, epoch=3) != order).any()
    assert (epoch_order(1000, seed=3, epoch=8) != order).any()


def test_it_is_the_same_on_every_machine():
    assert epoch_order(8, seed=0, epoch=1).tolist() == [2, 0, 4, 1, 7, 5, 3, 6]


def test_edges():
    assert epoch_order(0, seed=0, epoch=0).tolist() == []
    assert len(epoch_order(2, seed=2**64 - 1, epoch=0)) == 2
    for wrong in ({"seed": -1, "epoch": 0}, {"seed": 0, "epoch": -1}, {"seed": 2**64, "epoch": 0}):
        with pytest.raises(DataError, match="non-negative"):
            epoch_order(4, **wrong)


def test_balanced_order_shows_each_class_equally_often():
    labels = np.repeat([0, 1, 3], [900, 90, 10]).astype(np.int32)
    order = balanced_order(labels, seed=1, epoch=2)
    assert order.dtype == np.int64 and len(order) == 1000
    counts = np.bincount(labels[order], minlength=4)
    assert sorted(counts.tolist()) == [0, 333, 333, 334]
    for k in (0, 1, 3):
        times = np.bincount(order, minlength=1000)[labels == k]
        assert times.max() - times.min() <= 1
    assert (balanced_order(labels, seed=1, epoch=2) == order).all()
    assert (balanced_order(labels, seed=1, epoch=3) != order).any()


def test_balanced_order_of_balanced_labels_is_a_permutation():
    labels = np.arange(60) % 3
    assert sorted(balanced_order(labels, seed=0, epoch=0)) == list(range(60))


def test_balanced_order_refuses_several_labels():
    with pytest.raises(DataError, match="one class for each example"):
        balanced_order(np.zeros((4, 2), np.float32), seed=0, epoch=0)
