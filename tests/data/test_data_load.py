import time

import numpy as np
import pytest

from cnn_jax.data import load
from cnn_jax.data.dataset import Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.errors import DataError


@pytest.fixture
def flowers(tmp_path, write_image):
    for i in range(20):
        write_image(tmp_path / "data" / "flowers5" / "ab"[i % 2] / f"{i}.png", i)
    return tmp_path / "data"


def test_every_digit_is_scikit_learns():
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    dataset = load("digits")
    held = np.concatenate([split.images for split in dataset.splits.values()])
    np.testing.assert_array_equal(held.reshape(1797, 64), np.round(images * 255 / 16))
    targets = np.concatenate([split.targets["label"] for split in dataset.splits.values()])
    np.testing.assert_array_equal(targets, labels)
    assert [len(split) for split in dataset.splits.values()] == [1257, 180, 360]
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert dataset.licence == "CC BY 4.0" and "Alpaydin" in dataset.citation


def test_names_and_paths_find_the_same_set(flowers, monkeypatch):
    digest = load("flowers5", data_dir=flowers).digest
    assert load(str(flowers / "flowers5")).digest == digest
    assert load("Flowers-5", data_dir=flowers).digest == digest
    assert load("flowers5", data_dir=flowers / "flowers5").digest == digest
    monkeypatch.chdir(flowers)
    assert load("flowers5").digest == digest
    monkeypatch.chdir("flowers5")
    assert load(".").digest == digest
    assert load("flowers5").name == "flowers5"


def test_a_folder_of_any_name_may_be_the_set(tmp_path, write_idx):
    for part in ("train", "t10k"):
        images = np.arange(40 * 16, dtype=np.uint32).reshape(40, 4, 4).astype(np.uint8)
        write_idx(tmp_path / "dl" / f"{part}-images-idx3-ubyte", images)
        labels = (np.arange(40) % 10).astype(np.uint8)
        write_idx(tmp_path / "dl" / f"{part}-labels-idx1-ubyte", labels)
    assert load("mnist", data_dir=tmp_path / "dl").name == "mnist"
    (tmp_path / "dl").rename(tmp_path / "fashion_mnist")
    with pytest.raises(DataError, match="no data set 'mnist'"):
        load("mnist", data_dir=tmp_path / "fashion_mnist")


def test_an_unknown_name_answers_with_the_nearest(flowers):
    with pytest.raises(DataError, match=r"^no data set 'flower5s'; did you mean 'flowers5'\? \("):
        load("flower5s", data_dir=flowers)
    with pytest.raises(DataError, match=r"has no 'zzz'; .* holds 'flowers5'.*; names: digits, mn"):
        load("zzz", data_dir=flowers)
    with pytest.raises(DataError, match="did you mean 'flowers5'"):
        load(str(flowers / "flowers"))
    with pytest.raises(DataError, match=r"has no 'cifar10' \(or 'cifar-10-batches-bin'\)"):
        load("cifar10", data_dir=flowers)
    with pytest.raises(DataError, match=r"data folder .* does not exist"):
        load("cifar10", data_dir=flowers / "nowhere")


def test_ambiguity_is_an_error(flowers, write_image):
    for i in range(4):
        write_image(flowers / "Flowers_5" / "ab"[i % 2] / f"{i}.png")
        write_image(flowers / "digits" / "ab"[i % 2] / f"{i}.png")
    with pytest.raises(DataError, match=r"'FLOWERS5' may mean .*: give the path"):
        load("FLOWERS5", data_dir=flowers)
    with pytest.raises(DataError, match="'digits' may mean 'digits'"):
        load("digits", data_dir=flowers)


def test_several_layouts_or_none_are_errors(tmp_path, write_idx):
    write_idx(tmp_path / "x" / "train-images-idx3-ubyte", np.zeros((2, 2, 2), np.uint8))
    (tmp_path / "x" / "test_batch.bin").write_bytes(b"")
    with pytest.raises(DataError, match="several data sets: idx, cifar10"):
        load(str(tmp_path / "x"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.json").write_text("{}")
    for name in ("empty", "text.json"):
        with pytest.raises(DataError, match="no known layout"):
            load(str(tmp_path / name))
    (tmp_path / "empty" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty' holds 1 image but no class folders: put them"):
        load(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "squeeze"}, "fit must be one of"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"channels": 4}, "channels must be 1 or 3"),
        ({"label": "colour"}, "no other called 'colour'"),
        ({"path_column": "x"}, "is no table"),
    ],
)
def test_unfit_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        load("digits", **options)


