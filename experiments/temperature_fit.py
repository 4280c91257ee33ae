"""What a temperature fitted on few validation images is worth on the rest of them.

    python -m experiments.temperature_fit RUN... [--fitted-on 25] [--draws 30]

Of the validation predictions of each run, some are drawn to fit the temperature and the others
give the mean NLL in nats: without a temperature, by the plain fit, and with the library's
prior. No test image is looked at.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from cnn_jax.decision import fit_temperature
from cnn_jax.evaluation import CalibrationPredictions, Predictions
from cnn_jax.run import Run


def plain_fit(predictions: Predictions) -> float:
    """The temperature of least NLL, in the library's bounds, without a prior."""
    found = minimize_scalar(
        lambda log_t: predictions.negative_log_likelihood(math.exp(log_t)).mean(),
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
    )
    return math.exp(found.x)


def measure(predictions: CalibrationPredictions, fitted_on: int, draws: int) -> np.ndarray:
    """Mean NLL `[3]` of the rest: without a temperature, by the plain fit, with the prior."""
    rng = np.random.default_rng(0)
    results = []
    for _ in range(draws):
        rows = rng.permutation(len(predictions))
        few, rest = predictions.take(rows[:fitted_on]), predictions.take(rows[fitted_on:])
        temperatures = (1.0, plain_fit(few), fit_temperature(few).value)
        results.append([rest.negative_log_likelihood(t).mean() for t in temperatures])
    return np.mean(results, axis=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line a run and the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--fitted-on", type=int, default=25)
    parser.add_argument("--draws", type=int, default=30)
    options = parser.parse_args(arguments)
    rows = []
    for path in options.runs:
        predictions = Run.load(path).predictions("validation")
        rows.append(measure(predictions, options.fitted_on, options.draws))
        print(f"{path}: none {rows[-1][0]:.3f}, plain {rows[-1][1]:.3f}, prior {rows[-1][2]:.3f}")
    none, plain, prior = np.mean(rows, axis=0)
    print(f"mean of {len(rows)}: none {none:.3f}, plain {plain:.3f}, prior {prior:.3f}")


if __name__ == "__main__":
    main()
