import io
import struct
import zipfile

import numpy as np
import pytest

from cnn_jax.data import load
from cnn_jax.data.npz import read_npz
from cnn_jax.errors import DataError


def arrays(shape=(8, 8), labels=None, n=12):
    rng = np.random.default_rng(0)
    made = {}
    for part in ("train", "val", "test"):
        made[f"{part}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        made[f"{part}_labels"] = (np.arange(n) % 2)[:, None] if labels is None else labels
    return made


def write(path, **changes):
    np.savez_compressed(path, **{**arrays(), **changes})
    return str(path)


def test_grey_classes(tmp_path):
    expected = arrays()
    path = write(tmp_path / "pneumoniamnist.npz")
    dataset = load("pneumoniamnist", data_dir=tmp_path)
    np.testing.assert_array_equal(
        dataset.splits["validation"].images[..., 0], expected["val_images"]
    )
    assert dataset.splits["test"].targets["label"].tolist() == [0, 1] * 6
    assert dataset.classes["label"] == ("normal", "pneumonia")
    assert load(path).digest == dataset.digest


def test_colour_volumes_and_multilabel(tmp_path):
    labels = (np.arange(36).reshape(12, 3) % 2).astype(np.uint8)
    np.savez(tmp_path / "colour.npz", **arrays((8, 8, 3), labels))
    colour = load(str(tmp_path / "colour.npz"))
    assert colour.image_shape == (8, 8, 3)
    assert colour.kinds["label"] == "multilabel" and colour.classes["label"] == ("0", "1", "2")
    assert (colour.splits["train"].targets["label"] == labels).all()
    np.savez(tmp_path / "volume.npz", **arrays((5, 6, 7)))
    assert load(str(tmp_path / "volume.npz")).image_shape == (5, 6, 7, 1)
    with pytest.raises(DataError, match="leave image_size and channels unset"):
        load(str(tmp_path / "volume.npz"), image_size=4)


def test_objects_are_refused(tmp_path):
    path = write(tmp_path / "x.npz", train_labels=np.array([{}] * 12, dtype=object))
    with pytest.raises(DataError, match="Python objects, which are never unpickled"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": np.zeros((12, 8, 8), np.float64)}, "is float64"),
        ({"train_images": np.zeros((12, 8), np.uint8)}, "not uint8"),
        ({"test_labels": np.zeros((11, 1), np.uint8)}, "not integers for 12 images"),
        ({"val_labels": np.full((12, 1), -1)}, "labels outside"),
        ({"val_labels": np.full((12, 2), 3)}, "must be 0 or 1"),
        ({"val_labels": np.zeros((12, 2), np.uint8)}, "different widths"),
        ({"val_labels": np.zeros((12, 0), np.uint8)}, "has no column"),
        ({"train_labels": np.full((12, 1), 0.5)}, "not integers"),
    ],
)
def test_unfit_arrays_are_named(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "x.npz", **changes))


def test_missing_arrays_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    with pytest.raises(DataError, match="no 'train_images'; it holds 'images'"):
        load(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", train_images=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match="no 'train_labels'"):
        load(str(tmp_path / "b.npz"))


def test_a_huge_header_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (2**40, 2**20), "fortran_order": False, "descr": "|u1"}
    )
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("train_images.npy", header.getvalue() + bytes(10))
    with pytest.raises(DataError, match="its header promises"):
        load(str(tmp_path / "x.npz"))


def test_a_size_no_compression_reaches_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(3, np.uint8))
    contents = bytearray(path.read_bytes())
    directory = contents.index(b"PK\1\2")
    struct.pack_into("<I", contents, directory + 24, 2**31)
    path.write_bytes(contents)
    with pytest.raises(DataError, match="claims to unpack"):
        read_npz(path)


@pytest.mark.filterwarnings("ignore")
def test_every_flipped_or_missing_byte_is_read_or_a_data_error(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.arange(12))
    good = path.read_bytes()
    refused = 0
    for position in range(len(good)):
        for value in (0x00, 0x01, 0xFF):
            damaged = bytearray(good)
            damaged[position] ^= value
            path.write_bytes(good[:position] if value == 0 else damaged)
            try:
                read_npz(path)
            except DataError:
                refused += 1
    assert refused > 1.5 * len(good)
