"""Tables of `experiments/benchmarks/MACHINE/results.csv`, which `cnn-jax bench --out` writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from cnn_jax.bench.results import Row, read
from cnn_jax.bench.text import digits
from cnn_jax.errors import BenchmarkError
from experiments.results import ResultsError


def tables(root: Path) -> dict[str, str]:
    """`benchmarks/MACHINE/BENCHMARK`, and the same with `/summary`, for all there are.

    Raises:
      ResultsError: a results.csv cannot be read.
    """
    found = {}
    for path in sorted(root.glob("experiments/benchmarks/*/results.csv")):
        try:
            rows = read(path)
        except BenchmarkError as error:
            raise ResultsError(str(error)) from error
        for benchmark in dict.fromkeys(row.benchmark for row in rows):
            chosen = [row for row in rows if row.benchmark == benchmark]
            name = f"benchmarks/{path.parent.name}/{benchmark}"
            found[name] = table(chosen)
            found[f"{name}/summary"] = summary(chosen)
    return found


def table(rows: Sequence[Row]) -> str:
    """A line for each case, part, dtype and rival; a column for each reference."""
    references = list(dict.fromkeys(row.reference for row in rows))
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        lines.setdefault((row.case, row.part, row.dtype, row.rival), {})[row.reference] = row
    head = ["case", "part", "dtype", "rival", "ms", "GFLOP/s", *(f"÷ {r}" for r in references)]
    body = []
    for key, of_reference in lines.items():
        first = next(iter(of_reference.values()))
        rate = digits(first.gflops_per_second) if first.flops else ""
        ratios = (_ratio(of_reference[r]) if r in of_reference else "" for r in references)
        body.append([*key, digits(first.ms), rate, *ratios])
    return "\n".join([*_markdown(head, 4, body), "", *_circumstances(rows)])


def summary(rows: Sequence[Row]) -> str:
    """A line for each dtype, part and pair of rivals: how the ratios are spread."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dtype, row.part, row.rival, row.reference), []).append(row)
    head = ["dtype", "part", "rival", "reference", "compared", "faster", "slower"]
    head += ["geometric mean", "highest", "of"]
    body = []
    for key, group in groups.items():
        worst = max(group, key=lambda row: row.ratio)
        mean = math.exp(sum(math.log(row.ratio) for row in group) / len(group))
        counts = (len(group), sum(row.high < 1 for row in group), sum(row.low > 1 for row in group))
        body.append([*key, *map(str, counts), digits(mean), _ratio(worst), worst.case])
    note = "faster, slower: the whole 95 % interval of the ratio is below, above 1."
    return "\n".join([*_markdown(head, 4, body), "", note, "", *_circumstances(rows)])


def _ratio(row: Row) -> str:
    return f"{digits(row.ratio)} [{digits(row.low)}, {digits(row.high)}]"


def _markdown(head: Sequence[str], words: int, body: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table whose first `words` columns are not numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]


def _circumstances(rows: Sequence[Row]) -> list[str]:
    """What the rows were measured on, and by which commands."""
    told: dict[str, None] = {}
    for row in rows:
        torch = f", PyTorch {row.torch}" if row.torch else ""
        versions = f"jax {row.jax}, jaxlib {row.jaxlib}, Python {row.python}{torch}"
        told[f"{row.hardware}, {versions}; {row.pairs} pairs; {row.date}"] = None
    commands = dict.fromkeys(row.command for row in rows)
    return [*(f"{line}." for line in told), "", "```sh", *commands, "```"]
