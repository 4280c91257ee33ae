"""The figures of groceries, on made ones."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.evaluation import Predictions
from cnn_jax.population import Population
from experiments.inventory import grocery, new_products

PRODUCTS = (("Gala", "Apple"), ("Fuji", "Apple"), ("Milk", "Milk"), ("Lime", "Lime"))

SHORT = {"train.epochs": 2, "train.batch_size": 16, "model.options": {"widths": [4, 8], "units": 1}}


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


@pytest.mark.heavy
def test_rows_of_two_seeds_and_both_together(folder, tmp_path, monkeypatch):
    path, out = tmp_path / "results.csv", tmp_path / "population"
    monkeypatch.setattr(grocery, "PATH", path)
    monkeypatch.setattr(grocery, "LEARNING", {**grocery.LEARNING, **SHORT})
    arguments = ["--data-dir", str(folder), "--out", str(out), "--seeds", "2"]
    assert grocery.main(arguments) == 0
    with open(path, newline="") as file:
        rows = {(row["experiment"], row["metric"]): row for row in csv.DictReader(file)}
    for metric in ("fine accuracy", "coarse accuracy"):
        for ours in ("network", "ensemble of 2"):
            network, pixels = (
                float(rows[name, metric]["value"]) for name in (ours, "nearest neighbour on pixels")
            )
            gain = float(rows[f"{ours} minus nearest neighbour on pixels", metric]["value"])
            assert gain == pytest.approx(network - pixels)
    # By hand: products, and kinds as sums of the mean probabilities.
    dataset = data.load("grocery_store", data_dir=str(folder))
    members = list(Population.load(out, data=dataset).members.values())
    answers = [member.predictions("test") for member in members]
    p = np.mean([one.probabilities() for one in answers], axis=0)
    labels, kinds = answers[0].labels(), grocery.kinds_of(dataset)
    fine = [np.mean(one.probabilities().argmax(1) == labels) for one in answers]
    assert float(rows["network", "fine accuracy"]["value"]) == pytest.approx(np.mean(fine))
    together = float(rows["ensemble of 2", "fine accuracy"]["value"])
    assert together == pytest.approx(np.mean(p.argmax(1) == labels))
    of_kinds = np.stack([p[:, kinds == kind].sum(1) for kind in range(3)], axis=1)
    together = float(rows["ensemble of 2", "coarse accuracy"]["value"])
    assert together == pytest.approx(np.mean(of_kinds.argmax(1) == kinds[labels]))
    for name in ("network", "pixels"):
        for metric in ("precision_at_1", "r_precision", "map_at_r", "nearest icon accuracy"):
            assert 0 <= float(rows[f"features of the {name}", metric]["value"]) <= 1


def two_folds(folder, monkeypatch, **options):
    monkeypatch.setattr(new_products, "FOLDS", 2)
    whole = data.load("grocery_store", data_dir=str(folder))
    pictures = np.arange(4, dtype=np.uint8)[:, None, None, None] + np.zeros(
        (4, 16, 16, 3), np.uint8
    )
    return [new_products.fold_of(whole, pictures, number, **options) for number in (1, 2)]


def test_a_network_sees_nothing_of_new_products(folder, monkeypatch):
    folds = two_folds(folder, monkeypatch, with_icons=True)
    assert sorted(np.concatenate([fold.new for fold in folds]).tolist()) == [0, 1, 2, 3]
    for fold in folds:
        names = np.array(fold.whole.classes["label"])
        assert fold.learned.classes["label"] == tuple(names[fold.known])
        for part, split in fold.learned.splits.items():
            for label, name in zip(
                split.targets["label"].tolist(), split.ids.tolist(), strict=True
            ):
                product = names[fold.known[label]]
                shown = name.startswith("icon/") or f"/{product}/" in name
                assert shown and not any(f"/{one}/" in name for one in names[fold.new])
            if part == "train":
                icon = np.char.startswith(split.ids, "icon/")
                assert icon.sum() == new_products.COPIES * len(fold.known)
                of = fold.known[split.targets["label"][icon]]
                np.testing.assert_array_equal(
                    split.read_images(np.flatnonzero(icon))[:, 0, 0, 0], of
                )
            else:
                assert not np.char.startswith(split.ids, "icon/").any()
    plain = two_folds(folder, monkeypatch, with_icons=False)[0].learned.splits["train"]
    assert len(plain) == 24 and not np.char.startswith(plain.ids, "icon/").any()


def test_the_nearest_template_is_the_answer(folder, monkeypatch):
    """Features that are the mean colour: by hand."""
    fold = two_folds(folder, monkeypatch, with_icons=False)[0]
    shades = np.random.default_rng(3).integers(20, 255, (4, 1, 1, 3), dtype=np.uint8)
    fold = replace(fold, icons=np.tile(shades, (1, 16, 16, 1)))

    def colour(images):
        return images.mean(axis=(1, 2)) + 1e-3

    images, labels, ids = fold.of("test", fold.new)
    found = dict(new_products.enrolled(fold, colour))
    training, of, _ = fold.of("train", fold.known)
    means = [colour(training[of == k]) for k in fold.known]
    means = [(m / np.linalg.norm(m, axis=1, keepdims=True)).mean(axis=0) for m in means]
    templates = dict(zip(fold.known.tolist(), means, strict=True))
    templates |= {k: colour(fold.icons[[k]])[0] for k in fold.new.tolist()}
    for n, image in enumerate(images):
        query = colour(image[np.newaxis])[0]
        query /= np.linalg.norm(query)
        cosine = [query @ templates[k] / np.linalg.norm(templates[k]) for k in range(4)]
        np.testing.assert_allclose(found["one icon, among all"].logits[n], cosine, atol=1e-6)
        assert found["one icon, among all"].targets[n] == labels[n]
    one = found["one icon, among the new"]
    assert one.classes == ("product 0", "product 1") and one.ids.tolist() == ids.tolist()
    np.testing.assert_array_equal(fold.new[one.targets], labels)
    shots = found["one photograph, among the new"]
    assert len(shots) == new_products.DRAWS * len(ids)


@pytest.mark.heavy
def test_rows_of_new_products(folder, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(new_products, "PATH", path)
    monkeypatch.setattr(new_products, "FOLDS", 2)
    monkeypatch.setattr(new_products, "FPIRS", (0.2,))
    monkeypatch.setattr(new_products, "LEARNING", {**grocery.LEARNING, **SHORT})
    options = ["--data-dir", str(folder), "--out", str(tmp_path / "runs"), "--folds", "1,2"]
    assert new_products.main(options) == 0
    assert (tmp_path / "runs" / "both-2" / "run.json").exists()
    with open(path, newline="") as file:
        rows = {(row["experiment"], row["metric"]): row for row in csv.DictReader(file)}
    for way in ("one icon, among the new", "one photograph, among the new", "one icon, among all"):
        network, pixels, gain = (
            float(rows[f"{way}: {name}", "accuracy"]["value"])
            for name in ("network", "pixels", "network minus pixels")
        )
        assert gain == pytest.approx(network - pixels)
    for name in ("cosine of the network", "nearest neighbour on pixels"):
        figure = rows[f"unknown products: {name}", "oscr"]
        assert 0 <= float(figure["value"]) <= 1 and figure["n"] == "48"
