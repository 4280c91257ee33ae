import numpy as np
import pytest
from PIL import Image

from cnn_jax import Recipe, train
from cnn_jax.data import from_arrays, regions_by_class
from cnn_jax.errors import DataError
from cnn_jax.run_data import load_data

KINDS = ("dent", "good", "scratch")


def tiles(seed=0, masks=None, labels=None, classes=KINDS, **rest):
    """Images of three classes, of which those of the second have nothing marked."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (24, 6, 5, 1)).astype(np.uint8)
    if labels is None:
        labels = np.arange(24) % 3
    if masks is None:
        masks = (rng.random((24, 6, 5)) < 0.3).astype(np.uint8)
        masks[labels == 1] = 0
        masks[0] = 0  # a dent in which nothing is marked
    cut = slice(18, None), slice(12, 18), slice(12)
    test, validation, first = ((images[c], labels[c], masks[c]) for c in cut)
    return from_arrays(
        first[0],
        first[1],
        masks=first[2],
        validation=validation,
        test=test,
        classes=classes,
        **rest,
    )


def test_a_mask_takes_the_class_of_its_image():
    before = tiles()
    found = regions_by_class(before)
    assert found.regions == ("background", "dent", "scratch")
    assert found.digest != before.digest
    for part, split in found.splits.items():
        whole = before.splits[part]
        for n, label in enumerate(split.targets["label"]):
            number = {0: 1, 1: 0, 2: 2}[int(label)]
            np.testing.assert_array_equal(split.masks[n], whole.masks[n] * number)
        assert split.masks.dtype == np.uint8
        assert split.images is whole.images
    assert "'dent', 'scratch'" in found.notes[-1]


def test_all_parts_have_the_same_regions():
    masks = np.zeros((24, 6, 5), np.uint8)
    masks[[14, 19], 2:4] = 1  # a scratch of validation, and of test a good one
    found = regions_by_class(tiles(masks=masks))
    assert found.regions == ("background", "good", "scratch")
    assert not found.splits["train"].masks.any()
    assert set(np.unique(found.splits["validation"].masks)) == {0, 2}
    assert set(np.unique(found.splits["test"].masks)) == {0, 1}


def test_what_is_no_mask_of_one_region_or_no_class():
    with pytest.raises(DataError, match=r"regions: 'dent', 'scratch'\. Leave it out"):
        regions_by_class(regions_by_class(tiles()))
    numbers = np.arange(20 * 16, dtype=np.uint16).reshape(20, 4, 4, 1)
    plain = from_arrays((numbers % 251).astype(np.uint8), np.arange(20) % 2)
    with pytest.raises(DataError, match=r"regions: none\. Set data.masks, too"):
        regions_by_class(plain)
    with pytest.raises(DataError, match="nothing is marked in any mask"):
        regions_by_class(tiles(masks=np.zeros((24, 6, 5), np.uint8)))
    with pytest.raises(DataError, match="called 'background', as is what is not marked: rename"):
        regions_by_class(tiles(classes=("background", "good", "scratch")))
    several = 1 - np.eye(3, dtype=np.float32)[np.arange(24) % 3]
    masks = np.ones((24, 6, 5), np.uint8)
    with pytest.raises(DataError, match=r"one class for each image, and .* has multilabel labels"):
        regions_by_class(tiles(labels=several, masks=masks))


@pytest.mark.heavy
def test_a_recipe_tells_the_kinds_of_defects_apart(tmp_path):
    rng = np.random.default_rng(3)
    for kind in KINDS:
        folder = tmp_path / "tiles" / kind
        folder.mkdir(parents=True)
        for n in range(10):
            picture = rng.integers(90, 110, (16, 16)).astype(np.uint8)
            mask = np.zeros((16, 16), np.uint8)
            if kind == "dent":
                mask[4:9, 3 + n % 8 : 8 + n % 8] = 255
            elif kind == "scratch":
                mask[3 + n, :] = 255
            picture[mask > 0] = 200
            Image.fromarray(picture).save(folder / f"{n}.png")
            Image.fromarray(mask).save(folder / f"{n}_mask.png")
    fields = {
        "data.source": str(tmp_path / "tiles"),
        "data.masks": True,
        "data.regions_by_class": True,
        "data.folds": 2,
        "model.name": "unet",
        "model.options": {"widths": [4, 8], "units": 1},
        "train.epochs": 1,
        "train.batch_size": 6,
    }
    recipe = Recipe().override(fields)
    assert load_data(recipe).regions == ("background", "dent", "scratch")
    run = train(recipe, out=tmp_path / "run")
    predictions = run.masks("test")
    assert predictions.regions == ("background", "dent", "scratch")
    for name, mask in zip(predictions.ids, predictions.masks, strict=True):
        number = {"dent": 1, "good": 0, "scratch": 2}[str(name).partition("/")[0]]
        assert set(np.unique(mask)) == {0, number}
