"""People dealt out to parts: nobody in two, whatever the order."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn_jax import data
from cnn_jax.data import disjoint_identities, identity_parts
from cnn_jax.errors import DataError

PEOPLE = {"validation": 2, "test": 3}


@settings(deadline=None, max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=7, max_size=15),
    seed=st.integers(0, 3),
    shuffle=st.integers(0, 3),
)
def test_nobody_is_in_two_parts_and_the_numbers_are_met(sizes, seed, shuffle):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = identity_parts(labels, PEOPLE, seed=seed)
    people = {part: set(labels[parts == part].tolist()) for part in ("train", *PEOPLE)}
    assert sum(map(len, people.values())) == len(sizes)  # disjoint, since all are there
    assert set().union(*people.values()) == set(range(len(sizes)))
    assert {part: len(people[part]) for part in PEOPLE} == PEOPLE
    order = np.random.default_rng(shuffle).permutation(len(labels))
    np.testing.assert_array_equal(identity_parts(labels[order], PEOPLE, seed=seed), parts[order])


def test_the_seed_chooses_the_people():
    labels = np.repeat(np.arange(40), 10)
    chosen = {tuple(identity_parts(labels, {"test": 10}, seed=seed)) for seed in range(20)}
    assert len(chosen) == 20


def test_people_who_share_a_group_go_together():
    labels = np.repeat(np.arange(8), 2)
    groups = np.array([f"own {i}" for i in range(16)])
    groups[[1, 2, 15]] = "one picture of 0, 1 and 7"
    for seed in range(10):
        parts = identity_parts(labels, PEOPLE, seed=seed, groups=groups)
        assert len(set(parts[[0, 1, 2, 3, 14, 15]])) == 1
        assert {part: len(set(labels[parts == part])) for part in PEOPLE} == PEOPLE


def test_people_who_cannot_be_dealt_out():
    labels = np.repeat(np.arange(6), 2)
    with pytest.raises(DataError, match="6 people cannot be dealt out as 2 validation, 3 test and"):
        identity_parts(labels, PEOPLE, seed=0)
    with pytest.raises(DataError, match="at least 1 each"):
        identity_parts(labels, {"test": 0}, seed=0)
    groups = np.where(labels < 6, "all of them", "none")
    with pytest.raises(DataError, match="the largest such group has 6 people"):
        identity_parts(labels, {"test": 3}, seed=0, groups=groups)
    with pytest.raises(DataError, match="one person for each image"):
        identity_parts(np.zeros((4, 2), np.float32), {"test": 1}, seed=0)


def faces(people=8, each=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), each)
    images = rng.integers(0, 256, (len(labels), 4, 4, 1)).astype(np.uint8)
    images[1] = images[-1]  # of person 0 and person 7
    return images, labels


def test_a_data_set_of_disjoint_people_does_not_depend_on_its_first_parts():
    images, labels = faces()
    first, second = (data.from_arrays(images, labels, split_seed=seed) for seed in (0, 1))
    assert first.digest != second.digest
    dealt = disjoint_identities(first, validation=2, test=3, seed=4)
    assert dealt.digest == disjoint_identities(second, validation=2, test=3, seed=4).digest
    assert dealt.digest != disjoint_identities(first, validation=2, test=3, seed=5).digest
    assert list(dealt.splits) == ["train", "validation", "test"]
    people = {part: set(split.targets["label"].tolist()) for part, split in dealt.splits.items()}
    assert sorted(k for of_part in people.values() for k in of_part) == list(range(8))
    assert len(people["validation"]) == 2 and len(people["test"]) == 3
    assert any({0, 7} <= of_part for of_part in people.values())
    assert sum(len(split) for split in dealt.splits.values()) == len(labels)
    assert dealt.classes == first.classes
    assert (
        dealt.notes[-1] == "Nobody is in two parts (seed 4): 3 train, 2 validation, 3 test people."
    )
    assert not any(note.startswith("The data has no") for note in dealt.notes)


def test_several_labels_an_image_are_no_people():
    images, labels = faces()
    dataset = data.from_arrays(images, np.eye(8, dtype=np.float32)[labels])
    with pytest.raises(DataError, match="one person for each image"):
        disjoint_identities(dataset, validation=1, test=1)


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "people"), [("orl_faces", 40), ("lfw", 4281)])
def test_folders_of_people(real, name, people):
    """A folder for each person is a class folder; one image will do."""
    real(name)
    dataset = data.load(name, data_dir=real("."), image_size=8)
    assert len(dataset.classes["label"]) == people
    dealt = disjoint_identities(dataset, validation=5, test=10, seed=0)
    counts = [len(np.unique(split.targets["label"])) for split in dealt.splits.values()]
    assert counts == [people - 15, 5, 10]


def published(validation=0.2):
    """A set that came with people to learn from, 0 to 4, and others to be judged by, 5 to 7."""
    images, labels = faces(each=4)
    images[1] = 7  # else a copy of another's
    learned = labels < 5
    test = (images[~learned], labels[~learned])
    return data.from_arrays(
        images[learned],
        labels[learned],
        classes=[str(person) for person in range(8)],
        test=test,
        validation=validation,
    )


def people_of(dataset):
    return {p: sorted(set(s.targets["label"].tolist())) for p, s in dataset.splits.items()}


def test_parts_that_came_with_others_people_are_kept():
    dealt = [disjoint_identities(published(), validation=2, test=3, seed=k) for k in range(9)]
    found = [people_of(one) for one in dealt]
    assert all(of["test"] == [5, 6, 7] and len(of["validation"]) == 2 for of in found)
    assert all(sorted(of["train"] + of["validation"]) == [0, 1, 2, 3, 4] for of in found)
    assert len({tuple(of["validation"]) for of in found}) > 1
    assert dealt[0].notes[-1] == (
        "Nobody is in two parts (test as given, seed 0): 3 train, 2 validation, 3 test people."
    )
    # A validation part that came, too, and shares nobody either.
    images, labels = faces(each=4)
    images[1] = 7
    learned, held = labels < 3, (labels >= 3) & (labels < 5)
    given = data.from_arrays(
        images[learned],
        labels[learned],
        classes=[str(person) for person in range(8)],
        validation=(images[held], labels[held]),
        test=(images[labels > 4], labels[labels > 4]),
    )
    dealt = disjoint_identities(given, validation=1, test=3, seed=3)
    assert people_of(dealt) == {"train": [0, 1, 2], "validation": [3, 4], "test": [5, 6, 7]}
    assert "(validation and test as given)" in dealt.notes[-1]


def test_parts_that_came_have_their_own_number_and_no_copies():
    with pytest.raises(DataError, match=r"a test part of 3 people, none of whom .*; take 3, or"):
        disjoint_identities(published(), validation=2, test=2)
    leaking = published()
    splits = dict(leaking.splits)
    images = splits["test"].read_images(np.arange(len(splits["test"])))
    images[0] = splits["train"].read_images(np.arange(1))[0]
    splits["test"] = dataclasses.replace(splits["test"], images=images)
    with pytest.raises(DataError, match="1 group or image is in two of them, such as"):
        disjoint_identities(leaking.replace(splits=splits), validation=2, test=3)
