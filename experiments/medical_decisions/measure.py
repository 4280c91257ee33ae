"""What decisions of finished runs are worth: calibration, operating points, prediction sets.

    python -m experiments.medical_decisions.measure POPULATION --positive CLASS

For each seed of a population: MedMNIST's AUC; the calibration error of temperature scaling,
cross-fitted on the validation part and as it comes on test, there beside the other scalings;
sensitivity, specificity and accuracy on test of the line that finds 95 % on validation; and what
prediction sets that promise to hold the class in 95 % do on test. Appends to
experiments/medical_decisions/results.csv. Where validation and test figures differ by more than
their intervals, test is not of the kind that validation is: a shift.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from cnn_jax.decision import (
    cross_fitted,
    fit_isotonic,
    fit_prediction_sets,
    fit_temperature,
    fit_threshold,
    fit_vector_scaling,
)
from cnn_jax.evaluation import Estimate, calibration_figures, medmnist_figures
from cnn_jax.population import Population
from cnn_jax.run import Run
from experiments.results import Row
from experiments.rows import append_each, of_run, row_of
from experiments.tables import ROOT

WANTED = 0.95


def figures(run: Run, positive: str) -> Iterator[tuple[str, str, Estimate]]:
    """Split, name and estimate of each figure."""
    validation, test, temperature = (
        run.predictions("validation"),
        run.predictions("test"),
        run.temperature,
    )
    yield "test", "auc", medmnist_figures(test)["auc"]
    calibrated = cross_fitted(validation, fit_temperature)
    yield "validation", "ece", calibration_figures(calibrated)["ece"]
    yield "test", "ece", calibration_figures(test, temperature=temperature)["ece"]
    for name, fit in (("vector", fit_vector_scaling), ("isotonic", fit_isotonic)):
        yield "test", f"ece, {name}", calibration_figures(fit(validation).apply(test))["ece"]
    threshold = fit_threshold(
        validation, positive=positive, sensitivity=WANTED, temperature=temperature
    )
    at_line = threshold.figures(test)
    for name in ("sensitivity", "specificity", "accuracy"):
        yield "test", name, getattr(at_line, name)
    sets = fit_prediction_sets(validation, coverage=WANTED).figures(test)
    yield "test", "coverage of sets", sets.coverage
    yield "test", "single class", sets.single


def rows(place: str, positive: str, experiment: str) -> Iterator[Row]:
    """Each figure of each seed as a row."""
    command = f"python -m experiments.medical_decisions.measure RUN --positive {positive}"
    population = Population.load(place)
    population.log_use(command)
    for run in population.members.values():
        info = run.info
        for split, metric, estimate in figures(run, positive):
            print(f"seed {info['seed']} {split} {metric} {estimate}", flush=True)
            yield row_of(
                estimate,
                experiment=experiment or info["model"]["name"],
                command=command,
                data=info["data"]["name"],
                split=split,
                metric=metric,
                seed=str(info["seed"]),
                **of_run(info),
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("population")
    parser.add_argument("--positive", required=True, help="the class that is looked for")
    parser.add_argument("--experiment", default="", help="what the table calls the network")
    options = parser.parse_args(arguments)
    path = ROOT / "experiments" / "medical_decisions" / "results.csv"
    measured = rows(options.population, options.positive, options.experiment)
    return append_each(path, measured, "measure")


if __name__ == "__main__":
    sys.exit(main())
