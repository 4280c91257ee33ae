"""How fast a gallery is: a search beside one reading of its templates, and enrolment.

    python -m experiments.face_recognition.gallery_speed [--people 100000] [--csv results.csv]

An image is identified among random templates held in float32 and in float16, in turns with NumPy
reading the float32 matrix once (its largest number, on all cores, a part each). The ratios are
medians over the rounds, with the interval of order statistics (a sign test turned around), which
a few disturbed rounds do not move. Enrolment is of 10,000 images in one call, to the disk.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from scipy.special import bdtr

from cnn_jax import environment
from cnn_jax.evaluation import Estimate
from cnn_jax.gallery import EmbeddingModel, Gallery
from cnn_jax.gallery.search import Index, Precision
from experiments import results
from experiments.rows import here, row_of

LEVEL = 0.95
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
ENROLLED = 10_000


def random_units(people: int, dimension: int) -> np.ndarray:
    """float32 `[people, dimension]` of unit length."""
    x = np.random.default_rng(0).standard_normal((people, dimension), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def seconds(function: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def median(values: list[float]) -> Estimate:
    """The median, with the narrowest symmetric pair of order statistics that holds it."""
    ordered, n = np.sort(values), len(values)
    # P(the k-th smallest is above the median) = P(Bin(n, 1/2) < k).
    k = int((bdtr(np.arange(n), n, 0.5) <= (1 - LEVEL) / 2).sum())
    if k < 1:
        raise SystemExit(f"{n} rounds are too few for an interval: take 6 or more")
    return Estimate(
        value=float(np.median(ordered)),
        low=float(ordered[k - 1]),
        high=float(ordered[n - k]),
        n=n,
        method=f"order statistics over {n} rounds",
        level=LEVEL,
    )


def _read(threads: ThreadPoolExecutor, parts: list[np.ndarray]) -> float:
    return float(max(threads.map(np.max, parts)))


def search_figures(people: int, dimension: int, rounds: int) -> dict[str, Estimate]:
    """Times and ratios of searches among templates, and the speed of reading them."""
    units = random_units(people, dimension)
    indices = {precision: Index(units, precision) for precision in PRECISIONS}
    cores = environment.usable_cores()
    parts = np.array_split(units, cores)
    queries = random_units(rounds + 1, dimension)
    took: dict[str, list[float]] = {name: [] for name in ("read", *PRECISIONS)}
    with ThreadPoolExecutor(cores) as threads:
        for turn in range(rounds + 1):
            query = queries[turn : turn + 1]
            jobs: dict[str, Callable[[], object]] = {
                "read": partial(_read, threads, parts),
                **{name: partial(index.top, query, 5) for name, index in indices.items()},
            }
            # Each comes as often before another as after it; the first round compiles.
            for name in list(jobs) if turn % 2 else list(jobs)[::-1]:
                once = seconds(jobs[name])
                if turn:
                    took[name].append(once)
    figures = {"read_gb_per_s": median([units.nbytes / s / 1e9 for s in took["read"]])}
    for name in PRECISIONS:
        figures[f"identify_ms_{name}"] = median([1e3 * s for s in took[name]])
        ratios = [a / b for a, b in zip(took[name], took["read"], strict=True)]
        figures[f"times_one_reading_{name}"] = median(ratios)
    return figures


def enrolment_figures(dimension: int, rounds: int) -> dict[str, Estimate]:
    """Seconds to enrol 10,000 images of as many identities in a new file."""
    embeddings = random_units(ENROLLED, dimension)
    names = [f"identity {k}" for k in range(ENROLLED)]
    took = []
    with tempfile.TemporaryDirectory(prefix="gallery-") as folder:
        for turn in range(rounds):
            path = Path(folder) / f"{turn}.gallery"
            with Gallery.create(path, EmbeddingModel("random", dimension)) as gallery:
                took.append(seconds(lambda: gallery.enrol(names, embeddings, sources=names)))
    return {"enrol_10000_s": median(took)}


def main() -> None:
    """Measure, print and, if asked, write rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--csv", help="results.csv to write rows to")
    options = parser.parse_args()
    figures = search_figures(options.people, options.dimension, options.rounds)
    figures |= enrolment_figures(options.dimension, min(options.rounds, 10))
    for name, found in figures.items():
        print(f"{name}: {found.value:.4g} [{found.low:.4g}, {found.high:.4g}], n = {found.n}")
    if not options.csv:
        return
    arguments = " ".join(sys.argv[1:])
    rows = [
        row_of(
            found,
            experiment="gallery",
            command=f"python -m experiments.face_recognition.gallery_speed {arguments}".strip(),
            data=f"{options.people} random unit templates of {options.dimension}",
            data_digest="seed 0",
            split="all",
            metric=name,
            **here(),
        )
        for name, found in figures.items()
    ]
    results.append(options.csv, rows)
    print(f"{len(rows)} rows in {options.csv}")


if __name__ == "__main__":
    main()
