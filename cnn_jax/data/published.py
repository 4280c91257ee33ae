"""Sets in the layouts in which their authors distribute them: road signs, pets and birds.

- GTSRB: `Final_Training/Images/00000/*.ppm` (or `Training/...`) and `Final_Test/Images/*.ppm` with
  the table `GT-final_test.csv`; or, as on Kaggle, `Train.csv` and `Test.csv` of paths.
- Oxford-IIIT Pet: `images/*.jpg`, `annotations/trainval.txt` and `test.txt`.
- CUB-200-2011: `images.txt`, `image_class_labels.txt`, `train_test_split.txt`, `classes.txt`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cnn_jax.data.files import is_image
from cnn_jax.data.reading import Part, Reading, encode_labels, main_target_first, some_of
from cnn_jax.errors import DataError

Published = Literal["gtsrb", "oxford_pets", "cub"]
# As people call them.
TITLES: Mapping[Published, str] = {
    "gtsrb": "GTSRB",
    "oxford_pets": "Oxford-IIIT Pet",
    "cub": "CUB-200-2011",
}

_TRAINING = ("Final_Training/Images", "Training")
_TEST = "Final_Test/Images"
_GTSRB_TABLE = "GT-final_test.csv"
SIGNS = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for vehicles over 3.5 t",
    "right of way at the next crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no vehicles over 3.5 t",
    "no entry",
    "danger",
    "bend to the left",
    "bend to the right",
    "double bend",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "cyclists",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "ahead or right",
    "ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for vehicles over 3.5 t",
)
_SPECIES = {"1": "cat", "2": "dog"}


def find_published(folder: Path) -> Published | None:
    """Which of the layouts a folder has, if any."""
    if _gtsrb_root(folder) is not None or _kaggle_tables(folder) is not None:
        return "gtsrb"
    annotations = folder / "annotations"
    if (annotations / "trainval.txt").is_file() and (annotations / "test.txt").is_file():
        return "oxford_pets"
    lists = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    return "cub" if all((folder / name).is_file() for name in lists) else None


def read_published(folder: Path, layout: Published, label: str | int | None = None) -> Reading:
    """A set in one of the layouts.

    Args:
      folder: for which `find_published` has told the layout.
      layout: that.
      label: the main target: of pets `breed` (the default) or `species`.

    Raises:
      DataError: a list or an image is missing, a line makes no sense, or another label.
    """
    if layout == "oxford_pets":
        return _read_pets(folder, label)
    if label not in (None, "label"):
        raise DataError(f"{str(folder)!r} has one target, no other called {label!r}")
    return _read_gtsrb(folder) if layout == "gtsrb" else _read_cub(folder)


def _gtsrb_root(folder: Path) -> Path | None:
    for root in (folder, folder / "GTSRB"):
        if (root / _TEST).is_dir() and any((root / name).is_dir() for name in _TRAINING):
            return root
    return None


def _kaggle_tables(folder: Path) -> tuple[Path, Path] | None:
    """`Train.csv` and `Test.csv`, with a column of signs."""
    for names in (("Train.csv", "Test.csv"), ("train.csv", "test.csv")):
        tables = folder / names[0], folder / names[1]
        if not all(table.is_file() for table in tables):
            continue
        try:
            with open(tables[0], newline="", encoding="utf-8-sig") as file:
                head = next(csv.reader(file), [])
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
        if {"ClassId", "Path"} <= set(head):
            return tables
    return None


def _read_gtsrb(folder: Path) -> Reading:
    """Road signs; the 30 training images of a track, one sign as the car nears it, are a group."""
    root = _gtsrb_root(folder)
    if root is not None:
        rows = {"train": _training_signs(folder, root), "test": _test_signs(folder, root)}
    else:
        tables = _kaggle_tables(folder)
        assert tables is not None
        rows = {}
        for part, table in zip(("train", "test"), tables, strict=True):
            rows[part] = [
                (row["Path"], _sign(row["ClassId"], table))
                for row in _table(table, ",", ("Path", "ClassId"))
            ]
    signs = sorted({sign for part in rows.values() for _, sign in part})
    names = tuple(SIGNS[sign] for sign in signs)
    parts = {
        part: _part(
            folder,
            [path for path, _ in some],
            {"label": ([SIGNS[sign] for _, sign in some], names)},
            [_track(path, sign) for path, sign in some] if part == "train" else None,
        )
        for part, some in rows.items()
    }
    note = "Road signs: the images of a track, one sign as the car nears it, are kept together."
    return Reading(parts, {"label": names}, notes=(note,))


def _training_signs(folder: Path, root: Path) -> list[tuple[str, int]]:
    training = next(root / name for name in _TRAINING if (root / name).is_dir())
    found = []
    for of_sign in sorted(p for p in training.iterdir() if p.is_dir() and p.name[0] != "."):
        sign = _sign(of_sign.name, training)
        files = sorted(file for file in of_sign.iterdir() if is_image(file) and file.name[0] != ".")
        found += [(file.relative_to(folder).as_posix(), sign) for file in files]
    if not found:
        raise DataError(f"{str(training)!r} holds no images of road signs")
    return found


def _test_signs(folder: Path, root: Path) -> list[tuple[str, int]]:
    places = (folder, root, root / "Final_Test", root / _TEST)
    table = next((p / _GTSRB_TABLE for p in places if (p / _GTSRB_TABLE).is_file()), None)
    if table is None:
        raise DataError(
            f"{str(folder)!r} has test images of road signs without {_GTSRB_TABLE}: it comes as "
            "GTSRB_Final_Test_GT.zip; unpack that into the folder, too"
        )
    start = (root / _TEST).relative_to(folder).as_posix()
    return [
        (f"{start}/{row['Filename']}", _sign(row["ClassId"], table))
        for row in _table(table, ";", ("Filename", "ClassId"))
    ]


def _sign(text: str, where: Path) -> int:
    if not text.isdecimal() or int(text) >= len(SIGNS):
        raise DataError(f"{str(where)!r}: {text!r} is no road sign, 0 to {len(SIGNS) - 1}")
    return int(text)


def _track(path: str, sign: int) -> str:
    """Which sign on which road: the last but one number of the file's name."""
    numbers = Path(path).stem.split("_")
    return f"{sign:02}/{numbers[-2]}" if len(numbers) > 1 else path


