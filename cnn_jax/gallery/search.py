"""The templates that are nearest to embeddings: one product on the device, made exact on the host.

The device proposes more candidates than are asked for, from templates in float32, or in float16,
which takes half of the memory and of the time to read it. The scores of what it proposes are
computed anew in float64 from float32, and a bound on the rounding says whether a better one could
have been missed; where it could, as among copies, that embedding is compared with all templates on
the host. So names and scores depend neither on the device nor on how it stores templates.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax.anomaly.neighbours import NUMBERS_AT_ONCE, blocks

Precision = Literal["float32", "float16"]

# Candidates in all, or beyond those asked for.
_PROPOSED = {"float16": 100, "float32": 8}
_ROWS = 1024  # templates at a time where they are brought to float32 first
_ROUNDING = 2.0**-24  # half a unit in the last place of float32
_PLACES = 12  # of a cosine: equal templates score alike, in whatever order sums are taken


class Index:
    """Templates on a device, and the same on the host.

    Attributes:
      templates: float32 `[P, D]`, each of unit length (or zero), on the host.
    """

    def __init__(self, templates: np.ndarray, precision: Precision) -> None:
        self.templates = templates
        self._proposed = _PROPOSED[precision]
        # Rows are added up to a few sizes, so that few programs are compiled as people come.
        step = max(_ROWS, 1 << max(len(templates).bit_length() - 5, 0))
        stored = np.zeros((-(-len(templates) // step) * step, templates.shape[1]), precision)
        lost = 0.0
        for rows in blocks(len(templates), 2 * templates.shape[1]):
            stored[rows] = templates[rows]
            apart = templates[rows] - stored[rows].astype(np.float32)
            lost = max(lost, float(np.einsum("pd,pd->p", apart, apart).max()))
        self._stored = jax.device_put(stored)
        # A product of D terms is off by D u |a| |b| at most in whatever order it is summed (Higham
        # 2002, §3.1), the query by a rounding, what is stored by its distance from the template.
        self._bound = float(np.sqrt(lost)) + _ROUNDING * (1.02 * templates.shape[1] + 4)

    def top(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k templates with the highest cosine, highest first; of equals the first first.

        Args:
          queries: float32 `[M, D]`, of unit length.
          k: 1..P.

        Returns:
          Scores float64 `[M, k]`, and positions int64 `[M, k]`.
        """
        scores = np.empty((len(queries), k))
        positions = np.empty((len(queries), k), np.int64)
        count = min(max(self._proposed, k + _PROPOSED["float32"]), len(self._stored))
        per_query = max(len(self._stored), 2 * count * queries.shape[1])
        at_once = max(1, NUMBERS_AT_ONCE // per_query)
        # Powers of two: however many come, few programs are compiled.
        at_once = min(1 << (at_once.bit_length() - 1), 1 << (len(queries) - 1).bit_length())
        for start in range(0, len(queries), at_once):
            rows = slice(start, min(start + at_once, len(queries)))
            asked = queries[rows]
            padded = np.zeros((at_once, queries.shape[1]), np.float32)
            padded[: len(asked)] = asked
            proposed = _propose(padded, self._stored, np.int32(len(self.templates)), count)
            values, found = (x[: len(asked)] for x in jax.device_get(proposed))
            scores[rows], positions[rows] = self._refined(asked, np.sort(found, axis=1), k)
            # What was not proposed scores less than this, but for the rounding.
            sure = scores[rows, -1] > values[:, -1].astype(np.float64) + self._bound
            if count < len(self.templates) and not sure.all():
                doubtful = np.flatnonzero(~sure) + start
                scores[doubtful], positions[doubtful] = self._of_all(queries[doubtful], k)
        return np.clip(scores, -1, 1), positions

    def scores(self, queries: np.ndarray, position: int) -> np.ndarray:
        """float64 `[M]`: the cosines with one template."""
        products = queries.astype(np.float64) @ self.templates[position].astype(np.float64)
        return np.clip(np.round(products, _PLACES), -1, 1)

    def _refined(
        self, queries: np.ndarray, found: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best of templates int `[M, C]`, by products in float64."""
        there = found < len(self.templates)
        near = self.templates[np.where(there, found, 0)].astype(np.float64)
        scores = np.einsum("mcd,md->mc", near, queries.astype(np.float64))
        return _best(np.where(there, scores, -np.inf), found, k)

    def _of_all(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = np.empty((len(queries), len(self.templates)))
        asked = queries.astype(np.float64)
        for some in blocks(len(self.templates), 2 * queries.shape[1]):
            scores[:, some] = asked @ self.templates[some].astype(np.float64).T
        everybody = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
        return _best(scores, everybody, k)


def _best(scores: np.ndarray, found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.round(scores, _PLACES)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(found, order, axis=1)


@partial(jax.jit, static_argnames="count")
def _propose(
    queries: jax.Array, templates: jax.Array, people: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """The `count` best of the first `people` templates: scores and positions `[M, count]`."""

    def product(some: jax.Array) -> jax.Array:
        return jnp.matmul(queries, some.astype(jnp.float32).T, precision="highest")

    # What XLA for CPUs is fastest at. Float16 becomes float32 on the way into the product of one
    # vector; for several it would write all of it down first.
    if templates.dtype == jnp.float32 and len(queries) == 1:
        scores = jnp.matmul(templates, queries[0], precision="highest")[jnp.newaxis]
    elif templates.dtype == jnp.float32 or len(queries) == 1:
        scores = product(templates)
    else:
        by_block = jax.lax.map(product, templates.reshape(-1, _ROWS, templates.shape[1]))
        scores = jnp.moveaxis(by_block, 0, 1).reshape(len(queries), len(templates))
    real = jnp.arange(len(templates)) < people
    # All of it goes to the host: with a slice of it, XLA for CPUs sorts instead.
    return jax.lax.top_k(jnp.where(real[jnp.newaxis], scores, -jnp.inf), count)
