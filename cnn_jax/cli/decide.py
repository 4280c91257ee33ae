"""`cnn-jax decide`."""

from __future__ import annotations

import shlex

from cnn_jax.cli.arguments import Parser

_HELP = """\
usage: cnn-jax decide RUN [--positive CLASS] [options]

Where to draw the line between yes and no, and what follows: sensitivity,
specificity and predictive values on the test part, each with its interval. The
line is drawn on the validation part alone.

  --positive CLASS  the class that is looked for (known for some public sets)
  --sensitivity S   find this share of it, such as 0.95
  --specificity S   or leave this share of the others alone; with neither, the
                    greatest sensitivity + specificity
  --confidence C    draw the line further out, so far that the wanted share is
                    reached with this confidence
  --prevalence P    also predictive values where this share has it
  --format F        table or json
example:
  cnn-jax decide runs/x-rays --sensitivity 0.95 --prevalence 0.02"""


def decide(arguments: list[str]) -> int:
    """Print a threshold from validation data and what it does on test."""
    parser = Parser(prog="cnn-jax decide", text=_HELP)
    parser.add_argument("run")
    parser.add_argument("--positive")
    for name in ("sensitivity", "specificity", "confidence", "prevalence"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--format", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    from cnn_jax import deciding, tables
    from cnn_jax.run import Run

    decision = deciding.decide(
        Run.load(options.run),
        positive=options.positive,
        sensitivity=options.sensitivity,
        specificity=options.specificity,
        confidence=options.confidence,
        prevalence=options.prevalence,
        command=shlex.join(["cnn-jax", "decide", *arguments]),
    )
    print(tables.decision(decision, options.format))
    return 0
