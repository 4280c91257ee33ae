"""What got slower or faster since results were saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cnn_jax.bench.results import Row
from cnn_jax.errors import BenchmarkError


@dataclass(frozen=True)
class Change:
    """A comparison then and now.

    Attributes:
      old, new: the two rows, of one identity.
      verdict: `slower` or `faster` if the intervals of the two ratios do not overlap.
    """

    old: Row
    new: Row
    verdict: Literal["slower", "faster", "same"]

    @property
    def ratio_of_ratios(self) -> float:
        """The new ratio divided by the old one: free of how fast the machine is."""
        return self.new.ratio / self.old.ratio

    @property
    def ratio_of_times(self) -> float:
        """The rival's new time divided by its old one."""
        return self.new.ms / self.old.ms


def changes(old: Sequence[Row], new: Sequence[Row]) -> list[Change]:
    """The comparisons that both hold, in the order of the new ones.

    Raises:
      BenchmarkError: they have none in common.
    """
    before = {row.identity: row for row in old}
    found = [
        Change(before[row.identity], row, _verdict(before[row.identity], row))
        for row in new
        if row.identity in before
    ]
    if new and not found:
        raise BenchmarkError("the baseline holds none of these comparisons")
    return found


def _verdict(old: Row, new: Row) -> Literal["slower", "faster", "same"]:
    if new.low > old.high:
        return "slower"
    return "faster" if new.high < old.low else "same"


def differences(found: Sequence[Change]) -> list[str]:
    """Hardware and versions that differ between then and now, such as `jax 0.10.2 -> 0.12`."""
    told = {
        f"{name} {before or 'none'} -> {now or 'none'}": None
        for change in found
        for (name, before), now in zip(
            change.old.circumstances.items(), change.new.circumstances.values(), strict=True
        )
        if before != now
    }
    return list(told)
