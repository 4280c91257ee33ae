"""Files that cannot be read among many that can."""

import csv

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import few_shots, files, fold, load
from cnn_jax.errors import DataError

BAD = ("blue/03.png", "blue/04.gif", "red/00.png", "red/11.png")


def picture(number, colour):
    pixels = np.random.default_rng(number).integers(0, 60, (12, 10, 3)).astype(np.uint8)
    pixels[..., colour] += 180
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Two classes of twelve, and among them a cut file, an animation, an empty file and a text."""
    root = tmp_path / "set"
    for colour, name in ((0, "red"), (2, "blue")):
        (root / name).mkdir(parents=True)
        for n in range(12):
            Image.fromarray(picture(n + 50 * colour, colour)).save(root / name / f"{n:02}.png")
    whole = (root / "blue" / "03.png").read_bytes()
    (root / "blue" / "03.png").write_bytes(whole[: len(whole) // 2])
    (root / "blue" / "04.png").unlink()
    frames = [Image.fromarray(picture(n, 2)) for n in range(3)]
    frames[0].save(root / "blue" / "04.gif", save_all=True, append_images=frames[1:])
    (root / "red" / "00.png").write_bytes(b"")
    (root / "red" / "11.png").write_text("no picture")
    return root


def ids_of(dataset):
    return sorted(name for split in dataset.splits.values() for name in split.ids.tolist())


def check(dataset, root, bad=BAD):
    """All others are there, with their pixels and labels, and the bad ones are told."""
    assert set(dataset.unread) == set(bad)
    good = sorted({path.relative_to(root).as_posix() for path in root.rglob("*.*")} - set(bad))
    assert ids_of(dataset) == good
    for split in dataset.splits.values():
        for n, name in enumerate(split.ids.tolist()):
            pixels = np.asarray(Image.open(root / name).convert("RGB"))
            np.testing.assert_array_equal(split.read_images(np.array([n]))[0], pixels)
            red = dataset.classes["label"][split.targets["label"][n]] == "red"
            assert red == name.startswith("red") == (pixels[..., 0].min() > 100)


def test_by_default_it_stops_and_names_them(folder):
    with pytest.raises(DataError, match="3 damaged image files must be replaced") as stopped:
        load(str(folder))
    for name in ("03.png", "00.png", "11.png"):
        assert name in str(stopped.value)
    with pytest.raises(DataError, match="one of stop, leave-out, not 'skip'"):
        load(str(folder), unreadable="skip")


def test_they_are_left_out_named_and_counted(folder):
    dataset = load(str(folder), unreadable="leave-out")
    check(dataset, folder)
    assert "several pictures" in dataset.unread["blue/04.gif"]
    assert "no known format" in dataset.unread["red/11.png"]
    note = next(note for note in dataset.notes if "cannot be read" in note)
    assert "left out as they cannot be read: 4 ('blue/03.png', 'blue/04.gif'" in note
    # What is made of the data still knows.
    assert fold(dataset, 2, 1).unread == few_shots(dataset, 2).unread == dataset.unread
    # Larger than memory: decoded when it is needed.
    check(load(str(folder), unreadable="leave-out", memory_limit=1), folder)
    # Nothing is wrong with the others.
    for name in BAD:
        (folder / name).unlink()
    sound = load(str(folder), unreadable="leave-out")
    assert sound.unread == {} and not any("cannot be read" in note for note in sound.notes)
    assert sound.digest == load(str(folder)).digest == dataset.digest


def test_groups_and_masks_stay_with_their_images(folder):
    paths = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
    with open(folder / "groups.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "group"))
        rows.writerows((name, f"tile {int(name[-6:-4]) // 2} of {name[:3]}") for name in paths)
    for number, name in enumerate(paths):
        mask = np.zeros((12, 10), np.uint8)
        mask[number % 12] = 255
        Image.fromarray(mask).save(folder / f"{name[:-4]}_mask.png")
    dataset = load(str(folder), unreadable="leave-out", masks=True)
    assert set(dataset.unread) == set(BAD) and len(ids_of(dataset)) == 20
    for split in dataset.splits.values():
        for name, group, mask in zip(split.ids, split.groups, split.masks, strict=True):
            assert group == f"tile {int(name[-6:-4]) // 2} of {name[:3]}"
            np.testing.assert_array_equal(np.flatnonzero(mask.any(axis=1)), paths.index(name) % 12)
    # A mask that cannot be read stops: without it the image would count as sound.
    (folder / "red" / "05_mask.png").write_text("no mask")
    with pytest.raises(DataError, match=r"05_mask\.png"):
        load(str(folder), unreadable="leave-out", masks=True)


def test_a_table_names_them_by_its_paths(folder, tmp_path):
    table = tmp_path / "labels.csv"
    paths = sorted(p.relative_to(tmp_path).as_posix() for p in folder.rglob("*.*"))
    with open(table, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label"))
        rows.writerows((name, name.split("/")[1]) for name in paths)
    dataset = load(str(table), unreadable="leave-out")
    assert set(dataset.unread) == {f"set/{name}" for name in BAD}
    assert ids_of(dataset) == [name for name in paths if name.removeprefix("set/") not in BAD]


def test_a_part_of_which_nothing_is_left(folder):
    for path in folder.rglob("*.*"):
        path.write_text("no picture")
    with pytest.raises(DataError, match="none of the 24 images of the train part can be read"):
        load(str(folder), unreadable="leave-out")


def test_groups_need_not_name_what_is_left_out(folder, monkeypatch):
    listed = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.*"))]
    table = folder / "groups.csv"
    lines = [f"{name},{name[-6:-4]}" for name in listed if name not in BAD or name.endswith("gif")]
    table.write_text("\n".join(["path,group", *lines]))
    with pytest.raises(DataError, match="3 damaged image files must be replaced"):
        load(str(folder))
    dataset = load(str(folder), unreadable="leave-out")
    assert set(dataset.unread) == set(BAD)
    names = {name for split in dataset.splits.values() for name in split.groups.tolist()}
    assert names == {f"{n:02}" for n in range(12)}
    table.write_text("\n".join(["path,group", *lines[1:]]))
    with pytest.raises(DataError, match=r"lacks 4 images: 'blue/00\.png'"):
        load(str(folder), unreadable="leave-out")
    rows = [f"{name.replace('/', '-')},all" for name in listed]
    table.write_text("\n".join(["path,group", *rows]))
    monkeypatch.setattr(files, "unreadable", None)  # nothing is decoded where no path fits
    with pytest.raises(DataError, match=r"lacks 24 images: 'blue/00\.png'"):
        load(str(folder), unreadable="leave-out")
