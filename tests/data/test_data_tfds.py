"""Reading sets of TensorFlow Datasets, prepared here by its own writer or mocked by it."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import dataset_builder, naming
from tensorflow_datasets.core import splits as tfds_splits
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.testing import mocking

from cnn_jax.data import load
from cnn_jax.data.tfds.folder import TfdsName, parse_name
from cnn_jax.errors import DataError

F = tfds.features
LABELS = ["grün", "a b"]


def png(pixels):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture
def prepare(tmp_path, rng):
    """Prepares a set with TFDS's own writer; every split has the same number of records."""

    def write(
        features=None, record=None, splits=("train", "test"), n=20, name="own/1.0.0", keys=None
    ):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        set_name, *_, version = name.split("/")
        features = features or {
            "image": F.Image(shape=(6, 5, 3)),
            "label": F.ClassLabel(names=LABELS),
        }
        info = tfds.core.DatasetInfo(
            builder=tfds.core.dataset_info.DatasetIdentity(
                set_name, tfds.core.Version(version), str(folder), ""
            ),
            features=F.FeaturesDict(features),
            supervised_keys=keys,
        )
        writer = tfds.core.SequentialWriter(
            info, max_examples_per_shard=7, file_format="array_record"
        )
        writer.initialize_splits(list(splits))
        for split in splits:
            examples = []
            for i in range(n):
                image = png(rng.integers(0, 255, (6, 5, 3)).astype(np.uint8))
                examples.append({"image": image, "label": i % 2, **(record(i) if record else {})})
            writer.add_examples({split: [{k: e[k] for k in features} for e in examples]})
        writer.close_all()
        return folder

    return write


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("mnist", ("mnist", None, None, None)),
        ("mnist/3.0.1", ("mnist", None, "3.0.1", None)),
        ("mnist:3.0.1", ("mnist", None, "3.0.1", None)),
        ("mnist:train", ("mnist", None, None, "train")),
        ("mnist:train[:10%]", ("mnist", None, None, "train[:10%]")),
        ("a/b-2:1.0.0:train[5:]+test", ("a", "b-2", "1.0.0", "train[5:]+test")),
        ("a/b/1.0.0:test", ("a", "b", "1.0.0", "test")),
    ],
)
def test_names_are_taken_apart(spec, parts):
    assert parse_name(f"tfds:{spec}") == TfdsName(*parts)


@pytest.mark.parametrize("spec", ["", "a/b/c", "../x", "a/..", "a/1.0.0:1.0.0", "a b", ":train"])
def test_other_names_are_refused(spec):
    with pytest.raises(DataError, match="no name of a TFDS set"):
        load(f"tfds:{spec}")


def test_splits_slices_and_positions(prepare, tmp_path):
    prepare(splits=("train", "valid", "extra"))
    whole = load("tfds:own", data_dir=tmp_path)
    assert whole.splits["train"].ids[8] != "" and len(whole.splits["validation"]) == 20
    assert "Splits left aside: extra." in whole.notes
    assert whole.splits["validation"].ids[[0, 19]].tolist() == ["valid/00000", "valid/00019"]
    piece = load("tfds:own:extra[4:]+valid[:50%]", data_dir=tmp_path, split_seed=1)
    ids = sorted(np.concatenate([split.ids for split in piece.splits.values()]))
    assert ids == [f"extra/{i:05d}" for i in range(4, 20)] + [f"valid/{i:05d}" for i in range(10)]
    part = piece.splits["train"]
    same = whole.splits["validation"]
    for i in np.flatnonzero(np.char.startswith(part.ids, "valid")):
        position = int(part.ids[i].split("/")[1])
        np.testing.assert_array_equal(part.images[i], same.images[position])
    for split, message in (
        ("nope", "no split 'nope'; its splits are"),
        ("train[:0]", "no example"),
    ):
        with pytest.raises(DataError, match=message):
            load(f"tfds:own:{split}", data_dir=tmp_path)


def test_parts_must_be_there_and_be_one_each(prepare, tmp_path):
    prepare(name="a/1.0.0", splits=("train", "val", "validation"))
    prepare(name="b/1.0.0", splits=("test",))
    with pytest.raises(DataError, match="two validation splits, 'val' and 'validation'"):
        load("tfds:a", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"no split 'train' but test: name .* tfds:b:test"):
        load("tfds:b", data_dir=tmp_path)


