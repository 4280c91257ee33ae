import os
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.data import load
from cnn_jax.errors import DataError


@pytest.fixture
def folder(tmp_path, write_image):
    root = tmp_path / "set"
    for name, value in (("cat", 10), ("dog", 200)):
        for i in range(10):
            write_image(root / name / f"{i}.png", value + i)
    return root


def all_of(dataset, get):
    return np.concatenate([get(split) for split in dataset.splits.values()])


def test_pixels_labels_and_ids_belong_together(folder):
    dataset = load(str(folder))
    assert dataset.name == "set" and dataset.classes["label"] == ("cat", "dog")
    assert dataset.image_shape == (5, 6, 1)
    assert [len(split) for split in dataset.splits.values()] == [14, 3, 3]
    for split in dataset.splits.values():
        for image, label, name in zip(split.images, split.targets["label"], split.ids, strict=True):
            kind, file = name.split("/")
            assert label == ("cat", "dog").index(kind)
            assert (image == (10, 200)[label] + int(Path(file).stem)).all()


def test_parts_of_any_case_and_deeper_images(tmp_path, write_image):
    for part in ("Training", "VAL", "testing"):
        for name in ("a", "b"):
            write_image(tmp_path / part / name / "Imgs" / "x.png")
    dataset = load(str(tmp_path))
    assert dataset.splits["validation"].ids.tolist() == ["VAL/a/Imgs/x.png", "VAL/b/Imgs/x.png"]
    assert [len(split) for split in dataset.splits.values()] == [2, 2, 2]


def test_masks_and_other_files_are_left_out_and_counted(folder, write_image):
    for name in ("cat/3_mask.png", "cat/3_mask_1.png", "dog/photo.png"):
        write_image(folder / name)
    write_image(folder / "dog/photo.jpg")
    write_image(folder / "dog/lone_mask.png")
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "README.md").write_text("about")
    write_image(folder / "cat" / ".hidden.png")
    dataset = load(str(folder))
    ids = set(all_of(dataset, lambda split: split.ids))
    assert len(ids) == 22 and {"dog/photo.jpg", "dog/lone_mask.png"} <= ids
    assert "Files left out as masks of other images: 3." in dataset.notes
    assert "Files left out as not images: 2 ('Thumbs.db', 'README.md')." in dataset.notes


