"""Near-copies: found where the same picture was altered, not where pictures look alike."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from cnn_jax import data
from cnn_jax.data import near_duplicates
from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.near_duplicates import area_means, find_near_duplicates, near_groups, near_pairs
from cnn_jax.data.resolve import resolve_duplicates
from cnn_jax.errors import DataError
from experiments.near_copies import precision_and_recall


def pictures(n, side=96, seed=0):
    """Pictures with the spectrum of natural ones: amplitude falls with frequency."""
    rng = np.random.default_rng(seed)
    y, x = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :]
    amplitude = 1 / np.maximum(np.hypot(x, y), 1 / side)
    images = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, side, side))) * amplitude).real
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    return np.round(20 + 200 * (images - low) / (high - low)).astype(np.uint8)


def brighter(image):
    return np.round(0.8 * image + 15).astype(np.uint8)


def noisy(image):
    noise = np.random.default_rng(1).normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def resized(image):
    small = Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(image.shape[::-1], Image.Resampling.BILINEAR))


def blurred(image):
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(0.7)))


def dataset_of(images, labels=None, **kwargs):
    labels = np.arange(len(images)) % 3 if labels is None else labels
    return data.from_arrays(images, labels, **kwargs)


@pytest.mark.parametrize("alter", [brighter, noisy, resized, blurred])
def test_altered_copies_are_found_and_nothing_else(alter):
    images = pictures(40)
    copies = np.stack([alter(image) for image in images[:5]])
    dataset = dataset_of(np.concatenate([images, copies]))
    found = find_near_duplicates(dataset)
    pairs = {frozenset((pair.first.id, pair.second.id)) for pair in found.pairs}
    assert pairs == {frozenset((f"train/{i:05d}", f"train/{40 + i:05d}")) for i in range(5)}
    assert all(0.97 <= pair.correlation <= 1.0001 for pair in found.pairs)
    assert sorted(len(group) for group in found.groups.groups) == [2] * 5


def test_other_pictures_are_not_copies():
    images = pictures(20)
    shifted = np.roll(images, 10, axis=2)
    others = np.concatenate([images, images[:, :, ::-1], 255 - images, shifted])
    assert not find_near_duplicates(dataset_of(others)).pairs


def test_equal_images_join_the_groups_of_near_copies_without_pairs_of_their_own():
    images = pictures(30)
    images[1], images[2] = images[0], brighter(images[0])
    found = find_near_duplicates(dataset_of(images))
    assert len(found.pairs) == 1
    assert {e.id for e in found.groups.groups[0]} == {f"train/{i:05d}" for i in range(3)}


@pytest.mark.parametrize(
    "images",
    [
        np.arange(30, dtype=np.uint8).reshape(30, 1, 1),
        np.arange(30, dtype=np.uint8).repeat(16).reshape(30, 4, 4),  # no contrast
        np.random.default_rng(0).integers(0, 255, (30, 2, 3)).astype(np.uint8),
        np.random.default_rng(0).random((30, 5, 1, 3)).astype(np.float32),
    ],
)
def test_tiny_and_flat_images_are_no_trouble(images):
    for pair in find_near_duplicates(dataset_of(images)).pairs:
        assert images.shape[1:] in ((2, 3), (5, 1, 3))  # so few pixels may agree by chance
        assert 0.97 <= pair.correlation <= 1.0001


def test_area_means_are_the_means_of_the_areas(rng):
    images = rng.random((3, 7, 9)).astype(np.float32)
    means = area_means(images, 2, 3)
    assert means.shape == (3, 2, 3)
    np.testing.assert_allclose(means[1, 1, 2], images[1, 3:, 6:].mean(), rtol=1e-5)
    np.testing.assert_array_equal(area_means(images, 7, 9), images)


def test_blocks_do_not_change_what_is_found(monkeypatch):
    images = pictures(50)
    images[25:] = np.stack([brighter(image) for image in images[:25]])
    splits = dataset_of(images).splits
    whole = near_pairs(splits)
    monkeypatch.setattr(near_duplicates, "_BLOCK", 16)
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    for one, other in zip(whole, near_pairs(splits), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_too_many_images_are_refused(monkeypatch):
    monkeypatch.setattr(near_duplicates, "LARGEST_SEARCH", 10)
    with pytest.raises(DataError, match="among 10 images or fewer, not 30"):
        find_near_duplicates(dataset_of(pictures(30)))


def test_near_copies_stay_together_where_asked(tmp_path):
    images = pictures(60)
    images[30:] = np.stack([brighter(image) for image in images[:30]])
    for i, image in enumerate(images):
        path = tmp_path / "set" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    apart = find_near_duplicates(data.load(str(tmp_path / "set"))).groups
    assert apart.between("test", "train")
    together = data.load(str(tmp_path / "set"), group_near_duplicates=True)
    assert not find_near_duplicates(together).groups.between("test", "train", "validation")
    assert "60 images have near-copies: 30 groups, the largest of 2." in together.notes


def test_a_search_that_finds_no_near_copies_says_so():
    found = data.group_near_duplicates(data.from_arrays(pictures(12), np.arange(12) % 2))
    assert found.notes[-1] == "Near-copies: none."
    assert all(split.groups is None for split in found.splits.values())


def film(first, last, n):
    """One picture becomes another, little by little."""
    share = np.linspace(0, 1, n)[:, None, None]
    return np.round((1 - share) * first + share * last).astype(np.uint8)


def test_a_chain_of_look_alikes_is_cut_into_groups_around_single_images(monkeypatch):
    chain, other = film(*pictures(2), 40), pictures(3)[2]
    images = np.concatenate([chain, chain[:1], [other, brighter(other)]])
    labels = {"label": np.zeros(43, np.int32)}
    splits = {"train": Split(images[..., None], labels, np.arange(43).astype(str))}
    dataset = Dataset("film", splits, {"label": ("a", "b")}, "")
    (first, second, _), (labels, cut) = near_pairs(dataset.splits), near_groups(dataset.splits)
    assert cut == 0 and np.unique(labels, return_counts=True)[1].tolist() == [41, 2]
    monkeypatch.setattr(near_duplicates, "LONGEST_CHAIN", 39)
    labels, cut = near_groups(dataset.splits)
    parted = (labels[first] != labels[second]) | (labels[first] < 0)
    assert 0 < cut == parted.sum() < len(first)
    assert labels[0] == labels[40] and labels[41] == labels[42] != -1
    linked = np.eye(43, dtype=bool)
    linked[first, second] = linked[second, first] = linked[0, 40] = linked[40, 0] = True
    linked[40] |= linked[0]
    linked[:, 40] |= linked[:, 0]
    for label in np.unique(labels[labels >= 0]):
        members = labels == label
        assert members.sum() >= 2 and linked[members][:, members].all(axis=1).any()
    grouped = data.group_near_duplicates(dataset)
    assert f"{cut} pairs may be parted" in grouped.notes[-1]


def test_where_all_are_alike_each_image_keeps_its_nearest(rng):
    """As of one product under one camera: every pair agrees, and few may be kept."""
    images = pictures(1) + rng.normal(0, 1 + np.arange(60) / 60, (96, 96, 60)).transpose(2, 0, 1)
    splits = dataset_of(np.clip(images, 0, 255).astype(np.uint8)).splits
    first, second, correlation = near_pairs(splits)
    assert (correlation >= 0.97).all()
    thumbnails = [near_duplicates._thumbnails(split) for split in splits.values()]
    details = near_duplicates._details(np.concatenate(thumbnails)).astype(np.float64)
    for i in range(59):
        nearest = i + 1 + np.argsort(-(details[i + 1 :] @ details[i]))[:8]
        assert set(second[first == i]) == set(nearest)


def test_given_parts_are_reported_and_moved_by_regroup():
    images = pictures(40)
    test = np.stack([brighter(image) for image in images[:6]])
    dataset = dataset_of(images, test=(test, np.arange(6) % 3))
    grouped = data.group_near_duplicates(dataset)
    assert grouped.digest == dataset.digest
    assert any(note.startswith("Leak by near-copies: ") for note in grouped.notes)
    moved = resolve_duplicates(grouped, "regroup")
    assert not find_near_duplicates(moved).groups.between("test", "train", "validation")
    assert resolve_duplicates(grouped, "stop") is grouped  # near-copies never stop a training
    left = resolve_duplicates(grouped, "drop-train")
    assert len(left.splits["test"]) == 6 and not any("Leak" in note for note in left.notes)
    assert not find_near_duplicates(left).groups.between("test", "train", "validation")
    patients = np.full(len(dataset.splits["train"]), "one")
    one = replace(dataset.splits["train"], groups=patients)
    other = replace(dataset.splits["test"], groups=patients[:6])
    shared = dataset.replace(splits={**dataset.splits, "train": one, "test": other})
    with pytest.raises(DataError, match="6 of 6 test images share a group with a train image"):
        resolve_duplicates(data.group_near_duplicates(shared), "stop")  # but patients do


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "precision", "recall"),
    [
        ("busi", 1.0, 0.75),
        ("flowers5", 0.85, 0.95),
        ("grocery_store", 1.0, 0.45),
        ("magnetic_tile", 0.9, 0.65),
        ("brain_tumor_mri", 0.98, 0.45),
    ],
)
def test_groups_of_real_sets(real, name, precision, recall):
    found, of_all = precision_and_recall(str(real(name)))
    assert found >= precision
    assert of_all >= recall
