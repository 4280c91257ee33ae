"""The figures of magnetic tiles, on made ones: scenes are kept whole, and what leaks is higher."""

import csv

import numpy as np
import pytest
from PIL import Image

from cnn_jax.recipe import Recipe
from experiments.quality_control import tiles


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
