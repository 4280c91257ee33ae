import pickle
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.data import load
from cnn_jax.errors import DataError


@pytest.fixture
def cifar10(tmp_path, rng):
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        records = rng.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        (root / f"{name}.bin").write_bytes(records.tobytes())
    (root / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    return root


@pytest.fixture
def cifar100(tmp_path, rng):
    root = tmp_path / "cifar-100-binary"
    root.mkdir()
    for name, n in (("train", 300), ("test", 100)):
        records = rng.integers(0, 256, (n, 3074), dtype=np.uint8)
        records[:, 1] = np.arange(n) % 100
        records[:, 0] = records[:, 1] % 20
        (root / f"{name}.bin").write_bytes(records.tobytes())
    return root


def test_planes_become_channels(cifar10, tmp_path):
    dataset = load("cifar10", data_dir=tmp_path)
    record = np.frombuffer((cifar10 / "test_batch.bin").read_bytes(), np.uint8)[3073 : 2 * 3073]
    image = dataset.splits["test"].images[1]
    assert dataset.image_shape == (32, 32, 3)
    for channel, row, column in [(0, 0, 0), (1, 0, 5), (2, 31, 30), (0, 7, 31)]:
        assert image[row, column, channel] == record[1 + channel * 1024 + row * 32 + column]
    assert dataset.splits["test"].targets["label"][:3].tolist() == [0, 1, 2]
    assert dataset.classes["label"] == tuple("abcdefghij")
    assert [len(split) for split in dataset.splits.values()] == [90, 10, 20]


def test_cifar100_has_two_targets_and_either_may_be_the_main_one(cifar100, tmp_path):
    fine = load("cifar100", data_dir=tmp_path)
    targets = fine.splits["test"].targets
    assert targets["label"].tolist() == list(range(100))
    assert (targets["coarse"] == targets["label"] % 20).all()
    assert len(fine.classes["label"]) == 100 and len(fine.classes["coarse"]) == 20
    coarse = load(str(cifar100), label="coarse")
    assert (coarse.splits["test"].targets["label"] == targets["coarse"]).all()
    assert len(coarse.classes["fine"]) == 100
    with pytest.raises(DataError, match="no label 'colour'"):
        load(str(cifar100), label="colour")


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_length_is_named(cifar10, change):
    path = cifar10 / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1] if change < 0 else path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"data_batch_3\.bin' is truncated"):
        load(str(cifar10))


def test_a_label_outside_the_classes_is_named(cifar10):
    path = cifar10 / "data_batch_2.bin"
    damaged = bytearray(path.read_bytes())
    damaged[3 * 3073] = 77
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"data_batch_2\.bin' is damaged: record 3 has label 77"):
        load(str(cifar10))


def test_a_missing_batch_or_wrong_names_are_named(cifar10):
    (cifar10 / "batches.meta.txt").write_text("only\ntwo\n")
    with pytest.raises(DataError, match="2 class names, not 10"):
        load(str(cifar10))
    (cifar10 / "batches.meta.txt").unlink()
    assert load(str(cifar10)).classes["label"] == tuple("0123456789")
    (cifar10 / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin' cannot be read"):
        load(str(cifar10))


def write_pickles(binary, folder, keys, protocol=2, text=str):
    """The Python version of a binary folder, as `pickle` writes it."""
    folder.mkdir()
    for path in binary.glob("*.bin"):
        records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, len(keys) + 3072)
        batch = {text(key): records[:, k].tolist() for k, key in enumerate(keys)}
        batch[text("data")] = records[:, len(keys) :]
        (folder / path.stem).write_bytes(pickle.dumps(batch, protocol))
    return folder


@pytest.mark.parametrize("protocol", range(6))
def test_the_python_version_is_the_same_set(cifar10, tmp_path, protocol):
    folder = write_pickles(cifar10, tmp_path / "cifar-10-batches-py", ["labels"], protocol)
    meta = {"label_names": list("abcdefghij"), "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    binary, pickled = load(str(cifar10)), load(str(folder))
    assert pickled.digest == binary.digest and pickled.name == "cifar10"
    assert pickled.classes == binary.classes


def test_the_python_version_of_cifar100_saved_with_keys_of_bytes(cifar100, tmp_path):
    folder = write_pickles(
        cifar100, tmp_path / "set", ["coarse_labels", "fine_labels"], text=str.encode
    )
    meta = {b"fine_label_names": [b"apple"] * 100, b"coarse_label_names": [b"fish"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(meta))
    for label in (None, "coarse"):
        pickled = load(str(folder), label=label)
        assert pickled.digest == load(str(cifar100), label=label).digest
    assert pickled.classes["fine"][0] == "apple"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"labels": [1]}, "no uint8"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [1, 2]}, "no uint8"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "no uint8"),
        ({"data": np.zeros((0, 3072), np.uint8), "labels": []}, "no uint8"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "no list of 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8)}, "no list of 2 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, "2"]}, "are no labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, -1]}, "are no labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]}, "record 1 has label 10"),
        ([1], "holds list"),
        (Path("x"), "it asks for 'pathlib"),
    ],
)
def test_a_damaged_or_hostile_batch_is_named(cifar10, tmp_path, batch, message):
    folder = write_pickles(cifar10, tmp_path / "cifar-10-batches-py", ["labels"])
    (folder / "data_batch_4").write_bytes(pickle.dumps(batch))
    with pytest.raises(DataError, match=f"data_batch_4' .*{message}"):
        load(str(folder))


def test_folders_called_train_and_test_are_no_cifar(tmp_path, write_image):
    for part in ("train", "test"):
        for k in range(8):
            write_image(tmp_path / "set" / part / "ab"[k % 2] / f"{k}.png", value=10 * k)
    (tmp_path / "set" / "meta").write_text("notes")
    assert load(str(tmp_path / "set")).classes["label"] == ("a", "b")


@pytest.mark.realdata
def test_the_real_set_is_the_same_in_both_versions(real, tmp_path):
    binary = real("cifar-10-batches-bin")
    folder = write_pickles(binary, tmp_path / "cifar-10-batches-py", ["labels"])
    assert load(str(folder)).digest == load(str(binary)).digest
