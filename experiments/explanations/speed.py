"""Integrated gradients beside as many batched forward and backward passes, ResNet-18 at 32 px.

    python -m experiments.explanations.speed [--images 64] [--steps 64] [--pairs 10]

Both are compiled; the rival is one call for each 32 images, a gradient of the summed logits, as a
loop in Python would make it. Pairs are interleaved, the first of each being another one each time;
the ratio is the median over pairs, with the interval by order statistics. Appends to
results.csv beside this file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import environment, explain, models
from cnn_jax.bench.statistics import LEVEL, median_interval
from cnn_jax.evaluation import Estimate
from cnn_jax.explain.answers import logits_of
from experiments.results import Row
from experiments.rows import append_each, here, row_of

PATH = Path(__file__).with_name("results.csv")
SIDE, BATCH = 32, 32


def rivals(images: int, steps: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Functions that do either; each waits for its result."""
    model = models.create("resnet18", num_classes=10, image_size=SIDE)
    variables = models.initialize(model, jax.random.key(0), (SIDE, SIDE, 3))
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(images, SIDE, SIDE, 3)), jnp.float32)
    target = jnp.asarray(rng.integers(0, 10, images), jnp.int32)

    @jax.jit
    def integrated(variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
        logits = logits_of(model, variables)
        return explain.integrated_gradients(logits, x, target, steps=steps).attributions

    @jax.jit
    def passed(variables: Mapping[str, Any], x: jax.Array, target: jax.Array) -> jax.Array:
        return explain.gradient(logits_of(model, variables), x, target)

    batches = [(x[i : i + BATCH], target[i : i + BATCH]) for i in range(0, images, BATCH)]

    def plain() -> None:
        for _ in range(steps):
            for some, of in batches:
                passed(variables, some, of).block_until_ready()

    return lambda: integrated(variables, x).block_until_ready(), plain


def rows(images: int, steps: int, pairs: int) -> Iterator[Row]:
    """The ratio as a row."""
    environment.enable_compile_cache()
    ours, plain = rivals(images, steps)
    ours(), plain()
    ratios = []
    for number in range(pairs):
        seconds = {}
        for which in (ours, plain) if number % 2 else (plain, ours):
            start = time.perf_counter()
            which()
            seconds[which] = time.perf_counter() - start
        ratios.append(seconds[ours] / seconds[plain])
        print(f"{seconds[ours]:.1f} s beside {seconds[plain]:.1f} s: {ratios[-1]:.3f}", flush=True)
    low, high = median_interval(ratios)
    ratio = Estimate(
        float(np.median(ratios)), low, high, pairs, "median, order statistics", level=LEVEL
    )
    yield row_of(
        ratio,
        experiment=f"integrated gradients, {images} images, {steps} steps",
        metric="time over that of plain passes",
        command=f"python -m experiments.explanations.speed --images {images} --steps {steps} "
        f"--pairs {pairs}",
        data="noise",
        data_digest="",
        split=f"resnet18, {SIDE} px",
        seed="0",
        **here(),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=10)
    options = parser.parse_args(arguments)
    return append_each(PATH, rows(options.images, options.steps, options.pairs), "speed")


if __name__ == "__main__":
    sys.exit(main())
