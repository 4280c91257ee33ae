"""The figures of CIFAR-10 as a tree, on made images."""

import csv

import numpy as np
import pytest

from experiments.receptive_fields import measure as fields
from experiments.species import hierarchy, resizing


@pytest.fixture
def folder(tmp_path):
    """A CIFAR-10 of few images, of which each class has its own pattern."""
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (10, 3072))
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        labels = np.repeat(np.arange(10), 4)
        pixels = rng.normal(patterns[labels], 60).clip(0, 255)
        records = np.concatenate([labels[:, np.newaxis], pixels], axis=1).astype(np.uint8)
        (root / f"{name}.bin").write_bytes(records.tobytes())
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (root / "batches.meta.txt").write_text(names.replace(" ", "\n") + "\n")
    return tmp_path


def test_the_tree_is_the_one_of_the_text(folder):
    dataset, tree = hierarchy.load(str(folder))
    branch = dict(zip(tree.classes, (line[1] for line in tree.ancestors), strict=True))
    assert [name for name in tree.classes if branch[name] == "animal"] == [
        *("bird", "cat", "deer", "dog", "frog", "horse")
    ]
    kind = dict(zip(tree.classes, (line[0] for line in tree.ancestors), strict=True))
    assert (kind["bird"], kind["cat"], kind["frog"]) == ("bird", "mammal", "amphibian")
    assert set(dataset.classes["branch"]) == {"animal", "vehicle"}
    # a cat is one step from a dog, two from a bird, three from a lorry
    height = tree.heights[tree.classes.index("cat")]
    assert [height[tree.classes.index(n)] for n in ("cat", "dog", "bird", "truck")] == [0, 1, 2, 3]


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Short trainings of a small network, and where the rows are then."""
    path = tmp_path / "results.csv"
    learning = {
        "data.shots": 9,
        "train.epochs": 2,
        "train.batch_size": 32,
        "train.views": "one",
        "train.compiler_options": {},
        "model.options": {"widths": [4, 8], "units": 1},
    }
    for module in (hierarchy, resizing, fields):
        monkeypatch.setattr(module, "PATH", path)
    for module in (hierarchy, resizing):
        monkeypatch.setattr(module, "SHOTS", 9)
        monkeypatch.setattr(module, "LEARNING", learning)

    def values():
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        return {(r["experiment"], r["metric"]): float(r["value"]) for r in rows}

    return values


@pytest.mark.heavy
def test_every_row_of_the_tree(folder, tmp_path, short, monkeypatch, capsys):
    arguments = ["--data-dir", str(folder), "--out", str(tmp_path / "runs"), "--seeds", "1"]
    assert hierarchy.main(arguments) == 0
    value = short()
    plain, grouped = hierarchy.LOSSES
    for metric in ("accuracy", "accuracy_kind", "accuracy_branch", "mean_height"):
        gain = value[f"{grouped} minus {plain}", metric]
        assert gain == pytest.approx(value[grouped, metric] - value[plain, metric])
    seen = value["nearest neighbour on pixels", "accuracy"]
    assert 0.8 < seen <= value["nearest neighbour on pixels", "accuracy_branch"]
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["0-0", "1-0"]
    (tmp_path / "results.csv").unlink()
    monkeypatch.setattr(hierarchy, "LEARNING", {**hierarchy.LEARNING, "train.epochs": 3})
    capsys.readouterr()
    assert hierarchy.main(arguments) == 2
    assert "keeps a training with another train: give another folder" in capsys.readouterr().err


@pytest.mark.heavy
def test_every_row_of_resizing(folder, tmp_path, short, monkeypatch):
    monkeypatch.setattr(resizing, "ROUNDS", 6)
    monkeypatch.setattr(resizing, "STEPS", 1)
    arguments = ["--data-dir", str(folder), "--out", str(tmp_path / "runs"), "--seeds", "1"]
    assert resizing.main(arguments) == 0
    value = short()
    whole, small = resizing.METHODS
    both = value[small, "accuracy"] - value[whole, "accuracy"]
    assert value[f"{small} minus {whole}", "accuracy"] == pytest.approx(both)
    times = [v for (_, metric), v in value.items() if metric == "time of a step"]
    assert len(times) == 3 and all(t > 0 for t in times)
    again = tmp_path / "runs" / "small-0" / "run.json"
    before = again.stat().st_mtime_ns
    assert resizing.main(arguments) == 2  # the figures are there, the runs are taken as they are
    assert again.stat().st_mtime_ns == before


def test_every_row_of_fields(folder, tmp_path, short, monkeypatch):
    monkeypatch.setattr(fields, "IMAGES", 4)
    arguments = ["--data-dir", str(folder), "--out", str(tmp_path / "runs"), "--seeds", "1"]
    assert fields.main(arguments) == 0
    value = short()
    # The stem is 4x4 with a stride of 2, and the next block 3x3.
    assert value["stage1/block1", "theoretical side"] == 4
    assert value["stage2/block1", "theoretical side"] == 8
    for block in ("stage1/block1", "stage2/block1"):
        before, after = value[block, "as initialised"], value[block, "trained"]
        assert 0 < before < 8 and value[block, "log growth in training"] == pytest.approx(
            np.log(after / before)
        )
