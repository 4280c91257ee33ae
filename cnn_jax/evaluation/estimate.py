"""`Estimate`: a figure that never travels without its interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Covers = Literal["test-set", "seed", "both"]
Unit = Literal["example", "group", "seed"]

# What an interval is over, in words.
COVERS: dict[str, str] = {"test-set": "test sets", "seed": "seeds", "both": "test sets and seeds"}


@dataclass(frozen=True)
class Estimate:
    """A value, its confidence interval, and what the interval covers.

    Attributes:
      value: the figure, a fraction where it is one (0.98, not 98).
      low, high: ends of the interval; NaN where none is defined.
      level: confidence level of the interval, such as 0.95.
      n: number of examples behind the value.
      unit: what was resampled: `example`, `group` or `seed`.
      method: how the interval was made, such as `Wilson` or `bootstrap (percentile)`.
      covers: `test-set` (one model; another test set might be drawn), `seed` (one test
        set; another seed might be drawn) or `both`.
      n_seeds: number of independently trained models behind the value.
      percent: whether it prints as per cent.
      difference: whether it is one figure minus another: it prints with its sign, and in
        percentage points where the two are in per cent.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    level: float = 0.95
    unit: Unit = "example"
    covers: Covers = "test-set"
    n_seeds: int = 1
    percent: bool = False
    difference: bool = False

    def __str__(self) -> str:
        """As `98.06 % [96.0, 99.1], n = 360`; a difference `+4.17 points [2.0, 6.3], n = 360`."""
        sign = "+" if self.difference else ""
        if self.percent:
            unit = "points" if self.difference else "%"
            text, ends = f"{100 * self.value:{sign}.2f} {unit}", (100 * self.low, 100 * self.high)
            interval = f"[{ends[0]:.1f}, {ends[1]:.1f}]"
        else:
            text = f"{self.value:{sign}.4f}"
            interval = f"[{self.low:.4f}, {self.high:.4f}]"
        if math.isnan(self.low) or math.isnan(self.high):
            interval = "[no interval]"
        seeds = f", {self.n_seeds} seeds" if self.n_seeds > 1 else ""
        return f"{text} {interval}, n = {self.n}{seeds}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return {k: (None if v != v else v) for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Estimate:
        """The inverse of `to_dict`."""
        numbers = ("value", "low", "high")
        missing = {k: math.nan for k in numbers if values[k] is None}
        return cls(**{**values, **missing})
