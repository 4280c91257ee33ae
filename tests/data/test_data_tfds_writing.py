"""Sets that we write for TensorFlow Datasets, read by us and by it."""

import resource

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cnn_jax.cli import main
from cnn_jax.data import Dataset, Split, from_arrays, load, write_tfds
from cnn_jax.errors import DataError

LABELS = ["grün", "a b"]


def small(rng, n=24, **changes):
    """A data set with groups in one part, Unicode names, two class targets and a multi-label."""

    def split(part):
        targets = {
            "label": rng.integers(0, 2, n).astype(np.int32),
            "Größe": rng.integers(0, 3, n).astype(np.int32),
            "tags": rng.integers(0, 2, (n, 3)).astype(np.float32),
        }
        targets["label"][:2] = 0, 1
        images = rng.integers(0, 255, (n, 6, 5, 3)).astype(np.uint8)
        ids = np.array([f"{part}/ü {i}.png" for i in range(n)])
        groups = np.array([f"p{i // 3}" for i in range(n)]) if part == "train" else None
        return Split(images, targets, ids, groups)

    fields = {
        "name": "My Photos-2",
        "splits": {part: split(part) for part in ("train", "validation", "test")},
        "classes": {"label": tuple(LABELS), "Größe": ("S", "M", "L"), "tags": ("x", "y", "z")},
        "kinds": {"label": "class", "Größe": "class", "tags": "multilabel"},
        "licence": "CC BY 4.0",
        "citation": "Müller 2020",
        "digest": "",
    }
    return Dataset(**{**fields, **changes})


def test_what_is_written_comes_back_as_it_is(tmp_path, rng):
    written = small(rng)
    assert write_tfds(written, tmp_path) == tmp_path / "my_photos_2" / "1.0.0"
    for limit in (2**30, 0):
        read = load("tfds:my_photos_2", data_dir=tmp_path, memory_limit=limit)
        assert read.classes == written.classes and read.kinds == written.kinds
        assert (read.licence, read.citation) == ("CC BY 4.0", "Müller 2020")
        for part, split in written.splits.items():
            back = read.splits[part]
            assert back.in_memory == (limit > 0)
            np.testing.assert_array_equal(back.read_images(range(len(back))), split.images)
            np.testing.assert_array_equal(back.ids, split.ids)
            assert back.targets.keys() == split.targets.keys()
            for name, target in split.targets.items():
                np.testing.assert_array_equal(back.targets[name], target, strict=True)
            assert (back.groups is None) == (split.groups is None)
    np.testing.assert_array_equal(read.splits["train"].groups, written.splits["train"].groups)


def test_the_digest_of_grey_images_in_memory_survives(tmp_path):
    digits = load("digits")
    write_tfds(digits, tmp_path)
    assert load("tfds:digits", data_dir=tmp_path).digest == digits.digest
    assert load("tfds:digits:1.0.0", data_dir=tmp_path, image_size=16).image_shape == (16, 16, 1)


def test_tfds_itself_reads_what_we_write(tmp_path, rng):
    written = small(rng)
    source = tfds.builder("my_photos_2", data_dir=write_tfds(written, tmp_path).parents[1])
    assert source.info.features["label"].names == LABELS
    assert source.info.supervised_keys == ("image", "label")
    split = written.splits["train"]
    for i, example in enumerate(source.as_data_source("train")):
        np.testing.assert_array_equal(example["image"], split.images[i])
        assert example["label"] == split.targets["label"][i]
        assert list(example["tags"]) == list(np.flatnonzero(split.targets["tags"][i]))
        assert example["id"].decode() == split.ids[i]


def test_nothing_is_overwritten_and_nothing_half_written_is_left(tmp_path, rng, capsys):
    folder = write_tfds(small(rng), tmp_path)
    with pytest.raises(DataError, match="exists and is not overwritten"):
        write_tfds(small(rng), tmp_path)
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]
    (tmp_path / "other" / "digits" / "1.0.0").mkdir(parents=True)
    assert main(["data", "digits", "--to-tfds", str(tmp_path / "other")]) == 2
    out, err = capsys.readouterr()
    assert not out and "exists and is not overwritten" in err  # before anything is searched
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (1_000, 40_000, 70_000):  # as on a full disk: writing fails somewhere
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(DataError, match=r"cannot write .*nothing is left there: "):
                write_tfds(load("digits"), tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list((tmp_path / "digits").iterdir())


def test_what_tfds_cannot_hold_is_refused(tmp_path, rng):
    images, labels = rng.random((30, 4, 4, 1)).astype(np.float32), np.arange(30) % 2
    soft = np.tile(np.float32([0.5, 0.5]), (30, 1))
    bytes_ = (images * 255).astype(np.uint8)
    names = {
        "image": ("a",),
        "label": ("a", "b"),
        "Größe": ("S", "M", "L"),
        "tags": ("x", "y", "z"),
    }
    refused = {
        "float32": from_arrays(images, labels),
        "only uint8": from_arrays(np.tile(bytes_, 2), labels),
        "soft labels": from_arrays(bytes_, soft),
        r"repeated.*\(' a'\)": from_arrays(bytes_, labels, classes=[" a", "b"]),
        "line breaks": from_arrays(bytes_, labels, classes=["a\nb", "b"]),
        "no Unicode text": from_arrays(bytes_, labels, classes=["a\udcff", "b"]),
        "rename it": small(rng, classes=names, kinds=dict.fromkeys(names, "multilabel")),
    }
    for message, dataset in refused.items():
        with pytest.raises(DataError, match=message):
            write_tfds(dataset, tmp_path)
    assert not list(tmp_path.iterdir())
