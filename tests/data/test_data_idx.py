import gzip
import struct

import numpy as np
import pytest

from cnn_jax.data import load
from cnn_jax.data.idx import read_idx
from cnn_jax.errors import DataError


@pytest.fixture
def folder(tmp_path, write_idx, rng):
    root = tmp_path / "mnist"
    for part, n in (("train", 60), ("t10k", 20)):
        images = rng.integers(0, 256, (n, 5, 4), dtype=np.uint8)
        write_idx(root / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    return root


def test_values_and_parts(folder, tmp_path):
    images = np.frombuffer(
        gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8
    ).reshape(20, 5, 4)
    dataset = load("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(dataset.splits["test"].images[..., 0], images)
    assert dataset.splits["test"].targets["label"].tolist() == list(range(10)) * 2
    assert [len(split) for split in dataset.splits.values()] == [50, 10, 20]
    assert dataset.classes["label"] == tuple("0123456789")
    assert dataset.licence.startswith("CC BY-SA")


def test_files_without_gz_colour_and_a_raw_folder(tmp_path, write_idx, rng):
    raw = tmp_path / "FashionMNIST" / "raw"
    for part in ("train", "t10k"):
        images = rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx4-ubyte", images)
        write_idx(raw / f"{part}-images-idx4-ubyte.gz", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", (np.arange(40) % 10).astype(np.uint8))
    dataset = load("fashion_mnist", data_dir=tmp_path)
    assert dataset.image_shape == (4, 4, 3)
    assert dataset.classes["label"][9] == "Ankle boot"


def test_two_sets_in_one_folder_are_ambiguous(folder, write_idx):
    write_idx(folder / "letters-train-images-idx3-ubyte", np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(DataError, match="two files for the train images"):
        load(str(folder))


def test_a_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="no file for the test labels"):
        load(str(folder))


def test_counts_must_agree(folder, write_idx):
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(19, np.uint8))
    with pytest.raises(DataError, match=r"shape \[19\] for 20 images"):
        load(str(folder))


HEADER = struct.pack(">HBB3I", 0, 8, 3, 2, 3, 4)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (HEADER + bytes(23), "is truncated"),
        (HEADER + bytes(25), "bytes after its end"),
        (b"\x89PNG" + bytes(40), "not an IDX file"),
        (b"", "not an IDX file"),
        (struct.pack(">HBB1I", 0, 0x0D, 1, 1) + bytes(4), "only uint8"),
        (HEADER[:10], "ends within its header"),
        (struct.pack(">HBB", 0, 8, 0), "ends within its header"),
        (struct.pack(">HBB2I", 0, 8, 2, 0, 5), "is empty"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3) + bytes(9), "is truncated"),
    ],
)
def test_damage_is_named(tmp_path, contents, message, suffix):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(contents) if suffix else contents)
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_every_flipped_or_missing_byte_of_a_gz_is_a_data_error(tmp_path, write_idx):
    path = write_idx(tmp_path / "x.gz", np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    good = path.read_bytes()
    refused = 0
    for position in range(len(good)):
        flipped = bytearray(good)
        flipped[position] ^= 0xFF
        for damaged in (bytes(flipped), good[:position]):
            path.write_bytes(damaged)
            try:
                read_idx(path)
            except DataError:
                refused += 1
    # Flags, time and system in the gzip header carry no data; all else is protected.
    assert refused > 1.7 * len(good)
