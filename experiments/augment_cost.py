"""What augmentation costs: the CIFAR-10 recipe's training step with and without it.

    python -m experiments.augment_cost [--only NAME] [--pairs 15] [--batch-size 512]

Steps with and without take turns, so that a busy machine slows both. Printed are the median
over the pairs of the relative difference in wall time, with the interval of the median from
order statistics (at least 95 % for 15 pairs or more, whatever the distribution), and the time
of the transforms compiled on their own. Pixels are random, which is no easier than photos.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnn_jax import data
from cnn_jax.assembly import Assembly, assemble_run, make_augment
from cnn_jax.recipe import Recipe, resolve

PIPELINES: dict[str, dict[str, Any]] = {
    "flip, translate, cutout": {"flip": True, "translate": 2, "cutout": 8},
    "alternating flip, translate": {"flip": "alternating", "translate": 2},
    "rotate, scale, shear, crop": {"rotate": 15, "scale": 0.1, "shear": 5, "crop": 0.5},
    "brightness, contrast, saturation, hue": {
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
    },
    "blur": {"blur": 1.0},
    "noise": {"noise": 0.05},
    "erase": {"erase": 0.5},
    "mixup and cutmix": {"mixup": 0.2, "cutmix": 1.0},
    "flip, translate, trivial, cutout": {
        "flip": True,
        "translate": 2,
        "policy": "trivial",
        "cutout": 8,
    },
}


def main() -> None:
    """Measure every pipeline and print a line for each."""
    parser = argparse.ArgumentParser(description="what augmentation costs")
    parser.add_argument("--only", choices=list(PIPELINES), help="measure this one alone")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=512)
    options = parser.parse_args()
    dataset = _random_images(options.batch_size)
    plain = _stepper(_recipe({}, options.batch_size), dataset)
    for name in [options.only] if options.only else PIPELINES:
        fields = PIPELINES[name]
        recipe = _recipe(fields, options.batch_size)
        augmented = _stepper(recipe, dataset)
        with_, without = np.array([(augmented(), plain()) for _ in range(options.pairs)]).T
        low, middle, high = _median(with_ / without - 1)
        alone = np.median(_time_alone(recipe, dataset, options.pairs))
        print(
            f"{name:40s} {middle:+6.1%} [{low:+.1%}, {high:+.1%}] of a step of "
            f"{np.median(without) * 1e3:.0f} ms; alone {alone * 1e3:.1f} ms",
            flush=True,
        )


def _recipe(fields: dict[str, Any], batch_size: int) -> Recipe:
    off = {"augment.translate": 0, "augment.flip": False, "batch_size": batch_size}
    return resolve("cifar10", {**off, **{f"augment.{k}": v for k, v in fields.items()}})


def _random_images(batch_size: int) -> data.Dataset:
    rng = np.random.default_rng(0)
    n = 2 * batch_size
    return data.from_arrays(rng.integers(0, 256, (n, 32, 32, 3), np.uint8), np.arange(n) % 10)


def _stepper(recipe: Recipe, dataset: data.Dataset) -> Callable[[], float]:
    """A function that takes one step, already compiled, and returns the seconds it took."""
    assembly: Assembly = assemble_run(recipe, dataset)
    feed = assembly.feeds["train"]
    item = next(feed.train_chunks(seed=0, epoch=0, first_step=0, chunk_steps=1))
    state = assembly.initial_state()

    def step() -> float:
        nonlocal state
        start = time.perf_counter()
        state, _ = assembly.run_chunk(state, feed.resident, item)
        jax.block_until_ready(state.params)
        return time.perf_counter() - start

    step(), step()
    return step


def _time_alone(recipe: Recipe, dataset: data.Dataset, repeats: int) -> list[float]:
    rows = np.arange(recipe.train.batch_size)
    batch = {
        "image": jax.numpy.asarray(dataset.splits["train"].read_images(rows) / np.float32(255)),
        "label": jax.numpy.asarray(rows % 10, jax.numpy.int32),
        "index": jax.numpy.asarray(rows, jax.numpy.int32),
    }
    key, epoch = jax.random.key(0), jax.numpy.asarray(0, jax.numpy.int32)
    transforms = jax.jit(make_augment(recipe.augment, dataset.image_shape))
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(transforms(key, batch, root=key, epoch=epoch))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _median(values: np.ndarray) -> tuple[float, float, float]:
    """The median between two order statistics that hold it with at least 95 %."""
    ordered = np.sort(values)
    n = len(values)
    below = np.cumsum([math.comb(n, k) / 2**n for k in range(n + 1)])
    rank = max(int((below <= 0.025).sum()) - 1, 0)
    return ordered[rank], float(np.median(values)), ordered[-1 - rank]


if __name__ == "__main__":
    main()