def test_versions_and_configs(prepare, tmp_path, monkeypatch):
    for name in ("s/2.0.0", "s/10.0.0", "one/big/1.0.0", "two/x/1.0.0", "two/y/1.0.0"):
        prepare(name=name)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert load("tfds:s").digest == load("tfds:s:10.0.0").digest != load("tfds:s/2.0.0").digest
    assert load("tfds:one").digest == load("tfds:one/big").digest
    with pytest.raises(
        DataError, match=r"several configs \(x, y\): choose one, such as tfds:two/x"
    ):
        load("tfds:two")
    with pytest.raises(DataError, match=r"no version 3.0.0; it has 2.0.0, 10.0.0"):
        load("tfds:s:3.0.0")
    with pytest.raises(DataError, match="did you mean 'two/"):
        load("tfds:two/z")


@pytest.mark.parametrize(
    ("features", "label", "record", "classes", "kind"),
    [
        ({"label": F.Text()}, None, lambda i: {"label": "bä"[i % 2]}, ("b", "ä"), "class"),
        ({"label": F.Scalar(np.int64)}, None, None, ("0", "1"), "class"),
        ({"y": F.Sequence(F.ClassLabel(names=["p", "q", "r"]))}, None,
         lambda i: {"y": [0, 2][: i % 3]}, ("p", "q", "r"), "multilabel"),
        ({"label": F.ClassLabel(names=LABELS), "y": F.ClassLabel(num_classes=3)}, "y",
         lambda i: {"y": i % 3}, ("0", "1", "2"), "class"),
    ],
)  # fmt: skip
def test_kinds_of_label(prepare, tmp_path, features, label, record, classes, kind):
    prepare({"image": F.Image(shape=(6, 5, 3)), **features}, record)
    dataset = load("tfds:own", data_dir=tmp_path, label=label)
    assert dataset.classes["label"] == classes and dataset.kinds["label"] == kind
    ids, target = dataset.splits["test"].ids, dataset.splits["test"].targets["label"]
    assert ids[1] == "test/00001"
    expected = {"b": 1, "0": 1, "p": [1, 0, 0]}[classes[0]]
    np.testing.assert_array_equal(target[1], expected)
    if label:
        assert dataset.classes["other label"] == tuple(LABELS)


def test_ids_are_the_sets_own_where_they_are_unique(prepare, tmp_path):
    image, label = F.Image(), F.ClassLabel(num_classes=2)
    features = {
        "image": image,
        "label": label,
        "id": F.Text(),
        "file_name": F.Text(),
        "group": F.Text(),
    }
    prepare(features, lambda i: {"id": "same", "file_name": f"ß{i}", "group": f"g{i // 2}"})
    split = load("tfds:own", data_dir=tmp_path).splits["test"]
    assert split.ids[3] == "ß3" and split.groups[3] == "g1"
    grouped = load("tfds:own", data_dir=tmp_path, group_column="file_name").splits["test"]
    assert grouped.ids[3] == "test/00003" and grouped.groups[3] == "ß3"


@pytest.mark.parametrize(
    ("features", "record", "message"),
    [
        ({"label": F.ClassLabel(num_classes=2)}, None, "no image feature at its top level"),
        ({"image": F.Image(), "b": F.Image(), "label": F.Text()},
         lambda i: {"b": png(np.zeros((2, 2), np.uint8)), "label": "x"}, "several image features"),
        ({"image": F.Image()}, None, "does not say which feature is the label"),
        ({"image": F.Image(), "label": F.ClassLabel(num_classes=2)}, lambda i: {"label": -1},
         "40 records have no label 'label'"),
        ({"image": F.Image(), "label": F.Scalar(np.int64)}, lambda i: {"label": 2**32 + i % 2},
         "no number of a class"),
        ({"image": F.Image(shape=(6, 6, 3)), "label": F.ClassLabel(num_classes=2)}, None,
         "is 6 x 5, but the set states 6 x 6"),
        ({"image": F.Image(), "label": F.ClassLabel(num_classes=2)},
         lambda i: {"image": b"junk"}, "40 damaged .*record test/00000 .* no known format"),
    ],
)  # fmt: skip
def test_sets_that_cannot_be_learned_from_say_why(prepare, tmp_path, features, record, message):
    prepare(features, record)
    with pytest.raises(DataError, match=message):
        load("tfds:own", data_dir=tmp_path)


