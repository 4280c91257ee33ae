"""Add the figures of finished runs to an experiment's results.csv.

    python -m experiments.record FOLDER RUN [RUN ...] [--experiment NAME] [--note TEXT]
                                 [--but-baselines]

writes accuracy, NLL, ECE and AUROC on the test part of each run (or of the pooled folds of a
cross-validation) to experiments/FOLDER/results.csv (of masks Dice and the figures of lesions),
and, where the run has baselines, theirs and the paired difference between the network and each.
`python -m experiments.tables` then writes the tables. What was done about equal images in several
parts, if anything, stands beside the data's name.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cnn_jax import Estimate, Run
from cnn_jax.errors import CnnJaxError, RunError
from cnn_jax.evaluation import (
    MaskPredictions,
    Predictions,
    classification_metrics,
    compare_segmentations,
    out_of_fold,
    out_of_fold_masks,
    paired_difference,
    segmentation_metrics,
)
from cnn_jax.population import Population
from cnn_jax.population.folder import PopulationFolder
from experiments.results import ResultsError, Row, append
from experiments.rows import of_run, row_of
from experiments.tables import ROOT

METRICS = ("accuracy", "nll", "ece", "auroc")
OF_MASKS = (
    *("dice_present", "dice", "iou", "hausdorff95_present", "surface_dice_present"),
    *("lesion_sensitivity", "false_positives", "false_area", "specificity"),
)


def rows_of(runs: Sequence[Run], experiment: str = "", note: str = "") -> Iterator[Row]:
    """Rows for a finished run, under the name of its model or another, and its baselines.

    Args:
      runs: one, or those of all folds of a cross-validation, whose figures are of their pooled
        out-of-fold predictions.
      experiment: what the table calls the network.
      note: one sentence for every row.

    Raises:
      RunError, EvaluationError: a run has not finished, or its predictions are gone.
    """
    run = runs[0]
    info, folds = run.info, len(runs)
    network = experiment or info["model"]["name"]
    policy = run.recipe.data.duplicates
    data = info["data"]["name"] + ("" if policy == "stop" else f" ({policy})")
    shots = run.recipe.data.shots
    data += f", {shots} of each class learned" if shots else ""
    data += f", {folds} folds" if folds > 1 else ""

    def row(experiment: str, metric: str, estimate: Estimate, seed: str, note: str) -> Row:
        return row_of(
            estimate,
            experiment=experiment,
            command=portable(info["command"]),
            data=data,
            split="test",
            metric=metric,
            seed=seed,
            note=note,
            **of_run(info),
        )

    def pooled(part: str) -> Predictions | MaskPredictions:
        if run.regions:
            masks = [one.masks(part) for one in runs]
            return masks[0] if folds == 1 else out_of_fold_masks(masks)
        each = [one.predictions(part) for one in runs]
        return each[0] if folds == 1 else out_of_fold(each)

    seed, test = str(info["seed"]), pooled("test")
    for metric, estimate in _figures(test).items():
        if metric in (*METRICS, *OF_MASKS):
            yield row(network, metric, estimate, seed, note)
    nan = float("nan")
    took = Estimate(
        sum(one.training_seconds for one in runs),
        nan,
        nan,
        len(test),
        "wall time of training alone",
    )
    yield row(network, "training seconds", took, seed, note)
    for name, described in info.get("baselines", {}).items():
        predictions = pooled(f"{name}-test")
        for metric, estimate in _figures(predictions).items():
            if metric in ("accuracy", "auroc", *OF_MASKS):
                yield row(f"{name} on pixels", metric, estimate, "", described)
        for metric, gain in _gains(test, predictions).items():
            yield row(f"{network} minus {name}", metric, gain, seed, note)


def _figures(predictions: Predictions | MaskPredictions) -> dict[str, Estimate]:
    if isinstance(predictions, MaskPredictions):
        return segmentation_metrics(predictions)
    return classification_metrics(predictions)


def _gains(
    test: Predictions | MaskPredictions, other: Predictions | MaskPredictions
) -> dict[str, Estimate]:
    """Paired differences in what the network is for."""
    if isinstance(test, MaskPredictions) and isinstance(other, MaskPredictions):
        compared = ("dice_present", "dice")
        return {metric: compare_segmentations(test, other, metric) for metric in compared}
    assert isinstance(test, Predictions) and isinstance(other, Predictions)
    return {"accuracy": paired_difference(test, other, "accuracy")}


def runs_of(place: str) -> list[Run]:
    """The run in a folder, or the folds of a cross-validation.

    Raises:
      RunError: neither is there, or several seeds are.
    """
    if not PopulationFolder.is_one(place):
        return [Run.load(place)]
    population = Population.load(place)
    runs = list(population.members.values())
    seeds = {run.recipe.seed for run in runs}
    if len(seeds) != 1 or len(runs) != population.folds:
        raise RunError(f"{place!r} is not a cross-validation of one seed: name its runs")
    return runs


def portable(command: str) -> str:
    """A command that others can repeat: their folder of data sets, no run folder of ours."""
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word == "--out":
            next(words)
        elif word == "--data-dir":
            next(words)
            kept.append('--data-dir "$CNN_JAX_DATA"')
        elif word != "--overwrite":
            kept.append(shlex.quote(word))
    return " ".join(kept)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Add runs to experiments/FOLDER/results.csv.")
    parser.add_argument("folder", help="folder below experiments/")
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--experiment", default="", help="what the table calls the network")
    parser.add_argument(
        "--but-baselines",
        action="store_true",
        help="without the baselines' own figures, which another network's rows brought already",
    )
    parser.add_argument("--note", default="", help="one sentence for every row")
    options = parser.parse_args(arguments)
    path = ROOT / "experiments" / options.folder / "results.csv"
    known: set[tuple[str, ...]] = set()
    try:
        for place in options.runs:
            # The baselines of runs that differ in their seed are the same.
            found = rows_of(runs_of(place), options.experiment, options.note)
            rows = [r for r in found if r.identity not in known]
            if options.but_baselines:
                rows = [r for r in rows if not r.experiment.endswith(" on pixels")]
            known |= {r.identity for r in rows}
            append(path, rows)
    except (CnnJaxError, ResultsError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    print(Path(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
