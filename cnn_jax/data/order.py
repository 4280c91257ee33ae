"""The order in which an epoch visits the examples."""

from __future__ import annotations

import numpy as np

from cnn_jax.errors import DataError


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """int64 `[n]`: a permutation of 0..n-1, a pure function of (n, seed, epoch).

    The counter-based generator Philox (Salmon et al. 2011, "Parallel random numbers: as
    easy as 1, 2, 3") takes (seed, epoch) as its key, so any epoch can be drawn without
    drawing those before it, and a resumed run sees what the first would have seen.

    Raises:
      DataError: a negative number, or a seed or epoch of 2**64 or more.
    """
    if n < 0 or not 0 <= seed < 2**64 or not 0 <= epoch < 2**64:
        raise DataError(
            f"n, seed and epoch must be non-negative integers, not {n}, {seed}, {epoch}"
        )
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(n)
