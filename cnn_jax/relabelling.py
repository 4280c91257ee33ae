"""Relabelling by hand: chosen examples as a folder of files, and what a person moved in it.

FOLDER/<class>/<name>.png   the examples, in the folder of the class each was given
FOLDER/_remove/             for files that should leave the data
FOLDER/labels.csv           a row for each file: its example and what became of it
FOLDER/classes.csv          which folder is which class
FOLDER/earlier.csv          corrections the run was trained with, if any
FOLDER/corrections.csv      written afterwards, for the recipe's `data.corrections`
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnn_jax import data
from cnn_jax.data import Correction
from cnn_jax.data.files import is_image, walk
from cnn_jax.errors import DataError, RunError
from cnn_jax.evaluation import Fate
from cnn_jax.file_names import safe_names
from cnn_jax.report.pictures import grey_or_colour, viewable
from cnn_jax.run import Run
from cnn_jax.run_data import original_files
from cnn_jax.run_folder import write_text
from cnn_jax.whole_files import whole_folder

REMOVE = "_remove"
LABELS, CLASSES, EARLIER, CORRECTIONS = (
    "labels.csv",
    "classes.csv",
    "earlier.csv",
    "corrections.csv",
)
_RESERVED = (REMOVE, LABELS, CLASSES, EARLIER, CORRECTIONS)
_LABELS_HEADER = ("file", "id", "split", "given", "predicted", "p_given", "p_predicted", "loss")
_CLASSES_HEADER = ("folder", "class")


def fate_of(run: Run, part: str, *, command: str = "relabelling.fate_of") -> Fate:
    """What became of every example of a part of a run, calibrated.

    Saved predictions are read; without any the part is predicted, as `Run.evaluate` does.

    Raises:
      RunError: there is no such part, or training has not ended.
    """
    temperature, parts = run.temperature, run.info["data"]["parts"]
    if part not in parts:
        raise RunError(f"no part {part!r}: there are {', '.join(parts)}")
    if not (run.path / "predictions" / f"{part}.npz").exists():
        run.evaluate(part, command=command)
    return Fate.of(run.predictions(part), temperature)


def export_examples(
    run: Run, fate: Fate, chosen: np.ndarray, folder: str | os.PathLike[str]
) -> Path:
    """Write examples as a folder to relabel, and return the folder.

    Each example is the file it was read from; where it has none, a PNG of its pixels as the
    network saw them. There is a folder for every class, also one without examples, and
    names of files are unique in the whole folder, so that any can be moved to any class.

    Args:
      run: with data that can be read.
      fate: of one of its parts.
      chosen: positions in `fate`.
      folder: must not exist, or be empty; it appears when all is written, or not at all.

    Raises:
      RunError: the labels are not one class each, or the folder is in use or cannot be written.
      DataError: the data cannot be read.
    """
    if fate.kind != "class":
        raise RunError(f"examples with {fate.kind} labels have no class folder to be moved to")
    folder = Path(folder).expanduser().absolute()
    ids = [str(fate.ids[i]) for i in chosen]
    split = run.dataset.splits[fate.split]
    position = {id_: i for i, id_ in enumerate(split.ids.tolist())}
    originals = original_files(run.recipe_here, ids)
    folders = dict(zip(fate.classes, safe_names(fate.classes, _RESERVED), strict=True))
    with _appearing(folder) as partial:
        for name in (*folders.values(), REMOVE):
            (partial / name).mkdir()
        rows = []
        for i, id_, stem in zip(chosen.tolist(), ids, safe_names(_stems(ids)), strict=True):
            given, predicted = fate.given_name(i), fate.predicted_name(i)
            image = split.read_images([position[id_]])[0]
            path = partial / folders[given] / stem
            file = _write_image(path, image, originals.get(id_), run.recipe.data.fit)
            p_given, p_predicted = float(fate.p_given[i]), float(fate.p_predicted[i])
            rest = (p_given, p_predicted, float(fate.loss[i]))
            shown = file.relative_to(partial).as_posix()
            rows.append((shown, id_, fate.split, given, predicted, *rest))
        _write_table(partial / LABELS, _LABELS_HEADER, rows)
        _write_table(
            partial / CLASSES, _CLASSES_HEADER, [(path, name) for name, path in folders.items()]
        )
        if run.recipe.data.corrections is not None:
            shutil.copyfile(run.recipe.data.corrections, partial / EARLIER)
    return folder


@dataclass(frozen=True)
class Relabelled:
    """What a person did in a folder to relabel.

    Attributes:
      corrections: examples whose file lies in another class folder, or in `_remove`; in the
        order of labels.csv.
      earlier: the corrections that the run was trained with.
      unchanged: number of files that lie where they were.
      missing: files that are gone; a deletion is no decision, so their labels stay.
      unknown: files that are not in labels.csv; they count for nothing.
    """

    corrections: tuple[Correction, ...]
    earlier: tuple[Correction, ...]
    unchanged: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...]


def find_corrections(folder: str | os.PathLike[str]) -> Relabelled:
    """Compare where files lie with labels.csv.

    Raises:
      DataError: it is no folder that `export_examples` wrote; files lie in a folder that is no
        class, outside any folder, or in two at once.
    """
    folder = Path(folder)
    if not (folder / LABELS).exists():
        raise DataError(
            f"{str(folder)!r} is no folder of 'cnn-jax errors --to': it has no {LABELS}"
        )
    rows = _read_table(folder / LABELS, _LABELS_HEADER)
    classes = dict(_read_table(folder / CLASSES, _CLASSES_HEADER))
    places = _places(folder, classes)
    corrections, missing, expected = [], [], set()
    for file, id_, _, given, *_ in rows:
        name = file.rpartition("/")[2]
        expected.add(name)
        if name not in places:
            missing.append(file)
        elif (place := classes.get(places[name])) != given:
            corrections.append(Correction(id_, given, place))
    earlier = folder / EARLIER
    return Relabelled(
        corrections=tuple(corrections),
        earlier=data.read_corrections(earlier) if earlier.exists() else (),
        unchanged=len(rows) - len(corrections) - len(missing),
        missing=tuple(missing),
        unknown=tuple(f"{places[name]}/{name}" for name in places if name not in expected),
    )


def write_corrections(
    folder: str | os.PathLike[str], found: Relabelled, *, overwrite: bool = False
) -> Path | None:
    """Write corrections.csv, the earlier corrections first, and return its path.

    Where nothing was moved nothing is written, and None returned. A file whose rows all are
    among the new ones is replaced.

    Args:
      folder: the folder to relabel.
      found: what `find_corrections` found there.
      overwrite: also replace corrections that are not among the new ones.

    Raises:
      RunError: it exists with other corrections, which a run may have been trained with, and
        `overwrite` is not set; or it cannot be written.
    """
    path = Path(folder) / CORRECTIONS
    corrections = (*found.earlier, *found.corrections)
    replaced = path.exists() and overwrite
    if path.exists() and not overwrite and set(data.read_corrections(path)) - set(corrections):
        raise RunError(
            f"{str(path)!r} holds other corrections, and a run may have been trained with them: "
            "give --overwrite to replace them"
        )
    if not found.corrections and not replaced:
        return None
    write_text(path, data.corrections_table(corrections))
    return path


def _places(folder: Path, classes: dict[str, str]) -> dict[str, str]:
    """Name of each file -> the folder it lies in."""
    places: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in _RESERVED[1:]:
            continue
        if not entry.is_dir():
            raise DataError(
                f"{str(entry)!r} lies in no class folder: move it into one, or into {REMOVE!r}"
            )
        files = [path.name for path in walk(entry)]
        if files and entry.name != REMOVE and entry.name not in classes:
            raise DataError(
                f"{str(entry)!r} is the folder of no class: there are {', '.join(classes)}, and "
                f"{REMOVE} for what should leave the data"
            )
        for name in files:
            if name in places:
                raise DataError(
                    f"{name!r} lies in {places[name]!r} and in {entry.name!r}: keep one"
                )
            places[name] = entry.name
    return places


def _write_image(path: Path, image: np.ndarray, original: Path | None, fit: data.Fit) -> Path:
    """Write an example to `path` with the suffix it gets, and return that."""
    if original is not None and np.array_equal(
        data.decode_image(original, image.shape, fit), image
    ):
        path = path.with_name(path.name + (original.suffix if is_image(original) else ""))
        shutil.copyfile(original, path)
        return path
    from PIL import Image

    path = path.with_name(f"{path.name}.png")
    Image.fromarray(grey_or_colour(viewable(image))).save(path, format="PNG")
    return path


def _stems(ids: Sequence[str]) -> list[str]:
    """The last part of each id, without the suffix of an image."""
    names = [Path(re.split(r"[/\\]", id_)[-1]) for id_ in ids]
    return [name.stem if is_image(name) else name.name for name in names]


def check_place(folder: str | os.PathLike[str]) -> None:
    """Refuse, before any work, a folder that `export_examples` would not write.

    Raises:
      RunError: it is in use or cannot be looked into.
    """
    folder = Path(folder).expanduser().absolute()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{str(folder)!r} exists and is not empty: choose another folder")
    except OSError as error:
        raise RunError(f"cannot write {str(folder)!r}: {error.strerror or error}") from error
    if Path.cwd().is_relative_to(folder):
        raise RunError(f"{str(folder)!r} holds the working folder: choose another folder")


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its name when the block ends well."""
    check_place(folder)
    try:
        with whole_folder(folder) as partial:
            yield partial
    except OSError as error:
        raise RunError(
            f"cannot write {str(folder)!r}; nothing is left there: {error.strerror or error}"
        ) from error


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    # All is quoted, because an id may hold a bare carriage return.
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    table.writerows([header, *rows])
    path.write_bytes(text.getvalue().encode("utf-8", errors="surrogateescape"))


def _read_table(path: Path, header: Sequence[str]) -> list[list[str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="surrogateescape")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (OSError, csv.Error) as error:
        raise DataError(
            f"cannot read {str(path)!r}, which cnn-jax errors --to writes: {error}"
        ) from error
    if not rows or rows[0] != list(header) or any(len(row) != len(header) for row in rows):
        raise DataError(f"{str(path)!r} must have the columns {','.join(header)}")
    return rows[1:]