def _read_pets(folder: Path, label: str | int | None) -> Reading:
    main, _ = main_target_first(["breed", "species"], label, "oxford_pets")
    rows = {}
    for part, name in (("train", "trainval.txt"), ("test", "test.txt")):
        table = folder / "annotations" / name
        rows[part] = _lines(table, 4)
        for stem, breed, species, _ in rows[part]:
            if species not in _SPECIES or not breed.isdecimal() or "_" not in stem:
                raise DataError(f"{str(table)!r}: {stem} {breed} {species} is no pet")
    breeds = sorted({_breed(row[0]) for some in rows.values() for row in some})
    kinds = tuple(_SPECIES.values())
    parts = {}
    for part, some in rows.items():
        targets = {
            "breed": ([_breed(stem) for stem, *_ in some], tuple(breeds)),
            "species": ([_SPECIES[species] for _, _, species, _ in some], kinds),
        }
        named = {"label" if name == main else name: values for name, values in targets.items()}
        named = {"label": named["label"], **named}
        parts[part] = _part(folder, [f"images/{stem}.jpg" for stem, *_ in some], named)
    classes = {name: names for name, (_, names) in named.items()}
    return Reading(parts, classes, kinds=dict.fromkeys(classes, "class"))


def _breed(stem: str) -> str:
    return stem.rpartition("_")[0].replace("_", " ")


def _read_cub(folder: Path) -> Reading:
    names = dict(_lines(folder / "classes.txt", 2))
    paths = dict(_lines(folder / "images.txt", 2))
    labels = dict(_lines(folder / "image_class_labels.txt", 2))
    trains = dict(_lines(folder / "train_test_split.txt", 2))
    for name, found in (("image_class_labels.txt", labels), ("train_test_split.txt", trains)):
        if missing := sorted(paths.keys() - found.keys()):
            raise DataError(
                f"{str(folder / name)!r} says nothing of {len(missing)} images: {some_of(missing)}"
            )
    if unnamed := sorted({labels[image] for image in paths} - names.keys()):
        raise DataError(f"{str(folder / 'classes.txt')!r} names no class {some_of(unnamed)}")
    if wrong := [number for number in names if not number.isdecimal()]:
        raise DataError(f"{str(folder / 'classes.txt')!r}: {wrong[0]!r} is no number of a class")
    if wrong := [image for image in paths if trains[image] not in ("0", "1")]:
        raise DataError(
            f"{str(folder / 'train_test_split.txt')!r}: image {wrong[0]} is of part "
            f"{trains[wrong[0]]!r}, which is neither 1, for training, nor 0"
        )
    order = sorted(names, key=int)
    short = {number: _bird(name) for number, name in names.items()}
    if len(set(short.values())) == len(short):
        names = short
    classes = tuple(names[number] for number in order)
    parts = {}
    for part, flag in (("train", "1"), ("test", "0")):
        some = [image for image in paths if trains[image] == flag]
        wanted = [names[labels[image]] for image in some]
        files = [f"images/{paths[image]}" for image in some]
        parts[part] = _part(folder, files, {"label": (wanted, classes)})
    return Reading(parts, {"label": classes})


def _bird(name: str) -> str:
    """`001.Black_footed_Albatross` without its number."""
    number, dot, rest = name.partition(".")
    return (rest if dot and number.isdecimal() else name).replace("_", " ")


def _part(
    folder: Path,
    ids: Sequence[str],
    targets: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    groups: Sequence[str] | None = None,
) -> Part:
    """Image files below a folder, and target -> (names, classes)."""
    missing = [name for name in ids if not (folder / name).is_file()]
    if not ids:
        raise DataError(f"the lists in {str(folder)!r} name no image for one of the two parts")
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} images listed are not in {str(folder)!r}: "
            f"{some_of(missing)}"
        )
    return Part(
        images=[folder / name for name in ids],
        targets={
            name: encode_labels(values, classes) for name, (values, classes) in targets.items()
        },
        ids=np.array(ids, np.str_),
        groups=None if groups is None else np.array(groups, np.str_),
    )


def _table(path: Path, delimiter: str, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {error}") from error
    if not rows or any(row.get(name) is None for row in rows for name in needed):
        raise DataError(
            f"table {str(path)!r} needs the columns {', '.join(needed)}, and a line per image; "
            "a test table without ClassId is not the one with the answers"
        )
    return rows


def _lines(path: Path, count: int) -> list[list[str]]:
    """Lines of so many words; those that start with # are comments."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"list {str(path)!r} cannot be read: {error}") from error
    rows = [line.split() for line in text.splitlines() if line.strip() and line[0] != "#"]
    wrong = next((row for row in rows if len(row) != count), None)
    if wrong is not None:
        raise DataError(f"list {str(path)!r} needs {count} words a line, not {' '.join(wrong)!r}")
    return rows