def test_groups_are_kept_whole(folder):
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(10)]
    lines = [f"{name},{k // 2}" for k, name in enumerate(names)]
    (folder / "groups.csv").write_text("path,group\n" + "\n".join(lines))
    dataset = load(str(folder))
    groups = [set(split.groups) for split in dataset.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    (folder / "groups.csv").write_text("path,group\n" + "\n".join(lines[:-4]))
    with pytest.raises(DataError, match=r"lacks 4 images: 'dog/6\.png'"):
        load(str(folder))
    (folder / "groups.csv").write_text("name,patient\n")
    with pytest.raises(DataError, match="must have the two columns path,group"):
        load(str(folder))


STRANGE = ["with space", "quo'te\"s", "new\nline", "ünïcödé 猫", "<b>&amp;<i>", "comma,", "%s{}"]


def test_strange_names_are_read_as_they_are(tmp_path, write_image):
    for name in STRANGE:
        for i in range(3):
            write_image(tmp_path / name / f"{name}{i}.png")
    dataset = load(str(tmp_path))
    assert set(dataset.classes["label"]) == set(STRANGE)
    ids = set(all_of(dataset, lambda split: split.ids))
    assert ids == {f"{name}/{name}{i}.png" for name in STRANGE for i in range(3)}


def test_messages_stay_one_line(folder):
    (folder / "new\nline").mkdir()
    with pytest.raises(DataError) as caught:
        load(str(folder))
    assert "has no image" in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_class_folder_is_named(folder):
    (folder / "bird").mkdir()
    with pytest.raises(DataError, match="bird' has no image"):
        load(str(folder))


def test_images_outside_a_class_are_named(folder, write_image):
    write_image(folder / "stray.png")
    with pytest.raises(DataError, match=r"outside any class folder: 'stray\.png'"):
        load(str(folder))


def test_parts_and_classes_do_not_mix(folder, write_image):
    write_image(folder / "test" / "cat" / "1.png")
    with pytest.raises(DataError, match="mixes folders of parts"):
        load(str(folder))


def test_two_folders_for_one_part_and_no_train(tmp_path, write_image):
    for part in ("val", "valid"):
        write_image(tmp_path / part / "a" / "1.png")
    with pytest.raises(DataError, match="are both a validation part"):
        load(str(tmp_path))
    (tmp_path / "valid").rename(tmp_path / "test")
    with pytest.raises(DataError, match="no folder 'train'"):
        load(str(tmp_path))


def test_one_class_is_refused(tmp_path, write_image):
    for i in range(9):
        write_image(tmp_path / "only" / f"{i}.png")
    with pytest.raises(DataError, match="of one class"):
        load(str(tmp_path))


def test_a_class_without_train_images_is_noted(tmp_path, write_image):
    for i in range(10):
        write_image(tmp_path / "train" / "ab"[i % 2] / f"{i}.png")
    write_image(tmp_path / "test" / "c" / "1.png")
    notes = load(str(tmp_path)).notes
    assert "1 of 3 classes have no train image: 'c'." in notes
    assert "1 of 3 classes have no validation image: 'c'." in notes


def test_a_class_of_one_image_is_learned_and_its_absence_elsewhere_noted(tmp_path, write_image):
    for i in range(40):
        write_image(tmp_path / "ab"[i % 2] / f"{i}.png")
    write_image(tmp_path / "c" / "1.png")
    dataset = load(str(tmp_path))
    assert 2 in dataset.splits["train"].targets["label"]
    for part in ("validation", "test"):
        assert f"1 of 3 classes have no {part} image: 'c'." in dataset.notes


def test_classes_of_two_parts_that_differ_in_letter_case_are_refused(tmp_path, write_image):
    for i in range(10):
        write_image(tmp_path / "train" / ("rose", "A", "a")[i % 3] / f"{i}.png")
    write_image(tmp_path / "test" / "A" / "1.png")
    assert load(str(tmp_path)).classes["label"] == ("A", "a", "rose")
    write_image(tmp_path / "test" / "Rose" / "1.png")
    with pytest.raises(DataError, match=r"test/Rose' and .*train/rose' .* rename .* to 'rose'$"):
        load(str(tmp_path))


def test_links_are_followed_but_not_in_circles(folder, tmp_path, write_image):
    write_image(tmp_path / "elsewhere" / "x.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert "linked" in load(str(folder)).classes["label"]
    (folder / "cat" / "up").symlink_to(folder)
    with pytest.raises(DataError, match="link back to a folder it lies in"):
        load(str(folder))


def test_links_to_nothing_and_to_themselves(folder):
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(DataError, match="gone"):
        load(str(folder))
    (folder / "cat" / "gone.png").unlink()
    (folder / "cat" / "self").symlink_to(folder / "cat" / "self")
    assert "Files left out as not images: 1 ('self')." in load(str(folder)).notes


def test_an_unreadable_folder_is_named(folder, monkeypatch):
    listdir = os.listdir

    def refuse(path):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(DataError, match="dog' cannot be listed"):
        load(str(folder))


def test_damaged_images_are_counted_and_named(folder):
    for i in range(4):
        path = folder / "cat" / f"{i}.png"
        path.write_bytes(path.read_bytes()[:45])
    with pytest.raises(DataError, match="must be replaced or removed") as caught:
        load(str(folder))
    message = str(caught.value)
    assert message.startswith("4 damaged image files must be") and "\n" not in message
    assert "--data.unreadable leave-out" in message  # what else can be done
    assert all(f"cat/{i}.png" in message for i in range(4))


def test_damage_of_headers_and_of_pixels_in_all_parts_is_named_at_once(tmp_path, write_image):
    for part in ("train", "test"):
        for i in range(6):
            write_image(tmp_path / part / "ab"[i % 2] / f"{i}.png")
    pixels = tmp_path / "test" / "a" / "4.png"
    pixels.write_bytes(pixels.read_bytes()[:45])
    with pytest.raises(DataError, match=r"^1 damaged image file must be .*test/a/4\.png"):
        load(str(tmp_path))
    for damaged, contents in (("train/a/0.png", b"no image"), ("train/b/1.png", None)):
        path = tmp_path / damaged
        path.write_bytes(contents or path.read_bytes()[:45])
        with pytest.raises(DataError) as caught:
            load(str(tmp_path))
        assert damaged in str(caught.value) and "test/a/4.png" in str(caught.value)
    assert str(caught.value).startswith("3 damaged image files")
    for i in range(30):
        (tmp_path / "train" / "a" / f"x{i:02d}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^33 damaged .*; and 13 more$"):
        load(str(tmp_path))


def test_beyond_the_memory_limit_images_are_read_when_needed(folder):
    held, lazy = load(str(folder)), load(str(folder), memory_limit=20 * 30 - 1)
    assert held.splits["train"].in_memory and not lazy.splits["train"].in_memory
    assert load(str(folder), memory_limit=20 * 30).splits["train"].in_memory
    for part in held.splits:
        here = np.arange(len(held.splits[part]))[::-1]
        np.testing.assert_array_equal(
            lazy.splits[part].read_images(here), held.splits[part].read_images(here)
        )
    again = load(str(folder), memory_limit=0)
    assert lazy.digest == again.digest != load(str(folder), memory_limit=0, channels=3).digest
    (folder / "cat" / "0.png").write_bytes((folder / "cat" / "1.png").read_bytes())
    assert load(str(folder), memory_limit=0).digest != lazy.digest


def test_sizes_and_channels_are_chosen(tmp_path, write_image):
    for i, size in enumerate([(30, 20), (40, 50), (25, 60), (22, 90)]):
        for name in ("a", "b"):
            write_image(tmp_path / "some" / name / f"{i}.png", size=size)
    dataset = load(str(tmp_path / "some"))
    assert dataset.image_shape == (23, 23, 1)  # the median of 20, 40, 25, 22, rounded down
    assert any("median short side is 23" in note for note in dataset.notes)
    write_image(tmp_path / "some" / "a" / "rgb.png", (1, 2, 3), mode="RGB")
    assert load(str(tmp_path / "some")).image_shape[2] == 3
    assert load(str(tmp_path / "some"), image_size=7, channels=1).image_shape == (7, 7, 1)
    for i in range(20):
        write_image(tmp_path / "large" / "ab"[i % 2] / f"{i}.png", size=(300, 250))
    assert load(str(tmp_path / "large"), memory_limit=0).image_shape == (224, 224, 1)
