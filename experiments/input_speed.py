"""How fast a folder of photographs is decoded, compared with Pillow alone on all cores.

    python -m experiments.input_speed FOLDER [--pairs 5] [--image-size 224]

Ours reads the headers, then decodes into one array, as `cnn_jax.data.load` does; Pillow opens,
converts and resizes the same files to the same size in a pool of as many threads as cores, and
keeps nothing. The two take turns, and the intervals are Student's t over the pairs: of the time
on the wall, and of the time of the processors, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import stdtrit

from cnn_jax.data import Split, list_images
from cnn_jax.data.sources import ImageFiles, choose_shape, read_into_memory


def ours(paths: Sequence[Path], side: int) -> None:
    """Headers, then pixels, as `load` does it."""
    shape, _ = choose_shape([paths], side, 3)
    ids = np.array([str(k) for k in range(len(paths))])
    labels = {"label": np.zeros(len(paths), np.int32)}
    read_into_memory(Split(ImageFiles(paths, shape, "crop"), labels, ids))


def pillow(paths: Sequence[Path], side: int) -> None:
    """What Pillow needs for the same pixels."""

    def decode(path: Path) -> None:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        width, height = image.size
        left, top = (width - min(image.size)) / 2, (height - min(image.size)) / 2
        box = (left, top, width - left, height - top)
        image.resize((side, side), Image.Resampling.BILINEAR, box=box)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(decode, paths):
            pass


def measure(
    function: Callable[[Sequence[Path], int], None], paths: list[Path], side: int
) -> np.ndarray:
    """Seconds on the wall and of all processors that one pass takes."""
    start = time.perf_counter(), time.process_time()
    function(paths, side)
    return np.subtract((time.perf_counter(), time.process_time()), start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    paths = [Path(path) for path in list_images([options.folder])]
    measure(pillow, paths, options.image_size)  # the files come from memory from here on
    logarithms = []
    for pair in range(options.pairs):
        took = {}
        for function in (ours, pillow) if pair % 2 else (pillow, ours):
            took[function] = measure(function, paths, options.image_size)
        logarithms.append(np.log(took[pillow] / took[ours]))
        print(
            f"pair {pair + 1}: ours {len(paths) / took[ours][0]:.0f} images/s, "
            f"Pillow {len(paths) / took[pillow][0]:.0f} images/s",
            flush=True,
        )
    pairs = len(logarithms)
    means = np.mean(logarithms, axis=0)
    margins = stdtrit(pairs - 1, 0.975) * np.std(logarithms, axis=0, ddof=1) / math.sqrt(pairs)
    for name, mean, margin in zip(("wall", "processor"), means, margins, strict=True):
        value, low, high = (100 * math.exp(mean + sign * margin) for sign in (0, -1, 1))
        print(
            f"ours is {value:.1f} % of Pillow's speed by {name} time [{low:.1f}, {high:.1f}], "
            f"95 %, n = {pairs} pairs of {len(paths)} images"
        )


if __name__ == "__main__":
    main()
