"""`cnn-jax train`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from cnn_jax.cli.arguments import Parser, UsageError, interrupted_status, parse_recipe
from cnn_jax.recipe import resolve

if TYPE_CHECKING:
    from cnn_jax.population import Population
    from cnn_jax.run import Run

_HELP = """\
usage: cnn-jax train [RECIPE] [options]

  RECIPE                a .toml file or a bundled name; else that of the data
  --data NAME|PATH      digits, mnist, ..., tfds:NAME, .npz, table, folder
  --data-dir DIR        where named data sets lie
  --model NAME          see 'cnn-jax models'
  --epochs N            --batch-size N     --learning-rate X     --seed N
  --until converged     until the loss no longer falls
  --seeds N             N runs that differ in seed; the mean with intervals
  --folds K             K-fold cross-validation (with --seeds, for each seed)
  --strategy HOW        of several runs: auto (measured), loop, vmap or map
  --duplicates HOW      test in train? stop, drop-train, regroup, keep
                        (--group-near-duplicates: near-copies stay together)
  --baselines           also pixel nearest neighbour and logistic regression;
                        of masks Otsu's threshold
  --out DIR             the run folder (else runs/DATA-MODEL-001, -002, ...)
  --overwrite           move aside what lies in DIR
  --resume RUN          go on with an interrupted run, bit for bit
  --GROUP.FIELD VALUE   any other field of the recipe; groups are data, model,
                        augment, loss, optimizer, schedule, train
examples:
  cnn-jax train --data mnist --data-dir ~/sets
  cnn-jax train my.toml --model resnet18 --train.dtype bfloat16
  cnn-jax train --augment.translate 2 --model.options.widths '[16, 32]'"""


def train(arguments: list[str]) -> int:
    """Train a network or a population of them, or resume what was interrupted."""
    parser = Parser(prog="cnn-jax train", text=_HELP)
    for option in ("out", "resume", "strategy"):
        parser.add_argument("--" + option)
    for option in ("seeds", "folds"):
        parser.add_argument("--" + option, type=int)
    for option in ("overwrite", "baselines"):
        parser.add_argument("--" + option, action="store_true")
    command = shlex.join(["cnn-jax", "train", *arguments])
    options, overrides = parse_recipe(parser, arguments)
    of_many = {o: options[o] for o in ("seeds", "folds", "strategy") if options[o] is not None}
    if options["resume"]:
        moved = overrides.pop("data", None)
        given = of_many or any(options[o] for o in ("recipe", "out", "overwrite", "baselines"))
        if overrides or given:
            raise UsageError(
                "--resume goes on with the run's own recipe: give nothing else (but --data PATH, "
                "if the data have moved)"
            )
        return _resume(options["resume"], moved, command)
    ours = {
        "out": options["out"],
        "overwrite": options["overwrite"],
        "baselines": options["baselines"],
        "command": command,
    }
    recipe = resolve(options["recipe"], overrides)
    if of_many:
        from cnn_jax.population import train_population

        if set(of_many) == {"strategy"}:
            raise UsageError("--strategy is of several runs: give --seeds N or --folds K, too")
        return _end_of_population(train_population(recipe, **of_many, **ours))
    from cnn_jax.run import train

    return _end_of_run(train(recipe, **ours))


def _resume(path: str, moved: str | None, command: str) -> int:
    from cnn_jax.population.folder import PopulationFolder

    if PopulationFolder.is_one(path):
        from cnn_jax.population import Population

        population = Population.load(path, data=moved)
        if population.status == "finished":
            print(f"{population.shown} is finished: nothing to resume")
        return _end_of_population(population.resume(command=command))
    from cnn_jax.run import Run

    run = Run.load(path, data=moved)
    if run.status == "finished":
        print(f"{run.shown} is finished: nothing to resume")
    return _end_of_run(run.resume(command=command))


def _end_of_run(run: Run) -> int:
    if run.status == "interrupted":
        return interrupted_status(run.info)
    print(run.summary())
    print(f"run folder {run.shown}, page {run.shown}/report.html")
    return 0


def _end_of_population(population: Population) -> int:
    if population.status == "interrupted":
        return interrupted_status(population.info)
    from cnn_jax import tables

    print(tables.population(population))
    print(f"a run folder for each in {population.shown}")
    print(population.summary())
    return 0
