import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn_jax.data import Split, fold, from_arrays, load, original_masks, tfds_place
from cnn_jax.data.decode import decode_image, resize_values, restore_values
from cnn_jax.errors import DataError


def blob(number, size=(24, 20)):
    """A mask, bool `[H, W]`, whose place tells the number of its image."""
    mask = np.zeros(size, bool)
    mask[4 + number % 8 : 14 + number % 8, 3:12] = True
    return mask


def write(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of images that are bright where they are marked, so that a mask tells its image;
    each mask in another format."""
    modes = ("1", "L", "RGB", "RGBA", "P", "LA")
    for name in ("ill", "well"):
        for i in range(12):
            mask = blob(i) if name == "ill" else np.zeros((24, 20), bool)
            image = (150 * mask + 20 + i).astype(np.uint8)
            write(tmp_path / "set" / name / f"x {i}.png", image)
            write(tmp_path / "set" / name / f"x {i}_mask.png", mask * np.uint8(255), modes[i % 6])
    return tmp_path / "set"


def test_masks_belong_to_their_images_through_parts_and_folds(folder):
    dataset = load(str(folder), masks=True)
    assert dataset.regions == ("background", "lesion")
    assert dataset.classes["label"] == ("ill", "well")
    assert not any("left out" in note for note in dataset.notes)
    for whole in (dataset, fold(dataset, 3, 2)):
        assert sum(len(split) for split in whole.splits.values()) == 24
        for split in whole.splits.values():
            assert split.masks.dtype == np.uint8
            np.testing.assert_array_equal(split.images[..., 0] > 100, split.masks == 1)


def test_another_mask_is_another_data_set(folder):
    before = load(str(folder), masks=True).digest
    assert load(str(folder)).digest != before
    write(folder / "ill" / "x 3_mask.png", blob(4) * np.uint8(255))
    assert load(str(folder), masks=True).digest != before


def test_several_masks_of_an_image_are_one(folder):
    write(folder / "ill" / "x 1_mask_1.png", np.ones((24, 20), np.uint8))
    dataset = load(str(folder), masks=True)
    (mask,) = [
        split.masks[i]
        for split in dataset.splits.values()
        for i in np.flatnonzero(split.ids == "ill/x 1.png")
    ]
    assert mask.all()


def test_photos_with_masks_of_their_name_and_folders_of_each(tmp_path):
    for i in range(6):
        image = (100 * blob(i) + i).astype(np.uint8)
        write(tmp_path / "a" / "hole" / f"{i}.jpg", image)
        write(tmp_path / "a" / "hole" / f"{i}.png", blob(i) * np.uint8(1))
        write(tmp_path / "b" / "images" / "day" / f"{i}.png", image)
        name = f"{i}_mask.png" if i % 2 else f"{i}.png"
        write(tmp_path / "b" / "masks" / "day" / name, blob(i) * np.uint8(7))
    for root in ("a", "b"):
        splits = load(str(tmp_path / root), masks=True).splits.values()
        assert sum(len(split) for split in splits) == 6
        for split in splits:
            for name, mask in zip(split.ids, split.masks, strict=True):
                number = int(name.rsplit("/", 1)[1].split(".")[0])
                np.testing.assert_array_equal(mask, blob(number))


def test_values_are_regions_where_these_are_named(folder):
    values = np.where(blob(2), 2, 1).astype(np.uint8)
    for i in range(12):
        write(folder / "ill" / f"x {i}_mask.png", values)
        write(folder / "well" / f"x {i}_mask.png", values.astype(np.uint16))  # 16 bit
    dataset = load(str(folder), masks=True, regions=("organ", "tumour"))
    assert dataset.regions == ("background", "organ", "tumour")
    for split in dataset.splits.values():
        assert (split.masks == values).all()
    with pytest.raises(DataError, match=r"has the value 2, but data.regions names 1"):
        load(str(folder), masks=True, regions=("organ",))
    with pytest.raises(DataError, match="different names"):
        load(str(folder), masks=True, regions=("organ", "organ"))


def damaged(path):
    path.write_bytes(path.read_bytes()[:40])


def frames(path):
    pages = [Image.fromarray(np.zeros((24, 20), np.uint8)) for _ in range(3)]
    path.unlink()
    pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:])


def smooth(path):
    write(path, np.arange(480, dtype=np.uint8).reshape(24, 20))


BAD = {
    "lacking": (lambda path: path.unlink(), r"1 of 24 images have no mask: .*ill/x 5.png"),
    "smaller": (
        lambda path: write(path, np.zeros((12, 10), np.uint8)),
        r"x 5_mask.png' is 10×12, but its image is 20×24 pixels",
    ),
    "turned": (lambda path: write(path, blob(5).T * np.uint8(255)), "is 24×20, but"),
    "smooth": (smooth, r"has 255 values beside black.*Save it without smoothing"),
    "coloured": (
        lambda path: write(
            path, np.dstack([blob(5) * np.uint8(255)] + 2 * [blob(5) * np.uint8(0)]), "RGB"
        ),
        "is coloured",
    ),
    "frames": (frames, "has 3 frames: a mask is one picture"),
    "damaged": (damaged, "cannot be read as an image"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_masks_are_named(folder, name):
    spoil, message = BAD[name]
    spoil(folder / "ill" / "x 5_mask.png")
    with pytest.raises(DataError, match=message):
        load(str(folder), masks=True)


def test_masks_are_asked_only_of_what_has_them(folder, tmp_path):
    with pytest.raises(DataError, match=r"data\.masks"):
        load(str(folder), regions=("organ",))
    with pytest.raises(DataError, match="'digits' is none"):
        load("digits", masks=True)


def test_what_the_crop_cuts_off_is_told(folder):
    cut = np.zeros((24, 20), np.uint8)
    cut[0, 3] = cut[12, 12] = 255
    write(folder / "ill" / "x 5_mask.png", cut)
    notes = load(str(folder), masks=True, image_size=8).notes
    assert sum("1 train mask lost a part outside of the crop to 8×8" in note for note in notes) == 1
    for more in ({}, {"image_size": 8, "fit": "pad"}):
        assert not any("lost" in note for note in load(str(folder), masks=True, **more).notes)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_no_piece_vanishes_in_making_images_smaller(fit):
    """Three lesions of two pixels in each image, at an eighth of its size: none is lost."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        values = np.zeros((128, 120), np.uint8)
        for value in (1, 1, 2):
            row, column = 8 * rng.integers(0, 15, 2)
            values[row : row + 2, column : column + 1] = value
        small, lost = resize_values(values, (16, 15), fit)
        assert lost == 0 and set(np.unique(values)) <= set(np.unique(small)) | {0}
        if fit == "stretch":
            # Pieces that begin at different pixels of the small image stay apart.
            at = {(r // 8, c // 8): values[r, c] for r, c in np.argwhere(values)}
            assert (small > 0).sum() == len(at)


def test_marks_by_transparency_are_no_black_mask(folder):
    pixels = np.zeros((24, 20, 4), np.uint8)
    pixels[..., 3] = blob(5) * np.uint8(255)
    write(folder / "ill" / "x 5_mask.png", pixels)
    with pytest.raises(DataError, match="marks by transparency"):
        load(str(folder), masks=True)


def test_folders_called_masks_above_and_below(folder, tmp_path):
    place = tmp_path / "masks" / "of all"
    folder.rename(place.parent.mkdir() or place)
    assert load(str(place), masks=True).regions
    for name in ("ill", "well"):
        for kind in ("images", "masks"):
            (place / name / kind).mkdir()
        for file in list((place / name).glob("*.png")):
            file.rename(file.parent / ("masks" if "_mask" in file.stem else "images") / file.name)
    dataset = load(str(place), masks=True)
    assert sum(len(split) for split in dataset.splits.values()) == 24
    write(place / "ill" / "masks" / "y 1_mask.png", blob(1) * np.uint8(255))
    with pytest.raises(DataError, match=r"y 1_mask\.png' belongs to no image"):
        load(str(place), masks=True)


def test_masks_are_not_lost_in_writing_a_set_of_tfds(folder, tmp_path):
    with pytest.raises(DataError, match="masks of 'set' would be lost"):
        tfds_place(load(str(folder), masks=True), tmp_path / "out")


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(12, 60), st.integers(12, 60)),
    size=st.tuples(st.integers(12, 60), st.integers(12, 60)),
)
def test_masks_go_where_pixels_go_and_back(fit, shape, size):
    """A disc as image and as mask; and brought back from the network's size to the image's."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    radius = min(shape) / 3
    disc = (row - shape[0] / 2) ** 2 + (column - shape[1] / 2) ** 2 < radius**2
    picture = Image.fromarray(disc * np.uint8(255))
    shown = decode_image(picture, (*size, 1), fit)[..., 0] > 127
    marked = resize_values(disc.astype(np.uint8), size, fit)[0] > 0
    # Pixels on the outline may differ: one of antialiasing, one of rounding.
    outline = 2 * np.pi * max(size) * max(1, size[0] / shape[0], size[1] / shape[1])
    assert (shown != marked).sum() <= outline
    back = restore_values(marked.astype(np.uint8), shape, fit)
    assert back.shape == shape
    covered = restore_values(np.ones(size, np.uint8), shape, fit) > 0
    if fit != "crop":
        assert covered.all()
    coarse = max(1, shape[0] / size[0], shape[1] / size[1])
    allowed = 2 * np.pi * radius * (1.5 * coarse + 1)
    assert ((back > 0) != disc)[covered].sum() <= allowed
    assert not back[~covered].any()


def arrays(n=30):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (n, 8, 8), np.uint8), np.arange(n) % 2


def test_arrays_with_masks():
    images, labels = arrays()
    masks = (images > 128).astype(np.int64)
    dataset = from_arrays(images, labels, masks=masks)
    assert dataset.regions == ("background", "lesion")
    for split in dataset.splits.values():
        np.testing.assert_array_equal(split.masks, split.images[..., 0] > 128)
    several = from_arrays(images, 0 * labels, masks=masks * 2)  # one class will do
    assert several.regions == ("background", "region 1", "region 2")
    volumes = np.repeat(images[..., None, None], 3, axis=3)
    dataset = from_arrays(volumes, labels, masks=np.repeat(masks[..., None], 3, axis=3))
    assert dataset.image_shape == (8, 8, 3, 1) and dataset.spacing is None
    spaced = from_arrays(images, labels, masks=masks, spacing=(2, 0.5))
    assert spaced.spacing == (2.0, 0.5)
    with pytest.raises(DataError, match="2 positive numbers"):
        from_arrays(images, labels, masks=masks, spacing=(1, 1, 1))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((30, 8, 7), np.uint8), r"train masks are uint8 \[30, 8, 7\], not integers"),
        (np.zeros((30, 8, 8)), "float64"),
        (np.full((30, 8, 8), 256), "lie in 256..256"),
        (np.full((30, 8, 8), -1), "lie in -1..-1"),
    ],
)
def test_arrays_that_are_no_masks(masks, message):
    with pytest.raises(DataError, match=message):
        from_arrays(*arrays(), masks=masks)


def test_a_mask_outside_the_regions_and_parts_without_masks():
    images, labels = arrays()
    masks = np.zeros((30, 8, 8), np.uint8)
    masks[7, 2, 2] = 3
    with pytest.raises(DataError, match=r"mask of 'train/00007' .* has the value 3, outside 0..1"):
        from_arrays(images, labels, masks=masks, regions=("background", "lesion"))
    with pytest.raises(DataError, match="'test' has no masks"):
        from_arrays(images, labels, masks=masks, test=(images, labels))
    ids = np.array(["a", "b"])
    with pytest.raises(DataError, match=r"masks must be uint8 \[2, 8, 8\]"):
        Split(images[:2, ..., None], {}, ids, masks=masks[:3])


def test_masks_of_data_that_are_classified_are_found_by_id(folder, tmp_path):
    wanted = ["ill/x 3.png", "well/x 2.png", "ill/x 10.png"]
    (folder / "ill" / "x 10_mask.png").unlink()  # an image may have none
    for fit in ("crop", "pad"):
        found = original_masks(folder.name, wanted, (16, 16), data_dir=folder.parent, fit=fit)
        assert list(found) == wanted[:2]
        expected, _ = resize_values(blob(3).astype(np.uint8), (16, 16), fit)
        np.testing.assert_array_equal(found["ill/x 3.png"], expected)
        assert not found["well/x 2.png"].any()
    assert original_masks(str(folder), ["ill/x 10.png"], (16, 16)) == {}
    write(folder / "ill" / "x 3_mask.png", np.arange(480, dtype=np.uint8).reshape(24, 20))
    with pytest.raises(DataError, match="values beside black"):
        original_masks(str(folder), wanted, (16, 16))
    table = tmp_path / "set.csv"
    table.write_text("path,label\n" + "\n".join(f"{name},a" for name in wanted))
    assert original_masks(str(table), wanted, (16, 16)) == {}
    assert original_masks("digits", ["0"], (8, 8)) == {}


@pytest.fixture
def defects(tmp_path):
    """Laid out as MVTec AD is: the train part has normal images only, masks are apart."""
    root = tmp_path / "bottle"
    for part, name, count in (
        ("train", "good", 9),
        ("test", "good", 3),
        ("test", "crack", 4),
        ("test", "hole", 2),
    ):
        for i in range(count):
            mask = blob(i + 4 * (name == "hole")) & (name != "good")
            image = (150 * mask + 20 + i + 40 * (part == "test")).astype(np.uint8)
            write(root / part / name / f"{i:03}.png", image)
            if name != "good":
                place = root / "ground_truth" / name / f"{i:03}_mask.png"
                write(place, mask * np.uint8(255))
    (root / "readme.txt").write_text("a set of defects")
    return root


def test_defects_with_masks_apart(defects):
    dataset = load(str(defects), masks=True)
    assert dataset.classes["label"] == ("crack", "good", "hole")
    assert {part: len(split) for part, split in dataset.splits.items()} == {
        "train": 8,
        "validation": 1,
        "test": 9,
    }
    for split in dataset.splits.values():
        np.testing.assert_array_equal(split.images[..., 0] > 100, split.masks == 1)
    assert dataset.splits["test"].masks.any(axis=(1, 2)).sum() == 6
    assert dataset.notes[0] == "Files left out as not images: 1 ('readme.txt')."
    plain = load(str(defects))
    assert plain.splits["test"].masks is None and len(plain.splits["test"]) == 9
    assert plain.notes[0] == "Files left out as masks of other images: 6."
    assert "2 of 3 classes have no train image: 'crack', 'hole'." in plain.notes
    found = original_masks(str(defects), plain.splits["test"].ids, (20, 20))
    assert sorted(found) == [
        f"test/{n}/{i:03}.png" for n, k in [("crack", 4), ("hole", 2)] for i in range(k)
    ]


def test_masks_apart_that_do_not_fit(defects):
    gone = defects / "ground_truth" / "hole" / "001_mask.png"
    kept = gone.read_bytes()
    gone.unlink()
    with pytest.raises(DataError, match=r"1 of 9 images have no mask: .*hole/001.png"):
        load(str(defects), masks=True)
    gone.write_bytes(kept)
    extra = gone.with_name("007_mask.png")
    extra.write_bytes(kept)
    with pytest.raises(DataError, match=r"ground_truth/hole/007_mask.png' belongs to no image"):
        load(str(defects), masks=True)
    extra.unlink()
    write(defects / "train" / "hole" / "000.png", np.zeros((24, 20), np.uint8))
    with pytest.raises(DataError, match=r"1 of 10 images have no mask: .*train/hole/000.png"):
        load(str(defects), masks=True)


def test_a_class_called_ground_truth_is_one_where_there_is_no_test_part(tmp_path):
    for name in ("ground_truth", "other"):
        for i in range(4):
            write(tmp_path / "set" / name / f"{i}.png", np.full((8, 8), 9 * i, np.uint8))
    assert load(str(tmp_path / "set")).classes["label"] == ("ground_truth", "other")
