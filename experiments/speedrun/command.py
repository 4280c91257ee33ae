"""The command line of the records: `python -m experiments.speedrun.airbench94 --runs N`."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cnn_jax import data, environment, evaluation
from cnn_jax.errors import CnnJaxError, out_of_memory
from cnn_jax.evaluation import Estimate
from cnn_jax.ops.native.library import unavailable
from cnn_jax.training.baselines import logistic_regression, nearest_neighbour
from experiments.results import ResultsError, Row, append, read
from experiments.rows import here, row_of
from experiments.seeds import t_quantile
from experiments.speedrun.program import Program
from experiments.speedrun.records import RECORDS, Record
from experiments.speedrun.runs import Images, Outcome, compile_programs, run, run_flops
from experiments.tables import ROOT

RESULTS = ROOT / "experiments" / "speedrun" / "results.csv"
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
TUNED = "settings as published, where they were chosen on the test set"


def main(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run a record; returns the exit status: 0 done, 2 the input is wrong, 130 interrupted."""
    options = _parsed(name, arguments)
    try:
        _run(name, options)
    except (CnnJaxError, ResultsError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{name}: {error.strerror or error} {error.filename or ''}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        saved = "; its seed, when it is run again, goes on from the last whole epoch"
        print(f"{name}: interrupted{saved if options.checkpoints else ''}", file=sys.stderr)
        return 130
    except RuntimeError as error:
        if not (said := out_of_memory(error)):
            raise
        print(f"{name}: {said}", file=sys.stderr)
        return 2
    return 0


def _parsed(name: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.speedrun.{name}",
        description="Train a record of CIFAR-10 and append the figures of each run to a CSV.",
    )
    variants = RECORDS[name]
    parser.add_argument("--runs", type=_positive, default=1, help="how many runs, a seed each")
    parser.add_argument(
        "--optimizer", choices=list(variants), default=next(iter(variants)), help="the variant"
    )
    parser.add_argument("--data-dir", help="where CIFAR-10 lies, as for cnn-jax train")
    parser.add_argument(
        "--first-seed", type=int, help="seed of the first run; default: the first not in the CSV"
    )
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of convolutions")
    parser.add_argument(
        "--held-out", action="store_true", help="train on 45,000 images, evaluate 5,000 others"
    )
    parser.add_argument("--checkpoints", type=Path, help="folder to go on from, saved each epoch")
    parser.add_argument("--baselines", action="store_true", help="pixels on the same split")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the CSV")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _run(name: str, options: argparse.Namespace) -> None:
    record = RECORDS[name][options.optimizer]
    environment.enable_compile_cache()
    given = Images.of(data.load("cifar10", data_dir=options.data_dir), held_out=options.held_out)
    program = Program(record, len(given.images), DTYPES[options.dtype])
    rows = Rows(name, record, given, options)
    first = rows.next_seed() if options.first_seed is None else options.first_seed
    rows.check(range(first, first + options.runs))
    compiling = compile_programs(program, given)
    flops = run_flops(program, len(given.evaluated))
    print(
        f"{record.name}: {program.steps} steps of {record.batch_size}, {flops / 1e15:.3f} PFLOP a "
        f"run; compiling and warming up took {compiling:.1f} s",
        flush=True,
    )
    labels = given.dataset.splits[given.split].targets["label"]
    outcomes: list[Outcome] = []
    for seed in range(first, first + options.runs):
        folder = options.checkpoints and options.checkpoints / f"{rows.slug}-{seed}"
        # A line an epoch, but only of runs that take their time.
        outcome = run(program, given, seed, folder=folder, say=_flushed if folder else None)
        append(options.results, rows.of(outcome))
        outcomes.append(outcome)
        print(
            f"seed {seed}: {100 * outcome.accuracy(labels):.2f} % of six views, "
            f"{100 * outcome.accuracy_alone(labels):.2f} % of one, {outcome.seconds:,.2f} s",
            flush=True,
        )
    print(summary(outcomes, labels, record, flops))
    if options.baselines:
        append(options.results, rows.beside(outcomes[0]))


def _flushed(line: str) -> None:
    print(line, flush=True)


def summary(outcomes: Sequence[Outcome], labels: np.ndarray, record: Record, flops: float) -> str:
    """Mean, deviation and interval over the seeds, time and throughput."""
    accuracy = np.array([outcome.accuracy(labels) for outcome in outcomes])
    seconds = np.array([outcome.seconds for outcome in outcomes])
    n = len(accuracy)
    mean = evaluation.over_seeds(accuracy, len(labels), percent=True)
    published, runs = record.published
    lines = [f"{record.name}: {mean}"]
    if n > 1:
        deviation = accuracy.std(ddof=1)
        bound = accuracy.mean() - t_quantile(0.9, n - 1) * deviation / math.sqrt(n)
        lines[0] += (
            f"; deviation {100 * deviation:.2f} points, one-sided 95 % lower bound of the mean "
            f"{100 * bound:.2f} %"
        )
    spread = f" (deviation {seconds.std(ddof=1):.2f})" if n > 1 else ""
    return "\n".join(
        [
            *lines,
            f"time of a run: {seconds.mean():,.2f} s{spread}, "
            f"{flops / seconds.mean() / 1e12:.2f} TFLOP/s",
            f"published: {100 * published:.2f} %, {runs} runs; {TUNED}",
        ]
    )


class Rows:
    """The rows of results.csv for one record on this machine."""

    def __init__(
        self, name: str, record: Record, given: Images, options: argparse.Namespace
    ) -> None:
        self._record, self._given, self._options = record, given, options
        self._experiment = record.name + (
            "" if options.dtype == "float32" else f", {options.dtype}"
        )
        self.slug = f"{name}-{options.optimizer}-{options.dtype}-{given.split}"
        native = jax.default_backend() == "cpu" and not unavailable()
        self._note = f"{TUNED}; oneDNN's convolutions" if native else TUNED
        if options.checkpoints:
            self._note += "; a checkpoint each epoch"
        words = ["python", "-m", f"experiments.speedrun.{name}"]
        words += ["--optimizer", options.optimizer] if len(RECORDS[name]) > 1 else []
        words += ["--dtype", options.dtype] if options.dtype != "float32" else []
        words += ["--held-out"] if options.held_out else []
        self._command = f'{shlex.join(words)} --data-dir "$CNN_JAX_DATA" --first-seed'

    def next_seed(self) -> int:
        """One more than the largest seed that is there."""
        taken = [int(r.seed) for r in self._present() if r.seed and self._mine(r)]
        return max(taken, default=-1) + 1

    def check(self, seeds: Sequence[int]) -> None:
        """Raise `ResultsError` if one of the seeds is there already."""
        taken = {r.seed for r in self._present() if self._mine(r)}
        for seed in seeds:
            if str(seed) in taken:
                raise ResultsError(
                    f"seed {seed} of {self._experiment!r} is in {self._options.results} already: "
                    "give another --first-seed, or none for the first free one"
                )

    def of(self, outcome: Outcome) -> Iterator[Row]:
        """Accuracy of six views and of one, and the seconds of the timed region."""
        labels = self._given.dataset.splits[self._given.split].targets["label"]
        n, seed = len(labels), str(outcome.seed)
        for metric, value in (
            ("accuracy", outcome.accuracy(labels)),
            ("one-view accuracy", outcome.accuracy_alone(labels)),
        ):
            low, high, method = evaluation.proportion(round(value * n), n)
            estimate = Estimate(value, low, high, n, method)
            yield self._row(self._experiment, metric, estimate, seed, self._note)
        took = Estimate(outcome.seconds, math.nan, math.nan, n, "wall time of the timed region")
        yield self._row(self._experiment, "seconds", took, seed, self._note)

    def beside(self, outcome: Outcome) -> list[Row]:
        """The baselines on the same split, and how far a run is above them; what is new of it."""
        mine = outcome.predictions(self._given)
        baselines = (
            nearest_neighbour(self._given.dataset),
            logistic_regression(self._given.whole),  # which chooses its penalty on validation
        )
        rows = []
        for baseline in baselines:
            theirs = baseline.predictions[self._given.split]
            accuracy = evaluation.classification_metrics(theirs)["accuracy"]
            name = f"{baseline.name} on pixels"
            rows.append(self._row(name, "accuracy", accuracy, "", baseline.note, " --baselines"))
            gain = evaluation.paired_difference(mine, theirs, "accuracy")
            name = f"{self._experiment} minus {baseline.name}"
            rows.append(self._row(name, "accuracy", gain, str(outcome.seed), "", " --baselines"))
        known = {row.identity for row in self._present()}
        return [row for row in rows if row.identity not in known]

    def _present(self) -> Sequence[Row]:
        path = self._options.results
        return read(path) if path.exists() else ()

    def _mine(self, row: Row) -> bool:
        return (row.experiment, row.split, row.hardware) == (
            self._experiment,
            self._given.split,
            environment.hardware(),
        )

    def _row(
        self, experiment: str, metric: str, e: Estimate, seed: str, note: str, option: str = ""
    ) -> Row:
        return row_of(
            e,
            experiment=experiment,
            command=f"{self._command} {seed or 0}{option}",
            data=self._given.dataset.name,
            data_digest=self._given.dataset.digest[:16],
            split=self._given.split,
            metric=metric,
            seed=seed,
            note=note,
            **here(),
        )
