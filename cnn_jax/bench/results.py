"""`results.csv` of a benchmark: a row for each comparison, with what is needed to repeat it.

Only the standard library, so that tables are made from it anywhere.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cnn_jax.errors import BenchmarkError
from cnn_jax.whole_files import write_whole


@dataclass(frozen=True)
class Row:
    """One rival against one reference.

    Attributes:
      benchmark: `ops`, `zoo`, `random`, `models`, `scan`, `vmap` or `roofline`.
      case, part: what was timed.
      dtype: of the computation.
      rival, reference: who was timed against whom.
      ratio: median over pairs of the rival's time divided by the reference's.
      low, high: 95 % interval of that median.
      ms, reference_ms: medians of one call, in milliseconds.
      pairs: number of pairs.
      flops, bytes: of one call by formula; 0 where there is none.
      gflops_per_second: of the rival; 0 without `flops`.
      memory_mib, reference_memory_mib: arguments, outputs and temporaries of the compiled
        program; 0 where they are not known.
      compile_seconds, reference_compile_seconds: 0 where nothing was compiled here.
      hardware, cores: what it ran on.
      jax, jaxlib, python, torch: versions; `torch` is empty if it was left out.
      commit: of the checkout, `+` if it was changed; empty outside one.
      date: day of the measurement.
      command: that measured it.
    """

    benchmark: str
    case: str
    part: str
    dtype: str
    rival: str
    reference: str
    ratio: float
    low: float
    high: float
    ms: float
    reference_ms: float
    pairs: int
    flops: int
    bytes: int
    gflops_per_second: float
    memory_mib: float
    reference_memory_mib: float
    compile_seconds: float
    reference_compile_seconds: float
    hardware: str
    cores: int
    jax: str
    jaxlib: str
    python: str
    torch: str
    commit: str
    date: str
    command: str

    @property
    def identity(self) -> tuple[str, ...]:
        """What may occur once in a file."""
        return (
            *(self.benchmark, self.case, self.part, self.dtype),
            *(self.rival, self.reference),
        )

    @property
    def circumstances(self) -> dict[str, str]:
        """Where and with what: times under different ones do not compare."""
        names = ("hardware", "cores", "jax", "jaxlib", "python", "torch")
        return {name: str(getattr(self, name)) for name in names}


COLUMNS = tuple(field.name for field in fields(Row))
_TYPES = {field.name: field.type for field in fields(Row)}
_CONVERT: dict[Any, Any] = {"float": float, "int": int, "str": str}


def read(path: str | os.PathLike[str]) -> list[Row]:
    """The rows of a results.csv, in order.

    Raises:
      BenchmarkError: it cannot be read, or it is no results.csv; says where.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise BenchmarkError(f"the columns must be {', '.join(COLUMNS)}")
        rows = [_row(values) for values in reader]
    except (BenchmarkError, csv.Error) as error:
        raise BenchmarkError(f"{path}, line {reader.reader.line_num}: {error}") from error
    if len({row.identity for row in rows}) < len(rows):
        raise BenchmarkError(f"{path}: a comparison occurs twice")
    return rows


def write(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write a results.csv that appears whole or not at all.

    Raises:
      OSError: it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in asdict(row).items()} for row in rows)
    write_whole(path, text.getvalue())


def replaced(rows: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """All rows: the new ones in the place of those with their identity, or at the end."""
    by_identity = {row.identity: row for row in rows}
    return list((by_identity | {row.identity: row for row in new}).values())


def _row(values: dict[str, Any]) -> Row:
    if None in values or None in values.values():
        raise BenchmarkError(f"the row does not have {len(COLUMNS)} values")
    converted = {}
    for name, text in values.items():
        try:
            converted[name] = _CONVERT[_TYPES[name]](text)
        except ValueError:
            raise BenchmarkError(f"{name} {text!r} is not a number") from None
    row = Row(**converted)
    if not (0 < row.low <= row.ratio <= row.high < math.inf and row.ms > 0):
        raise BenchmarkError(f"ratio {row.ratio} [{row.low}, {row.high}] is no interval")
    return row


def _cell(value: float | int | str) -> str:
    # Six digits: more than any clock gives, and the same on every reading.
    return f"{value:.6g}" if isinstance(value, float) else str(value)
