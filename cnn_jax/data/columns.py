"""Reading tables as text, and finding which column means what."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnn_jax.data.files import is_image
from cnn_jax.data.reading import main_target_first, some_of
from cnn_jax.errors import DataError

_PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "image", "image_path")
_SPLIT_NAMES = ("split", "part", "subset")
_GROUP_NAMES = ("group", "patient", "patient_id")
_LABEL_NAMES = ("label", "class", "category", "target")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table mean what: names, 0-based positions, or None to find them.

    Attributes:
      path: the image file; else a column of a usual name, or the first one of file names.
      label: the main target; else a column of a usual name, or the first one left.
      split: train, val(idation) or test; else a column called split, part or subset.
      group: what may not be parted; else a column called group, patient or patient_id.
    """

    path: str | int | None = None
    label: str | int | None = None
    split: str | int | None = None
    group: str | int | None = None


@dataclass(frozen=True)
class Table:
    """The cells of a table; `named` says whether the column names stand in the file."""

    path: Path
    names: list[str]
    rows: list[list[str]]
    named: bool


@dataclass(frozen=True)
class Roles:
    """Positions of the columns; `targets` maps a target's name to its column."""

    path: int
    split: int | None
    group: int | None
    targets: dict[str, int]


def read_cells(path: Path) -> Table:
    """The table in a file; its first line holds names unless a cell of it is an image file.

    Raises:
      DataError: not text, empty, rows of different length, or fewer than two columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=_delimiter(path, text),
            skipinitialspace=True,
            strict=True,
        )
        rows = [[cell.strip(" ") for cell in row] for row in lines if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"table {str(path)!r} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"table {str(path)!r} is empty")
    named = not any(is_image(Path(cell)) for cell in rows[0])
    names = rows.pop(0) if named else [f"column{k}" for k in range(len(rows[0]))]
    if not rows or len(names) < 2 or len(set(names)) < len(names):
        raise DataError(
            f"table {str(path)!r} needs a line per image and two columns or more, named differently"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise DataError(
                f"row {number} of {str(path)!r} has {len(row)} cells instead of {len(names)}"
            )
    return Table(path, names, rows, named)


def find_roles(table: Table, columns: Columns) -> Roles:
    """Which column means what: as asked for, else by usual names, else by position.

    Raises:
      DataError: a column asked for does not exist, or none holds image files or labels.
    """
    path = _position(table, columns.path, _PATH_NAMES)
    if path is None:
        path = _first_of_files(table)
    split = _position(table, columns.split, _SPLIT_NAMES)
    group = _position(table, columns.group, _GROUP_NAMES)
    label = _position(table, columns.label, _LABEL_NAMES)
    left = [name for k, name in enumerate(table.names) if k not in (path, split, group)]
    if not left:
        raise DataError(f"{str(table.path)!r} has no column of labels")
    chosen = None if label is None else table.names[label]
    main, *others = main_target_first(left, chosen, f"table {str(table.path)!r}")
    targets = {"label": table.names.index(main)}
    for name in others:
        # A column called `label` that is not the main target may not take its name.
        targets["other label" if name == "label" else name] = table.names.index(name)
    return Roles(path, split, group, targets)


def _delimiter(path: Path, text: str) -> str:
    first = text.split("\n", 1)[0]
    if path.suffix.lower() == ".tsv" or "\t" in first:
        return "\t"
    return "," if path.suffix.lower() == ".csv" or "," in first else " "


def _position(table: Table, asked: str | int | None, usual: Sequence[str]) -> int | None:
    """Position of the column asked for, or else of the first one with a usual name."""
    if isinstance(asked, int):
        if not 0 <= asked < len(table.names):
            raise DataError(f"{str(table.path)!r} has {len(table.names)} columns, none is {asked}")
        return asked
    if asked is not None:
        if asked not in table.names:
            raise DataError(
                f"{str(table.path)!r} has no column {asked!r}; it has "
                f"{', '.join(map(repr, table.names))}"
            )
        return table.names.index(asked)
    lowered = [name.lower() for name in table.names]
    return next((lowered.index(name) for name in usual if name in lowered), None)


def _first_of_files(table: Table) -> int:
    for position, cell in enumerate(table.rows[0]):
        if is_image(Path(cell)):
            return position
    raise DataError(
        f"no column of {str(table.path)!r} holds image files; its columns are "
        f"{some_of(table.names)}: say which one holds the paths"
    )
