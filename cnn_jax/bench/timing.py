"""Rivals timed in turn in one run, so that what slows the machine slows all of them alike."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Protocol

from cnn_jax.errors import BenchmarkError

MEASUREMENT_SECONDS = 0.02  # shortest measurement: thousands of ticks of the clock
MOST_REPEATS = 100_000


class Rival(Protocol):
    """Something that can be called many times and says how long that took."""

    def time(self, repeats: int) -> float:
        """Seconds of `repeats` calls, each waited for."""
        ...


def measure(
    rivals: Mapping[str, Rival],
    *,
    pairs: int,
    seed: int = 0,
    measurement_seconds: float = MEASUREMENT_SECONDS,
) -> dict[str, list[float]]:
    """Seconds of one call of each rival, in `pairs` rounds.

    Each rival is called until it is warm, and repeated as often as a measurement of
    `measurement_seconds` needs. A round then measures every rival once, in an order drawn
    anew from `seed`, so that the times of one round form pairs.

    Args:
      rivals: by name, at least one.
      pairs: number of rounds.
      seed: of the orders.
      measurement_seconds: least duration of a measurement.

    Returns:
      For each name, a time for each round.
    """
    repeats = {name: _repeats(rival, measurement_seconds) for name, rival in rivals.items()}
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    order, draw = list(rivals), random.Random(seed)
    for _ in range(pairs):
        draw.shuffle(order)
        for name in order:
            seconds[name].append(rivals[name].time(repeats[name]) / repeats[name])
    return seconds


def _repeats(rival: Rival, measurement_seconds: float) -> int:
    """Warm a rival up; the fewest calls that last `measurement_seconds`."""
    rival.time(1)
    repeats, seconds = 1, rival.time(1)
    while seconds < measurement_seconds:
        # At most tenfold at a time: the first calls may be slower than the rest.
        wanted = math.ceil(1.1 * repeats * measurement_seconds / max(seconds, 1e-9))
        repeats = min(max(wanted, repeats + 1), 10 * repeats)
        if repeats > MOST_REPEATS:
            raise BenchmarkError(
                f"{MOST_REPEATS} calls take less than {1000 * measurement_seconds:g} ms: "
                "there is nothing to measure"
            )
        seconds = rival.time(repeats)
    return repeats
