"""How many picture files a detector passes or fails in a second, from the disk to heat maps.

    python -m experiments.quality_control.speed [--rounds 10] [--csv results.csv]

512 grey PNG files of 128×128 pixels, decoded and looked at as `cnn-jax inspect` does, by the U-Net
of its recipe, and by PatchCore on the maps of a small network with a memory of 2,000 patches. Their
weights are as drawn: what they are does not change how long it takes. The rate is the median of
the rounds, in which the two take turns, with the interval of order statistics.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from cnn_jax import anomaly, environment, models
from cnn_jax.bench.statistics import median_interval
from cnn_jax.detecting.looking import look_at
from cnn_jax.detecting.scorer import Scorer
from cnn_jax.evaluation import Estimate
from cnn_jax.pretraining import Pretrained
from cnn_jax.training.preprocess import Preprocess
from experiments import results
from experiments.rows import here, row_of

FILES, SIDE, MEMORY = 512, 128, 2_000
SHAPE = (SIDE, SIDE, 1)
COMMAND = "python -m experiments.quality_control.speed"


def network(name: str, objective: str | None, **options: object) -> Pretrained:
    """A network with weights as drawn."""
    model = models.create(name, num_classes=1, image_size=SIDE, **options)
    variables = jax.device_get(models.initialize(model, jax.random.key(0), SHAPE))
    return Pretrained(model, variables, Preprocess((0.5,), (0.2,)), SHAPE, objective)


def scorers() -> dict[str, Scorer]:
    """The detectors, by name."""
    small = network("compact", None)
    at = ("stage2", "stage3")
    pixels = np.random.default_rng(0).integers(0, 255, (32, *SHAPE), dtype=np.uint8)
    found = small.features(pixels, at)
    maps = anomaly.embed([found[path] for path in at])
    share = MEMORY / (maps.size // maps.shape[-1])
    fitted = anomaly.fit_patchcore(maps, share=min(1.0, share))
    return {
        "synthetic (unet, stride 2)": Scorer(None, network("unet", "synthetic", stride=2)),
        f"patchcore of compact, {len(fitted.memory):,} patches": Scorer(fitted, small, at),
    }


def rates(rounds: int) -> Iterator[tuple[str, Estimate]]:
    """Name and files a second."""
    environment.enable_compile_cache()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(FILES)]
        for file in files:
            Image.fromarray(rng.integers(90, 150, SHAPE[:2], dtype=np.uint8)).save(file)
        taking = scorers()
        seconds: dict[str, list[float]] = {name: [] for name in taking}
        for number in range(rounds + 1):
            for name, scorer in taking.items():
                start = time.perf_counter()
                count = sum(1 for _ in look_at(scorer, files, SHAPE, "crop", None))
                if number:  # the first compiles
                    seconds[name].append((time.perf_counter() - start) / count)
    for name, each in seconds.items():
        fast = [1 / one for one in each]
        low, high = median_interval(fast)
        yield name, Estimate(statistics.median(fast), low, high, rounds, "order statistics")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--csv", help="append the figures to this file")
    options = parser.parse_args(arguments)
    for name, rate in rates(options.rounds):
        print(f"{name}: {rate.value:.1f} files a second [{rate.low:.1f}, {rate.high:.1f}]")
        if options.csv:
            row = row_of(
                rate,
                experiment=name,
                metric="files a second",
                command=COMMAND,
                data=f"{FILES} PNG of {SIDE}×{SIDE} pixels",
                data_digest="",
                split="from the disk",
                seed="0",
                **here(),
            )
            results.append(Path(options.csv), [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
