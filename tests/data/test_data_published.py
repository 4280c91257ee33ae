"""Road signs, pets and birds as their authors distribute them, on made files."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from cnn_jax.data import load
from cnn_jax.data.published import SIGNS, TITLES, Published
from cnn_jax.errors import DataError


def road_signs(root, write_image, training="Final_Training/Images", table="."):
    """Three signs with two tracks each, of three images; four test images."""
    for sign in (0, 14, 42):
        for track in range(2):
            for n in range(3):
                name = f"{sign:05}/{track:05}_{n:05}.ppm"
                write_image(root / training / name, 4 * sign + 6 * track + n)
        (root / training / f"{sign:05}" / f"GT-{sign:05}.csv").write_text("Filename;ClassId\n")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for n, sign in enumerate((14, 0, 0, 42)):
        write_image(root / "Final_Test" / "Images" / f"{n:05}.ppm", 240 + n)
        lines.append(f"{n:05}.ppm;30;30;5;5;25;25;{sign}")
    (root / table / "GT-final_test.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("training", "table"),
    [
        ("Final_Training/Images", "."),
        ("Final_Training/Images", "Final_Test/Images"),
        ("Training", "."),
    ],
)
def test_road_signs(tmp_path, write_image, training, table):
    road_signs(tmp_path / "GTSRB", write_image, training, table)
    found = load("gtsrb", data_dir=tmp_path, validation=0.3)
    assert found.name == "gtsrb" and "Stallkamp" in found.citation
    assert found.classes["label"] == ("speed limit 20", "stop", SIGNS[42])
    assert found.splits["test"].targets["label"].tolist() == [1, 0, 0, 2]
    assert len(found.splits["train"]) + len(found.splits["validation"]) == 18
    # A track is never cut: its images show one sign from the same car.
    tracks = [
        {(i.split("/")[-2], i.split("/")[-1][:5]) for i in found.splits[part].ids.tolist()}
        for part in ("train", "validation")
    ]
    assert tracks[0] and tracks[1] and not tracks[0] & tracks[1]
    assert load(str(tmp_path / "GTSRB"), validation=0.3).digest == found.digest


def test_road_signs_in_torchvisions_folder(tmp_path, write_image):
    road_signs(tmp_path / "gtsrb" / "GTSRB", write_image, "Training", "..")
    found = load("gtsrb", data_dir=tmp_path, validation=0.3)
    assert found.splits["test"].ids[0] == "GTSRB/Final_Test/Images/00000.ppm"
    assert found.splits["train"].ids[0].startswith("GTSRB/Training/000")


@pytest.mark.parametrize("upper", [True, False])
def test_road_signs_of_kaggle(tmp_path, write_image, upper):
    head = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    lines = {"Train": [head], "Test": [head]}
    for sign in (3, 7):
        for track in range(2):
            for n in range(3):
                name = f"Train/{sign}/{sign:05}_{track:05}_{n:05}.png"
                write_image(tmp_path / "signs" / name, 10 * sign + 5 * track + n)
                lines["Train"].append(f"27,26,5,5,22,20,{sign},{name}")
        write_image(tmp_path / "signs" / "Test" / f"{sign:05}.png", 200 + sign)
        lines["Test"].append(f"53,54,6,5,48,49,{sign},Test/{sign:05}.png")
    quoted = ",".join(f'"{name}"' for name in head.split(","))
    for name, rows in lines.items():
        path = tmp_path / "signs" / f"{name if upper else name.lower()}.csv"
        path.write_text("\n".join([quoted, *rows[1:]]))
    found = load(str(tmp_path / "signs"), validation=0.3)
    assert found.classes["label"] == ("speed limit 60", "speed limit 100")
    assert found.splits["test"].targets["label"].tolist() == [0, 1]
    assert set(np.unique(found.splits["train"].groups)) <= {
        "03/00000",
        "03/00001",
        "07/00000",
        "07/00001",
    }


def test_what_is_hidden_is_no_road_sign(tmp_path, write_image):
    road_signs(tmp_path / "GTSRB", write_image)
    training = tmp_path / "GTSRB" / "Final_Training" / "Images"
    (training / ".ipynb_checkpoints").mkdir()
    (training / "00014" / "._00000_00000.ppm").write_bytes(b"not a picture")
    assert len(load("gtsrb", data_dir=tmp_path, validation=0.3).classes["label"]) == 3


def test_answers_of_the_road_signs_are_needed(tmp_path, write_image):
    road_signs(tmp_path / "GTSRB", write_image)
    table = tmp_path / "GTSRB" / "GT-final_test.csv"
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([lines[0].rpartition(";")[0], *(x.rpartition(";")[0] for x in lines[1:])])
    )
    with pytest.raises(DataError, match="needs the columns Filename, ClassId"):
        load("gtsrb", data_dir=tmp_path)
    table.write_text(lines[0] + "\n" + lines[1][:-2] + "43\n")
    with pytest.raises(DataError, match="'43' is no road sign, 0 to 42"):
        load("gtsrb", data_dir=tmp_path)
    table.unlink()
    with pytest.raises(DataError, match=r"GTSRB_Final_Test_GT\.zip"):
        load("gtsrb", data_dir=tmp_path)


@pytest.fixture
def pets(tmp_path, write_image):
    root = tmp_path / "oxford-iiit-pet"
    lists = {"trainval": [], "test": []}
    breeds = {"Abyssinian": (1, 1), "american_bulldog": (2, 2), "Great_Pyrenees": (3, 2)}
    for k, (breed, (number, species)) in enumerate(breeds.items()):
        for n in range(8):
            write_image(root / "images" / f"{breed}_{n}.jpg", 50 * k + n)
            part = "test" if n > 5 else "trainval"
            lists[part].append(f"{breed}_{n} {number} {species} {k + 1}")
    (root / "annotations").mkdir()
    for part, lines in lists.items():
        head = "#Image CLASS-ID SPECIES BREED ID\n" if part == "test" else ""
        (root / "annotations" / f"{part}.txt").write_text(head + "\n".join(lines) + "\n")
    return root


def test_pets(pets):
    found = load("oxford_pets", data_dir=pets.parent)
    assert found.classes["label"] == ("Abyssinian", "Great Pyrenees", "american bulldog")
    assert found.classes["species"] == ("cat", "dog") and "Parkhi" in found.citation
    test = found.splits["test"]
    assert test.targets["label"].tolist() == [0, 0, 2, 2, 1, 1]
    assert test.targets["species"].tolist() == [0, 0, 1, 1, 1, 1]
    assert test.ids[2] == "images/american_bulldog_6.jpg"
    coarse = load(str(pets), label="species")
    assert coarse.classes["label"] == ("cat", "dog") and "breed" in coarse.classes
    assert next(iter(coarse.splits["test"].targets)) == "label"
    with pytest.raises(DataError, match="no label 'colour'; it has 'breed', 'species'"):
        load(str(pets), label="colour")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Abyssinian_900 1 1 1", r"1 of 7 images listed are not in .*: 'images/Abyssinian_900"),
        ("Abyssinian_9 1 1", "needs 4 words a line, not 'Abyssinian_9 1 1'"),
        ("Abyssinian_7 1 3 1", "is no pet"),
    ],
)
def test_pets_that_do_not_fit(pets, line, message):
    with open(pets / "annotations" / "test.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        load(str(pets))


@pytest.fixture
def birds(tmp_path, write_image):
    root = tmp_path / "CUB_200_2011"
    kinds = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_winged_Blackbird")
    lists = {name: [] for name in ("images", "image_class_labels", "train_test_split", "classes")}
    number = 0
    for kind in kinds:
        label = int(kind[:3])
        lists["classes"].append(f"{label} {kind}")
        for n in range(8):
            number += 1
            write_image(root / "images" / kind / f"bird_{n}.jpg", number)
            lists["images"].append(f"{number} {kind}/bird_{n}.jpg")
            lists["image_class_labels"].append(f"{number} {label}")
            lists["train_test_split"].append(f"{number} {int(n < 6)}")
    for name, lines in lists.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_birds(birds):
    found = load("cub", data_dir=birds.parent)
    assert found.classes["label"] == (
        *("Black footed Albatross", "Laysan Albatross", "Red winged Blackbird"),
    )
    assert found.splits["test"].targets["label"].tolist() == [0, 0, 1, 1, 2, 2]
    assert found.splits["test"].ids[4] == "images/010.Red_winged_Blackbird/bird_6.jpg"
    assert len(found.splits["train"]) + len(found.splits["validation"]) == 18
    assert "Wah" in found.citation


def test_birds_that_do_not_fit(birds):
    labels = birds / "image_class_labels.txt"
    whole = labels.read_text()
    labels.write_text(whole.replace("24 10\n", ""))
    with pytest.raises(DataError, match="says nothing of 1 images: '24'"):
        load(str(birds))
    labels.write_text(whole.replace("24 10\n", "24 77\n"))
    with pytest.raises(DataError, match="names no class '77'"):
        load(str(birds))
    labels.write_text(whole)
    split = birds / "train_test_split.txt"
    kept = split.read_text()
    split.write_text(kept.replace("3 1\n", "3 True\n", 1))
    with pytest.raises(DataError, match="image 3 is of part 'True'"):
        load(str(birds))
    split.write_text(kept.replace(" 0\n", " 1\n"))
    with pytest.raises(DataError, match="name no image for one of the two parts"):
        load(str(birds))
    split.write_text(kept)
    classes = birds / "classes.txt"
    named = classes.read_text()
    classes.write_text(named + "x 011.Crow\n")
    with pytest.raises(DataError, match="'x' is no number of a class"):
        load(str(birds))
    classes.write_text("1 001.Gull\n2 002.Gull\n10 010.Crow\n")
    assert load(str(birds)).classes["label"] == ("001.Gull", "002.Gull", "010.Crow")
    classes.write_text(named)
    with pytest.raises(DataError, match="has one target"):
        load(str(birds), label="family")


def test_every_layout_is_told_of_where_people_look(tmp_path):
    assert set(TITLES) == set(get_args(Published))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no known layout") as error:
        load(str(tmp_path / "empty"))
    guide = Path(__file__).parents[2] / "docs" / "guide" / "data.md"
    for told in (str(error.value), load.__doc__, guide.read_text("utf-8")):
        words = " ".join(told.split())
        assert [title for title in TITLES.values() if title not in words] == []
