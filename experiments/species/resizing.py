"""CIFAR-10 with small images in the first epochs: what it saves, and what it costs.

    python -m experiments.species.resizing --data-dir DIR --out FOLDER [--seeds 3]

Networks learn 200 images of each class as in `hierarchy`, on images as they are, or of 16, 24 and
32 pixels in turn (`train.sizes`), a third of the epochs each, from the same seeds. Accuracy is that
of the official test part, at 32 pixels. Time is that of compiled steps at each size, taken in turns
in one process, and together for all thirds. FOLDER keeps a run for each seed; those that are there
are not trained again. Appends to results.csv beside this file.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from cnn_jax import data
from cnn_jax.assembly import assemble_run
from cnn_jax.bench.statistics import paired_ratio
from cnn_jax.data import Dataset
from cnn_jax.evaluation import Estimate, classification_metrics, over_seeds
from cnn_jax.recipe import resolve
from experiments.results import Row
from experiments.rows import command_of_seeds, reported
from experiments.species.hierarchy import DATA, LEARNING, PATH, SHOTS, load, trained

SIZES = (16, 24, 32)
METHODS: Mapping[str, Mapping[str, Any]] = {
    "images as they are": {},
    f"images of {', '.join(map(str, SIZES))} pixels in turn": {"train.sizes": SIZES},
}
ROUNDS, STEPS = 15, 4
COMMAND = (
    'python -m experiments.species.resizing --data-dir "$CNN_JAX_DATA" --out FOLDER --seeds {}'
)


def rows(folder: str, out: Path, seeds: int) -> Iterator[Row]:
    """Each figure as a row."""
    dataset, _ = load(folder)

    def row(experiment: str, metric: str, figure: Estimate, seed: int, split: str) -> Row:
        fixed = {"command": COMMAND.format(seeds), "seed": str(seed)}
        return reported(figure, dataset, experiment, metric, split, **fixed)

    whole, small = METHODS
    test = f"{SHOTS} of each class, small images first, test"
    for seed in range(seeds):
        found = {}
        for number, (name, changes) in enumerate(METHODS.items()):
            run = trained(dataset, out / f"{('whole', 'small')[number]}-{seed}", seed, changes)
            found[name] = classification_metrics(run.predictions("test"))["accuracy"]
            yield row(name, "accuracy", found[name], seed, test)
        change = found[small].value - found[whole].value
        gain = over_seeds([change], found[whole].n, percent=True, difference=True)
        yield row(f"{small} minus {whole}", "accuracy", gain, seed, test)
    for name, ratio in step_times(dataset).items():
        yield row(
            name, "time of a step", ratio, 0, f"{SHOTS} of each class, small images first, train"
        )


def step_times(dataset: Dataset) -> dict[str, Estimate]:
    """Time of steps at each size, and of all thirds, over that at the full size; in turns."""
    fewer = data.few_shots(dataset, SHOTS, seed=0)
    assembly = assemble_run(resolve(DATA, LEARNING), fewer)
    feed, state = assembly.feeds["train"], assembly.initial_state()
    batches = itertools.cycle(
        feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=feed.chunk_steps(1))
    )
    seconds: dict[int, list[float]] = {side: [] for side in SIZES}
    for number in range(ROUNDS + 1):
        for side in SIZES:
            started = time.perf_counter()
            for items in itertools.islice(batches, STEPS):
                state, _ = assembly.run_chunk(state, feed.resident, items, side=side)
            jax.block_until_ready(state)
            if number:  # the first compiles
                seconds[side].append(time.perf_counter() - started)
    whole = seconds[max(SIZES)]
    thirds = [sum(each) / len(SIZES) for each in zip(*seconds.values(), strict=True)]
    found = {f"images of {side} pixels": seconds[side] for side in SIZES[:-1]}
    found[f"images of {', '.join(map(str, SIZES))} pixels in turn"] = thirds
    return {
        f"{name} over images of {max(SIZES)} pixels": _ratio(each, whole)
        for name, each in found.items()
    }


def _ratio(seconds: list[float], whole: list[float]) -> Estimate:
    ratio = paired_ratio(seconds, whole)
    return Estimate(ratio.ratio, ratio.low, ratio.high, len(seconds), "order statistics")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return command_of_seeds(__doc__, "resizing", PATH, rows, arguments, seeds=3)


if __name__ == "__main__":
    sys.exit(main())
