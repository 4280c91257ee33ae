"""Tables of paths and labels: one file with a split column, or a file for each part.

Lines are `path, label, ...` with commas or tabs (or, in `.txt` files, spaces), with or
without a first line of column names. Paths are relative to the table's folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnn_jax.data.columns import Columns, Roles, Table, find_roles, read_cells
from cnn_jax.data.files import read_groups
from cnn_jax.data.reading import PART_NAMES, PARTS, Part, Reading, encode_labels, some_of
from cnn_jax.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
CLASS_NAMES_FILE = "classes.csv"


def find_part_tables(folder: Path) -> dict[str, Path]:
    """Part -> its table, such as `train.txt`; empty unless there is one for `train`.

    Raises:
      DataError: two tables for one part.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = PART_NAMES.get(path.stem.lower())
        if part is None or path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
            continue
        if part in found:
            raise DataError(f"{str(folder)!r} has two tables of its {part} part: keep one")
        found[part] = path
    return found if "train" in found else {}


def read_table(path: Path, columns: Columns) -> Reading:
    """A table of a whole data set; its split column, where there is one, gives the parts.

    Raises:
      DataError: the table cannot be read, a column is missing, or files it lists are.
    """
    table = read_cells(path)
    roles = find_roles(table, columns)
    return _reading(path.parent, roles, _rows_by_split(table, roles))


def read_part_tables(folder: Path, columns: Columns) -> Reading:
    """A table for each part, with the same columns.

    Raises:
      DataError: as `read_table`, or the tables have different columns.
    """
    tables = {part: read_cells(path) for part, path in find_part_tables(folder).items()}
    train = tables["train"]
    for table in tables.values():
        if table.names != train.names:
            raise DataError(f"{str(table.path)!r} has other columns than {str(train.path)!r}")
    names_file = folder / CLASS_NAMES_FILE
    names = read_cells(names_file) if not train.named and names_file.exists() else None
    roles = find_roles(train if names is None else _with_headings(train, names), columns)
    reading = _reading(folder, roles, {part: table.rows for part, table in tables.items()})
    if names is None:
        return reading
    return replace(reading, classes=_named_classes(names, roles.targets, reading.classes))


def _rows_by_split(table: Table, roles: Roles) -> dict[str, list[list[str]]]:
    if roles.split is None:
        return {"train": table.rows}
    rows: dict[str, list[list[str]]] = {}
    for row in table.rows:
        part = PART_NAMES.get(row[roles.split].lower())
        if part is None:
            raise DataError(
                f"{str(table.path)!r} puts {row[roles.path]!r} in split {row[roles.split]!r}, "
                "which is not train, validation or test"
            )
        rows.setdefault(part, []).append(row)
    return rows


def _reading(folder: Path, roles: Roles, rows: Mapping[str, list[list[str]]]) -> Reading:
    everything = [row for part in rows.values() for row in part]
    _check_files(folder, [row[roles.path] for row in everything])
    targets, notes = _usable_targets(roles.targets, everything)
    classes = {name: _in_order({row[k] for row in everything}) for name, k in targets.items()}
    parts = {
        part: _part(folder, rows[part], roles, targets, classes) for part in PARTS if part in rows
    }
    return Reading(parts, classes, kinds=dict.fromkeys(classes, "class"), notes=notes)


def _check_files(folder: Path, names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError(f"{len(repeated)} images are listed more than once: {some_of(repeated)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} files listed are not in {str(folder)!r}: "
            f"{some_of(missing)}"
        )


def _usable_targets(
    targets: Mapping[str, int], rows: Sequence[Sequence[str]]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """The columns that can be targets, and notes on those left out.

    A further column is kept when no cell is empty and it has at most half as many values as
    rows; others, such as dates or addresses, say nothing that a class could.
    """
    unlabelled = sum(not row[targets["label"]] for row in rows)
    if unlabelled:
        raise DataError(f"{unlabelled} of {len(rows)} images in the table have no label")
    usable, notes = {}, []
    for name, column in targets.items():
        values = {row[column] for row in rows}
        if name == "label" or ("" not in values and 2 * len(values) <= len(rows)):
            usable[name] = column
        else:
            notes.append(f"Column {name!r} has gaps or too many values for a target: left out.")
    return usable, tuple(notes)


def _in_order(values: set[str]) -> tuple[str, ...]:
    """Class names in order; whole numbers by size, so that `2` comes before `10`."""
    if all(value.isdecimal() for value in values):
        return tuple(sorted(values, key=lambda value: (int(value), value)))
    return tuple(sorted(values))


def _part(
    folder: Path,
    rows: Sequence[Sequence[str]],
    roles: Roles,
    targets: Mapping[str, int],
    classes: Mapping[str, Sequence[str]],
) -> Part:
    ids = [row[roles.path] for row in rows]
    if roles.group is None:
        groups = read_groups(folder, ids)
    else:
        groups = np.array([row[roles.group] for row in rows], dtype=np.str_)
    return Part(
        images=[folder / name for name in ids],
        targets={
            name: encode_labels([row[column] for row in rows], classes[name])
            for name, column in targets.items()
        },
        ids=np.array(ids, dtype=np.str_),
        groups=groups,
    )


def _with_headings(table: Table, names: Table) -> Table:
    """The table with its columns after the first called as `classes.csv` calls them."""
    headings = [name.lower().removesuffix(" name (str)") for name in names.names[::2]]
    labels = [heading.removesuffix(" class") for heading in headings]
    return replace(table, names=[table.names[0], *labels[: len(table.names) - 1]])


def _named_classes(
    names: Table, targets: Mapping[str, int], classes: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Names for numbered classes from `classes.csv`, as the Grocery Store set writes it.

    Its columns are name and number for the first label column, then for the second, and so on.
    """
    named = {}
    for target, numbers in classes.items():
        first = 2 * (targets[target] - 1)
        pairs = {tuple(row[first : first + 2]) for row in names.rows}
        name_of = {number: name for name, number in pairs}
        if len(name_of) != len(pairs) or not set(numbers) <= set(name_of):
            raise DataError(f"{str(names.path)!r} does not give each class of {target!r} one name")
        named[target] = tuple(name_of[number] for number in numbers)
    return named
