"""Write the tables of the READMEs from the results: `python -m experiments.tables [--check]`.

A README says where a table belongs, and which:

    <!-- table: FOLDER -->             all of experiments/FOLDER/results.csv
    <!-- table: FOLDER/EXPERIMENT -->  one experiment of it
    <!-- table: FOLDER/DATA, SPLIT --> all that was measured on one data set, split so
    <!-- table: benchmarks/MACHINE/BENCHMARK[/summary] -->  see experiments.benchmark_tables
    <!-- /table -->                    end; what stands between is replaced

With `--check` nothing is written, and the exit status is 1 if a table differs from its
results. Status 2: the results or the markers have an error, said in one line.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments import benchmark_tables
from experiments.results import ResultsError, Row, read, replace_text
from experiments.seeds import over_seeds

ROOT = Path(__file__).parent.parent
_OPEN = re.compile(r"<!-- table: (?P<name>.*?) -->\n")
_CLOSE = "<!-- /table -->"
_COVERS = {"test-set": "test sets", "seed": "seeds", "both": "test sets and seeds"}


def number(value: float) -> str:
    """Four decimals below 100, two digits where these are zeros; whole above, thousands apart."""
    if 0 < abs(value) < 5e-5:
        return f"{value:.1e}"
    if abs(value) < 100:
        return f"{value:.4f}"
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def figure(row: Row) -> str:
    """`98.06 % [96.0, 99.1]` for accuracies, `0.0712 [0.0600, 0.0824]` otherwise.

    Of an experiment called `this minus that`, differences: `+4.17 points [2.0, 6.3]`.
    """
    percent = row.metric.endswith("accuracy")
    sign = "+" if " minus " in row.experiment and not row.metric.startswith("p of ") else ""
    if percent:
        value = f"{100 * row.value:{sign}.2f} {'points' if sign else '%'}"
    else:
        value = f"{sign if row.value >= 0 else ''}{number(row.value)}"
    if math.isnan(row.low):
        return f"{value} [no interval]"
    low, high = (f"{100 * end:.1f}" if percent else number(end) for end in (row.low, row.high))
    return f"{value} [{low}, {high}]"


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, a line for each experiment, and the commands below it.

    Rows that differ only in their seed are summarised; a metric is a column.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    summaries = [over_seeds(group) for group in groups.values()]
    metrics = list(dict.fromkeys(row.metric for row in summaries))
    lines: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in summaries:
        key = (row.experiment, row.data_digest, row.split, row.n, row.n_seeds, row.hardware)
        lines.setdefault(key, {})[row.metric] = row
    head = ["experiment", "data", *metrics, "n", "seeds", "interval over", "hardware"]
    body = [_cells(line, metrics) for line in lines.values()]
    right = len(metrics)
    rule = ["---", "---", *["---:"] * (right + 2), "---", "---"]
    # One line for runs that differ only in their seed.
    commands = dict.fromkeys(
        re.sub(r"seed \d+", "seed N", row.command) for row in rows if row.command
    )
    return "\n".join(
        [
            *(f"| {' | '.join(cells)} |" for cells in (head, rule, *body)),
            *(("", "```sh", *commands, "```") if commands else ()),
        ]
    )


def _cells(line: Mapping[str, Row], metrics: Sequence[str]) -> list[str]:
    rows = list(line.values())
    first = rows[0]
    with_interval = [row for row in rows if not math.isnan(row.low)]
    over = dict.fromkeys(
        f"{_COVERS[row.covers]}, {100 * row.level:g} %, {row.method}" for row in with_interval
    )
    return [
        _plain(first.experiment),
        _plain(f"{first.data}, {first.split}"),
        *(figure(line[metric]) if metric in line else "" for metric in metrics),
        str(first.n),
        str(first.n_seeds),
        _plain("; ".join(over)),
        _plain(first.hardware),
    ]


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def tables(root: Path) -> dict[str, str]:
    """Every table that a README may ask for, by name."""
    found = benchmark_tables.tables(root)
    for path in sorted(root.glob("experiments/*/results.csv")):
        rows, folder = read(path), path.parent.name
        try:
            found[folder] = table(rows)
            parts: dict[str, list[Row]] = {}
            for row in rows:
                for part in dict.fromkeys((row.experiment, f"{row.data}, {row.split}")):
                    parts.setdefault(part, []).append(row)
            found |= {f"{folder}/{part}": table(chosen) for part, chosen in parts.items()}
        except ResultsError as error:
            raise ResultsError(f"{path}: {error}") from error
    return found


def fill(text: str, available: Mapping[str, str]) -> tuple[str, list[str]]:
    """A README with its tables written anew, and the names of those that changed.

    Raises:
      ResultsError: a marker is not closed, or names a table that does not exist.
    """
    parts, changed, position = [], [], 0
    for marker in _OPEN.finditer(text):
        name = marker["name"]
        end = text.find(_CLOSE, marker.end())
        following = _OPEN.search(text, marker.end())
        if end < 0 or (following and following.start() < end):
            raise ResultsError(f"table {name!r} has no {_CLOSE}")
        if name not in available:
            known = ", ".join(sorted(available)) or "none"
            raise ResultsError(f"there are no results for table {name!r}; known: {known}")
        new = f"{available[name]}\n"
        if text[marker.end() : end] != new:
            changed.append(name)
        parts += [text[position : marker.end()], new]
        position = end
    return "".join(parts) + text[position:], changed


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write or check the tables of every README under `root`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if different")
    check = parser.parse_args(arguments).check
    try:
        available = tables(root)
        different = [
            (path, changed)
            for path in (root / "README.md", *sorted(root.glob("experiments/*/README.md")))
            if path.exists() and (changed := _update(path, available, check))
        ]
    except ResultsError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    for path, names in different:
        verb = "differs from its results" if check else "written"
        for name in names:
            print(f"{path.relative_to(root)}: table {name!r} {verb}")
    return 1 if check and different else 0


def _update(path: Path, available: Mapping[str, str], check: bool) -> list[str]:
    try:
        text, changed = fill(path.read_text("utf-8"), available)
    except (ResultsError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: {error}") from error
    if changed and not check:
        replace_text(path, text)
    return changed


if __name__ == "__main__":
    sys.exit(main())
