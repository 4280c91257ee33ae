"""The contact sheet: what it shows is what training sees, and nothing is overwritten."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from cnn_jax import cli, preview
from cnn_jax.data import from_arrays
from cnn_jax.errors import DataError, RecipeError
from cnn_jax.recipe import Recipe
from cnn_jax.report import contact_sheet


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 12, 10, 3), np.uint8)
    return from_arrays(images, np.arange(60) % 3, classes=("ant", "bee", "a_very_long_name" * 3))


def tiles(sheet, image):
    """Where a magnified image lies in the sheet: its top left corners."""
    found = np.argwhere((sheet == image[0, 0]).all(axis=-1))
    rows, columns = image.shape[:2]
    return [
        (r, c)
        for r, c in found
        if sheet[r : r + rows, c : c + columns].shape == image.shape
        and (sheet[r : r + rows, c : c + columns] == image).all()
    ]


def test_without_augmentation_every_version_is_the_image_itself(arrays, tmp_path):
    recipe = Recipe().override({"augment.translate": 0})
    path = preview.show(recipe, arrays, tmp_path / "sheet.png")
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    first = arrays.splits["train"].read_images(
        [int(np.flatnonzero(arrays.splits["train"].targets["label"] == 0)[0])]
    )[0]
    large = first.repeat(8, axis=0).repeat(8, axis=1)  # 12 pixels become 96
    places = tiles(sheet, large)
    assert len(places) == 1 + preview.VERSIONS
    assert len({row for row, _ in places}) == 1


def test_mixing_is_shown_with_its_shares(arrays, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        contact_sheet, "draw", lambda *sheet: seen.append(sheet) or Image.new("L", (1, 1))
    )
    recipe = Recipe().override({"augment.cutmix": 1.0, "augment.flip": "alternating"})
    preview.show(recipe, arrays, tmp_path / "sheet.png")
    ((_, subtitle, strips),) = seen
    assert "flip alternating" in subtitle and "cutmix 1" in subtitle
    captions = [caption for strip in strips for caption in strip.captions]
    assert all(" % of " in caption for caption in captions)
    assert len(strips) == 18 and len(strips[0].versions) == preview.VERSIONS
    assert [strip.label for strip in strips if strip.label] == list(arrays.classes["label"])
    assert not np.array_equal(strips[0].versions[0], strips[0].versions[1])


def test_bad_places_and_images_are_refused_in_one_line(arrays, tmp_path):
    taken = tmp_path / "taken.png"
    taken.write_bytes(b"mine")
    with pytest.raises(DataError, match="there already"):
        preview.show(Recipe(), arrays, taken)
    assert taken.read_bytes() == b"mine"
    with pytest.raises(DataError, match=r"must end in \.png"):
        preview.show(Recipe(), arrays, tmp_path / "sheet.jpg")
    with pytest.raises(RecipeError, match="cutout is 10 pixels"):
        preview.show(Recipe().override({"augment.cutout": 10}), arrays, tmp_path / "sheet.png")
    split = arrays.splits["train"]
    volume = dataclasses.replace(split, images=np.zeros((len(split), 4, 8, 8, 1), np.uint8))
    volumes = arrays.replace(splits={"train": volume})
    with pytest.raises(DataError, match="not volumes"):
        preview.show(Recipe(), volumes, tmp_path / "sheet.png")


def test_the_command_names_the_file(tmp_path, capsys):
    assert cli.main(["data", "digits", "--show", "--augment.rotate", "10"]) == 0
    assert "digits-augmented.png" in capsys.readouterr().out
    with Image.open("digits-augmented.png") as picture:
        assert picture.width > 800
    assert cli.main(["data", "digits", "--show"]) == 2
    assert "there already" in capsys.readouterr().err
    assert cli.main(["data", "--show", "digits"]) == 2
    assert "must end in .png, as in --show digits.png" in capsys.readouterr().err
    assert cli.main(["data", "no such set", "--show", "a b"]) == 2
    assert capsys.readouterr().err.endswith("must end in .png, as in --show 'a b.png'\n")
    assert cli.main(["data", "digits", "--show", "new/deep/sheet.png"]) == 0
    assert (tmp_path / "new/deep/sheet.png").is_file()
    (tmp_path / "file").write_text("")
    assert cli.main(["data", "digits", "--show", "file/sheet.png"]) == 2
    assert "cannot write 'file/sheet.png'" in capsys.readouterr().err