def test_arrays_are_brought_to_a_size_and_channels():
    plain, changed = load("digits"), load("digits", image_size=16, channels=3)
    assert changed.image_shape == (16, 16, 3)
    images = changed.splits["test"].images
    assert (images[..., 0] == images[..., 2]).all()
    back = images[..., 0].reshape(-1, 8, 2, 8, 2).mean((2, 4))
    assert np.abs(back - plain.splits["test"].images[..., 0]).mean() < 20
    assert load("digits", channels=1).digest == plain.digest != changed.digest


def make_split(**changes):
    fields = {
        "images": np.arange(48, dtype=np.uint8).reshape(3, 4, 4, 1),
        "targets": {"label": np.array([0, 1, 1], np.int32)},
        "ids": np.array(["a", "b", "c"]),
    }
    return Split(**{**fields, **changes})


def test_the_digest_tells_every_difference():
    other = make_split().images.copy()
    other[2, 3, 3, 0] ^= 1
    sets = [
        {"train": make_split()},
        {"test": make_split()},
        {"train": make_split(), "test": make_split()},
        {"train": make_split(images=other)},
        {"train": make_split(images=make_split().images.reshape(3, 2, 8, 1))},
        {"train": make_split(targets={"label": np.array([0, 1, 0], np.int32)})},
        {"train": make_split(targets={"kind": np.array([0, 1, 1], np.int32)})},
        {"train": make_split(ids=np.array(["a", "bc", "d"]))},
        {"train": make_split(ids=np.array(["ab", "c", "d"]))},
    ]
    assert len({dataset_digest(splits) for splits in sets}) == len(sets)
    assert dataset_digest(sets[0]) == dataset_digest({"train": make_split()})


def test_the_digest_of_60_000_images_is_quick():
    split = Split(
        images=np.zeros((60_000, 28, 28, 1), np.uint8),
        targets={"label": np.zeros(60_000, np.int32)},
        ids=np.array([f"train/{i:05d}" for i in range(60_000)]),
    )
    start = time.process_time()
    dataset_digest({"train": split})
    assert time.process_time() - start < 2  # about 0.1 s on an idle core


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("entry", "sizes", "n_classes", "shape"),
    [
        ("mnist", [55_000, 5_000, 10_000], 10, (28, 28, 1)),
        ("cifar-10-batches-bin", [45_000, 5_000, 10_000], 10, (32, 32, 3)),
        ("pneumoniamnist.npz", [4_708, 524, 624], 2, (28, 28, 1)),
        ("brain_tumor_mri", [2_583, 287, 394], 4, (96, 96, 1)),
        ("grocery_store", [2_640, 296, 2_485], 81, (64, 64, 3)),
        ("magnetic_tile", None, 6, (128, 128, 1)),
        ("busi", None, 3, (128, 128, 1)),
        ("flowers5", None, 5, (32, 32, 3)),
        ("orl_faces", [280, 60, 60], 40, (112, 92, 1)),
    ],
)
def test_real_sets(real, entry, sizes, n_classes, shape):
    totals = {"magnetic_tile": 1_344, "busi": 148, "flowers5": 4_317}
    dataset = load(str(real(entry)))
    found = [len(split) for split in dataset.splits.values()]
    assert found == sizes if sizes else sum(found) == totals[entry]
    assert len(dataset.classes["label"]) == n_classes and dataset.image_shape == shape
    assert dataset.licence and dataset.citation
    if sizes is None:
        groups = [set(split.groups) for split in dataset.splits.values()]
        assert sum(map(len, groups)) == len(set.union(*groups))
        assert np.abs(np.array(found) / sum(found) - [0.7, 0.15, 0.15]).max() < 0.03