def test_gaps_and_text_that_is_no_unicode(prepare, tmp_path):
    features = {
        "image": F.Image(),
        "label": F.Text(),
        "y": F.ClassLabel(num_classes=2),
        "file_name": F.Text(),
    }
    prepare(
        features, lambda i: {"label": "ab"[i % 2], "y": i % 3 - 1, "file_name": bytes([200, i])}
    )
    dataset = load("tfds:own", data_dir=tmp_path)
    assert list(dataset.classes) == ["label"]
    assert (
        "Feature 'y' has gaps ('train/00000', 'train/00003', 'train/00006', ...): left out."
        in dataset.notes
    )
    assert dataset.splits["test"].ids[3] == "\udcc8\x03"


def test_float_images_are_refused(prepare, tmp_path):
    path = prepare() / "features.json"
    path.write_text(path.read_text().replace('"uint8"', '"float32"').replace('"3"', '"1"'))
    with pytest.raises(DataError, match="float32: only uint8"):
        load("tfds:own", data_dir=tmp_path)


def test_options_of_tables_are_refused(prepare, tmp_path):
    prepare()
    with pytest.raises(DataError, match="is no table"):
        load("tfds:own", data_dir=tmp_path, path_column="image")
    with pytest.raises(DataError, match="has no label 'nope'"):
        load("tfds:own", data_dir=tmp_path, label="nope")
    with pytest.raises(DataError, match="no feature 'nope'"):
        load("tfds:own", data_dir=tmp_path, group_column="nope")


@pytest.mark.parametrize("name", ["mnist", "own"])
@pytest.mark.parametrize("form", ["tfrecord", "riegeli", "parquet"])
def test_other_formats_answer_with_what_helps(prepare, tmp_path, name, form):
    path = prepare(name=f"{name}/1.0.0") / "dataset_info.json"
    path.write_text(path.read_text().replace('"array_record"', f'"{form}"'))
    why = "drops records" if form == "parquet" else "without TensorFlow"
    with pytest.raises(DataError, match=f"prepared as {form}, which .*{why}") as caught:
        load(f"tfds:{name}", data_dir=tmp_path)
    helps = f'data_dir="{tmp_path}/array_record"' if name == "mnist" else "write it again"
    assert helps in str(caught.value)


def test_a_set_that_is_not_prepared_answers_with_the_command(tmp_path):
    with pytest.raises(DataError) as caught:
        load("tfds:mnist", data_dir=tmp_path / "it's")
    code = str(caught.value).split("python -c ")[1].split(" (needs")[0]
    shown = subprocess.run(["sh", "-c", f"printf %s {code}"], capture_output=True, text=True).stdout
    assert shown == (
        'import tensorflow_datasets as tfds; tfds.builder("mnist", data_dir='
        f'"{tmp_path}/it\'s", file_format="array_record").download_and_prepare()'
    )
    with pytest.raises(
        DataError, match=r"no TFDS set 'mnistt'.* holds nothing; did you mean 'mnist'"
    ):
        load("tfds:mnistt", data_dir=tmp_path)
    for folder in (
        "own/small/1.0.0",
        "flat/2.0.0",
        "killed/1.0.0.incomplete-x",
        "killed/.1.0.0.incomplete-x",
    ):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "flat" / "2.0.0" / "flat-train.array_record-00000-of-00001").touch()
    with pytest.raises(DataError, match=r"holds 'flat', 'own/small'"):
        load("tfds:mnistt", data_dir=tmp_path)


@pytest.mark.parametrize("package", ["tensorflow_datasets", "array_record"])
def test_a_missing_package_is_named(prepare, tmp_path, monkeypatch, package):
    prepare()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"{package}.*pip install tensorflow-datasets"):
        load("tfds:own", data_dir=tmp_path)


