"""Which strategy a population takes: measured, within the memory there is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import jax

from cnn_jax.errors import RecipeError
from cnn_jax.training.loop import Chunks
from cnn_jax.training.population import Strategy
from cnn_jax.training.state import Batch, State
from cnn_jax.training.step import RunChunk

_ROUNDS = 5
_ROUND_SECONDS = 0.05  # at least one chunk, and no more than that of the fastest strategy
_SECONDS = 2.0  # of all rounds, after which no other begins
_ALIKE = 1.03  # a loop that takes no longer than this is taken: it is what single runs do


@dataclass(frozen=True)
class Candidate:
    """A way to train that can be tried.

    Attributes:
      strategy: its name.
      run_chunk: compiled at its first call, or before.
      initial_state: a state to begin with, anew at each call.
      feed, seed: the batches, and what their order is drawn from.
      members: how many members a chunk is of.
      memory: bytes that it holds at once.
    """

    strategy: Strategy
    run_chunk: RunChunk
    initial_state: Callable[[], State]
    feed: Chunks
    seed: Any
    members: int
    memory: int = 0


@dataclass(frozen=True)
class Choice:
    """The strategy that is taken, and why, as a sentence."""

    strategy: Strategy
    reason: str


def choose(candidates: Sequence[Candidate], free: int | None) -> Choice:
    """The fastest of the strategies that fit into memory.

    A few steps of each are taken, in turns, on states that are thrown away.

    Args:
      candidates: one for each strategy; the first is the one that always fits.
      free: bytes of memory, None if it is not known.
    """
    fitting = [t for t in candidates if free is None or t is candidates[0] or t.memory <= free]
    too_large = [t for t in candidates if t not in fitting]
    said = [f"{t.strategy} would need {in_gib(t.memory)}" for t in too_large]
    if too_large and free is not None:
        said[-1] += f" of {in_gib(free)} that are free"
    if len(fitting) == 1:
        return Choice(fitting[0].strategy, "; ".join(said) or "there is no other")
    first = fitting[0].strategy
    stepping = {candidate.strategy: Stepping(candidate) for candidate in fitting}
    # The first chunk compiles; the second tells how many make a round, and is one itself.
    once = {strategy: some.take(1) for strategy, some in stepping.items()}
    steps = min(max(1, round(_ROUND_SECONDS / seconds)) for seconds in once.values())
    times = {s: [once[s] / some.member_steps] for s, some in stepping.items()}
    started = time.perf_counter() - sum(once.values())
    while len(times[first]) < _ROUNDS and time.perf_counter() - started < _SECONDS:
        for strategy, some in stepping.items():
            times[strategy].append(some.take(steps) / steps / some.member_steps)
    cost = {strategy: statistics.median(values) for strategy, values in times.items()}
    best = min(cost, key=lambda strategy: cost[strategy])
    chosen = first if cost[first] <= _ALIKE * cost[best] else best
    order = [chosen, *(strategy for strategy in cost if strategy != chosen)]
    measured = ", ".join(f"{strategy} {1000 * cost[strategy]:.3g}" for strategy in order)
    return Choice(chosen, "; ".join([f"ms for a step of a member: {measured}", *said]))


def check_memory(candidate: Candidate, free: int | None) -> None:
    """Raise `RecipeError` if it does not fit."""
    if free is not None and candidate.memory > free:
        raise RecipeError(
            f"{candidate.members} members at once ({candidate.strategy}) need "
            f"{in_gib(candidate.memory)} of memory, and {in_gib(free)} are free: take fewer, or "
            "the strategy loop"
        )


def in_gib(size: int) -> str:
    """Bytes as `2.5 GiB`."""
    return f"{size / 2**30:.1f} GiB"


class Stepping:
    """Takes steps and tells how long they took."""

    def __init__(self, candidate: Candidate) -> None:
        self._trial = candidate
        self._steps = candidate.feed.chunk_steps(None)
        self._state = candidate.initial_state()
        self._chunks = self._endless()
        self.member_steps = self._steps * candidate.members
        self.take(1)

    def take(self, chunks: int) -> float:
        """Seconds for so many chunks."""
        started = time.perf_counter()
        metrics: Any = None
        for items in islice(self._chunks, chunks):
            self._state, metrics = self._trial.run_chunk(
                self._state, self._trial.feed.resident, items
            )
        jax.block_until_ready((self._state, metrics))
        return time.perf_counter() - started

    def _endless(self) -> Iterator[Batch]:
        for epoch in count():
            yield from self._trial.feed.train_chunks(
                seed=self._trial.seed, epoch=epoch, first_step=0, chunk_steps=self._steps
            )
