import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.data import balanced_order, epoch_order, identity_order
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


def within_one(counts):
    return max(counts) - min(counts) <= 1


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=2, max_size=12),
    share=st.floats(0, 1),
    images=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
)
def test_batches_of_identities(sizes, share, images, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    identities = 2 + round(share * (len(sizes) - 2))
    options = {"identities": identities, "images": images, "seed": seed}
    order = identity_order(labels, epoch=5, **options)
    assert order.dtype == np.int64
    batches = order.reshape(-1, identities, images)
    assert len(batches) == -(-len(labels) // (identities * images))
    for batch in batches:
        people = labels[batch]
        assert (people == people[:, :1]).all()
        assert len(set(people[:, 0].tolist())) == identities
        for own, person in zip(batch.tolist(), people[:, 0], strict=True):
            every = np.flatnonzero(labels == person).tolist()
            assert within_one([own.count(image) for image in every])
    shown = labels[batches[:, :, 0]].ravel().tolist()
    assert within_one([shown.count(3 * k) for k in range(len(sizes))])
    for k in range(len(sizes)):
        assert within_one([(order == i).sum() for i in np.flatnonzero(labels == 3 * k)])
    np.testing.assert_array_equal(order, identity_order(labels, epoch=5, **options))


def test_batches_of_identities_change_with_seed_and_epoch_and_never_else():
    labels = np.repeat(np.arange(6), 3).astype(np.int32)
    orders = [
        identity_order(labels, identities=2, images=2, seed=seed, epoch=epoch).tolist()
        for seed, epoch in ((1, 2), (2, 1), (1, 3))
    ]
    assert orders[0][:8] == [15, 17, 0, 1, 13, 14, 7, 6]
    assert orders[0] != orders[1] and orders[0] != orders[2]


@pytest.mark.parametrize(("identities", "images"), [(1, 2), (5, 2), (2, 0)])
def test_batches_of_identities_that_cannot_be_made(identities, images):
    message = f"{identities} identities with {images} images each cannot be made of 4"
    with pytest.raises(DataError, match=message):
        identity_order(np.arange(8) % 4, identities=identities, images=images, seed=0, epoch=0)


def test_batches_of_identities_need_one_each():
    with pytest.raises(DataError, match="one identity for each image"):
        identity_order(np.zeros((4, 2), np.float32), identities=2, images=2, seed=0, epoch=0)