@pytest.mark.heavy
def test_damage_is_a_data_error_with_a_remedy(prepare, tmp_path, rng):
    folder = prepare()
    digest = load("tfds:own", data_dir=tmp_path).digest
    for path in sorted(folder.iterdir()):
        sound = path.read_bytes()
        damaged = [None, b"", sound[: len(sound) // 2], b"{}"]
        for position in rng.integers(0, len(sound), 12):
            flipped = bytearray(sound)
            flipped[position] ^= 1 << int(rng.integers(0, 8))
            damaged.append(bytes(flipped))
        for contents in damaged:
            path.unlink() if contents is None else path.write_bytes(contents)
            try:
                changed = load("tfds:own", data_dir=tmp_path).digest != digest
            except DataError as error:
                assert len(str(error).splitlines()) == 1
                assert str(folder) in str(error) or "labels" in path.name, str(error)
            else:
                # What describes the set may change its meaning; records may not change unseen.
                assert not (changed and "array_record" in path.name), path.name
            path.write_bytes(sound)
    shard = next(folder.glob("*train*-00001"))
    shard.unlink()
    with pytest.raises(
        DataError, match=r"record train/00007 cannot be read; remove the folder and"
    ):
        load("tfds:own", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "n_classes"),
    [
        ("mnist", (28, 28, 1), 10),
        ("cifar10", (32, 32, 3), 10),
        ("lfw", (250, 250, 3), None),
        ("oxford_flowers102", None, 102),
    ],
)
def test_mocked_sets_by_name(tmp_path, monkeypatch, name, shape, n_classes):
    # TFDS encodes arrays with TensorFlow, which is not there.
    monkeypatch.setattr(
        image_feature._ImageEncoder, "_encode_image", lambda self, array: png(array.squeeze())
    )
    strings = "_generate_random_string_array"  # persons who have more than one image
    monkeypatch.setattr(
        mocking.RandomFakeGenerator,
        strings,
        lambda self, shape, rng: str(rng.choice(["Ann", "Bob"])),
    )
    init = dataset_builder.DatasetBuilder.__init__
    splits = ["train"] if name == "lfw" else ["train", "test"]
    with tfds.testing.mock_data(num_examples=30, policy=tfds.testing.MockPolicy.USE_CODE):
        info = tfds.builder(name).info
        folder = tmp_path / name / str(info.version)
        folder.mkdir(parents=True)
        info.set_file_format("array_record", override=True, override_if_initialized=True)
        template = naming.ShardedFileTemplate(
            folder, dataset_name=name, filetype_suffix="array_record"
        )
        info.set_splits(
            tfds_splits.SplitDict(
                tfds_splits.SplitInfo(
                    name=split, shard_lengths=[30], num_bytes=1,
                    filename_template=template.replace(split=split),
                )
                for split in splits
            )
        )  # fmt: skip
        info.write_to_directory(folder)
    files = tfds.testing.MockPolicy.USE_FILES
    with (
        tfds.testing.mock_data(num_examples=30, policy=files, data_dir=str(folder)),
        monkeypatch.context() as patched,
    ):
        # A set is read from its own folder, which mock_data would replace by another.
        patched.setattr(dataset_builder.DatasetBuilder, "__init__", init)
        dataset = load(f"tfds:{name}", data_dir=tmp_path)
    assert shape is None or dataset.image_shape == shape
    assert n_classes is None or len(dataset.classes["label"]) == n_classes
    assert sum(len(split) for split in dataset.splits.values()) == 30 * len(splits)


@pytest.mark.heavy
def test_no_network_and_no_tensorflow(prepare, tmp_path):
    prepare()
    prepare(name="bad/1.0.0").joinpath("dataset_info.json").write_text("{")
    body = f"""
import importlib.machinery, socket, sys
def refuse(*args, **kwargs): raise AssertionError("network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
class Forbidden:  # TensorFlow is installed, but not to be imported
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "tensorflow" else None
    def create_module(self, spec): raise AssertionError("tensorflow is imported")
sys.meta_path.insert(0, Forbidden())
from cnn_jax.cli import main
assert "tensorflow_datasets" not in sys.modules
root = {str(tmp_path)!r}
assert main(["data", "tfds:own", "--data-dir", root, "--to-tfds", root + "/out"]) == 0
for name in ("own2", "mnist", "bad", "own:nope", "own/x"):
    assert main(["data", f"tfds:{{name}}", "--data-dir", root]) == 2
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 5 and "WARNING" not in done.stderr
    assert json.loads((tmp_path / "out/own/1.0.0/dataset_info.json").read_text())["name"] == "own"
