"""`cnn-jax train`."""

from __future__ import annotations

import shlex

from cnn_jax.cli.arguments import Parser, UsageError, parse_recipe
from cnn_jax.recipe import resolve

_HELP = """\
usage: cnn-jax train [RECIPE] [options]

  RECIPE                a .toml file or a bundled name; else that of the data
  --data NAME|PATH      digits, mnist, ..., tfds:NAME, .npz, table, folder
  --data-dir DIR        where named data sets lie
  --model NAME          see 'cnn-jax models'
  --epochs N            --batch-size N     --learning-rate X     --seed N
  --until converged     until the loss no longer falls
  --duplicates HOW      test in train? stop, drop-train, regroup, keep
                        (--group-near-duplicates: near-copies stay together)
  --baselines           also pixel nearest neighbour and logistic regression
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
    """Train a network, or resume an interrupted run."""
    parser = Parser(prog="cnn-jax train", text=_HELP)
    for option in ("out", "resume"):
        parser.add_argument("--" + option)
    for option in ("overwrite", "baselines"):
        parser.add_argument("--" + option, action="store_true")
    command = shlex.join(["cnn-jax", "train", *arguments])
    options, overrides = parse_recipe(parser, arguments)
    if options["resume"]:
        moved = overrides.pop("data", None)
        if overrides or any(options[o] for o in ("recipe", "out", "overwrite", "baselines")):
            raise UsageError(
                "--resume goes on with the run's own recipe: give nothing else (but --data PATH, "
                "if the data have moved)"
            )
        from cnn_jax.run import Run

        run = Run.load(options["resume"], data=moved)
        if run.status == "finished":
            print(f"{run.shown} is finished: nothing to resume")
        run.resume(command=command)
    else:
        from cnn_jax.run import train

        run = train(
            resolve(options["recipe"], overrides),
            out=options["out"],
            overwrite=options["overwrite"],
            baselines=options["baselines"],
            command=command,
        )
    if run.status == "interrupted":
        return 143 if "SIGTERM" in str(run.info["reason"]) else 130
    print(run.summary())
    print(f"run folder {run.shown}, page {run.shown}/report.html")
    return 0
