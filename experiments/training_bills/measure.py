"""What a published training would take on this machine: steps measured, the rest multiplied.

    python -m experiments.training_bills.measure RECIPE --data-dir DIR [--steps 6]

Builds the run of a recipe of CIFAR-10, compiles its step, takes one and then so many more of them,
each timed by itself, and multiplies the median by the steps of the whole training; the interval is
that of order statistics. Operations are those of the forward pass, counted in the program, times
three for training. Evaluation is not in it. Appends to results.csv beside this file.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from cnn_jax import data, environment, models
from cnn_jax.assembly import Assembly, assemble_run
from cnn_jax.bench.statistics import median_interval
from cnn_jax.evaluation import Estimate
from cnn_jax.recipe import resolve
from experiments.results import Row
from experiments.rows import append_each, reported

DATA, PATH = "cifar10", Path(__file__).with_name("results.csv")
COMMAND = 'python -m experiments.training_bills.measure {} --data-dir "$CNN_JAX_DATA" --steps {}'


def seconds_of_steps(assembly: Assembly, steps: int) -> list[float]:
    """Seconds of each of so many steps, one after the other, after one that compiles."""
    feed, state = assembly.feeds["train"], assembly.initial_state()
    seconds = []
    chunks = feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1)
    for number, items in zip(range(steps + 1), chunks, strict=False):
        started = time.perf_counter()
        state, metrics = assembly.run_chunk(state, feed.resident, items)
        jax.block_until_ready((state, metrics))
        if number:
            seconds.append(time.perf_counter() - started)
    return seconds


def rows(recipe: str, folder: str, steps: int) -> Iterator[Row]:
    """Each figure as a row."""
    environment.enable_compile_cache()
    whole = resolve(recipe, {"data": DATA, "data_dir": folder})
    dataset = data.load(DATA, data_dir=folder, validation=whole.data.validation)
    assembly = assemble_run(whole, dataset)
    train = assembly.recipe.train
    taken = seconds_of_steps(assembly, steps)
    low, high = median_interval(taken)
    all_steps = train.epochs * assembly.feeds["train"].steps
    images = train.epochs * len(dataset.splits["train"])
    forward = models.count_flops(assembly.model, dataset.image_shape)
    factor = all_steps / 3600
    hours = Estimate(
        factor * statistics.median(taken), factor * low, factor * high, steps, "order statistics"
    )
    nan = float("nan")
    petaflop = Estimate(3 * forward * images / 1e15, nan, nan, images, "counted")
    for metric, figure in (("hours, projected", hours), ("PFLOP of a training", petaflop)):
        fixed = {"command": COMMAND.format(recipe, steps), "seed": "0"}
        split = f"{train.epochs} epochs of {len(dataset.splits['train'])} images"
        yield reported(figure, dataset, recipe, metric, split, **fixed)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args(arguments)
    return append_each(PATH, rows(options.recipe, options.data_dir, options.steps), "bill")


if __name__ == "__main__":
    sys.exit(main())
