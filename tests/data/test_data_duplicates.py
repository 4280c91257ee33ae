"""Equal images: found by pixels, reported, and dealt with by each of the four policies."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_jax import data
from cnn_jax.data import cache, duplicates
from cnn_jax.data.dataset import Dataset, SourceView, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.duplicates import find_duplicates, pixel_keys
from cnn_jax.data.groups import COPIES_STAY, unite_groups
from cnn_jax.data.resolve import resolve_duplicates
from cnn_jax.data.sources import ImageFiles
from cnn_jax.data.splits import MADE, complete_splits
from cnn_jax.errors import DataError


def split_of(part, numbers, labels=None, **fields):
    """Images that are told apart by a number: equal numbers, equal images."""
    images = np.zeros((len(numbers), 3, 4, 1), np.uint8)
    images[:, 1, 2, 0] = numbers
    labels = [n % 2 for n in numbers] if labels is None else labels
    ids = np.array([f"{part}/{i}" for i in range(len(numbers))])
    return Split(images, {"label": np.array(labels, np.int32)}, ids, **fields)


def dataset_of(**splits):
    return Dataset("toy", splits, {"label": ("even", "odd")}, dataset_digest(splits))


@pytest.fixture
def leaky():
    """Test 0 and 1 are in train and validation; validation 1 is in train, twice."""
    return dataset_of(
        train=split_of("train", [0, *range(10, 30), 50, 50, 51], labels=[0, *[0, 1] * 11, 0]),
        validation=split_of("validation", [1, 50, 60, 61]),
        test=split_of("test", [0, 1, 1, 70]),
    )


class Numbered:
    """A source without files; the image at 1 in the layout of `split_of`."""

    shape = (3, 4, 1)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        image = np.zeros(self.shape, np.uint8)
        image[1, 2, 0] = index // 2
        return image


def numbers(split):
    return split.images[:, 1, 2, 0].tolist()


def test_keys_are_equal_where_pixels_are():
    images = np.array([[[0.0], [0.5]], [[-0.0], [0.5]], [[0.5], [0.0]]], np.float32)[..., None]
    labels = {"label": np.zeros(3, np.int32)}
    split = Split(images, labels, np.array(["a", "b", "c"]))
    first, second, third = pixel_keys(split)
    assert first == second != third
    other_shape = replace(split, images=images.reshape(3, 1, 2, 1))
    assert not np.isin(pixel_keys(split), pixel_keys(other_shape)).any()


def test_groups_and_counts_by_hand(leaky):
    found = find_duplicates(leaky)
    assert [[e.id for e in group] for group in found.groups] == [
        ["train/21", "train/22", "validation/1"],
        ["validation/0", "test/1", "test/2"],
        ["train/0", "test/0"],
    ]
    assert [e.id for e in found.between("test", "train", "validation")] == [
        "test/0",
        "test/1",
        "test/2",
    ]
    assert found.within("train") == 2 and found.within("validation") == 0
    assert [e.label for e in found.conflicting(["train"])[0]] == ["even", "odd"]
    assert found.conflicting(["test", "validation"]) == []


def test_stop_says_how_many_which_and_what_to_choose(leaky):
    with pytest.raises(DataError) as caught:
        resolve_duplicates(leaky)
    message = str(caught.value)
    assert message.startswith("3 of 4 test images of 'toy' are also in train or validation")
    assert "'test/0', 'test/1', 'test/2'" in message and "\n" not in message
    for choice in ("drop-train", "regroup", "keep"):
        assert f"--duplicates {choice} (" in message


def test_drop_train_leaves_the_test_part_alone(leaky):
    result = resolve_duplicates(leaky, "drop-train")
    assert numbers(result.splits["train"]) == [*range(10, 30), 51]
    assert numbers(result.splits["validation"]) == [50, 60, 61]
    assert result.splits["test"] is leaky.splits["test"]
    assert result.digest == dataset_digest(result.splits) != leaky.digest
    assert result.notes == (
        "3 of 4 test images equal a train or validation image: the copies were dropped, "
        "1 from train and 1 from validation.",
        "1 of 4 validation images equal a train image: 2 copies were dropped from train.",
    )
    assert not find_duplicates(result).between("test", "train", "validation")


def test_keep_concerns_test_only(leaky):
    result = resolve_duplicates(leaky, "keep")
    assert numbers(result.splits["train"]) == [0, *range(10, 30), 51]
    assert [len(split) for split in result.splits.values()] == [22, 4, 4]
    assert "figures on test are optimistic" in result.notes[0]


def test_regroup_pools_everything_and_cuts_no_copies_apart(leaky):
    stale = ("Leak: something.", f"{MADE}validation part: ...", f"2 {COPIES_STAY}")
    noted = leaky.replace(notes=(*stale, "Other."))
    result = resolve_duplicates(noted, "regroup")
    ids = np.concatenate([split.ids for split in result.splits.values()])
    assert sorted(ids) == sorted(np.concatenate([s.ids for s in leaky.splits.values()]))
    found = find_duplicates(result)
    assert len(found.groups) == 3
    assert all(len({example.part for example in group}) == 1 for group in found.groups)
    assert result.notes[0] == "Other." and "all 32 images were pooled" in result.notes[1]
    assert resolve_duplicates(noted, "regroup").digest == result.digest
    assert resolve_duplicates(noted, "regroup", split_seed=1).digest != result.digest


def test_regroup_makes_repeating_ids_unique_and_respects_given_groups(leaky):
    same = {
        part: replace(split, ids=np.array([str(i) for i in range(len(split))]))
        for part, split in leaky.splits.items()
    }
    patients = np.array(["p"] * 5 + [f"q{i}" for i in range(len(same["train"]) - 5)])
    same["train"] = replace(same["train"], groups=patients)
    result = resolve_duplicates(dataset_of(**same), "regroup")
    ids = np.concatenate([split.ids for split in result.splits.values()])
    assert "train/3" in ids and "test/3" in ids
    where = {
        part
        for part, s in result.splits.items()
        if np.isin([f"train/{i}" for i in range(5)], s.ids).any()
    }
    assert len(where) == 1


@pytest.mark.parametrize("policy", ["stop", "drop-train", "regroup", "keep"])
def test_without_duplicates_nothing_changes(policy):
    dataset = data.load("digits")
    assert resolve_duplicates(dataset, policy) is dataset
    assert all(split.groups is None for split in dataset.splits.values())


def test_what_cannot_be_resolved_is_said(leaky):
    with pytest.raises(DataError, match="duplicates must be one of stop, drop-train"):
        resolve_duplicates(leaky, "drop")
    equal = dataset_of(**{p: split_of(p, [7, 7], labels=[0, 1]) for p in leaky.splits})
    with pytest.raises(DataError, match="every train image of 'toy' equals one of another part"):
        resolve_duplicates(equal, "keep")
    with pytest.raises(DataError, match=r"6 examples in 1 group \(equal images are one\)"):
        resolve_duplicates(equal, "regroup")
    test = leaky.splits["test"]
    more = {**test.targets, "coarse": test.targets["label"]}
    read = SourceView(Numbered(), np.array([0, 1, 1, 2]))
    for other, message in (
        (replace(test, targets=more), "not every part has 'coarse'"),
        (replace(test, images=read), "some parts are arrays"),
    ):
        dataset = leaky.replace(
            splits={**leaky.splits, "test": other},
            classes=dict.fromkeys(more, ("even", "odd")),
            kinds=dict.fromkeys(more, "class"),
        )
        with pytest.raises(DataError, match=f"'toy' cannot be pooled: {message}"):
            resolve_duplicates(dataset, "regroup")
    with pytest.raises(DataError, match="too few to cut"):
        data.from_arrays(np.zeros((9, 1, 1), np.uint8), np.arange(9) % 3)


@pytest.mark.parametrize(
    ("labels", "conflicts"),
    [
        (np.array([[0, 1], [1, 1], [0, 0]] * 4, np.float32), 4),
        (np.array([[0.25, 0.75], [0.25, 0.75], [1, 0]] * 4, np.float32), 0),
    ],
)
def test_labels_of_any_kind_and_volumes(rng, labels, conflicts):
    images = rng.integers(0, 255, (12, 2, 3, 4, 1)).astype(np.uint8)
    images[1::3] = images[::3]  # pairs of equal volumes
    kind = "multilabel" if conflicts else "soft"
    splits = {"train": Split(images, {"label": labels}, np.arange(12).astype(str))}
    dataset = Dataset("v", splits, {"label": ("a", "b")}, "", kinds={"label": kind})
    result = resolve_duplicates(dataset)
    assert len(find_duplicates(dataset).groups) == 4
    assert result.notes == (
        ("Equal train images with different labels: 8 images in 4 sets.",) if conflicts else ()
    )


def test_parts_that_are_made_never_part_equal_images(rng):
    images = rng.integers(0, 255, (60, 4, 4)).astype(np.uint8)
    images[30:] = images[:30]
    dataset = data.from_arrays(images, np.arange(60) % 3 % 2)
    for group in find_duplicates(dataset).groups:
        assert len({example.part for example in group}) == 1
    assert "60 train images equal another train image: they stay in" in dataset.notes[0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1),
)
def test_united_groups_are_the_connected_components(rows):
    groups, first, second = (np.array(column).astype(str) for column in zip(*rows, strict=True))
    ids = np.array([f"{i:03d}" for i in range(len(rows))])
    united = unite_groups(ids, groups, first, second)
    expected = groups.copy()  # the smallest name spreads until nothing changes
    for _ in rows:
        for labelling in (groups, first, second):
            for value in np.unique(labelling):
                expected[labelling == value] = min(expected[labelling == value])
    np.testing.assert_array_equal(united, expected)
    assert unite_groups(ids, None) is None
    assert (unite_groups(ids, None, ids) is None) and unite_groups(ids, groups, ids) is groups


@pytest.fixture
def files(tmp_path, rng):
    folder = tmp_path / "set"
    for i in range(12):
        path = folder / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (5, 6)).astype(np.uint8)).save(path)
    # The same pixels in other bytes.
    Image.open(folder / "a" / "0.png").save(folder / "b" / "copy.bmp")
    return folder


def test_images_in_files_are_decoded_once_and_kept(files, tmp_path, monkeypatch):
    streamed = data.load(str(files), memory_limit=0)
    in_memory = data.load(str(files))
    assert {tuple(e.id for e in g) for g in find_duplicates(streamed).groups} == {
        ("a/0.png", "b/copy.bmp")
    }
    for part, split in streamed.splits.items():
        np.testing.assert_array_equal(pixel_keys(split), pixel_keys(in_memory.splits[part]))
    kept = list((tmp_path / "caches" / "cnn_jax" / "audit").glob("pixel-keys-*.npz"))
    assert len(kept) == 1

    def no_reading(self, index):
        raise AssertionError("decoded again")

    duplicates._file_keys.cache_clear()  # as in another process
    monkeypatch.setattr(ImageFiles, "__getitem__", no_reading)
    again = data.load(str(files), memory_limit=0)
    assert again.digest == streamed.digest
    np.testing.assert_array_equal(
        pixel_keys(again.splits["train"]), pixel_keys(in_memory.splits["train"])
    )


def test_streamed_parts_are_pooled_without_reading_them_into_memory(files):
    Image.open(files / "a" / "0.png").save(files.parent / "copy.png")
    for part in ("train", "test"):
        for name in "ab":
            (files.parent / "parts" / part / name).mkdir(parents=True)
    for i in range(12):
        path = files / "ab"[i % 2] / f"{i}.png"
        path.rename(files.parent / "parts" / ("train", "test")[i > 7] / "ab"[i % 2] / path.name)
    (files.parent / "copy.png").rename(files.parent / "parts" / "test" / "a" / "copy.png")
    streamed = data.load(str(files.parent / "parts"), memory_limit=0)
    result = resolve_duplicates(streamed, "regroup")
    assert not any(split.in_memory for split in result.splits.values())
    assert sum(len(split) for split in result.splits.values()) == 13
    in_memory = resolve_duplicates(data.load(str(files.parent / "parts")), "regroup")
    for part, split in result.splits.items():
        everything = np.arange(len(split))
        np.testing.assert_array_equal(
            split.read_images(everything), in_memory.splits[part].read_images(everything)
        )


@pytest.mark.faults
def test_a_damaged_cache_is_computed_again(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(100)}

    def kept():
        return cache.load_or_compute("kind", "digest", compute)["x"]

    np.testing.assert_array_equal(kept(), kept())
    assert len(calls) == 1
    (path,) = (tmp_path / "caches" / "cnn_jax" / "audit").iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:-50], whole.replace(np.arange(100).tobytes(), bytes(800))):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(kept(), np.arange(100))
    assert len(calls) == 4
    forged = {"x": np.zeros(100, int), "sha256": np.array(hashlib.sha256().hexdigest())}
    np.savez(path, **forged)
    np.testing.assert_array_equal(kept(), np.arange(100))


@pytest.mark.faults
def test_an_unwritable_cache_only_means_no_cache(tmp_path, monkeypatch):
    (tmp_path / "caches").write_text("a file where the folder should be")
    arrays = cache.load_or_compute("kind", "digest", lambda: {"x": np.arange(3)})
    np.testing.assert_array_equal(arrays["x"], np.arange(3))


def test_a_source_without_files_is_read():
    split = Split(Numbered(), {"label": np.zeros(3, np.int32)}, np.array(["a", "b", "c"]))
    joined = duplicates.JoinedSource([Numbered(), Numbered()])
    keys = pixel_keys(split)
    assert keys[0] == keys[1] != keys[2]
    both = Split(joined, {"label": np.zeros(6, np.int32)}, np.arange(6).astype(str))
    np.testing.assert_array_equal(pixel_keys(both), np.concatenate([keys, keys]))
    np.testing.assert_array_equal(both.read_images([4, 5]), split.read_images([1, 2]))
    with pytest.raises(IndexError):
        joined[6]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "leaked", "groups"),
    [("brain_tumor_mri", 251, 300), ("flowers5", 0, 6), ("mnist", 0, 0)],
)
def test_real_sets(real, name, leaked, groups):
    found = find_duplicates(data.load(str(real(name))))
    assert len(found.between("test", "train", "validation")) == leaked
    assert len(found.groups) == groups


@pytest.mark.realdata
def test_pneumoniamnist_loses_its_validation_images_from_train(real):
    dataset = data.load(str(real("pneumoniamnist.npz")))
    assert len(find_duplicates(dataset).between("validation", "train")) == 8
    resolved = resolve_duplicates(dataset)
    assert len(resolved.splits["train"]) == 4708 - 10
    assert not find_duplicates(resolved).between("validation", "train")


def patients_in_several_parts():
    """Patients 0 and 1 lie in train and test, 2 in train and validation, 3 in both others."""
    parts = {
        "train": [0, 0, 1, 2, 2, 4, 5, 6],
        "validation": [2, 3, 7, 8],
        "test": [0, 1, 3, 9],
    }
    numbers = iter(range(1, 99))
    splits, notes = complete_splits(
        {
            part: split_of(part, [next(numbers) for _ in groups], groups=np.array(groups, np.str_))
            for part, groups in parts.items()
        }
    )
    return dataset_of(**splits).replace(notes=notes)


def test_a_patient_in_two_given_parts_is_refused():
    with pytest.raises(DataError) as refused:
        resolve_duplicates(patients_in_several_parts())
    assert "2 of 4 test images share one of 2 groups with a train image" in str(refused.value)
    assert "1 of 4 validation images share a group with a train image" in str(refused.value)
    assert "--duplicates drop-train" in str(refused.value)


def test_images_of_such_patients_leave_the_earlier_part():
    dataset = resolve_duplicates(patients_in_several_parts(), "drop-train")
    found = {part: split.groups.tolist() for part, split in dataset.splits.items()}
    assert found == {
        "train": ["4", "5", "6"],
        "validation": ["2", "7", "8"],
        "test": ["0", "1", "3", "9"],
    }
    assert any("were dropped, 5 from train and 1 from validation." in n for n in dataset.notes)
    assert not any(note.startswith("Leak") for note in dataset.notes)


def test_patients_in_train_and_validation_alone_are_regrouped_too():
    given = patients_in_several_parts()
    train, validation = (given.splits[part] for part in ("train", "validation"))
    dataset = given.replace(
        splits={
            **given.splits,
            "validation": train.take([0, 3]),
            "test": validation.take([1, 2, 3]),
        }
    )
    numbers = train.images.copy()
    numbers[:, 0, 0, 0] = 1  # no equal images: the groups alone are shared
    dataset = dataset.replace(
        splits={**dataset.splits, "train": replace(train, images=numbers)}, notes=()
    )
    moved = resolve_duplicates(dataset, "regroup")
    assert sum(map(len, moved.splits.values())) == 13
    groups = [set(split.groups.tolist()) for split in moved.splits.values()]
    assert not any(groups[i] & groups[j] for i in range(3) for j in range(i))


@pytest.mark.parametrize("policy", ["keep", "regroup"])
def test_such_patients_are_kept_or_the_parts_made_anew(policy):
    given = patients_in_several_parts()
    dataset = resolve_duplicates(given, policy)
    assert sum(map(len, dataset.splits.values())) == 16
    groups = [set(split.groups.tolist()) for split in dataset.splits.values()]
    cut = any(groups[i] & groups[j] for i in range(3) for j in range(i))
    leaks = [note for note in dataset.notes if note.startswith("Leak: ")]
    if policy == "keep":
        assert cut and leaks == list(given.notes) and len(leaks) == 3
    else:
        assert not cut and not leaks
