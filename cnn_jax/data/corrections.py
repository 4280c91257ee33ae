"""Corrected labels: a table of what some examples were given, and what they are.

`id,given,corrected`, one row a correction; where `corrected` is empty the example is removed.
Rows are carried out from top to bottom, so an example may be corrected again further down.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cnn_jax.data.dataset import Dataset, Split
from cnn_jax.data.digest import dataset_digest
from cnn_jax.data.reading import some_of
from cnn_jax.errors import DataError

_HEADER = ["id", "given", "corrected"]
_REMOVED = -1


@dataclass(frozen=True)
class Correction:
    """One row: the example, the class it was given, and its class, or None to remove it."""

    id: str
    given: str
    corrected: str | None


def read_corrections(path: str | os.PathLike[str]) -> tuple[Correction, ...]:
    """The rows of a table of corrections.

    Raises:
      DataError: the file cannot be read or is no such table.
    """
    try:
        # Names of files may hold bytes that are no UTF-8; they come back as they were.
        text = Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (OSError, csv.Error) as error:
        raise DataError(f"corrections {str(path)!r} cannot be read: {error}") from error
    if not rows or rows[0] != _HEADER or any(len(row) != 3 for row in rows):
        raise DataError(
            f"corrections {str(path)!r} must have the three columns {','.join(_HEADER)}, named "
            "in its first line"
        )
    return tuple(Correction(id_, given, corrected or None) for id_, given, corrected in rows[1:])


def corrections_table(corrections: Sequence[Correction]) -> str:
    """The table that `read_corrections` reads."""
    text = io.StringIO()
    # All is quoted, because an id may hold a bare carriage return.
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    table.writerow(_HEADER)
    table.writerows((c.id, c.given, c.corrected or "") for c in corrections)
    return text.getvalue()


def apply_corrections(dataset: Dataset, corrections: Sequence[Correction]) -> Dataset:
    """The data set with these labels replaced and these examples removed, in all parts.

    Parts are otherwise left as they are. A note says how many labels were changed in each
    part; of the test part also that its figures no longer compare with those of others. The
    digest is that of what is left.

    Raises:
      DataError: labels that are not one class an image; an id or a class that the data do not
        have; `given` is not the present label (the corrections are of other data); or no
        example of a part would be left.
    """
    if not corrections:
        return dataset
    if dataset.kinds["label"] != "class":
        raise DataError(
            f"corrections need one class for each image, but {dataset.name!r} has "
            f"{dataset.kinds['label']} labels"
        )
    classes = dataset.classes["label"]
    labels = {part: split.targets["label"].copy() for part, split in dataset.splits.items()}
    _carry_out(corrections, dataset, labels, classes)
    splits, notes = {}, []
    for part, split in dataset.splits.items():
        splits[part] = _with_labels(split, labels[part], part)
        changed = int((labels[part] != split.targets["label"]).sum())
        if changed:
            removed = int((labels[part] == _REMOVED).sum())
            notes.append(_note(part, changed - removed, removed, len(split)))
    if not notes:
        return dataset
    return dataset.replace(
        splits=splits, digest=dataset_digest(splits), notes=(*dataset.notes, *notes)
    )


def _carry_out(
    corrections: Sequence[Correction],
    dataset: Dataset,
    labels: dict[str, np.ndarray],
    classes: tuple[str, ...],
) -> None:
    """Change `labels` row by row; a removed example gets the label `_REMOVED`."""
    wanted = {c.id for c in corrections}
    places: dict[str, list[tuple[str, int]]] = {}
    for part, split in dataset.splits.items():
        for index, id_ in enumerate(split.ids.tolist()):
            if id_ in wanted:
                places.setdefault(id_, []).append((part, index))
    unknown = [c.id for c in corrections if c.id not in places]
    if unknown:
        raise DataError(
            f"{len(unknown)} corrected ids are not in {dataset.name!r} ({some_of(unknown)}): the "
            "corrections are of other data"
        )
    several = [c.id for c in corrections if len(places[c.id]) > 1]
    if several:
        raise DataError(
            f"{len(several)} corrected ids are in several parts of {dataset.name!r} "
            f"({some_of(several)}): they name no single example"
        )
    known = {name: k for k, name in enumerate(classes)}
    for correction in corrections:
        part, index = places[correction.id][0]
        present = int(labels[part][index])
        if present != known.get(correction.given, len(classes)):
            now = "removed already" if present == _REMOVED else repr(classes[present])
            raise DataError(
                f"example {correction.id!r} is corrected from {correction.given!r}, but it is "
                f"{now}: the corrections are of other data, or were applied to the files"
            )
        if correction.corrected is not None and correction.corrected not in known:
            raise DataError(
                f"example {correction.id!r} is corrected to {correction.corrected!r}, which is no "
                f"class of {dataset.name!r}: {some_of(classes)}"
            )
        labels[part][index] = (
            _REMOVED if correction.corrected is None else known[correction.corrected]
        )


def _with_labels(split: Split, labels: np.ndarray, part: str) -> Split:
    changed = replace(split, targets={**split.targets, "label": labels})
    stay = np.flatnonzero(labels != _REMOVED)
    if not len(stay):
        raise DataError(f"the corrections remove every {part} image: none would be left")
    return changed if len(stay) == len(labels) else changed.take(stay)


def _note(part: str, relabelled: int, removed: int, n: int) -> str:
    note = f"Corrections: of {n} {part} images {relabelled} relabelled, {removed} removed."
    if part == "test":
        note += " Figures on test no longer compare with those on the uncorrected test part."
    return note
