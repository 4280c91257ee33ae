"""`results.csv`: one row for each measured figure, with what is needed to measure it again.

Only the standard library, so that the tables can be checked anywhere.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

COVERS = ("test-set", "seed", "both")


class ResultsError(ValueError):
    """A results.csv, or a README with tables, that cannot be read."""


@dataclass(frozen=True)
class Row:
    """One figure of one run.

    Attributes:
      experiment: model or baseline, as it is called in the table.
      command: shell command that measured it.
      data, data_digest, split: what it was measured on.
      metric: name of the figure; one that ends in `accuracy` is a fraction shown as per cent.
      value, low, high: the figure and the ends of its interval; NaN ends for no interval.
      n: number of examples (or repetitions) behind the value.
      hardware, versions, commit, date: where, with what and when.
      level: confidence level of the interval.
      n_seeds: number of trained models behind the value.
      seed: seed of the run, or empty.
      covers: `test-set`, `seed` or `both`.
      method: how the interval was made.
      note: one sentence, or empty.

    Raises:
      ResultsError: a value that is not finite, or another field out of its range.
    """

    experiment: str
    command: str
    data: str
    data_digest: str
    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    hardware: str
    versions: str
    commit: str
    date: str
    level: float = 0.95
    n_seeds: int = 1
    seed: str = ""
    covers: str = "test-set"
    method: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        problems = {
            "experiment is empty": not self.experiment.strip(),
            "metric is empty": not self.metric.strip(),
            f"value {self.value} is not finite": not math.isfinite(self.value),
            f"interval [{self.low}, {self.high}] has one end only or its ends exchanged": not (
                self.low <= self.high or (math.isnan(self.low) and math.isnan(self.high))
            ),
            f"level {self.level} is not between 0 and 1": not 0 < self.level < 1,
            f"n {self.n} is below 1": self.n < 1,
            f"n_seeds {self.n_seeds} is below 1": self.n_seeds < 1,
            f"covers {self.covers!r} is none of {', '.join(COVERS)}": self.covers not in COVERS,
        }
        for problem, found in problems.items():
            if found:
                raise ResultsError(f"{self.experiment or 'a row'}, {self.metric}: {problem}")

    @property
    def identity(self) -> tuple[str, ...]:
        """What may occur once in a file: measuring it again replaces the row."""
        return (*self.group, self.seed)

    @property
    def group(self) -> tuple[str, ...]:
        """What rows that differ only in their seed share."""
        return (
            self.experiment,
            self.data,
            self.data_digest,
            self.split,
            self.metric,
            self.hardware,
        )


# In the order of the file, which is not that of the fields: those with defaults come last.
COLUMNS = (
    *("experiment", "command", "data", "data_digest", "split", "metric"),
    *("value", "low", "high", "level", "n", "n_seeds", "seed", "covers", "method"),
    *("hardware", "versions", "commit", "date", "note"),
)
_NUMBERS = {field.name: field.type for field in fields(Row) if field.type in ("int", "float")}


def read(path: str | os.PathLike[str]) -> tuple[Row, ...]:
    """The rows of a results.csv, in order; an empty `low` or `high` is read as NaN.

    Raises:
      ResultsError: naming the file and the line.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    known: set[tuple[str, ...]] = set()
    try:
        _check_columns(reader.fieldnames or ())
        for values in reader:
            rows.append(_row(values))
            _admit(rows[-1], known)
    except (ResultsError, csv.Error) as error:
        raise ResultsError(f"{path}, line {reader.reader.line_num}: {error}") from error
    return tuple(rows)


def append(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Add rows to a results.csv, which is created if need be.

    Two processes may append at the same time (the folder is locked, on POSIX systems), and a
    reader never sees half a file.

    Raises:
      ResultsError: the file cannot be read, or it already holds one of the figures.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        present = list(read(path)) if path.exists() else []
        known = {row.identity for row in present}
        for row in rows:
            _admit(row, known)
            present.append(row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _cell(v) for k, v in asdict(row).items()} for row in present)
        replace_text(path, text.getvalue())


def replace_text(path: Path, text: str) -> None:
    """Write a UTF-8 file that appears whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", newline="")
    os.replace(temporary, path)


def _check_columns(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ResultsError(f"column {name!r} occurs twice")
        if name not in COLUMNS:
            raise ResultsError(f"unknown column {name!r}; the columns are {', '.join(COLUMNS)}")
    for name in COLUMNS:
        if name not in names:
            raise ResultsError(f"column {name!r} is missing")


def _row(values: dict[str, str]) -> Row:
    if None in values or None in values.values():
        raise ResultsError(f"the row does not have {len(COLUMNS)} values")
    converted = {
        name: _number(name, text) if name in _NUMBERS else text for name, text in values.items()
    }
    return Row(**converted)  # type: ignore[arg-type]


def _number(name: str, text: str) -> float | int:
    if not text and name in ("low", "high"):
        return math.nan
    try:
        return int(text) if _NUMBERS[name] == "int" else float(text)
    except ValueError:
        raise ResultsError(f"{name} {text!r} is not a number") from None


def _cell(value: str | float) -> str:
    return "" if value != value else str(value)


def _admit(row: Row, known: set[tuple[str, ...]]) -> None:
    """Add the identity of a row to those known; raise if it is one of them."""
    if row.identity in known:
        raise ResultsError(
            f"{row.metric} of {row.experiment!r} (seed {row.seed or 'none'}) is there already; "
            "remove that row to replace it"
        )
    known.add(row.identity)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
