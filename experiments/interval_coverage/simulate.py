"""How often the intervals of `cnn_jax.evaluation` hold the truth, by simulation.

    python -m experiments.interval_coverage.simulate [--simulations 4000] [--only AUROC]
        [--sizes 30 100] [--without-bootstraps]

For test sets of n examples and a true figure p, test sets are drawn and each method's 95 %
interval is made; the row is the share that hold p, with Wilson's interval over simulations, and
the mean width. A test set for which a method gives no interval counts as not held for the
coverage, and its share is a column of its own. Rows go to results.csv beside this file as
each cell ends.
"""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np

from cnn_jax.evaluation import Estimate, bootstrap, proportion, tango, wilson
from cnn_jax.evaluation.delong import auroc_interval
from cnn_jax.evaluation.weighted import Ranking, mean_statistic
from experiments.results import Row
from experiments.rows import append_each, here, row_of

SIZES = (30, 100, 400, 2000)
FIGURES = (0.5, 0.9, 0.99)
PREVALENCE = 0.3  # of the positives behind an AUROC
RESAMPLES = 1000
LESS = 0.05  # by how much the second of two paired models is worse

Interval = tuple[float, float]
# name of a method -> the interval of each simulated test set
Found = dict[str, list[Interval]]


def accuracy(
    n: int, p: float, simulations: int, draw: np.random.Generator, resamples: int
) -> Found:
    """The library's interval; Wilson's and the percentile bootstrap for comparison."""

    @functools.cache
    def resampled(right: int) -> Interval:
        values = (np.arange(n) < right).astype(np.float64)
        statistic = {"accuracy": mean_statistic(values)}
        return _ends(bootstrap(statistic, n, resamples=resamples)["accuracy"])

    counts = draw.binomial(n, p, simulations).tolist()
    return {
        "Wilson or Clopper-Pearson": [proportion(s, n)[:2] for s in counts],
        "Wilson": [_pair(wilson(s, n)) for s in counts],
        "bootstrap (percentile)": [resampled(s) for s in counts if resamples],
    }


def difference(
    n: int, p: float, simulations: int, draw: np.random.Generator, resamples: int
) -> Found:
    """Tango's interval and BCa of p - (p - 0.05), two models that err alike two times of three."""
    other = p - LESS
    both_wrong = 2 / 3 * (1 - p)
    only_a, only_b = 1 - other - both_wrong, 1 - p - both_wrong

    @functools.cache
    def resampled(a: int, b: int) -> Interval:
        values = np.zeros(n)
        values[:a], values[a : a + b] = 1, -1
        statistic = {"difference": mean_statistic(values)}
        found = bootstrap(statistic, n, accelerated=statistic, resamples=resamples)
        return _ends(found["difference"])

    shares = [only_a, only_b, 1 - only_a - only_b]
    counts = draw.multinomial(n, shares, simulations)[:, :2].tolist()
    return {
        "Tango; paired": [tango(a, b, n) for a, b in counts],
        "bootstrap (BCa); paired": [resampled(a, b) for a, b in counts if resamples],
    }


def auroc(n: int, p: float, simulations: int, draw: np.random.Generator, resamples: int) -> Found:
    """The bootstraps and DeLong's interval of a binormal AUROC."""
    apart = math.sqrt(2) * NormalDist().inv_cdf(p)
    positive = np.arange(n) < round(PREVALENCE * n)
    found: Found = {"bootstrap (percentile)": [], "bootstrap (BCa)": [], "DeLong, logit": []}
    for seed in range(simulations):
        scores = draw.normal(size=n) + apart * positive
        found["DeLong, logit"].append(_ends(auroc_interval(scores, positive)))
        if not resamples:
            continue
        ranking = Ranking.of(scores, positive).auroc
        both = {"percentile": ranking, "BCa": ranking}
        estimates = bootstrap(both, n, accelerated=("BCa",), resamples=resamples, seed=seed)
        for name, estimate in estimates.items():
            found[f"bootstrap ({name})"].append(_ends(estimate))
    return found


def _pair(ends: tuple[np.ndarray, np.ndarray]) -> Interval:
    return float(ends[0]), float(ends[1])


def _ends(estimate: Estimate) -> Interval:
    return estimate.low, estimate.high


EXPERIMENTS: dict[str, Callable[[int, float, int, np.random.Generator, int], Found]] = {
    "accuracy": accuracy,
    "difference": difference,
    "AUROC": auroc,
}


def rows(figure: str, n: int, p: float, simulations: int, resamples: int) -> Iterator[Row]:
    """The rows of one cell: coverage, width and undefined of each method."""
    draw = np.random.default_rng([n, round(1000 * p), len(figure)])
    truth = LESS if figure == "difference" else p
    for method, intervals in EXPERIMENTS[figure](n, p, simulations, draw, resamples).items():
        if not intervals:
            continue
        low, high = np.array(intervals).T
        defined = ~np.isnan(low)
        held = int(((low <= truth) & (truth <= high)).sum())
        width = float((high - low)[defined].mean()) if defined.any() else math.nan
        ends = _pair(wilson(held, simulations))
        nothing = (math.nan, math.nan)
        for metric, value, interval in (
            ("coverage accuracy", held / simulations, ends),
            ("mean width", width, nothing),
            ("undefined", float((~defined).mean()), nothing),
        ):
            if not math.isnan(value):
                yield _row(f"{figure}, {method}", metric, value, interval, n, p, simulations)


def _row(
    experiment: str, metric: str, value: float, ends: Interval, n: int, p: float, simulations: int
) -> Row:
    return row_of(
        Estimate(value, *ends, simulations, "Wilson over simulations"),
        experiment=experiment,
        command=f"python -m experiments.interval_coverage.simulate --simulations {simulations}",
        data=f"n = {n:,}, p = {p}",
        data_digest=f"{n}-{p}",
        split="simulated",
        metric=metric,
        **{**here(), "versions": f"numpy={np.__version__}"},
    )


def cells(
    figures: Sequence[str], sizes: Sequence[int], simulations: int, resamples: int
) -> Iterator[Row]:
    """The rows of all cells, printed as each cell ends."""
    for figure in figures:
        for n in sizes:
            for p in FIGURES:
                found = list(rows(figure, n, p, simulations, resamples))
                print(f"{figure}, n = {n}, p = {p}", flush=True)
                for row in found:
                    print(f"  {row.experiment:38} {row.metric:20} {row.value:.4f}", flush=True)
                yield from found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--only", choices=list(EXPERIMENTS))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--without-bootstraps", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    options = parser.parse_args(arguments)
    resamples = 0 if options.without_bootstraps else RESAMPLES
    figures = [options.only] if options.only else list(EXPERIMENTS)
    measured = cells(figures, options.sizes, options.simulations, resamples)
    return append_each(options.out, measured, "simulate")


if __name__ == "__main__":
    sys.exit(main())
