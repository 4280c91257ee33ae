import numpy as np
import pytest

from cnn_jax.data import epoch_order
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
