"""What the strategies of a population cost, and that they train alike.

    python -m experiments.populations.measure speed      # some minutes
    python -m experiments.populations.measure accuracy   # a quarter of an hour
    python -m experiments.populations.measure ensemble   # two minutes

add rows to experiments/populations/results.csv. `speed` times a few steps of each strategy in
turns, 12 times, on states that are thrown away, and compares what one step of one member takes.
`accuracy` trains 20 seeds of the bundled digits recipe with each. `ensemble` sets five of them,
calibrated, as one beside their mean.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp

from cnn_jax import data, environment, evaluation, keep_freed_memory, train_population
from cnn_jax.assembly import Assembly
from cnn_jax.bench.statistics import paired_ratio
from cnn_jax.evaluation import Estimate
from cnn_jax.population.plan import Plan
from cnn_jax.population.stacking import candidates_of
from cnn_jax.population.trained import members_of
from cnn_jax.recipe import Recipe, resolve
from cnn_jax.run_data import load_data
from cnn_jax.training.population import Strategy
from cnn_jax.training.strategy import Stepping, choose
from experiments.results import Row
from experiments.rows import append_each, here, row_of
from experiments.tables import ROOT

PAIRS, MEMBERS, SEEDS, TOGETHER = 12, 8, 20, 5
LEAST_SECONDS = 0.3  # of each timing


def plans() -> Iterator[tuple[str, Plan]]:
    """The two problems of the comparison."""
    recipe = resolve("digits", {})
    yield "digits, compact", plan_of(recipe, load_data(recipe))
    pixels = np.random.default_rng(0).integers(0, 256, (1280, 28, 28, 1), dtype=np.uint8)
    noise = data.from_arrays(pixels, np.arange(1280) % 10, name="noise")
    yield (
        "28 pixels, compact, batch 128",
        plan_of(Recipe().override({"train.batch_size": 128}), noise),
    )


def plan_of(recipe: Recipe, dataset: data.Dataset) -> Plan:
    """So many seeds of a recipe."""
    members = [{"name": n, "overrides": own} for n, own in members_of(recipe, MEMBERS, 0).items()]
    return Plan.of(recipe, members, dataset, None)


def speed() -> Iterator[Row]:
    """Time for a step of a member, each strategy against the loop; and what `auto` takes."""
    for name, plan in plans():
        candidates = candidates_of(plan)
        stepping = {candidate.strategy: Stepping(candidate) for candidate in candidates}
        seconds = {strategy: some.take(1) for strategy, some in stepping.items()}
        chunks = {s: max(1, math.ceil(LEAST_SECONDS / t)) for s, t in seconds.items()}
        times: dict[Strategy, list[float]] = {strategy: [] for strategy in stepping}
        for _ in range(PAIRS):
            for strategy, some in stepping.items():
                taken = some.take(chunks[strategy]) / chunks[strategy] / some.member_steps
                times[strategy].append(taken)
        best = min(times, key=lambda s: float(np.median(times[s])))
        chosen = choose(candidates, environment.free_memory()).strategy
        first = plan.assemblies[0]
        for strategy in times:
            ratio = paired_ratio(times["loop"], times[strategy])
            if strategy != "loop":
                note = f"{1000 * ratio.reference_seconds:.3g} ms a step and member"
                yield row(first, f"{name}: loop ÷ {strategy}", "time ratio", ratio, note)
        ratio = paired_ratio(times[chosen], times[best])
        yield row(first, f"{name}: auto ÷ best", "time ratio", ratio, f"{chosen} ÷ {best}")


def row(first: Assembly, experiment: str, metric: str, ratio: object, note: str) -> Row:
    """A ratio of times."""
    value, low, high = (getattr(ratio, n) for n in ("ratio", "low", "high"))
    estimate = Estimate(value, low, high, PAIRS, "median of pair ratios, sign test")
    return described(first, experiment, metric, estimate, "speed", note)


def described(
    first: Assembly, experiment: str, metric: str, e: Estimate, command: str, note: str
) -> Row:
    """A row with where and when."""
    return row_of(
        e,
        experiment=experiment,
        command=f"python -m experiments.populations.measure {command}",
        data=first.dataset.name,
        data_digest=first.dataset.digest[:16],
        split="test" if metric != "time ratio" else "train",
        metric=metric,
        note=note,
        **here(),
    )


def accuracy() -> Iterator[Row]:
    """Accuracy of 20 seeds by each strategy, and its differences from the loop's."""
    recipe = resolve("digits", {})
    plan = plan_of(recipe, load_data(recipe))
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for strategy in ("loop", "vmap", "map"):
            population = train_population(
                "digits", seeds=SEEDS, strategy=strategy, out=Path(folder) / strategy
            )
            runs = population.predictions()
            found[strategy] = np.array([evaluation.figure(run, "accuracy") for run in runs])
            estimate = population.figures("accuracy")["seed"]
            name = f"digits, {SEEDS} seeds by {strategy}"
            note = "" if strategy == "loop" else alike(found[strategy], found["loop"])
            yield described(plan.assemblies[0], name, "accuracy", estimate, "accuracy", note)


def ensemble() -> Iterator[Row]:
    """Figures of five seeds as one, less the mean of theirs."""
    recipe = resolve("digits", {})
    first = plan_of(recipe, load_data(recipe)).assemblies[0]
    with tempfile.TemporaryDirectory() as folder:
        population = train_population(
            "digits", seeds=TOGETHER, strategy="vmap", out=Path(folder) / "ensemble"
        )
        gains = population.gains()
        apart = population.disagreement().pairs.mean()
    for metric in ("accuracy", "nll", "brier", "ece"):
        gain = gains[metric]
        for which, estimate in (("ensemble", gain.ensemble), ("ensemble - mean", gain.difference)):
            note = f"two members differ on {100 * apart:.2f} % of the images"
            name = f"digits, {TOGETHER} seeds: {which}"
            yield described(first, name, metric, estimate, "ensemble", note)


def alike(a: np.ndarray, b: np.ndarray) -> str:
    """How two samples of accuracies, of the same seeds, differ."""
    gap = evaluation.over_seeds(a - b, SEEDS)
    test = ks_2samp(a, b)
    return (
        f"minus loop, seed by seed: {100 * gap.value:.2f} points [{100 * gap.low:.2f}, "
        f"{100 * gap.high:.2f}]; Kolmogorov-Smirnov p = {test.pvalue:.2f}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure the strategies of populations.")
    parser.add_argument("what", choices=["speed", "accuracy", "ensemble"])
    what = parser.parse_args(arguments).what
    keep_freed_memory()
    environment.enable_compile_cache()
    path = ROOT / "experiments" / "populations" / "results.csv"
    measured = {"speed": speed, "accuracy": accuracy, "ensemble": ensemble}[what]()
    return append_each(path, map(printed, measured), "populations")


def printed(row: Row) -> Row:
    """A row, once it has been printed."""
    interval = f"[{row.low:.4g}, {row.high:.4g}]"
    print(f"{row.experiment}: {row.metric} {row.value:.4g} {interval} {row.note}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
