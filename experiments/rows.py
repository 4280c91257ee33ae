"""Rows for results.csv from estimates, and where and when they were measured."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cnn_jax import environment
from cnn_jax.data import Dataset
from cnn_jax.errors import CnnJaxError
from cnn_jax.evaluation import Estimate
from experiments.results import ResultsError, Row, append, read


def row_of(estimate: Estimate, **rest: Any) -> Row:
    """A row with the value, the interval and the counts of an estimate.

    Args:
      estimate: the figure.
      **rest: the other fields of `Row`, those of `here` among them.
    """
    return Row(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        n=estimate.n,
        level=estimate.level,
        n_seeds=estimate.n_seeds,
        covers=estimate.covers,
        method=estimate.method,
        **rest,
    )


def reported(
    figure: Estimate, dataset: Dataset, experiment: str, metric: str, split: str, **rest: Any
) -> Row:
    """Print a figure, and make its row: measured in this process, on this data set.

    Args:
      figure: what was measured.
      dataset: on what.
      experiment, metric, split: as in `Row`.
      **rest: `command`, `seed` and what else `Row` has.
    """
    seed = f", seed {rest['seed']}" if rest.get("seed") else ""
    print(f"{experiment}, {split}: {metric} {figure}{seed}", flush=True)
    return row_of(
        figure,
        experiment=experiment,
        metric=metric,
        split=split,
        data=dataset.name,
        data_digest=dataset.digest[:16],
        **rest,
        **here(),
    )


def append_each(path: Path, rows: Iterable[Row], name: str) -> int:
    """Append each row as soon as it is measured; returns the exit status of the command `name`.

    A command that was interrupted is given again: what it has appended is passed over, if it is
    measured to be the same.
    """
    try:
        there = {_figure(row) for row in read(path)} if path.exists() else set()
        for row in rows:
            if _figure(row) not in there:
                append(path, [row])
    except (CnnJaxError, ResultsError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


def _figure(row: Row) -> tuple[object, ...]:
    """What has to be equal where a row is there already."""
    # Ends as text, in which an interval without them equals another.
    ends = (str(float(row.low)), str(float(row.high)))
    return (row.identity, row.command, float(row.value), *ends, row.n)


def command_of_seeds(
    about: str | None,
    name: str,
    path: Path,
    rows: Callable[[str, Path, int], Iterable[Row]],
    arguments: list[str] | None,
    *,
    seeds: int,
) -> int:
    """The command of an experiment that trains several seeds; returns its exit status.

    Args:
      about: the module's docstring, whose first line is the description.
      name: of the experiment, for errors.
      path: of its results.csv.
      rows: from the folder of the data, that of the runs and the number of seeds.
      arguments: None for those of the process.
      seeds: how many there are where nothing is said.
    """
    parser = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=seeds)
    options = parser.parse_args(arguments)
    return append_each(path, rows(options.data_dir, options.out, options.seeds), name)


def here() -> dict[str, str]:
    """The fields of `Row` that say with what, where and when: this process, today."""
    return {
        "hardware": environment.hardware(),
        "versions": spelt(environment.versions()),
        "commit": environment.commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def of_run(info: dict[str, Any]) -> dict[str, str]:
    """The fields of `Row` that say on what data, with what, where and when a run was trained."""
    where = info["environment"]
    return {
        "data_digest": info["data"]["digest"][:16],
        "hardware": where["hardware"],
        "versions": spelt(where["versions"]),
        "commit": where["commit"],
        "date": info["started"][:10],
    }


def spelt(versions: dict[str, str]) -> str:
    """Versions as `python=3.11.7 jax=0.10.2`."""
    return " ".join(f"{name}={version}" for name, version in versions.items())
