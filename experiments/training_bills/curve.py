"""The learning curve of a finished run, as rows: accuracy after each epoch, and when that was.

    python -m experiments.training_bills.curve RUN

Appends to results.csv beside this file, from what the run folder holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from cnn_jax import Run
from cnn_jax.evaluation import Estimate
from experiments.record import portable
from experiments.results import Row
from experiments.rows import append_each, of_run, row_of

PATH = Path(__file__).with_name("results.csv")


def rows(run: Run) -> Iterator[Row]:
    """Each figure as a row: training and validation accuracy of every epoch."""
    parts, nan = run.info["data"]["parts"], float("nan")
    for epoch in run.history:
        for part in ("train", "validation"):
            value = float(epoch[f"{part}_accuracy"])
            figure = Estimate(value, nan, nan, parts[part], "one run", percent=True)
            print(f"epoch {epoch['epoch']:.0f}, {part} accuracy {figure}", flush=True)
            yield row_of(
                figure,
                experiment=run.info["model"]["name"],
                metric=f"{part} accuracy",
                command=portable(run.info["command"]),
                data=run.info["data"]["name"],
                split=f"after epoch {epoch['epoch']:.0f} of {len(run.history)}",
                seed=str(run.info["seed"]),
                **of_run(run.info),
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="folder of a finished run")
    options = parser.parse_args(arguments)
    run = Run.load(options.run)
    run.check_ended()
    return append_each(PATH, rows(run), "curve")


if __name__ == "__main__":
    sys.exit(main())
