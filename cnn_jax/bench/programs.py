"""JAX programs compiled once and timed: rivals that live in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


class Program:
    """A function compiled for fixed shapes; called like the function.

    Attributes:
      compile_seconds: from the function to the executable, tracing included.
      memory_bytes: what arguments, outputs and temporaries take together while it runs; 0
        where XLA does not say.
    """

    def __init__(
        self, function: Callable[..., Any], arguments: Sequence[Any], *, donate: bool = False
    ) -> None:
        """Compile `function` for `arguments`; with `donate` the first gives up its memory."""
        started = time.perf_counter()
        jitted = jax.jit(function, donate_argnums=(0,) if donate else ())
        self._compiled = jitted.lower(*arguments).compile()
        self.compile_seconds = time.perf_counter() - started
        self.memory_bytes = _memory(self._compiled)

    def __call__(self, *arguments: Any) -> Any:
        """The outputs, which may still be in the making."""
        return self._compiled(*arguments)

    def flops(self) -> float:
        """Floating-point operations as XLA counts them after its optimisations; 0 if unknown."""
        costs = self._compiled.cost_analysis() or {}
        return float(costs.get("flops", 0.0))


class JaxRival:
    """Calls into jax, each waited for.

    Attributes:
      program: what is compiled behind them.
    """

    def __init__(self, program: Program, call: Callable[[], Any]) -> None:
        self.program = program
        self._call = call

    def time(self, repeats: int) -> float:
        """Seconds of `repeats` calls."""
        started = time.perf_counter()
        for _ in range(repeats):
            jax.block_until_ready(self._call())
        return time.perf_counter() - started


def pure(function: Callable[..., Any], arguments: Sequence[Any]) -> JaxRival:
    """A rival that calls a function with the same arguments every time."""
    program = Program(function, arguments)
    return JaxRival(program, lambda: program(*arguments))


class Steps:
    """A state that steps of one program carry on; a call makes a step for each batch."""

    def __init__(self, program: Program, state: Any, batches: Sequence[Sequence[Any]]) -> None:
        self._program, self._batches = program, batches
        self._state = jax.tree.map(jnp.copy, state)  # steps give up the memory of their state

    def __call__(self) -> Any:
        """The last metrics, and the state after all steps."""
        metrics = None
        for batch in self._batches:
            self._state, metrics = self._program(self._state, *batch)
        return metrics, self._state


def stepping(step: Callable[..., Any], state: Any, batches: Sequence[Sequence[Any]]) -> JaxRival:
    """A rival that makes a step for each batch and waits for the last.

    Args:
      step: `step(state, *batch) -> (state, metrics)`.
      state: the first state; it is copied.
      batches: arguments of each step, all of the same shapes.
    """
    program = Program(step, (state, *batches[0]), donate=True)
    return JaxRival(program, Steps(program, state, batches))


def _memory(compiled: Any) -> int:
    found = compiled.memory_analysis()
    if found is None:
        return 0
    total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return int(total - found.alias_size_in_bytes)
