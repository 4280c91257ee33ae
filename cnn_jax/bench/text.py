"""Comparisons as lines of at most 80 columns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from cnn_jax.bench.baseline import Change, differences
from cnn_jax.bench.results import Row

HEAD = f"  {'part':15} {'rival':10}{'ms':>7}  {'reference':14}{'ms':>7}{'ratio':>7}  95 %"


def line(row: Row) -> str:
    """A row under the name of its case."""
    interval = f"{digits(row.low)}-{digits(row.high)}"
    return (
        f"  {row.part:15.15} {row.rival:10.10}{digits(row.ms):>7}  {row.reference:14.14}"
        f"{digits(row.reference_ms):>7}{digits(row.ratio):>7}  {interval}"
    )


def digits(value: float) -> str:
    """Three significant digits and at most four decimals: 1234, 12.3, 0.123, 0.0123."""
    value = float(f"{value:.3g}") if value < 100 else value  # 0.9999 is 1.00
    for decimals, least in enumerate((100, 10, 1, 0.1)):
        if value >= least:
            return f"{value:.{decimals}f}"
    return f"{value:.4f}"


def summary(rows: Sequence[Row]) -> str:
    """For each pair of rivals: how many comparisons are faster and slower beyond the interval."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.rival, row.reference), []).append(row)
    lines = []
    for (rival, reference), group in groups.items():
        faster = sum(row.high < 1 for row in group)
        slower = sum(row.low > 1 for row in group)
        worst = max(group, key=lambda row: row.ratio)
        lines += [
            f"{rival} / {reference}: {len(group)} compared, {faster} faster, {slower} slower; "
            f"median {digits(statistics.median(row.ratio for row in group))}",
            f"  highest {digits(worst.ratio)} ({worst.case}, {worst.part})",
        ]
    return "\n".join([*lines, *_roof(rows)])


def _roof(rows: Sequence[Row]) -> list[str]:
    """The measured limits, where they are among the rows."""
    lines = [
        f"peak {digits(row.gflops_per_second)} GFLOP/s ({row.case})"
        for row in rows
        if row.part == "peak"
    ]
    return lines + [
        f"bandwidth {digits(row.bytes / row.ms / 1e6)} GB/s ({row.case})"
        for row in rows
        if row.part == "bandwidth"
    ]


def compared(changes: Sequence[Change], name: str) -> str:
    """What changed since a baseline, slowest first."""
    verdicts = [change.verdict for change in changes]
    lines = [
        f"against {name}: {len(changes)} comparisons, {verdicts.count('slower')} slower, "
        f"{verdicts.count('faster')} faster, {verdicts.count('same')} within the intervals"
    ]
    lines += [f"  then and now differ: {difference}" for difference in differences(changes)]
    changed = [change for change in changes if change.verdict != "same"]
    for change in sorted(changed, key=lambda change: -change.ratio_of_ratios):
        old, new = change.old, change.new
        lines += [
            f"  {change.verdict}: {new.case}, {new.part}",
            f"    {new.rival} / {new.reference} {digits(old.ratio)} -> {digits(new.ratio)} "
            f"(x {digits(change.ratio_of_ratios)}), {digits(old.ms)} -> {digits(new.ms)} ms "
            f"(x {digits(change.ratio_of_times)})",
        ]
    return "\n".join(lines)
