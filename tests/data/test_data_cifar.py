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
