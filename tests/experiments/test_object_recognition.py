"""The figures of CIFAR-10 as a tree, on made images."""

import csv

import numpy as np
import pytest

from experiments.object_recognition import hierarchy


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


def test_every_row_of_the_table(folder, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(hierarchy, "PATH", path)
    monkeypatch.setattr(hierarchy, "SHOTS", 9)
    short = {"data.shots": 9, "train.epochs": 1, "train.batch_size": 32, "train.views": "one"}
    small = {"model.options": {"widths": [4, 8], "units": 1}, "train.compiler_options": {}}
    monkeypatch.setattr(hierarchy, "LEARNING", {**short, **small})
    arguments = ["--data-dir", str(folder), "--out", str(tmp_path / "runs"), "--seeds", "1"]
    assert hierarchy.main(arguments) == 0
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    value = {(r["experiment"], r["metric"], r["seed"]): float(r["value"]) for r in rows}
    plain, grouped = hierarchy.LOSSES
    for metric in ("accuracy", "accuracy_kind", "accuracy_branch", "mean_height"):
        gain = value[f"{grouped} minus {plain}", metric, "0"]
        both = value[grouped, metric, "0"] - value[plain, metric, "0"]
        assert gain == pytest.approx(both)
    seen = value["nearest neighbour on pixels", "accuracy", "0"]
    assert seen <= value["nearest neighbour on pixels", "accuracy_branch", "0"]
    assert seen > 0.8  # patterns are easy
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["0-0", "1-0"]
