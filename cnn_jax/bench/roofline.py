"""What the machine can give, measured, and each layer of a network as a share of that.

The bound of an operation with F floating-point operations and Q bytes moved is
max(F / peak, Q / bandwidth) seconds (Williams et al. 2009, Roofline).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cnn_jax.bench import operations, programs, zoo
from cnn_jax.bench.cases import Operation
from cnn_jax.bench.timing import Rival, measure
from cnn_jax.bench.trials import Trial

TRIAD_BYTES = 2**28  # of each array: more than any cache
MODEL, IMAGE_SIZE, BATCH = "resnet18", 32, 64


@dataclass(frozen=True)
class Roof:
    """Measured limits: floating-point operations and bytes per second."""

    flops_per_second: float
    bytes_per_second: float

    def seconds(self, flops: float, bytes_moved: float) -> float:
        """The least time that `flops` operations on `bytes_moved` bytes can take."""
        return max(flops / self.flops_per_second, bytes_moved / self.bytes_per_second)


class Bound:
    """A rival that takes as long as the roof says, by computation and not by clock."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def time(self, repeats: int) -> float:
        """Seconds of `repeats` calls."""
        return repeats * self._seconds


def limits(dtype: str) -> dict[str, programs.JaxRival]:
    """What sets the roof: a large matrix product, and the triad a + s·b over large arrays.

    The triad reads two arrays and writes one (McCalpin 1995, STREAM).
    """
    size = _product_size()
    matrix = jnp.ones((size, size), dtype)
    vector = jnp.ones((TRIAD_BYTES // matrix.itemsize,), dtype)
    scale = jnp.asarray(0.5, dtype)
    return {
        "peak": programs.pure(lambda a, b: a @ b, (matrix, matrix)),
        "bandwidth": programs.pure(lambda a, b, s: a + s * b, (vector, vector, scale)),
    }


def measure_roof(dtype: str, *, rounds: int = 6) -> Roof:
    """The rates of the two `limits` on this machine: medians of `rounds` measurements."""
    seconds = measure(limits(dtype), pairs=rounds, measurement_seconds=0.05)
    return Roof(
        2 * _product_size() ** 3 / statistics.median(seconds["peak"]),
        3 * TRIAD_BYTES / statistics.median(seconds["bandwidth"]),
    )


def trials(dtype: str, cut: Callable[[int], int]) -> Iterator[Trial]:
    """The limits once more, and each convolution and pooling of `MODEL`, against the bound."""
    roof = measure_roof(dtype)
    itemsize = jnp.dtype(dtype).itemsize
    size = _product_size()
    yield _limit_trial("peak", f"matrix product {size}x{size}", dtype, roof, 2 * size**3, 0)
    triad = f"triad of {TRIAD_BYTES // 2**20} MiB arrays"
    yield _limit_trial("bandwidth", triad, dtype, roof, 0, 3 * TRIAD_BYTES)
    found = zoo.operations_of(MODEL, IMAGE_SIZE, cut(BATCH))
    for operation in dict.fromkeys(found):
        for part in operation.parts:
            flops = operation.flops(part)
            moved = operation.elements_moved(part) * itemsize
            bound = Bound(roof.seconds(flops, moved))
            make = partial(_rivals, operation, part, dtype, bound)
            yield Trial(operation.name, part, make, [("ours", "bound")], flops, moved)


def _product_size() -> int:
    """Rows of the matrices: enough to reach the peak."""
    return 2048 if jax.default_backend() == "cpu" else 8192


def _limit_trial(part: str, case: str, dtype: str, roof: Roof, flops: int, moved: int) -> Trial:
    bound = Bound(roof.seconds(flops, moved))
    make = partial(_limit_rivals, part, dtype, bound)
    return Trial(case, part, make, [("stock", "bound")], flops, moved)


def _limit_rivals(part: str, dtype: str, bound: Bound) -> dict[str, Rival]:
    return {"stock": limits(dtype)[part], "bound": bound}


def _rivals(operation: Operation, part: str, dtype: Any, bound: Bound) -> dict[str, Rival]:
    arguments = operations.arguments_of(operation, dtype)
    ours = programs.pure(operations.function_of(operation, part, "ours"), arguments)
    return {"ours": ours, "bound": bound}
