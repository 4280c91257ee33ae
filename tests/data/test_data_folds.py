"""Folds: every example once, groups and copies whole, classes in proportion, test unseen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import data
from cnn_jax.errors import DataError
from cnn_jax.recipe import Recipe
from cnn_jax.run_data import resolve_data


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4, 4, 1), dtype=np.uint8)


def made(n=60, classes=3, groups=None, **options):
    return data.from_arrays(pictures(n), np.arange(n) % classes, groups=groups, **options)


def folds_of(dataset, folds, **options):
    return [
        data.fold(dataset, folds, k, **options).splits["test"].ids.tolist()
        for k in range(1, folds + 1)
    ]


@settings(deadline=None, max_examples=25)
@given(n=st.integers(24, 70), folds=st.integers(2, 6), per_group=st.integers(1, 3))
def test_each_example_is_tested_on_once_and_no_group_is_cut(n, folds, per_group):
    groups = np.array([f"g{i // per_group}" for i in range(n)])
    dataset = made(n, groups=groups)
    found = folds_of(dataset, folds)
    everyone = np.concatenate([split.ids for split in dataset.splits.values()]).tolist()
    assert sorted(i for fold in found for i in fold) == sorted(everyone)
    for k in range(1, folds + 1):
        parts = data.fold(dataset, folds, k).splits
        assert sum(map(len, parts.values())) == n and all(map(len, parts.values()))
        of_part = [set(split.groups.tolist()) for split in parts.values()]
        assert sum(map(len, of_part)) == len(set().union(*of_part))


def test_classes_come_in_proportion():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    dataset = data.from_arrays(pictures(100), labels)
    for k in range(1, 6):
        test = data.fold(dataset, 5, k).splits["test"].targets["label"]
        assert np.bincount(test).tolist() == [12, 6, 2]


def test_rare_classes_are_dealt_to_all_folds():
    labels = np.concatenate([np.zeros(100, int), 1 + np.arange(30)])
    dataset = data.from_arrays(pictures(130), labels)
    assert sorted(len(fold) for fold in folds_of(dataset, 5)) == [26] * 5


def test_a_test_part_that_the_data_came_with_stays_unseen():
    test = pictures(10, seed=1), np.arange(10) % 3
    dataset = data.from_arrays(pictures(40), np.arange(40) % 3, test=test)
    kept = set(dataset.splits["test"].ids.tolist())
    folded = data.fold(dataset, 4, 1)
    assert sum(map(len, folded.splits.values())) == 40
    seen = np.concatenate([split.ids for split in folded.splits.values()])
    assert not kept & set(seen.tolist())
    assert "40 images pooled, the data's own test part left out" in folded.notes[-1]


def test_a_given_test_part_is_pooled_where_that_is_asked():
    test = pictures(10, seed=1), np.arange(10) % 3
    dataset = data.from_arrays(pictures(40), np.arange(40) % 3, test=test)
    everything = {i for split in dataset.splits.values() for i in split.ids.tolist()}
    tested = [data.fold(dataset, 5, k, whole=True).splits["test"].ids.tolist() for k in range(1, 6)]
    assert len(everything) == 50 and sorted(np.concatenate(tested).tolist()) == sorted(everything)
    recipe = Recipe().override({"data": {"folds": 5, "fold": 2, "duplicates": "regroup"}})
    assert resolve_data(recipe, dataset).splits["test"].ids.tolist() == tested[1]


def test_equal_images_are_in_one_fold():
    images = pictures(40)
    images[20:] = images[:20]
    dataset = data.from_arrays(images, np.arange(40) % 2, ids=[f"{i:02}" for i in range(40)])
    for fold in folds_of(dataset, 4):
        numbers = {int(i) for i in fold}
        assert all((i + 20) % 40 in numbers for i in numbers)


def test_folds_are_a_function_of_the_seed_and_not_of_the_fold():
    dataset = made()
    assert folds_of(dataset, 3, seed=1) == folds_of(dataset, 3, seed=1)
    assert folds_of(dataset, 3, seed=1) != folds_of(dataset, 3, seed=2)
    digests = {data.fold(dataset, 3, k).digest for k in (1, 2, 3)} | {dataset.digest}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("folds", "number", "message"),
    [
        (1, 1, "2 folds or more, counted from 1: not fold 1 of 1"),
        (5, 6, "not fold 6 of 5"),
        (5, 0, "not fold 0 of 5"),
        (10, 1, "10 groups of images .* cannot make 10 folds without cutting one"),
    ],
)
def test_what_cannot_be(folds, number, message):
    groups = np.array([f"g{i // 6}" for i in range(60)])
    with pytest.raises(DataError, match=message):
        data.fold(made(groups=groups), folds, number)
