"""The figures of magnetic tiles, on made ones: scenes are kept whole, and what leaks is higher."""

import csv

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from cnn_jax.evaluation import MaskPredictions
from cnn_jax.recipe import Recipe
from experiments.quality_control import few, kinds, tiles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Scenes of four photographs that are nearly alike; half of the faulty ones show a defect."""
    root = tmp_path_factory.mktemp("data") / "magnetic_tile"
    rng, rows = np.random.default_rng(0), []
    for scene in range(52):
        kind = "Free" if scene < 40 else ("Crack", "Fray")[scene % 2]
        texture = rng.normal(110, 20, (32, 32))
        mask = np.zeros((32, 32), np.uint8)
        if kind != "Free":
            mask[8:24, 8 + scene % 8 : 14 + scene % 8] = 255
        for light in range(4):
            name = f"MT_{kind}/Imgs/exp{light}_num_{scene}.jpg"
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = texture + rng.normal(0, 3, texture.shape) - 40 * (mask > 0)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
            Image.fromarray(mask).save(path.with_suffix(".png"))
            rows.append((name, scene))
    with open(root / "groups.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "group"), *rows])
    return root.parent


@pytest.fixture
def found(folder):
    return tiles.Tiles.load(
        Recipe().override({**tiles.LEARNING, "data.root": str(folder), "data.image_size": 32})
    )


def test_no_scene_is_cut_and_what_was_chosen_on_is_not_tested_on(found):
    groups = found.whole.groups
    for seed in range(3):
        parts = found.parts("scene", seed)
        scenes = {part: set(groups[rows]) for part, rows in parts.items()}
        assert not scenes["train"] & scenes["validation"]
        assert not (scenes["train"] | scenes["validation"]) & scenes["test"]
        for part in ("train", "validation"):
            assert found.normal[parts[part]].all() and found.faultless[parts[part]].all()
        assert (len(parts["train"]), len(parts["validation"])) == (80, 40)
        developed = found.parts("scene", seed, develop=True)["test"]
        faulty = [set(groups[rows[~found.normal[rows]]]) for rows in (parts["test"], developed)]
        assert len(faulty[0]) == 8 and len(faulty[1]) == 4 and not faulty[0] & faulty[1]
    by_image = found.parts("image", 0)
    assert set(groups[by_image["train"]]) & set(groups[by_image["test"]])


def test_rows_of_both_splittings(folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(tiles, "PATH", path)
    for splitting in ("scene", "image"):
        arguments = [splitting, "pixels", "--data-dir", str(folder), "--splits", "2"]
        assert tiles.main(arguments) == 0
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    first = "nearest neighbour on pixels"
    names = [first, "PCA of pixels", f"{first} minus PCA of pixels"]
    assert [row["experiment"] for row in rows] == 2 * names
    by_scene, by_image = float(rows[0]["value"]), float(rows[3]["value"])
    assert by_image > by_scene + 0.2
    assert "LEAKS" in rows[3]["split"] and "LEAKS" not in rows[0]["split"]
    assert rows[0]["method"].startswith("bootstrap") and rows[0]["command"].endswith("--splits 2")
    assert tiles.main(["scene", "pixels", "--data-dir", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("tiles: ")


def test_the_promise_is_kept_by_nearly_all_splits(folder, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(tiles, "PATH", path)
    monkeypatch.setattr(tiles, "FALSE_ALARM", 0.3)  # 13 scenes can promise no less
    assert tiles.main(["scene", "promise", "--data-dir", str(folder)]) == 0
    with open(path, newline="") as file:
        broken, mean = (float(row["value"]) for row in csv.DictReader(file))
    assert broken <= 0.07 and 0 < mean < 0.3


def test_labelled_scenes_are_no_part_of_the_test(found):
    groups, labels = found.whole.groups, found.whole.targets["label"]
    assert not len(few.labelled_rows(found, "none", 0))
    everything = few.labelled_rows(found, "all", 0)
    assert not found.normal[everything].any() and len(set(groups[everything])) == 4
    chosen = set()
    for seed in range(4):
        one = few.labelled_rows(found, "one", seed)
        assert set(one) <= set(everything)
        kinds_of = {scene: set(labels[one[groups[one] == scene]]) for scene in set(groups[one])}
        assert len(kinds_of) == len(set(labels[everything]))
        chosen.add(tuple(sorted(kinds_of)))
        assert not set(groups[one]) & set(groups[found.parts("scene", seed)["test"]])
    assert len(chosen) > 1


SHORT = {"train.epochs": 1, "model.options": {"stride": 2, "widths": [8, 16], "units": 1}}


@pytest.mark.heavy
def test_a_few_labelled_scenes(folder, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    monkeypatch.setattr(few, "PATH", path)
    monkeypatch.setattr(few, "CHANGES", {**few.CHANGES, **SHORT, "data.image_size": 32})
    arguments = ["--data-dir", str(folder), "--splits", "1", "--labelled", "none", "all"]
    assert few.main(arguments) == 0
    with open(path, newline="") as file:
        rows = {(row["experiment"], row["metric"]): row for row in csv.DictReader(file)}
    names = [f"labelled scenes: {name}" for name in ("none", "all", "all minus none")]
    assert [name for name, metric in rows if metric == "auroc"] == names
    none, everything, more = (float(rows[name, "auroc"]["value"]) for name in names)
    assert more == pytest.approx(everything - none)
    assert (names[0], "au_pro") in rows and (names[2], "au_pro") not in rows


def test_an_image_is_of_the_kind_whose_pixel_is_likeliest():
    whole = data.from_arrays(
        np.arange(32 * 16, dtype=np.uint16).reshape(32, 4, 4, 1).astype(np.uint8),
        np.arange(32) % 4,
        masks=((np.arange(32) % 4 > 0)[:, None, None] * np.ones((4, 4))).astype(np.uint8),
        classes=("crack", "free", "hole", "odd"),
    )
    whole = data.regions_by_class(whole)
    assert whole.regions == ("background", "free", "hole", "odd")  # a crack shows nothing here
    test = whole.splits["test"]
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1] * 4, (len(test), 4, 4))[..., 1:].astype(np.float32)
    order = rng.permutation(len(test))
    masks = MaskPredictions(
        "test", test.ids[order], test.masks[order], probabilities, whole.regions
    )
    found = kinds.kinds(masks, whole)
    np.testing.assert_array_equal(found.targets, test.targets["label"][order])
    highest = probabilities.max(axis=(1, 2))
    assert found.kind == "class" and found.classes == ("crack", "free", "hole", "odd")
    np.testing.assert_array_equal(found.logits[:, 0], 0)
    np.testing.assert_allclose(found.logits[:, 1:], np.log(highest / (1 - highest)), rtol=1e-4)


def test_by_image_a_scene_is_in_several_folds(folder):
    for splitting, cut in (("scene", False), ("image", True)):
        dataset = kinds.fold_of(kinds.load(str(folder), splitting), 1)
        scenes = {
            part: {name.rpartition("_")[2] for name in split.ids.tolist()}
            for part, split in dataset.splits.items()
        }
        assert bool(scenes["train"] & scenes["test"]) == cut


@pytest.mark.heavy
def test_folds_are_told_together_beside_what_pixels_say(folder, tmp_path, monkeypatch):
    path = tmp_path / "results.csv"
    for name, value in (("PATH", path), ("FOLDS", 2), ("SIZE", 32)):
        monkeypatch.setattr(kinds, name, value)
    monkeypatch.setattr(kinds, "LEARNING", {**kinds.LEARNING, **SHORT})
    arguments = ["scene", "--data-dir", str(folder), "--out", str(tmp_path / "runs")]
    assert kinds.main([*arguments, "--folds", "1"]) == 0
    assert not path.exists()  # all folds or none
    assert kinds.main([*arguments, "--folds", "1,2"]) == 0
    with open(path, newline="") as file:
        rows = {(row["experiment"], row["metric"]): row for row in csv.DictReader(file)}
    assert {row["split"] for row in rows.values()} == {"by scene, 2 folds"}
    network, nearest, logistic = (
        float(rows[name, "macro_f1"]["value"])
        for name in ("U-Net", "nearest neighbour on pixels", "logistic regression on pixels")
    )
    for name, value in (("nearest neighbour", nearest), ("logistic regression", logistic)):
        gain = float(rows[f"U-Net minus {name} on pixels", "macro_f1"]["value"])
        assert gain == pytest.approx(network - value)
    assert ("U-Net", "dice_present of MT_Crack") in rows
