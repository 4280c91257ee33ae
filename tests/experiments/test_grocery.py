"""The figures of groceries, on made ones."""

import csv

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.evaluation import Predictions
from experiments.inventory import grocery

PRODUCTS = (("Gala", "Apple"), ("Fuji", "Apple"), ("Milk", "Milk"), ("Lime", "Lime"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four products of three kinds: each a colour, icons with less noise."""
    root = tmp_path_factory.mktemp("data") / "grocery_store"
    rng = np.random.default_rng(0)
    colours = np.array([[220, 40, 40], [220, 120, 60], [230, 230, 230], [60, 200, 60]])
    for part, each in (("train", 12), ("val", 4), ("test", 6)):
        lines = []
        for k, (name, kind) in enumerate(PRODUCTS):
            for n in range(each):
                path = f"{part}/{kind}/{name}/{n:03}.jpg"
                pixels = rng.normal(colours[k], 25, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / path)
                coarse = {"Apple": 0, "Milk": 1, "Lime": 2}[kind]
                lines.append(f"{path}, {k}, {coarse}")
        (root / f"{part}.txt").write_text("\n".join(lines) + "\n")
    head = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)"
    lines = [f"{head},Iconic Image Path (str),Product Description Path (str)"]
    for k, (name, kind) in enumerate(PRODUCTS):
        icon = f"iconic-images-and-descriptions/{kind}/{name}/{name}_Iconic.jpg"
        (root / icon).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(colours[k], 9, (20, 20, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / icon)
        lines.append(f"{name},{k},{kind},{['Apple', 'Milk', 'Lime'].index(kind)},/{icon},/{icon}")
    (root / "classes.csv").write_text("\n".join(lines) + "\n")
    return root.parent


def test_kinds_are_sums_of_their_products(folder):
    dataset = data.load("grocery_store", data_dir=str(folder))
    kinds = grocery.kinds_of(dataset)
    names = dataset.classes["label"]
    of = {names[k]: dataset.classes["coarse"][kind] for k, kind in enumerate(kinds.tolist())}
    assert of == dict(PRODUCTS)
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(4), 10)
    predictions = Predictions(
        "test",
        np.array([str(n) for n in range(10)]),
        rng.integers(0, 4, 10).astype(np.int32),
        np.log(p).astype(np.float32),
        names,
    )
    coarse = grocery.by_kind(predictions, dataset, kinds, summed=True)
    for kind, name in enumerate(dataset.classes["coarse"]):
        own = [k for k in range(4) if of[names[k]] == name]
        np.testing.assert_allclose(np.exp(coarse.logits[:, kind]), p[:, own].sum(1), rtol=1e-5)
    np.testing.assert_array_equal(coarse.targets, kinds[predictions.targets])
    highest = grocery.by_kind(predictions, dataset, kinds, summed=False)
    np.testing.assert_array_equal(highest.logits.argmax(1), kinds[p.argmax(1)])


def test_rows_of_a_run(folder, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(grocery, "PATH", path)
    short = {"train.epochs": 2, "train.batch_size": 16, "model.options": {"widths": [4, 8]}}
    monkeypatch.setattr(grocery, "LEARNING", {**grocery.LEARNING, **short})
    assert grocery.main(["--data-dir", str(folder), "--out", str(tmp_path / "run")]) == 0
    with open(path, newline="") as file:
        rows = {(row["experiment"], row["metric"]): row for row in csv.DictReader(file)}
    for metric in ("fine accuracy", "coarse accuracy"):
        network, pixels = (
            float(rows[name, metric]["value"])
            for name in ("network", "nearest neighbour on pixels")
        )
        gain = float(rows["network minus nearest neighbour on pixels", metric]["value"])
        assert gain == pytest.approx(network - pixels)
    for name in ("network", "pixels"):
        for metric in ("precision_at_1", "r_precision", "map_at_r", "nearest icon accuracy"):
            assert 0 <= float(rows[f"features of the {name}", metric]["value"]) <= 1
