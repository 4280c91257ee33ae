"""A trial: rivals that do the same, and which of them are compared; and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cnn_jax.bench.programs import JaxRival
from cnn_jax.bench.statistics import PairedRatio, paired_ratio
from cnn_jax.bench.timing import Rival, measure


@dataclass(frozen=True)
class Trial:
    """One thing to time.

    Attributes:
      case, part: what is done, in words.
      rivals: makes the rivals by name, when their turn comes; what they hold is let go after.
      comparisons: (rival, reference) by name; a row of results each.
      flops: floating-point operations of one call, or 0 where they have no count.
      bytes_moved: of one call, if each array passes the memory once, or 0.
    """

    case: str
    part: str
    rivals: Callable[[], Mapping[str, Rival]]
    comparisons: Sequence[tuple[str, str]]
    flops: int = 0
    bytes_moved: int = 0


@dataclass(frozen=True)
class Compiled:
    """What compiling a rival took: seconds, and bytes while it runs; 0 for none or unknown."""

    seconds: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Comparison:
    """A rival and its reference, timed."""

    trial: Trial
    rival: str
    reference: str
    ratio: PairedRatio
    compiled: Compiled
    reference_compiled: Compiled


def run_trial(
    trial: Trial, *, pairs: int, measurement_seconds: float, seed: int = 0
) -> Iterator[Comparison]:
    """Time the rivals of a trial in turn; its comparisons in order.

    Raises:
      BenchmarkError: a rival in another process failed, or there is nothing to measure.
    """
    rivals = trial.rivals()
    seconds = measure(rivals, pairs=pairs, seed=seed, measurement_seconds=measurement_seconds)
    for rival, reference in trial.comparisons:
        yield Comparison(
            trial,
            rival,
            reference,
            paired_ratio(seconds[rival], seconds[reference]),
            _compiled(rivals[rival]),
            _compiled(rivals[reference]),
        )


def _compiled(rival: Rival) -> Compiled:
    if not isinstance(rival, JaxRival):
        return Compiled()
    return Compiled(rival.program.compile_seconds, rival.program.memory_bytes)
