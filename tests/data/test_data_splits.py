from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax.data.dataset import Split
from cnn_jax.data.splits import WITHOUT_TEST, assign_parts, complete_splits
from cnn_jax.errors import DataError


def make_split(labels, groups=None, prefix="e"):
    n = len(labels)
    return Split(
        images=np.zeros((n, 2, 2, 1), np.uint8),
        targets={"label": np.asarray(labels)},
        ids=np.array([f"{prefix}{i}" for i in range(n)]),
        groups=None if groups is None else np.asarray(groups, dtype=np.str_),
    )


# Groups as (class, number of examples): every group is of one class.
pure_groups = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=60)


def expand(groups):
    labels = np.concatenate([[k] * size for k, size in groups]).astype(np.int32)
    names = np.concatenate([[f"g{i}"] * size for i, (_, size) in enumerate(groups)])
    ids = np.array([f"e{i}" for i in range(len(labels))])
    return ids, labels, names


@settings(deadline=None, max_examples=60)
@given(pure_groups, st.integers(0, 3))
def test_groups_are_whole_and_classes_are_everywhere(groups, seed):
    ids, labels, names = expand(groups)
    parts = assign_parts(ids, labels, names, WITHOUT_TEST, seed)
    parts_of_group = defaultdict(set)
    for group, part in zip(names, parts, strict=True):
        parts_of_group[group].add(part)
    assert all(len(found) == 1 for found in parts_of_group.values())
    for k in set(labels.tolist()):
        present = set(parts[labels == k].tolist())
        n_groups = len(set(names[labels == k].tolist()))
        assert present == set(WITHOUT_TEST) if n_groups >= 3 else "train" in present


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(20, 120), min_size=1, max_size=5), st.integers(0, 3))
def test_shares_of_each_class_are_met_within_one_example(sizes, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    ids = np.array([f"e{i}" for i in range(len(labels))])
    parts = assign_parts(ids, labels, None, WITHOUT_TEST, seed)
    for part, share in WITHOUT_TEST.items():
        for k, size in enumerate(sizes):
            assert abs(np.sum((parts == part) & (labels == k)) - share * size) <= 1.0001
        assert abs(np.sum(parts == part) - share * len(labels)) <= 2


@settings(deadline=None, max_examples=40)
@given(pure_groups, st.randoms(use_true_random=False))
def test_the_order_of_the_examples_does_not_matter(groups, random):
    ids, labels, names = expand(groups)
    order = list(range(len(ids)))
    random.shuffle(order)
    parts = assign_parts(ids, labels, names, WITHOUT_TEST, 0)
    assert (
        assign_parts(ids[order], labels[order], names[order], WITHOUT_TEST, 0) == parts[order]
    ).all()


def test_another_seed_is_another_split():
    labels = np.zeros(100, np.int32)
    ids = np.array([f"e{i}" for i in range(100)])
    one, two = (assign_parts(ids, labels, None, WITHOUT_TEST, seed) for seed in (0, 1))
    assert (one != two).any()


def test_mixed_groups_are_whole():
    labels = np.tile([0, 1], 30).astype(np.int32)
    names = np.repeat([f"g{i}" for i in range(20)], 3)
    ids = np.array([f"e{i}" for i in range(60)])
    parts = assign_parts(ids, labels, names, WITHOUT_TEST, 0)
    assert all(len(set(parts[names == name])) == 1 for name in set(names))
    assert {part: int((parts == part).sum()) for part in WITHOUT_TEST} == {
        "train": 42,
        "validation": 9,
        "test": 9,
    }


def test_a_set_without_parts_is_partitioned():
    whole = make_split(np.tile(np.arange(4, dtype=np.int32), 50))
    splits, notes = complete_splits({"train": whole})
    assert list(splits) == ["train", "validation", "test"]
    assert [len(split) for split in splits.values()] == [140, 30, 30]
    together = np.concatenate([split.ids for split in splits.values()])
    assert sorted(together) == sorted(whole.ids)
    for split in splits.values():
        by_id = dict(zip(whole.ids, whole.targets["label"], strict=True))
        assert [by_id[i] for i in split.ids] == split.targets["label"].tolist()
    assert "no validation or test part" in notes[0] and "140 train" in notes[0]


def test_validation_is_carved_from_train_and_test_is_kept():
    train, test = (
        make_split(np.tile(np.arange(4, dtype=np.int32), 50)),
        make_split(np.zeros(7, np.int32), prefix="t"),
    )
    splits, _ = complete_splits({"train": train, "test": test}, validation=0.2)
    assert splits["test"] is test
    assert len(splits["train"]) == 160 and len(splits["validation"]) == 40
    assert np.bincount(splits["validation"].targets["label"]).tolist() == [10] * 4


def test_validation_has_at_most_5000_images():
    train = make_split((np.arange(60_001) % 10).astype(np.int32))
    splits, _ = complete_splits(
        {"train": train, "test": make_split(np.zeros(1, np.int32), prefix="t")}
    )
    assert len(splits["validation"]) == 5000


def test_a_small_part_has_not_an_image_of_each_of_many_classes():
    people = np.repeat(np.arange(40, dtype=np.int32), 5)
    train, test = make_split(people), make_split(np.zeros(1, np.int32), prefix="t")
    splits, _ = complete_splits({"train": train, "test": test}, validation=0.02)
    assert len(splits["validation"]) == 4
    assert len(set(splits["validation"].targets["label"].tolist())) == 4
    assert np.bincount(splits["train"].targets["label"]).min() == 4
    # From a half of an image on every class is there, as ever.
    splits, _ = complete_splits({"train": train, "test": test}, validation=0.1)
    assert np.bincount(splits["validation"].targets["label"]).tolist() == [1] * 40


@given(st.integers(1, 60), st.integers(1, 5), st.floats(0.001, 0.5), st.integers(0, 2))
@settings(deadline=None, max_examples=60)
def test_a_small_part_is_not_empty_and_no_larger_than_it_must_be(images, classes, share, seed):
    labels = np.repeat(np.arange(classes, dtype=np.int32), images)
    ids = np.array([f"e{i}" for i in range(len(labels))])
    parts = assign_parts(ids, labels, None, {"train": 1 - share, "validation": share}, seed)
    held = int((parts == "validation").sum())
    if images >= 3:
        each = classes if share * images >= 0.25 else 1
        assert 1 <= held <= max(each, share * len(labels) + 1 + 1e-6)


def test_validation_without_test_is_kept():
    train, validation = (
        make_split(np.zeros(100, np.int32)),
        make_split(np.zeros(9, np.int32), prefix="v"),
    )
    splits, notes = complete_splits({"train": train, "validation": validation})
    assert splits["validation"] is validation
    assert len(splits["test"]) == 15 and "no test part" in notes[0]


def test_multilabel_targets_are_split_by_group():
    labels = np.eye(3, dtype=np.float32)[np.arange(90) % 3]
    splits, notes = complete_splits({"train": make_split(labels, np.repeat(np.arange(30), 3))})
    seen = [set(split.groups) for split in splits.values()]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert "at random, groups kept whole" in notes[0]


def test_groups_in_two_given_parts_are_reported_not_moved():
    train = make_split(np.tile(np.arange(2, dtype=np.int32), 20), np.arange(40))
    test = make_split(np.zeros(3, np.int32), [0, 1, 99], prefix="t")
    splits, notes = complete_splits({"train": train, "test": test})
    assert splits["test"] is test
    assert notes[0].startswith("Leak: 2 of 3 test images share one of 2 groups with a train image")


@pytest.mark.parametrize("validation", [0, -0.1, 0.6, float("nan")])
def test_validation_must_be_a_fraction(validation):
    with pytest.raises(DataError, match="validation must be a fraction"):
        complete_splits({"train": make_split(np.zeros(9, np.int32))}, validation=validation)


def test_too_few_examples_are_refused():
    with pytest.raises(DataError, match="too few to cut a validation part"):
        complete_splits({"train": make_split(np.array([0, 1], np.int32))})


def test_a_train_part_is_needed():
    with pytest.raises(DataError, match="needs a part 'train'"):
        complete_splits({"test": make_split(np.zeros(9, np.int32))})
