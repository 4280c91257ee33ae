"""Steps inside `lax.scan` and networks under `vmap`, against loops of the same steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnn_jax.bench import networks, operations, programs
from cnn_jax.bench.architecture import NETWORKS, Network
from cnn_jax.bench.cases import Convolution, square
from cnn_jax.bench.timing import Rival
from cnn_jax.bench.trials import Trial

STEPS = 4
MEMBERS = 4
CONVOLUTION = square(3, 64, 64, at=16, batch=16)
STEPPED = {"LeNet-5": 128, "ResNet-18": 16, "depthwise (MobileNet)": 16}  # with batch sizes
# Stock steps of these in a scan take a minute, and say what those of the others say.
SLOW_IN_A_SCAN = ("ResNet-18", "depthwise (MobileNet)")

Cut = Callable[[int], int]
Step = Callable[..., tuple[Any, Any]]


def scan_trials(dtype: str, cut: Cut) -> Iterator[Trial]:
    """`STEPS` steps: in a scan, in a loop of the compiled step, unrolled in one program."""
    convolution = replace(CONVOLUTION, batch=cut(CONVOLUTION.batch))
    comparisons = [
        ("ours scan", "ours loop"),
        ("ours scan", "ours unrolled"),
        ("ours scan", "stock scan"),
        ("stock scan", "stock loop"),
    ]
    part = f"{STEPS} steps"
    for name, make in _cases(convolution, dtype, cut):
        with_stock = not name.startswith(SLOW_IN_A_SCAN)
        rivals = partial(_scan_rivals, make, operations.IMPLEMENTATIONS[: 1 + with_stock])
        yield Trial(name, part, rivals, comparisons if with_stock else comparisons[:2])


def vmap_trials(dtype: str, cut: Cut) -> Iterator[Trial]:
    """A step of `MEMBERS` networks: under vmap, and in a loop over them."""
    convolution = replace(CONVOLUTION, batch=cut(CONVOLUTION.batch))
    comparisons = [
        ("ours vmap", "ours loop"),
        ("ours vmap", "stock vmap"),
        ("stock vmap", "stock loop"),
    ]
    for name, make in _cases(convolution, dtype, cut):
        yield Trial(name, f"{MEMBERS} networks", partial(_vmap_rivals, make), comparisons)


# What makes a step, its first state and batches, for `ours` or `stock`.
Make = Callable[[str, int], tuple[Step, Any, list[Any]]]


def _cases(convolution: Convolution, dtype: str, cut: Cut) -> Iterator[tuple[str, Make]]:
    yield f"one layer, {convolution.name}", partial(_convolution_step, convolution, dtype)
    for name, batch in STEPPED.items():
        network = replace(NETWORKS[name], batch=cut(batch))
        yield f"{name} n{network.batch}", partial(_network_step, network, dtype)


def _convolution_step(
    convolution: Convolution, dtype: str, implementation: str, count: int
) -> tuple[Step, Any, list[Any]]:
    """Follows the weight gradient: kernel minus a little of it."""
    gradient = operations.function_of(convolution, "weight gradient", implementation)
    kernel = operations.arguments_of(convolution, dtype)[1]

    def step(kernel: Any, images: Any, cotangent: Any) -> tuple[Any, Any]:
        (change,) = gradient(images, kernel, cotangent)
        return kernel - 1e-6 * change, change[0, 0, 0, 0]

    batches = [operations.arguments_of(convolution, dtype, seed) for seed in range(count)]
    return step, kernel, [(images, cotangent) for images, _, cotangent in batches]


def _network_step(
    network: Network, dtype: str, implementation: str, count: int
) -> tuple[Step, Any, list[Any]]:
    model = networks.Stack(network.layers, implementation, jnp.dtype(dtype))
    batches: list[Any] = [networks.batch_of(network, dtype, seed) for seed in range(count)]
    return networks.training_step(model), networks.initial_state(network), batches


def _scan_rivals(make: Make, implementations: Sequence[str]) -> dict[str, Rival]:
    rivals: dict[str, Rival] = {}
    for implementation in implementations:
        step, state, batches = make(implementation, STEPS)
        stacked = _stack(batches)
        scan = partial(_scanned, step)
        rivals[f"{implementation} scan"] = programs.stepping(scan, state, [stacked])
        rivals[f"{implementation} loop"] = programs.stepping(step, state, batches)
        if implementation == "ours":
            unrolled = partial(_unrolled, step)
            rivals["ours unrolled"] = programs.stepping(unrolled, state, [stacked])
    return rivals


def _scanned(step: Step, state: Any, *stacked: Any) -> tuple[Any, Any]:
    return lax.scan(lambda state, batch: step(state, *batch), state, stacked)


def _unrolled(step: Step, state: Any, *stacked: Any) -> tuple[Any, Any]:
    metrics = None
    for index in range(STEPS):
        state, metrics = step(state, *(x[index] for x in stacked))
    return state, metrics


def _vmap_rivals(make: Make) -> dict[str, Rival]:
    rivals: dict[str, Rival] = {}
    for implementation in operations.IMPLEMENTATIONS:
        step, state, batches = make(implementation, MEMBERS)
        # Members differ in their batches at once, and in their kernels from the second step on.
        states = _stack([state] * MEMBERS)
        rivals[f"{implementation} vmap"] = programs.stepping(
            jax.vmap(step), states, [_stack(batches)]
        )
        program = programs.Program(step, (state, *batches[0]), donate=True)
        members = [programs.Steps(program, state, [batch]) for batch in batches]
        rivals[f"{implementation} loop"] = programs.JaxRival(program, partial(_each, members))
    return rivals


def _each(members: list[programs.Steps]) -> list[Any]:
    return [member() for member in members]


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
