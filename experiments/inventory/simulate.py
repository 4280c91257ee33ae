"""How often the intervals of `decision.Confusion.count` hold the true numbers, by simulation.

    python -m experiments.inventory.simulate [--shelves 500] [--only 5,6]

A classifier answers right for 70 to 93 % of the images of a class, each class its own share; what
is not right goes to other classes, unevenly. Validation has so many images of each
class. On a shelf of 300 images, whose classes' numbers are drawn anew, the share that is answered
right differs from validation by up to the drift, uniformly, class by class. The row is the share of
the intervals that hold the true number of a class, with a bootstrap of shelves, and the mean
absolute error of the counts beside that of plain counting. With unknown products, one more class is
of what the classifier has not learned: it takes 5 % of the images of the others for that, and of
that itself any share, drawn uniformly for each shelf, which nothing in validation tells. Appends to
results.csv beside this file.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnn_jax.decision import Confusion
from cnn_jax.decision.fitted import FittedOn
from cnn_jax.evaluation import Estimate, bootstrap
from cnn_jax.evaluation.weighted import mean_statistic
from experiments.results import Row
from experiments.rows import append_each, here, row_of

PATH = Path(__file__).parent / "results.csv"
COMMAND = "python -m experiments.inventory.simulate --shelves {}"
IMAGES = 300
RIGHT = (0.7, 0.93)
# Classes, validation images of each, drift, and whether there are unknown products besides.
SETTINGS = (
    (6, 60, 0.0, False),
    (6, 60, 0.05, False),
    (12, 30, 0.05, False),
    (12, 100, 0.1, False),
    (6, 60, 0.05, True),
    (12, 30, 0.05, True),
)
TAKEN_FOR_UNKNOWN = 0.05


def shelf(
    rng: np.random.Generator, known: int, validation: int, drift: float, unknown: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validation counts `[K, K]`, true numbers `[K]` and answers `[300]`; unknown is the last."""
    classes = known + unknown
    right = rng.uniform(*RIGHT, classes)
    if unknown:
        right[-1] = rng.uniform()
    rows = np.zeros((classes, classes))
    for k in range(classes):
        others = np.delete(np.arange(classes), k)
        rows[k, others] = (1 - right[k]) * rng.dirichlet(np.full(classes - 1, 0.5))
        rows[k, k] = right[k]
    if unknown:
        taken = np.full(known, TAKEN_FOR_UNKNOWN)
        rows[:-1, -1] = 0
        rows[:-1, :-1] *= ((1 - taken) / rows[:-1, :-1].sum(axis=1))[:, np.newaxis]
        rows[:-1, -1], right = taken, np.diagonal(rows).copy()
    counted = np.stack([rng.multinomial(validation, row) for row in rows]).astype(np.float64)
    if unknown:
        counted[-1] = 0
    now = np.minimum(right + rng.uniform(-drift, drift, classes), 1.0)
    if unknown:
        now[-1] = right[-1]
    for k in range(classes):
        rows[k] *= (1 - now[k]) / (1 - right[k])
        rows[k, k] = now[k]
    true = rng.multinomial(IMAGES, rng.dirichlet(np.ones(classes)))
    drawn = [rng.choice(classes, some, p=row) for some, row in zip(true, rows, strict=True)]
    return counted, true, np.concatenate(drawn)


def measure(
    classes: int, validation: int, drift: float, unknown: bool, shelves: int
) -> Iterator[tuple[str, Estimate]]:
    """Metric and figure."""
    rng = np.random.default_rng([classes, validation, round(100 * drift)])
    names = tuple(map(str, range(classes + unknown)))
    inside, error, plain = (np.zeros(shelves) for _ in range(3))
    for n in range(shelves):
        counted, true, answers = shelf(rng, classes, validation, drift, unknown)
        line = 0.0 if unknown else None
        known = Confusion(names, counted, FittedOn("validation", 1, 1), line)
        found = known.count(answers, drift=drift, seed=n)
        held = [one.low <= t <= one.high for one, t in zip(found, true.tolist(), strict=True)]
        inside[n] = np.mean(held)
        error[n] = np.abs([one.mean for one in found] - true).mean()
        plain[n] = np.abs([one.answered for one in found] - true).mean()
    for metric, values in (
        ("coverage accuracy", inside),
        ("error of the counts", error),
        ("error of plain counting", plain),
    ):
        yield metric, bootstrap({metric: mean_statistic(values)}, shelves)[metric]


def rows(shelves: int, only: list[int]) -> Iterator[Row]:
    """Each figure as a row."""
    for classes, validation, drift, unknown in (SETTINGS[number - 1] for number in only):
        name = f"{classes} classes, {validation} validation images of each, drift {drift:g}"
        name += ", and unknown products" if unknown else ""
        for metric, figure in measure(classes, validation, drift, unknown, shelves):
            assert math.isfinite(figure.value)
            print(f"{name}: {metric} {figure}", flush=True)
            yield row_of(
                figure,
                experiment=name,
                metric=metric,
                command=COMMAND.format(shelves),
                data="shelves",
                data_digest=f"{classes}-{validation}-{drift:g}{'-unknown' if unknown else ''}",
                split="simulated",
                seed="",
                **here(),
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shelves", type=int, default=500)
    every = ",".join(map(str, range(1, 1 + len(SETTINGS))))
    parser.add_argument("--only", default=every, help="numbers of SETTINGS, from 1")
    options = parser.parse_args(arguments)
    only = [int(number) for number in options.only.split(",")]
    return append_each(PATH, rows(options.shelves, only), "simulate")


if __name__ == "__main__":
    sys.exit(main())
