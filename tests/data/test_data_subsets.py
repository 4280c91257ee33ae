import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data import few_shots, fewer_identities
from cnn_jax.errors import DataError


def faces(sizes=(5, 2, 7, 1, 4), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    images = rng.integers(0, 256, (len(labels), 4, 4, 1)).astype(np.uint8)
    held = rng.integers(0, 256, (3, 4, 4, 1)).astype(np.uint8)
    parts = {"test": (held, np.arange(3)), "validation": (held[::-1] // 2, np.arange(3))}
    return data.from_arrays(images, labels, **parts)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_so_many_images_of_each_class_are_kept_and_the_more_the_same(seed):
    whole, before = faces(), set()
    labels = whole.splits["train"].targets["label"]
    for shots in (1, 2, 3, 9):
        found = few_shots(whole, shots, seed=seed)
        train = found.splits["train"]
        kept = set(train.ids.tolist())
        for k in range(5):
            assert (train.targets["label"] == k).sum() == min(shots, (labels == k).sum())
        assert before <= kept
        order = [i for i in whole.splits["train"].ids.tolist() if i in kept]
        assert train.ids.tolist() == order  # their order stays
        for part in ("validation", "test"):
            assert found.splits[part] is whole.splits[part]
        before = kept
    assert found.digest == whole.digest and few_shots(whole, 1).digest != whole.digest
    assert few_shots(whole, 1).notes[-1] == (
        "At most 1 image of each class to learn from (seed 0): 5 of 19."
    )


def test_so_many_people_are_kept_and_the_more_the_same():
    whole, drawn = faces(), set()
    for seed in range(6):
        before = set()
        for count in (2, 3, 5):
            train = fewer_identities(whole, count, seed=seed).splits["train"]
            people = set(train.targets["label"].tolist())
            assert len(people) == count and before < people
            labels = whole.splits["train"].targets["label"]
            assert len(train) == np.isin(labels, list(people)).sum()
            before = people
            if count == 2:
                drawn.add(frozenset(people))
    assert len(drawn) > 2


def test_what_cannot_be_left_out():
    with pytest.raises(DataError, match="6 people to learn from cannot be taken of 5"):
        fewer_identities(faces(), 6)
    with pytest.raises(DataError, match="nothing to learn from"):
        few_shots(faces(), 0)
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
    labels = (np.arange(60).reshape(20, 3) % 2).astype(np.float32)
    several = data.from_arrays(images, labels, validation=0.2)
    with pytest.raises(DataError, match="needs one class for each image"):
        few_shots(several, 1)
